//! Whether the configured folder is one that a queue may live in: made if it is not there, refused if it is something
//! else's, before anything in it is touched.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::error::OpenError;
use super::folder::Folder;
use super::{dead_letter, identity, lock, release, reserve, segment};

/// What a file system puts into its own root.
const OF_THE_FILE_SYSTEM: &[&str] = &["lost+found"];

/// Makes the folder, or sees that it holds a queue or nothing.
pub(super) fn claim(folder: &Folder) -> Result<(), OpenError> {
    let refused = |error| unusable(folder.path(), error);
    folder.create().map_err(refused)?;
    let names = folder.names().map_err(refused)?;
    if names.iter().any(|name| is_ours(name)) {
        return Ok(());
    }
    match names.into_iter().find(|name| !OF_THE_FILE_SYSTEM.contains(&&**name)) {
        None => Ok(()),
        Some(found) => Err(OpenError::NotAQueue { path: folder.path().to_owned(), found }),
    }
}

fn is_ours(name: &str) -> bool {
    [identity::FILE, lock::FILE, release::FILE, reserve::FILE, dead_letter::FILE].contains(&name)
        || segment::first_of(name).is_some()
}

/// Why the folder cannot be used, with the cure.
pub(super) fn unusable(folder: &Path, source: io::Error) -> OpenError {
    let path = folder.to_owned();
    match source.kind() {
        io::ErrorKind::PermissionDenied => OpenError::Forbidden { path, who: who(folder), source },
        io::ErrorKind::ReadOnlyFilesystem => OpenError::ReadOnly { path },
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => OpenError::NotAFolder { path, source },
        _ => OpenError::Folder { path, source },
    }
}

/// Whose the folder is, or its nearest parent that there is, and who asks.
fn who(folder: &Path) -> String {
    let user = nix::unistd::geteuid();
    let found = folder.ancestors().find_map(|path| Some((path, fs::metadata(path).ok()?)));
    match found {
        Some((path, metadata)) => format!(
            "{} belongs to user {} with mode {:04o}, the agent runs as user {user}",
            path.display(),
            metadata.uid(),
            metadata.mode() & 0o7777
        ),
        None => format!("the agent runs as user {user}"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::disk::LocalDisk;
    use super::*;

    /// Promise 5: a folder with somebody else's files is refused and left as it is; an empty one, one of a file system's own
    /// making and one with a queue are taken.
    #[test]
    fn only_a_queue_or_nothing_is_claimed() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let folder = root.path().join("new/queue");
        let claim = |path: &Path| claim(&Folder::new(Arc::new(LocalDisk), path));
        claim(&folder).expect("made");
        assert_eq!(fs::metadata(&folder).expect("made").mode() & 0o777, 0o700);
        fs::create_dir(folder.join("lost+found")).expect("made");
        claim(&folder).expect("a file system's own root");
        fs::write(folder.join("letter.new"), "dear").expect("written");
        let error = claim(&folder).expect_err("somebody else's");
        assert!(matches!(&error, OpenError::NotAQueue { found, .. } if found == "letter.new"), "{error}");
        fs::write(folder.join("00000000000000000001.redb"), "").expect("written");
        claim(&folder).expect("a queue");
        assert!(matches!(claim(&folder.join("letter.new")), Err(OpenError::NotAFolder { .. })));
        assert!(matches!(claim(&folder.join("letter.new/below")), Err(OpenError::NotAFolder { .. })));
    }
}

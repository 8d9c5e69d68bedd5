//! Whether the configured folder is one that a queue may live in: made if it is not there, refused if it is something
//! else's, before anything in it is touched.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use super::error::OpenError;
use super::{dead_letter, identity, lock, release, segment};

/// What a file system puts into its own root.
const OF_THE_FILE_SYSTEM: &[&str] = &["lost+found"];

/// Makes the folder, or sees that it holds a queue or nothing.
pub(super) fn claim(folder: &Path) -> Result<(), OpenError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| unusable(folder, error))?;
    let mut stranger = None;
    for entry in fs::read_dir(folder).map_err(|error| unusable(folder, error))? {
        let name = entry.map_err(|error| unusable(folder, error))?.file_name();
        let name = name.to_string_lossy();
        if is_ours(&name) {
            return Ok(());
        }
        if !OF_THE_FILE_SYSTEM.contains(&&*name) {
            stranger = Some(name.into_owned());
        }
    }
    match stranger {
        None => Ok(()),
        Some(found) => Err(OpenError::NotAQueue { path: folder.to_owned(), found }),
    }
}

fn is_ours(name: &str) -> bool {
    [identity::FILE, lock::FILE, release::FILE, dead_letter::FILE].contains(&name) || segment::first_of(name).is_some()
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
    use super::*;

    /// Promise 5: a folder with somebody else's files is refused and left as it is; an empty one, one of a file system's own
    /// making and one with a queue are taken.
    #[test]
    fn only_a_queue_or_nothing_is_claimed() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let folder = root.path().join("new/queue");
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

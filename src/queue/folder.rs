//! The queue's folder: where it is, and the disk below it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::disk::Disk;

/// Extension of what is being made; it gets its own name when it is whole.
pub(super) const UNFINISHED: &str = "new";

/// How often, and how soon again, something is read that the medium refuses.
pub(super) const TRIES: (u32, Duration) = (3, Duration::from_millis(10));

/// Whether the medium itself refuses to be read there.
pub(super) fn is_medium(error: &io::Error) -> bool {
    let medium = [nix::errno::Errno::EIO as i32, nix::errno::Errno::EISDIR as i32];
    error.raw_os_error().is_some_and(|code| medium.contains(&code))
}

/// Whether room on the disk is all that is missing.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// A folder on a disk. Clones mean the same folder.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    path: PathBuf,
    pub disk: Arc<dyn Disk>,
}

impl Folder {
    pub fn new(disk: Arc<dyn Disk>, path: &Path) -> Self {
        Self { path: path.to_owned(), disk }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Makes it and the folders above it where they are missing, durably.
    pub fn create(&self) -> io::Result<()> {
        make(&*self.disk, &self.path)
    }

    /// Makes a rename or an unlink durable.
    pub fn sync(&self) -> io::Result<()> {
        self.disk.sync_folder(&self.path)
    }

    /// Bytes free on the file system.
    pub fn free(&self) -> io::Result<u64> {
        self.disk.free(&self.path)
    }

    /// Bytes that the files take.
    pub fn used(&self) -> io::Result<u64> {
        Ok(self.disk.list(&self.path)?.iter().filter_map(|item| item.size).sum())
    }

    /// The names of everything in it, in any order.
    pub fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.disk.list(&self.path)?.into_iter().map(|item| item.name).collect())
    }

    /// Whether there is a file with this name.
    pub fn has(&self, path: &Path) -> io::Result<bool> {
        match self.disk.size(path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The content of a small file. What the medium refuses once may be had the next time.
    pub fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let path = self.file(name);
        for _ in 1..TRIES.0 {
            match self.disk.read(&path) {
                Err(error) if is_medium(&error) => std::thread::sleep(TRIES.1),
                result => return result,
            }
        }
        self.disk.read(&path)
    }

    /// Writes a small file so that a power cut leaves the old one or the new one.
    pub fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let path = self.file(name);
        let unfinished = path.with_extension(UNFINISHED);
        self.disk.write(&unfinished, content)?;
        self.disk.sync(&unfinished)?;
        self.disk.rename(&unfinished, &path)?;
        self.sync()
    }

    pub fn remove_if_there(&self, path: &Path) -> io::Result<()> {
        match self.disk.remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes what creations that a power cut ended have left.
    pub fn remove_unfinished(&self) -> io::Result<()> {
        for item in self.disk.list(&self.path)?.iter().filter(|item| item.size.is_some()) {
            if Path::new(&item.name).extension().is_some_and(|extension| extension == UNFINISHED) {
                self.remove_if_there(&self.file(&item.name))?;
            }
        }
        Ok(())
    }
}

fn make(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Ok(()),
    };
    let made = match disk.create_folder(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make(disk, parent)?;
            disk.create_folder(path)
        }
        made => made,
    };
    let was_there = match made {
        // What else may have the name is found out when it is listed.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => true,
        made => made.map(|()| false)?,
    };
    // A folder that was there may have been made by a start that failed here.
    match disk.sync_folder(parent) {
        // A folder that may be passed but not listed cannot be opened, and so not be synchronised.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        // The queue may be a disk of its own, below a folder that nobody writes to.
        Err(error)
            if was_there && matches!(error.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::InvalidInput) =>
        {
            Ok(())
        }
        // What waits in it is to be sent all the same; its own flush is tried again before anything is appended.
        Err(error) if was_there && is_full(&error) => Ok(()),
        synchronised => synchronised,
    }
}

//! A disk on which one file is held in memory: what has to be repaired before it can be read is repaired there, and the
//! file itself stays as it is.

use std::fmt;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use redb::{BackendError, StorageBackend};

use super::disk::{Access, Disk, Item, Locked};

/// Bytes read at once.
const STEP: usize = 1 << 20;

/// A disk below which nothing is written.
#[derive(Debug)]
pub(super) struct Overlay {
    below: Arc<dyn Disk>,
    path: PathBuf,
    copy: Copy,
}

impl Overlay {
    /// Takes the file at `path` into memory, whole.
    pub fn of(below: Arc<dyn Disk>, path: &Path) -> io::Result<Self> {
        let file = below.open(path, Access::Read)?;
        let size = usize::try_from(file.len()?).map_err(io::Error::other)?;
        let mut bytes = vec![0; size];
        for (at, step) in bytes.chunks_mut(STEP).enumerate() {
            file.read((at * STEP) as u64, step)?;
        }
        file.close()?;
        Ok(Self { below, path: path.to_owned(), copy: Copy(Arc::new(RwLock::new(bytes))) })
    }
}

/// The file's bytes; clones are the same file.
#[derive(Clone)]
struct Copy(Arc<RwLock<Vec<u8>>>);

impl Copy {
    fn bytes(&self) -> RwLockReadGuard<'_, Vec<u8>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn bytes_mut(&self) -> RwLockWriteGuard<'_, Vec<u8>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Copy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.bytes().len())
    }
}

/// Where an access of `length` bytes at `offset` lies.
fn place(offset: u64, length: usize, size: usize) -> io::Result<std::ops::Range<usize>> {
    let start = usize::try_from(offset).map_err(io::Error::other)?;
    match start.checked_add(length) {
        Some(end) if end <= size => Ok(start..end),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

impl StorageBackend for Copy {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let bytes = self.bytes();
        out.copy_from_slice(&bytes[place(offset, out.len(), bytes.len())?]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.bytes_mut().resize(usize::try_from(len).map_err(io::Error::other)?, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut bytes = self.bytes_mut();
        let place = place(offset, data.len(), bytes.len())?;
        bytes[place].copy_from_slice(data);
        Ok(())
    }

    // Nobody else has the copy.

    fn try_lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn try_lock_shared_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }

    fn lock_shared_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }

    fn unlock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }

    fn query_lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(false)
    }
}

fn refused<T>() -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "the queue is only looked at"))
}

impl Disk for Overlay {
    fn create_folder(&self, _: &Path) -> io::Result<()> {
        refused()
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<Item>> {
        self.below.list(folder)
    }

    fn size(&self, path: &Path) -> io::Result<u64> {
        self.below.size(path)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.below.read(path)
    }

    fn write(&self, _: &Path, _: &[u8]) -> io::Result<()> {
        refused()
    }

    fn overwrite(&self, _: &Path, _: &[u8]) -> io::Result<()> {
        refused()
    }

    fn sync(&self, _: &Path) -> io::Result<()> {
        refused()
    }

    fn sync_folder(&self, _: &Path) -> io::Result<()> {
        refused()
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        refused()
    }

    fn link(&self, _: &Path, _: &Path) -> io::Result<()> {
        refused()
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        refused()
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn StorageBackend>> {
        match access {
            _ if path == self.path => Ok(Box::new(self.copy.clone())),
            Access::Read => self.below.open(path, access),
            Access::Write | Access::Create => refused(),
        }
    }

    fn lock(&self, _: &Path, _: &str) -> io::Result<Locked> {
        refused()
    }

    fn is_locked(&self, path: &Path) -> bool {
        self.below.is_locked(path)
    }

    fn free(&self, folder: &Path) -> io::Result<u64> {
        self.below.free(folder)
    }
}

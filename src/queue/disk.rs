//! What the queue asks of a file system: the only file of the module that touches one.
//!
//! A trait, so that a test can put a disk below the queue that loses power, tears writes, fails or is full.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Bound;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::Path;

use nix::fcntl::{FallocateFlags, PosixFadviseAdvice, fallocate, posix_fadvise};
use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};

use super::lock;
use crate::wear;

/// A file system. Nothing but [`Disk::sync`], [`Disk::sync_folder`], [`Disk::overwrite`] and a backend's `sync_data` makes
/// anything durable.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Makes a folder for its owner only (0700); the one above it is there.
    fn create_folder(&self, folder: &Path) -> io::Result<()>;

    /// What is in a folder, in any order.
    fn list(&self, folder: &Path) -> io::Result<Vec<Item>>;

    /// Bytes of a file.
    fn size(&self, path: &Path) -> io::Result<u64>;

    /// The whole content of a small file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// Makes a small file, or replaces the content of the one that is there.
    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()>;

    /// Writes over the beginning of a file that is there; durable when it returns.
    fn overwrite(&self, path: &Path, content: &[u8]) -> io::Result<()>;

    /// Gives a file of a small `length` its place on the disk; its content means nothing.
    fn allocate(&self, path: &Path, length: u64) -> io::Result<()> {
        self.write(path, &vec![0; usize::try_from(length).map_err(io::Error::other)?])
    }

    /// Makes a file's content durable, not its name.
    fn sync(&self, path: &Path) -> io::Result<()>;

    /// Has what is read of a file from now on come from the medium. After a failed flush memory may hold what the medium
    /// does not: the kernel takes for written what it could not write, and no later flush writes it.
    fn drop_cache(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    /// Makes the names in a folder durable.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;

    /// Gives a file another name in one step, in the place of whatever has it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives a file a second name.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Takes a file's name away.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Opens a file for the database, or for reading parts of it.
    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn StorageBackend>>;

    /// Takes the lock file `path` and writes `owner` into it.
    fn lock(&self, path: &Path, owner: &str) -> io::Result<Locked>;

    /// Whether somebody holds the lock file `path`.
    fn is_locked(&self, path: &Path) -> bool;

    /// Bytes that an unprivileged process may still write on the file system of `folder`.
    fn free(&self, folder: &Path) -> io::Result<u64>;
}

/// One name in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Names that are not UTF-8 are no names of ours; they come with replacement characters.
    pub name: String,
    /// Bytes of a regular file; none for anything else.
    pub size: Option<u64>,
}

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading and writing; made where it is missing.
    Create,
    /// Reading and writing.
    Write,
    Read,
}

/// The answer to [`Disk::lock`].
#[derive(Debug)]
pub enum Locked {
    /// Held until this is dropped, or the process ends.
    Taken(Box<dyn Held>),
    /// Another has it: what that one wrote into it.
    By(String),
}

/// A lock that is held.
pub trait Held: fmt::Debug + Send {}

/// The machine's own file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalDisk;

impl Disk for LocalDisk {
    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        fs::DirBuilder::new().mode(0o700).create(folder)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<Item>> {
        let mut items = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let size = match entry.metadata() {
                Ok(metadata) => metadata.is_file().then_some(metadata.len()),
                // Unlinked since it was listed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            items.push(Item { name: entry.file_name().to_string_lossy().into_owned(), size });
        }
        Ok(items)
    }

    fn size(&self, path: &Path) -> io::Result<u64> {
        Ok(fs::metadata(path)?.len())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        fs::write(path, content)
    }

    fn overwrite(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(path)?;
        file.write_all_at(content, 0)?;
        wear::flushed();
        file.sync_all()
    }

    /// Blocks without writes: a card wears by writing.
    fn allocate(&self, path: &Path, length: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        // Of 32 bits on armhf.
        let length = nix::libc::off_t::try_from(length).map_err(io::Error::other)?;
        Ok(fallocate(&file, FallocateFlags::empty(), 0, length)?)
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        wear::flushed();
        File::open(path)?.sync_all()
    }

    fn drop_cache(&self, path: &Path) -> io::Result<()> {
        let file = File::open(path)?;
        // Only what is written can be dropped. What cannot be written is dropped with it: it is not there.
        let _ = file.sync_all();
        Ok(posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        wear::flushed();
        File::open(folder)?.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn StorageBackend>> {
        let mut options = OpenOptions::new();
        options.read(true).write(access != Access::Read).create(access == Access::Create);
        let backend = FileBackend::new(options.open(path)?).map_err(|error| match error {
            redb::DatabaseError::Storage(redb::StorageError::Io(error)) => error,
            other => io::Error::other(other),
        })?;
        Ok(Box::new(backend))
    }

    fn lock(&self, path: &Path, owner: &str) -> io::Result<Locked> {
        lock::flock(path, owner)
    }

    fn is_locked(&self, path: &Path) -> bool {
        lock::is_flocked(path)
    }

    fn free(&self, folder: &Path) -> io::Result<u64> {
        let stat = nix::sys::statvfs::statvfs(folder)?;
        #[allow(clippy::useless_conversion, reason = "the fields have 32 bits on armhf")]
        let (blocks, size) = (u64::from(stat.blocks_available()), u64::from(stat.fragment_size()));
        Ok(blocks.saturating_mul(size))
    }
}

type Range = Bound<u64>;

/// What the database is given: it asks for a type, the disk gives an object.
#[derive(Debug)]
pub(super) struct Backend(pub Box<dyn StorageBackend>);

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        wear::flushed();
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }

    fn try_lock_range(&self, start: Range, end: Range) -> Result<bool, BackendError> {
        self.0.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Range, end: Range) -> Result<bool, BackendError> {
        self.0.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Range, end: Range) -> Result<(), BackendError> {
        self.0.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Range, end: Range) -> Result<(), BackendError> {
        self.0.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Range, end: Range) -> Result<(), BackendError> {
        self.0.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Range, end: Range) -> Result<bool, BackendError> {
        self.0.query_lock_range(start, end)
    }
}

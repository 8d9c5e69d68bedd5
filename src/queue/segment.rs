//! One redb file of the queue: the only file of the module that opens databases.
//!
//! A segment has one table, sequence → record, and is only appended to. It is made under a temporary name, because the
//! first creation of a redb file does not survive every power cut. The writer and the readers open it in redb's
//! `SingleWriter` mode: one process writes, and others may read beside it and follow the commits.

use std::fs::{self, File};
use std::io;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::{
    Builder, ConcurrencyMode, Database, DatabaseError, Durability, ReadOnlyDatabase, ReadableDatabase, ReadableTable,
    StorageError, TableDefinition,
};

const RECORDS: TableDefinition<u64, &[u8]> = TableDefinition::new("records");
/// Bytes of a file's pages kept in memory; redb's default is 1 GiB.
const CACHE: usize = 1 << 20;
/// A reader goes forward and comes by no page twice.
const READER_CACHE: usize = 256 << 10;
pub(super) const SUFFIX: &str = "redb";
const UNFINISHED: &str = "new";

/// What can go wrong with one segment.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    #[error("segment {path} is damaged: {reason}")]
    Damaged { path: PathBuf, reason: String },
    #[error("segment {path} cannot be read or written")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("segment {path} was not closed, it has to be repaired")]
    NotClosed { path: PathBuf },
    #[error("segment {path} is held by another process\n  hint: it is taken up again once that process lets go of it")]
    Busy { path: PathBuf },
}

impl SegmentError {
    /// Whether room on the disk is all that is missing.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }

    /// Whether the file's content is at fault, so that salvaging it is the cure.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::NotClosed { .. })
    }
}

/// Where the segment with this first sequence lies.
pub(super) fn path(folder: &Path, first: u64) -> PathBuf {
    folder.join(format!("{first:020}.{SUFFIX}"))
}

/// The first sequence of the segment with this file name; none for other files.
pub(super) fn first_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?.strip_suffix('.')?;
    (digits.len() == 20).then(|| digits.parse().ok()).flatten()
}

/// The active segment.
pub(super) struct Active {
    path: PathBuf,
    database: Database,
}

impl Active {
    /// Makes a new segment that holds `records` from its first moment on.
    pub fn create<B: AsRef<[u8]>>(
        folder: &Path,
        first: u64,
        records: impl Iterator<Item = (u64, B)>,
    ) -> Result<Self, SegmentError> {
        let path = path(folder, first);
        let unfinished = path.with_extension(format!("{SUFFIX}.{UNFINISHED}"));
        guarded(&path, || {
            remove_if_there(&unfinished)?;
            let database = builder().create(&unfinished)?;
            let active = Self { path: unfinished.clone(), database };
            active.append(records)?;
            File::open(&unfinished)?.sync_all()?;
            fs::rename(&unfinished, &path)?;
            sync_folder(folder)?;
            Ok(Self { path: path.clone(), database: active.database })
        })
    }

    /// Opens an existing segment for appending; repairs and checks it.
    pub fn open(folder: &Path, first: u64) -> Result<Self, SegmentError> {
        let path = path(folder, first);
        guarded(&path, || {
            let database = builder().set_check_integrity_on_open(true).open(&path)?;
            Ok(Self { path: path.clone(), database })
        })
    }

    /// Appends in one transaction; when this returns, it is on disk.
    pub fn append<B: AsRef<[u8]>>(&self, records: impl Iterator<Item = (u64, B)>) -> Result<(), SegmentError> {
        guarded(&self.path, || {
            let mut transaction = self.database.begin_write().map_err(redb::Error::from)?;
            transaction.set_durability(Durability::Immediate).map_err(redb::Error::from)?;
            {
                let mut table = transaction.open_table(RECORDS).map_err(redb::Error::from)?;
                for (sequence, bytes) in records {
                    table.insert(sequence, bytes.as_ref()).map_err(redb::Error::from)?;
                }
            }
            transaction.commit().map_err(redb::Error::from)?;
            Ok(())
        })
    }

    /// Bytes of the file. An error where it is gone: what is written to it then is lost with the last handle.
    pub fn size(&self) -> Result<u64, SegmentError> {
        let metadata = fs::metadata(&self.path);
        metadata.map(|metadata| metadata.len()).map_err(|source| SegmentError::Io { path: self.path.clone(), source })
    }

    /// Closes the file cleanly; nothing is written to it any more.
    pub fn seal(self) -> Result<(), SegmentError> {
        let Self { path, database } = self;
        guarded(&path, || Ok(database.close()?))
    }
}

/// A segment opened for reading, active or sealed.
pub(super) struct Reader {
    path: PathBuf,
    database: ReadOnlyDatabase,
}

impl Reader {
    pub fn open(folder: &Path, first: u64) -> Result<Self, SegmentError> {
        let path = path(folder, first);
        guarded(&path, || {
            Ok(Self { path: path.clone(), database: builder().set_cache_size(READER_CACHE).open_read_only(&path)? })
        })
    }

    /// Shows `visit` the records from `from` on, in order, until it breaks or `end` (exclusive) is reached.
    pub fn scan(
        &self,
        from: u64,
        end: u64,
        mut visit: impl FnMut(u64, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), SegmentError> {
        guarded(&self.path, || {
            let transaction = self.database.begin_read().map_err(redb::Error::from)?;
            let table = transaction.open_table(RECORDS).map_err(redb::Error::from)?;
            for item in table.range(from..end.max(from)).map_err(redb::Error::from)? {
                let (key, value) = item.map_err(redb::Error::from)?;
                if visit(key.value(), value.value()).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    /// The newest sequence; none in an empty segment.
    pub fn last(&self) -> Result<Option<u64>, SegmentError> {
        guarded(&self.path, || {
            let transaction = self.database.begin_read().map_err(redb::Error::from)?;
            let table = transaction.open_table(RECORDS).map_err(redb::Error::from)?;
            let last = table.last().map_err(redb::Error::from)?;
            Ok(last.map(|(key, _)| key.value()).filter(|key| *key != super::record::WINDOW_KEY))
        })
    }
}

/// A database with the settings that every file of the queue has.
pub(super) fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE).set_concurrency_mode(ConcurrencyMode::SingleWriter);
    builder
}

/// Makes a rename or an unlink in `folder` durable.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Writes a small file so that a power cut leaves the old one or the new one.
pub(super) fn replace_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension(UNFINISHED);
    fs::write(&unfinished, content)?;
    File::open(&unfinished)?.sync_all()?;
    fs::rename(&unfinished, path)?;
    path.parent().map_or(Ok(()), sync_folder)
}

/// Removes what creations that a power cut ended have left.
pub(super) fn remove_unfinished(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == UNFINISHED) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

pub(super) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A failure inside [`guarded`], before it is known which file it belongs to.
pub(super) enum Failure {
    Io(io::Error),
    Redb(redb::Error),
    Segment(SegmentError),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<redb::Error> for Failure {
    fn from(error: redb::Error) -> Self {
        Self::Redb(error)
    }
}

impl From<DatabaseError> for Failure {
    fn from(error: DatabaseError) -> Self {
        Self::Redb(error.into())
    }
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        Self::Redb(error.into())
    }
}

impl From<SegmentError> for Failure {
    fn from(error: SegmentError) -> Self {
        Self::Segment(error)
    }
}

/// Runs a call into redb: a panic of the library over damaged pages is damage, not the end of the agent.
pub(super) fn guarded<T>(path: &Path, call: impl FnOnce() -> Result<T, Failure>) -> Result<T, SegmentError> {
    let failure = match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(failure)) => failure,
        Err(_) => {
            return Err(SegmentError::Damaged {
                path: path.to_owned(),
                reason: "the database panicked over it".into(),
            });
        }
    };
    let path = path.to_owned();
    Err(match failure {
        Failure::Segment(error) => error,
        Failure::Io(source) | Failure::Redb(redb::Error::Io(source)) => match source.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
                SegmentError::Damaged { path, reason: source.to_string() }
            }
            _ => SegmentError::Io { path, source },
        },
        Failure::Redb(
            redb::Error::DatabaseAlreadyOpen | redb::Error::DatabaseClosed | redb::Error::TransactionInProgress,
        ) => SegmentError::Busy { path },
        Failure::Redb(redb::Error::RepairAborted) => SegmentError::NotClosed { path },
        Failure::Redb(error @ redb::Error::PreviousIo) => {
            SegmentError::Io { path, source: io::Error::other(error.to_string()) }
        }
        Failure::Redb(error) => SegmentError::Damaged { path, reason: error.to_string() },
    })
}

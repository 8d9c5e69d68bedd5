//! One redb file of the queue, and how every database of the queue is opened.
//!
//! A segment has one table, first sequence → block of records (see [`super::block`]), and is only appended to. It is
//! made under a temporary name, because the first creation of a redb file does not survive every power cut. The writer
//! and the readers open it in redb's `SingleWriter` mode: one process writes, and others may read beside it and follow
//! the commits.

use std::cell::Cell;
use std::io;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::path::{Path, PathBuf};
use std::sync::Once;

use redb::{
    Builder, ConcurrencyMode, Database, DatabaseError, Durability, ReadOnlyDatabase, ReadableDatabase, ReadableTable,
    StorageError, TableDefinition,
};

use super::block;
use super::disk::{Access, Backend};
use super::folder::{Folder, UNFINISHED, is_full};

const RECORDS: TableDefinition<u64, &[u8]> = TableDefinition::new("records");
/// Bytes of a file's pages kept in memory; redb's default is 1 GiB.
pub(super) const CACHE: usize = 1 << 20;
/// Of the active segment's. Half of it holds what a commit writes: pages beyond that are written twice.
const WRITER_CACHE: usize = 2 << 20;
/// A reader goes forward and comes by no page twice.
const READER_CACHE: usize = 256 << 10;
/// No queue counts so far: a file whose name does is not ours.
const LAST: u64 = 1 << 62;
pub(super) const SUFFIX: &str = "redb";

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
        matches!(self, Self::Io { source, .. } if is_full(source))
    }

    /// Whether the file's content is at fault, so that salvaging it is the cure.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::NotClosed { .. })
    }
}

/// Where the segment with this first sequence lies.
pub(super) fn path(folder: &Folder, first: u64) -> PathBuf {
    folder.file(&format!("{first:020}.{SUFFIX}"))
}

/// The first sequence of the segment with this file name; none for other files.
pub(super) fn first_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?.strip_suffix('.')?;
    (digits.len() == 20).then(|| digits.parse().ok()).flatten().filter(|first| *first <= LAST)
}

/// Where what is to replace that segment is made.
pub(super) fn replacement(folder: &Folder, first: u64) -> PathBuf {
    path(folder, first).with_extension(format!("packed.{UNFINISHED}"))
}

/// Gives a segment that is whole its own name, in the place of another that has it. A power cut leaves one of the two.
pub(super) fn publish(folder: &Folder, unfinished: &Path, first: u64) -> Result<(), SegmentError> {
    let path = path(folder, first);
    guarded(&path, || {
        folder.disk.sync(unfinished)?;
        folder.disk.rename(unfinished, &path)?;
        Ok(folder.sync()?)
    })
}

/// The active segment.
pub(super) struct Active {
    folder: Folder,
    path: PathBuf,
    database: Database,
}

impl Active {
    /// Makes a new segment that holds `records` from its first moment on.
    pub fn create<B: AsRef<[u8]>>(
        folder: &Folder,
        first: u64,
        records: impl Iterator<Item = (u64, B)>,
    ) -> Result<Self, SegmentError> {
        let path = path(folder, first);
        let unfinished = path.with_extension(format!("{SUFFIX}.{UNFINISHED}"));
        let active = Self::begin(folder, unfinished, records)?;
        publish(folder, &active.path, first)?;
        Ok(Self { path, ..active })
    }

    /// Makes a segment under a name that the next start removes, unless it is published before.
    pub fn begin<B: AsRef<[u8]>>(
        folder: &Folder,
        unfinished: PathBuf,
        records: impl Iterator<Item = (u64, B)>,
    ) -> Result<Self, SegmentError> {
        guarded(&unfinished, || {
            folder.remove_if_there(&unfinished)?;
            let database = create(folder, &unfinished, WRITER_CACHE)?;
            let active = Self { folder: folder.clone(), path: unfinished.clone(), database };
            active.append(records)?;
            Ok(active)
        })
    }

    /// Makes a segment that holds `records` and is never appended to, in the place of one that may be there.
    pub fn create_sealed(
        folder: &Folder,
        first: u64,
        records: impl Iterator<Item = io::Result<(u64, Vec<u8>)>>,
    ) -> Result<(), SegmentError> {
        let unfinished = path(folder, first).with_extension(format!("{SUFFIX}.{UNFINISHED}"));
        let mut failed = None;
        let readable = records.map_while(|record| record.map_err(|error| failed = Some(error)).ok());
        let active = Self::begin(folder, unfinished.clone(), readable)?;
        if let Some(source) = failed {
            return Err(SegmentError::Io { path: path(folder, first), source });
        }
        active.seal()?;
        publish(folder, &unfinished, first)
    }

    /// Opens an existing segment for appending; repairs and checks it. What an earlier flush could not put on the medium
    /// counts for nothing.
    pub fn open(folder: &Folder, first: u64) -> Result<Self, SegmentError> {
        let path = path(folder, first);
        guarded(&path, || {
            folder.disk.drop_cache(&path)?;
            let database = open_for_writing(folder, &path, WRITER_CACHE)?;
            Ok(Self { folder: folder.clone(), path: path.clone(), database })
        })
    }

    /// Appends records, or blocks of them, in one transaction; when this returns, they are on disk.
    pub fn append<B: AsRef<[u8]>>(&self, blocks: impl Iterator<Item = (u64, B)>) -> Result<(), SegmentError> {
        guarded(&self.path, || {
            let mut transaction = self.database.begin_write().map_err(redb::Error::from)?;
            transaction.set_durability(Durability::Immediate).map_err(redb::Error::from)?;
            {
                let mut table = transaction.open_table(RECORDS).map_err(redb::Error::from)?;
                for (first, bytes) in blocks {
                    table.insert(first, bytes.as_ref()).map_err(redb::Error::from)?;
                }
            }
            transaction.commit().map_err(redb::Error::from)?;
            Ok(())
        })
    }

    /// Bytes of the file. An error where it is gone: what is written to it then is lost with the last handle.
    pub fn size(&self) -> Result<u64, SegmentError> {
        let size = self.folder.disk.size(&self.path);
        size.map_err(|source| SegmentError::Io { path: self.path.clone(), source })
    }

    /// Closes the file cleanly; nothing is written to it any more.
    pub fn seal(self) -> Result<(), SegmentError> {
        let Self { path, database, .. } = self;
        guarded(&path, || Ok(database.close()?))
    }
}

/// A segment opened for reading, active or sealed.
pub(super) struct Reader {
    path: PathBuf,
    origin: u128,
    database: ReadOnlyDatabase,
}

impl Reader {
    /// `origin` is the queue's: packed records of another one are damage.
    pub fn open(folder: &Folder, first: u64, origin: u128) -> Result<Self, SegmentError> {
        Self::open_at(folder, path(folder, first), origin)
    }

    /// Opens a segment under another name than its own.
    pub fn open_at(folder: &Folder, path: PathBuf, origin: u128) -> Result<Self, SegmentError> {
        let database = guarded(&path, || open_for_reading(folder, &path, READER_CACHE))?;
        Ok(Self { path, origin, database })
    }

    /// Shows `visit` the records from `from` on, in order, until it breaks or `end` (exclusive) is reached. Their contents
    /// are not checked.
    pub fn scan(
        &self,
        from: u64,
        end: u64,
        mut visit: impl FnMut(u64, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), SegmentError> {
        guarded(&self.path, || {
            let transaction = self.database.begin_read().map_err(redb::Error::from)?;
            let table = transaction.open_table(RECORDS).map_err(redb::Error::from)?;
            // The block that holds `from` may begin below it.
            let before = table.range(..=from).map_err(redb::Error::from)?.next_back();
            let start = before.transpose().map_err(redb::Error::from)?.map_or(from, |(key, _)| key.value());
            for item in table.range(start..end.max(start)).map_err(redb::Error::from)? {
                let (key, value) = item.map_err(redb::Error::from)?;
                let visited = block::visit(self.origin, key.value(), value.value(), &(from..end), &mut visit);
                if visited.map_err(|error| self.damaged(&error))?.is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Whether its records are packed already.
    pub fn is_packed(&self) -> Result<bool, SegmentError> {
        guarded(&self.path, || {
            let transaction = self.database.begin_read().map_err(redb::Error::from)?;
            let table = transaction.open_table(RECORDS).map_err(redb::Error::from)?;
            let first = table.range(super::record::WINDOW_KEY + 1..).map_err(redb::Error::from)?.next();
            let first = first.transpose().map_err(redb::Error::from)?;
            Ok(first.is_some_and(|(_, value)| value.value().starts_with(&super::frame::MAGIC)))
        })
    }

    /// The newest sequence; none in an empty segment.
    pub fn last(&self) -> Result<Option<u64>, SegmentError> {
        guarded(&self.path, || {
            let transaction = self.database.begin_read().map_err(redb::Error::from)?;
            let table = transaction.open_table(RECORDS).map_err(redb::Error::from)?;
            let last = table.last().map_err(redb::Error::from)?;
            let Some((key, value)) = last else { return Ok(None) };
            let newest = block::last(self.origin, key.value(), value.value()).map_err(|error| self.damaged(&error))?;
            Ok(Some(newest).filter(|sequence| *sequence != super::record::WINDOW_KEY))
        })
    }

    fn damaged(&self, error: &block::BlockError) -> SegmentError {
        SegmentError::Damaged { path: self.path.clone(), reason: error.to_string() }
    }
}

/// A database with the settings that every file of the queue has.
fn builder(cache: usize) -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(cache).set_concurrency_mode(ConcurrencyMode::SingleWriter);
    builder
}

/// Makes a database in a file that is not there yet, or is empty, with `cache` bytes of pages in memory.
pub(super) fn create(folder: &Folder, path: &Path, cache: usize) -> Result<Database, Failure> {
    Ok(builder(cache).create_with_backend(Backend(folder.disk.open(path, Access::Create)?))?)
}

/// Opens a database for writing; repairs and checks it.
pub(super) fn open_for_writing(folder: &Folder, path: &Path, cache: usize) -> Result<Database, Failure> {
    open_existing(folder, path, builder(cache).set_check_integrity_on_open(true))
}

/// Opens a database for writing that this process has opened with a check before, and closed without a fault since: what it
/// costs does not rise with the file.
pub(super) fn open_unchecked(folder: &Folder, path: &Path, cache: usize) -> Result<Database, Failure> {
    open_existing(folder, path, &mut builder(cache))
}

fn open_existing(folder: &Folder, path: &Path, builder: &mut Builder) -> Result<Database, Failure> {
    let backend = folder.disk.open(path, Access::Write)?;
    if backend.len()? == 0 {
        // The database would make itself a new one in it.
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is empty").into());
    }
    Ok(builder.create_with_backend(Backend(backend))?)
}

/// Opens a database for reading, beside its writer, with `cache` bytes of pages in memory.
pub(super) fn open_for_reading(folder: &Folder, path: &Path, cache: usize) -> Result<ReadOnlyDatabase, Failure> {
    let backend = Backend(folder.disk.open(path, Access::Read)?);
    Ok(builder(cache).open_read_only_with_backend(backend)?)
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

thread_local! {
    /// How many calls into redb this thread is in.
    static GUARDED: Cell<u32> = const { Cell::new(0) };
}

/// While it lives, a panic of this thread is not printed: it is caught, and told as damage.
struct Quiet;

impl Quiet {
    fn new() -> Self {
        static HOOK: Once = Once::new();
        if !std::thread::panicking() {
            HOOK.call_once(|| {
                let usual = take_hook();
                set_hook(Box::new(move |info| {
                    if GUARDED.get() == 0 {
                        usual(info);
                    } else {
                        tracing::debug!(%info, "the database panicked");
                    }
                }));
            });
        }
        GUARDED.set(GUARDED.get() + 1);
        Self
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        GUARDED.set(GUARDED.get() - 1);
    }
}

/// Runs a call into redb: a panic of the library over damaged pages is damage, not the end of the agent.
pub(super) fn guarded<T>(path: &Path, call: impl FnOnce() -> Result<T, Failure>) -> Result<T, SegmentError> {
    let quiet = Quiet::new();
    let called = catch_unwind(AssertUnwindSafe(call));
    drop(quiet);
    let failure = match called {
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

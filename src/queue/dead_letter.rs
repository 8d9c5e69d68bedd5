//! `dead-letters.redb`: what was set aside, by queue id and sequence. Made with the first dead letter.
//!
//! One table, (queue id, sequence) → letter:
//!
//! ```text
//! offset 0   3 bytes   "MFL"
//!        3   1 byte    version of the format, 1
//!        4   4 bytes   length of the body, little endian
//!        8   16 bytes  of SHA-256 over the body
//!       24             body: a [`DeadLetter`] in postcard
//! ```
//!
//! The header makes a letter findable without the database around it, for [`super::letter_salvage`].

use std::io;
use std::path::PathBuf;

use redb::{
    Database, Durability, ReadOnlyDatabase, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition,
};

use super::folder::{Folder, UNFINISHED};
use super::salvage;
use super::segment::{CACHE, Failure, SegmentError, create, guarded, open_for_reading, open_for_writing};
use crate::reading::{DeadLetter, Fingerprint};

pub(super) const FILE: &str = "dead-letters.redb";
pub(super) const LETTERS: TableDefinition<(u128, u64), &[u8]> = TableDefinition::new("dead-letters");
pub(super) const MAGIC: [u8; 3] = *b"MFL";
const VERSION: u8 = 1;
pub(super) const HEADER: usize = 24;

/// The dead letters of one folder; the file is open only while it is used.
#[derive(Debug, Clone)]
pub(super) struct DeadLetters {
    pub(super) folder: Folder,
    pub(super) path: PathBuf,
    /// Bytes of letters; above it the oldest are deleted.
    max_size: u64,
}

impl DeadLetters {
    pub fn new(folder: &Folder, max_size: u64) -> Self {
        Self { path: folder.file(FILE), folder: folder.clone(), max_size }
    }

    /// Puts one away; durable when it returns. Putting the same one away again changes nothing. Returns how many old
    /// ones were deleted for it.
    pub fn put(&self, letter: &DeadLetter) -> Result<u64, SegmentError> {
        self.put_once(letter).inspect_err(|_| self.distrust())
    }

    /// What could not be flushed must not be found when the file is opened next.
    pub(super) fn distrust(&self) {
        if let Err(error) = self.folder.disk.drop_cache(&self.path) {
            tracing::debug!(%error, "the dead letters stay in memory as they are");
        }
    }

    fn put_once(&self, letter: &DeadLetter) -> Result<u64, SegmentError> {
        let database = self.open()?;
        guarded(&self.path, || {
            let bytes = encode(letter).map_err(|error| std::io::Error::other(error.to_string()))?;
            let mut deleted = 0;
            let mut transaction = database.begin_write().map_err(redb::Error::from)?;
            transaction.set_durability(Durability::Immediate).map_err(redb::Error::from)?;
            {
                let mut table = transaction.open_table(LETTERS).map_err(redb::Error::from)?;
                table.insert((letter.queue_id.0, letter.sequence), bytes.as_slice()).map_err(redb::Error::from)?;
                while table.stats().map_err(redb::Error::from)?.stored_bytes() > self.max_size {
                    if table.len().map_err(redb::Error::from)? <= 1 {
                        break;
                    }
                    let Some(oldest) = oldest(&table)? else { break };
                    table.remove(oldest).map_err(redb::Error::from)?;
                    deleted += 1;
                }
            }
            transaction.commit().map_err(redb::Error::from)?;
            database.close()?;
            Ok(deleted)
        })
    }

    /// Makes the file readable that a power cut has left open. Returns how many letters there are.
    pub fn recover(&self) -> Result<u64, SegmentError> {
        self.distrust();
        match self.count() {
            Err(SegmentError::NotClosed { .. }) => match self.open().and_then(|database| self.close(database)) {
                Err(error) if salvage::is_wreck(&self.folder, &error) => self.salvage(&error)?,
                result => result?,
            },
            Err(error) if salvage::is_wreck(&self.folder, &error) => self.salvage(&error)?,
            result => return result,
        }
        self.count()
    }

    fn close(&self, database: Database) -> Result<(), SegmentError> {
        guarded(&self.path, || Ok(database.close()?))
    }

    pub fn count(&self) -> Result<u64, SegmentError> {
        guarded(&self.path, || {
            let Some(database) = self.open_to_read()? else { return Ok(0) };
            let transaction = database.begin_read().map_err(redb::Error::from)?;
            Ok(transaction.open_table(LETTERS).map_err(redb::Error::from)?.len().map_err(redb::Error::from)?)
        })
    }

    /// None where there are no dead letters.
    pub(super) fn open_to_read(&self) -> Result<Option<ReadOnlyDatabase>, Failure> {
        if !self.folder.has(&self.path)? {
            return Ok(None);
        }
        Ok(Some(open_for_reading(&self.folder, &self.path, CACHE)?))
    }

    pub(super) fn open(&self) -> Result<Database, SegmentError> {
        guarded(&self.path, || {
            if self.folder.has(&self.path)? {
                return open_for_writing(&self.folder, &self.path, CACHE);
            }
            self.create(std::iter::empty())
        })
    }

    /// Makes the file with letters in it, in the place of one that may be there.
    pub(super) fn create(
        &self,
        letters: impl Iterator<Item = io::Result<((u128, u64), Vec<u8>)>>,
    ) -> Result<Database, Failure> {
        let unfinished = self.path.with_extension(UNFINISHED);
        self.folder.remove_if_there(&unfinished)?;
        let database = create(&self.folder, &unfinished, CACHE)?;
        let transaction = database.begin_write().map_err(redb::Error::from)?;
        {
            let mut table = transaction.open_table(LETTERS).map_err(redb::Error::from)?;
            for letter in letters {
                let (key, bytes) = letter?;
                table.insert(key, bytes.as_slice()).map_err(redb::Error::from)?;
            }
        }
        transaction.commit().map_err(redb::Error::from)?;
        self.folder.disk.sync(&unfinished)?;
        self.folder.disk.rename(&unfinished, &self.path)?;
        self.folder.sync()?;
        Ok(database)
    }
}

/// Sequences rise over all queue ids of a folder, so the lowest is the oldest.
fn oldest(table: &impl ReadableTable<(u128, u64), &'static [u8]>) -> Result<Option<(u128, u64)>, redb::Error> {
    let mut oldest: Option<(u128, u64)> = None;
    for item in table.iter()? {
        let (key, _) = item?;
        let key = key.value();
        if oldest.is_none_or(|known| key.1 < known.1) {
            oldest = Some(key);
        }
    }
    Ok(oldest)
}

fn encode(letter: &DeadLetter) -> Result<Vec<u8>, postcard::Error> {
    let mut bytes = postcard::to_extend(letter, vec![0; HEADER])?;
    let length = u32::try_from(bytes.len() - HEADER).map_err(|_| postcard::Error::SerializeBufferFull)?;
    let check = Fingerprint::of(&[&bytes[HEADER..]]);
    bytes[..3].copy_from_slice(&MAGIC);
    bytes[3] = VERSION;
    bytes[4..8].copy_from_slice(&length.to_le_bytes());
    bytes[8..HEADER].copy_from_slice(&check.0);
    Ok(bytes)
}

/// The letter, if every byte is as it was written.
pub(super) fn decode(bytes: &[u8]) -> Option<DeadLetter> {
    let (header, body) = bytes.split_at_checked(HEADER)?;
    let fits = length(header)? == bytes.len() && Fingerprint::of(&[body]).0 == header[8..];
    fits.then(|| postcard::from_bytes(body).ok()).flatten()
}

/// Bytes of the letter that a header at the start of `bytes` claims, the header included.
pub(super) fn length(bytes: &[u8]) -> Option<usize> {
    let header = bytes.get(..HEADER)?;
    let length = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
    (header[..3] == MAGIC && header[3] == VERSION).then_some(HEADER + length as usize)
}

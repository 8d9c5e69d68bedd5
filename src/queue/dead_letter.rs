//! `dead-letters.redb`: what was set aside, by queue id and sequence. Made with the first dead letter.
//!
//! One table, (queue id, sequence) → 16 bytes of SHA-256 over the rest, then a [`DeadLetter`] in postcard.

use std::path::PathBuf;

use redb::{
    Database, Durability, ReadOnlyDatabase, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition,
};

use super::folder::{Folder, UNFINISHED};
use super::segment::{CACHE, Failure, SegmentError, create, guarded, open_for_reading, open_for_writing};
use crate::reading::{DeadLetter, Fingerprint};

pub(super) const FILE: &str = "dead-letters.redb";
pub(super) const LETTERS: TableDefinition<(u128, u64), &[u8]> = TableDefinition::new("dead-letters");
/// Bytes before a letter: 16 of SHA-256 over the rest.
const CHECK: usize = 16;

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
        let unfinished = self.path.with_extension(UNFINISHED);
        guarded(&self.path, || {
            if self.folder.has(&self.path)? {
                return open_for_writing(&self.folder, &self.path, CACHE);
            }
            self.folder.remove_if_there(&unfinished)?;
            let database = create(&self.folder, &unfinished, CACHE)?;
            let transaction = database.begin_write().map_err(redb::Error::from)?;
            transaction.open_table(LETTERS).map_err(redb::Error::from)?;
            transaction.commit().map_err(redb::Error::from)?;
            self.folder.disk.sync(&unfinished)?;
            self.folder.disk.rename(&unfinished, &self.path)?;
            self.folder.sync()?;
            Ok(database)
        })
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
    let mut bytes = postcard::to_extend(letter, vec![0; CHECK])?;
    let check = Fingerprint::of(&[&bytes[CHECK..]]);
    bytes[..CHECK].copy_from_slice(&check.0);
    Ok(bytes)
}

pub(super) fn decode(bytes: &[u8]) -> Option<DeadLetter> {
    let (check, body) = bytes.split_at_checked(CHECK)?;
    (Fingerprint::of(&[body]).0 == check).then(|| postcard::from_bytes(body).ok()).flatten()
}

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

use std::cell::Cell;
use std::io;
use std::path::PathBuf;

use redb::{
    Database, Durability, ReadOnlyDatabase, ReadableDatabase, ReadableTable, ReadableTableMetadata, Table,
    TableDefinition,
};

use super::folder::{Folder, UNFINISHED};
use super::salvage;
use super::segment::{
    CACHE, Failure, SegmentError, create, guarded, open_for_reading, open_for_writing, open_unchecked,
};
use crate::reading::{DeadLetter, Fingerprint};

pub(super) const FILE: &str = "dead-letters.redb";
pub(super) const LETTERS: TableDefinition<(u128, u64), &[u8]> = TableDefinition::new("dead-letters");
pub(super) const MAGIC: [u8; 3] = *b"MFL";
const VERSION: u8 = 1;
pub(super) const HEADER: usize = 24;
/// Bytes of a key, which count as the letter's.
const KEY: u64 = 24;

/// The dead letters of one folder; the file is open only while it is used.
#[derive(Debug, Clone)]
pub(super) struct DeadLetters {
    pub(super) folder: Folder,
    pub(super) path: PathBuf,
    /// Bytes of letters; above it the oldest are deleted. The file takes up to three times as much: pages are not full, and a
    /// change is written beside what it replaces.
    max_size: u64,
    /// Bytes of letters in the file, once it was checked and changed without a fault: to check it again, or to add them up
    /// again, all of it has to be read. Only who holds the folder's lock changes the file, so it stays true.
    known: Cell<Option<u64>>,
}

/// What became of the file by putting letters into it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Put {
    /// Old letters that were deleted for new ones.
    pub deleted: u64,
    /// How many there are now.
    pub count: u64,
}

/// The file's table, opened for a change.
pub(super) type Letters<'t> = Table<'t, (u128, u64), &'static [u8]>;

impl DeadLetters {
    pub fn new(folder: &Folder, max_size: u64) -> Self {
        Self { path: folder.file(FILE), folder: folder.clone(), max_size, known: Cell::new(None) }
    }

    /// Puts letters away, in one transaction; durable when it returns. Putting the same one away again changes nothing.
    pub fn put(&self, letters: &[DeadLetter]) -> Result<Put, SegmentError> {
        self.change(|table, bytes| {
            for letter in letters {
                let value = encode(letter).map_err(|error| io::Error::other(error.to_string()))?;
                let key = (letter.queue_id.0, letter.sequence);
                let before = table.insert(key, value.as_slice()).map_err(redb::Error::from)?;
                *bytes = bytes.saturating_sub(before.map_or(0, |before| size(before.value())));
                *bytes += size(&value);
            }
            let (mut deleted, mut count) = (0, table.len().map_err(redb::Error::from)?);
            while *bytes > self.max_size && count > 1 {
                let Some(oldest) = oldest(&*table)? else { break };
                let gone = table.remove(oldest).map_err(redb::Error::from)?.map_or(0, |gone| size(gone.value()));
                *bytes = bytes.saturating_sub(gone);
                (deleted, count) = (deleted + 1, count - 1);
            }
            Ok(Put { deleted, count })
        })
    }

    /// Changes letters, and the bytes that they take, in one transaction; durable when it returns.
    pub(super) fn change<T>(
        &self,
        change: impl FnOnce(&mut Letters<'_>, &mut u64) -> Result<T, Failure>,
    ) -> Result<T, SegmentError> {
        // Forgotten, unless all goes well: after a fault the file is checked again.
        let known = self.known.take();
        let changed = guarded(&self.path, || {
            let database = match known {
                Some(_) if self.folder.has(&self.path)? => open_unchecked(&self.folder, &self.path, CACHE)?,
                _ => self.open()?,
            };
            let mut transaction = database.begin_write().map_err(redb::Error::from)?;
            transaction.set_durability(Durability::Immediate).map_err(redb::Error::from)?;
            let (done, bytes) = {
                let mut table = transaction.open_table(LETTERS).map_err(redb::Error::from)?;
                let mut bytes = match known {
                    Some(bytes) if !table.is_empty().map_err(redb::Error::from)? => bytes,
                    _ => table.stats().map_err(redb::Error::from)?.stored_bytes(),
                };
                (change(&mut table, &mut bytes)?, bytes)
            };
            transaction.commit().map_err(redb::Error::from)?;
            database.close()?;
            Ok((done, bytes))
        });
        let (done, bytes) = changed.inspect_err(|_| self.distrust())?;
        self.known.set(Some(bytes));
        Ok(done)
    }

    /// What could not be flushed must not be found when the file is opened next.
    fn distrust(&self) {
        if let Err(error) = self.folder.disk.drop_cache(&self.path) {
            tracing::debug!(%error, "the dead letters stay in memory as they are");
        }
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
                // The fault before may have been that of naming it.
                self.folder.sync()?;
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

/// Sequences rise over all queue ids of a folder, so the lowest is the oldest. Only the first of each queue id is looked at.
fn oldest(table: &impl ReadableTable<(u128, u64), &'static [u8]>) -> Result<Option<(u128, u64)>, redb::Error> {
    let (mut oldest, mut from): (Option<(u128, u64)>, _) = (None, Some(0));
    while let Some(least) = from {
        let Some(item) = table.range((least, 0)..)?.next() else { break };
        let (queue_id, sequence) = item?.0.value();
        if oldest.is_none_or(|(_, known)| sequence < known) {
            oldest = Some((queue_id, sequence));
        }
        from = queue_id.checked_add(1);
    }
    Ok(oldest)
}

/// Bytes that a letter counts as.
pub(super) fn size(value: &[u8]) -> u64 {
    KEY + value.len() as u64
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::disk::LocalDisk;
    use super::*;
    use crate::reading::{Body, Gap, QueueId, Received};

    const NOW: Received = Received { wall_ms: 1_000, boot_ms: 5, boot_id: 9, synchronised: true };

    fn letter(queue_id: u128, sequence: u64, length: usize) -> DeadLetter {
        let body = Body::Gap(Gap { first: 1, last: 1, reason: String::new(), noticed: NOW });
        DeadLetter { queue_id: QueueId(queue_id), sequence, reason: "x".repeat(length), set_aside: NOW, body }
    }

    /// Promise 6: the bytes that are remembered are those in the file, whatever was put, replaced, deleted or removed; the
    /// oldest go first, whichever queue id they have.
    #[test]
    fn remembered_bytes_are_those_in_the_file() {
        const MOST: u64 = 20_000;
        let path = tempfile::tempdir().expect("a temporary folder");
        let folder = Folder::new(Arc::new(LocalDisk), path.path());
        let letters = DeadLetters::new(&folder, MOST);
        let in_file = || DeadLetters::new(&folder, MOST).change(|_, bytes| Ok(*bytes)).expect("readable");
        // Of three queue ids, none of which rises with the sequences.
        let some: Vec<DeadLetter> = (0..120).map(|n| letter([7, 3, 5][n as usize / 40], n, 10 + n as usize)).collect();
        for (turn, some) in some.chunks(30).enumerate() {
            let put = letters.put(some).expect("put away");
            assert_eq!(put.count, 30 * (turn as u64 + 1) - put.deleted);
            assert_eq!(letters.known.get(), Some(in_file()));
        }
        let Put { deleted, count } = letters.put(&[letter(3, 45, 4_000)]).expect("replaced");
        assert!(deleted > 0 && letters.known.get().is_some_and(|bytes| bytes <= MOST));
        let ids = letters.ids().expect("readable");
        assert_eq!(ids.iter().map(|id| id.1).collect::<Vec<_>>(), (120 - count..120).collect::<Vec<_>>());
        letters.remove(&ids[..10]).expect("removed");
        assert_eq!(letters.known.get(), Some(in_file()));
        letters.put(&[letter(3, 200, 30_000)]).expect("larger than the limit");
        assert_eq!((letters.ids().expect("readable"), letters.known.get()), (vec![(QueueId(3), 200)], Some(in_file())));
        std::fs::remove_file(folder.file(FILE)).expect("removed");
        letters.put(&some[..3]).expect("a new file");
        assert_eq!((letters.count().expect("readable"), letters.known.get()), (3, Some(in_file())));
    }
}

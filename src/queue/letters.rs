//! The dead letters as the tools need them: one after the other, chosen, removed.

use std::ops::ControlFlow;

use super::dead_letter::{DeadLetters, LETTERS, decode, size};
use super::error::{OpenError, QueueError};
use super::inspect::Inspector;
use super::lock::{self, Lock};
use super::salvage;
use super::segment::{SegmentError, guarded};
use super::view;
use crate::reading::{DeadLetter, QueueId};
use redb::{ReadOnlyDatabase, ReadableDatabase, ReadableTable};

/// What a dead letter is called: the id that its sequence has in Kafka.
pub type LetterId = (QueueId, u64);

impl DeadLetters {
    /// All ids, in the order in which the letters were received.
    pub fn ids(&self) -> Result<Vec<LetterId>, SegmentError> {
        let mut ids = Vec::new();
        let Some(database) = self.readable()? else { return Ok(ids) };
        guarded(&self.path, || {
            let transaction = database.begin_read().map_err(redb::Error::from)?;
            let table = transaction.open_table(LETTERS).map_err(redb::Error::from)?;
            for item in table.iter().map_err(redb::Error::from)? {
                let (queue_id, sequence) = item.map_err(redb::Error::from)?.0.value();
                ids.push((QueueId(queue_id), sequence));
            }
            Ok(())
        })?;
        ids.sort_by_key(|(queue_id, sequence)| (*sequence, *queue_id));
        Ok(ids)
    }

    /// Shows `visit` the letters of `ids` that are (still) there, one at a time: there may be more than memory holds. Returns
    /// how many do not fit their checksum.
    pub fn visit(
        &self,
        ids: &[LetterId],
        mut visit: impl FnMut(DeadLetter) -> ControlFlow<()>,
    ) -> Result<u64, SegmentError> {
        let Some(database) = self.readable()? else { return Ok(0) };
        guarded(&self.path, || {
            let transaction = database.begin_read().map_err(redb::Error::from)?;
            let table = transaction.open_table(LETTERS).map_err(redb::Error::from)?;
            let mut damaged = 0;
            for (queue_id, sequence) in ids {
                let Some(value) = table.get((queue_id.0, *sequence)).map_err(redb::Error::from)? else { continue };
                let Some(letter) = decode(value.value()) else {
                    damaged += 1;
                    continue;
                };
                if visit(letter).is_break() {
                    break;
                }
            }
            Ok(damaged)
        })
    }

    /// How many do not fit their checksum.
    pub fn damaged(&self) -> Result<u64, SegmentError> {
        self.visit(&self.ids()?, |_| ControlFlow::Continue(()))
    }

    /// Those set aside before `cut_ms` (milliseconds since 1970). One whose time is not known to be right is in none.
    pub fn older_than(&self, cut_ms: i64) -> Result<Vec<LetterId>, SegmentError> {
        let mut old = Vec::new();
        self.visit(&self.ids()?, |letter| {
            if letter.set_aside.synchronised && letter.set_aside.wall_ms < cut_ms {
                old.push((letter.queue_id, letter.sequence));
            }
            ControlFlow::Continue(())
        })?;
        Ok(old)
    }

    /// Removes them, durably; returns how many were there.
    pub fn remove(&self, ids: &[LetterId]) -> Result<u64, SegmentError> {
        if ids.is_empty() || !guarded(&self.path, || Ok(self.folder.has(&self.path)?))? {
            return Ok(0);
        }
        self.change(|table, bytes| {
            let mut removed = 0;
            for (queue_id, sequence) in ids {
                let Some(gone) = table.remove((queue_id.0, *sequence)).map_err(redb::Error::from)? else { continue };
                *bytes = bytes.saturating_sub(size(gone.value()));
                removed += 1;
            }
            Ok(removed)
        })
    }

    /// The database, read from a copy in memory where a kill left it open and nobody repairs it at the moment; none where
    /// there are no dead letters.
    fn readable(&self) -> Result<Option<ReadOnlyDatabase>, SegmentError> {
        match guarded(&self.path, || self.open_to_read()) {
            Err(SegmentError::NotClosed { path }) => {
                if lock::is_held(&self.folder) {
                    return Err(SegmentError::Busy { path });
                }
                let folder = view::repaired(&self.folder, &self.path, |folder| {
                    let copy = Self::new(folder, u64::MAX);
                    guarded(&copy.path, || Ok(copy.open()?.close()?))
                })?;
                let copy = Self::new(&folder, u64::MAX);
                guarded(&copy.path, || copy.open_to_read())
            }
            result => result,
        }
    }
}

impl Inspector {
    /// The ids of all dead letters, the oldest first.
    pub fn letter_ids(&self) -> Result<Vec<LetterId>, QueueError> {
        Ok(self.letters().ids()?)
    }

    /// Shows `visit` those of `ids` that are there, one at a time. Returns how many do not fit their checksum.
    pub fn visit_letters(
        &self,
        ids: &[LetterId],
        visit: impl FnMut(DeadLetter) -> ControlFlow<()>,
    ) -> Result<u64, QueueError> {
        Ok(self.letters().visit(ids, visit)?)
    }

    /// Keeps an agent from starting for as long as the result lives.
    ///
    /// # Errors
    ///
    /// An agent has the folder: it is the only one that writes there.
    pub fn occupy(&self) -> Result<Occupied<'_>, OpenError> {
        Ok(Occupied { inspector: self, _lock: lock::take(self.place())? })
    }
}

/// A folder that no agent has.
pub struct Occupied<'i> {
    inspector: &'i Inspector,
    _lock: Lock,
}

impl Occupied<'_> {
    /// Makes the dead letters readable, as the agent does at its start: what can be read of a damaged file is kept, and the
    /// damaged one beside it.
    pub fn recover_letters(&self) -> Result<(), QueueError> {
        self.inspector.letters().recover()?;
        Ok(())
    }

    /// Deletes these dead letters for good; returns how many were there. A file that turns out to be damaged is set aside
    /// first, and what can be read of it goes on.
    pub fn delete_letters(&self, ids: &[LetterId]) -> Result<u64, QueueError> {
        let letters = self.inspector.letters();
        match letters.remove(ids) {
            Err(error) if salvage::is_wreck(self.inspector.place(), &error) => {
                letters.salvage(&error)?;
                Ok(letters.remove(ids)?)
            }
            removed => Ok(removed?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::disk::LocalDisk;
    use super::super::folder::Folder;
    use super::*;
    use crate::reading::{Body, Gap, Received};

    /// Promise 6: an old dead letter is found by its age, but never one that was set aside while the clock was wrong.
    #[test]
    fn old_letters_are_found_by_a_clock_that_was_right() {
        let path = tempfile::tempdir().expect("a temporary folder");
        let folder = Folder::new(Arc::new(LocalDisk), path.path());
        let letters = DeadLetters::new(&folder, u64::MAX);
        let put = |sequence: u64, wall_ms: i64, synchronised: bool| {
            let set_aside = Received { wall_ms, boot_ms: 5, boot_id: 9, synchronised };
            let body = Body::Gap(Gap { first: 1, last: 1, reason: "test".into(), noticed: set_aside });
            let letter = DeadLetter { queue_id: QueueId(7), sequence, reason: "test".into(), set_aside, body };
            letters.put(&[letter]).expect("put away");
        };
        put(1, 1_000, true);
        put(2, 0, false);
        put(3, 9_000, true);
        let old = letters.older_than(5_000).expect("readable");
        assert_eq!(old, [(QueueId(7), 1)]);
        assert_eq!(letters.remove(&old).expect("removed"), 1);
        assert_eq!(letters.remove(&old).expect("removed"), 0);
        assert_eq!(letters.ids().expect("readable"), [(QueueId(7), 2), (QueueId(7), 3)]);
    }
}

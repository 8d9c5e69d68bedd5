//! Consecutive records in a row, stored as one value under the first one's sequence.
//!
//! A separate value for each record costs more than writing it: a thousand at once are a thousand walks through the
//! tree and a page written for every few of them. So a group commit stores runs of records as blocks. Inside, each record
//! is as it would be alone (see [`super::record`]), so that a block of one is a single record, and salvage finds the
//! records of a block as it finds all others.
//!
//! The database gives a large value a run of pages, a power of two of them. A block is cut to fill such a run; what is
//! left of a commit below the smallest run goes in record by record, so that it shares a page with its neighbours.

use super::record;

/// The database's page.
const PAGE: usize = 4096;
/// What a page run holds besides the value: the leaf's header, one key, one length.
const LEAF: usize = 16;
/// Page runs, largest first. Beyond 64 KiB a commit gains nothing more, but a reader that wants one record reads it all.
const RUNS: [usize; 4] = [16, 8, 4, 2];

/// Encoded records that wait for their commit.
#[derive(Debug, Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    /// Of each record, its sequence and where it ends in `bytes`.
    ends: Vec<(u64, usize)>,
}

impl Batch {
    /// Memory that is kept for the next batch: that of a thousand readings.
    const KEPT: usize = 1 << 20;

    /// Adds a record. Sequences rise.
    pub fn push(&mut self, origin: u128, sequence: u64, stored: &record::Stored) -> Result<(), postcard::Error> {
        record::encode_into(&mut self.bytes, origin, sequence, stored)?;
        self.ends.push((sequence, self.bytes.len()));
        Ok(())
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Bytes of the records.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// The newest sequence.
    pub fn last(&self) -> Option<u64> {
        self.ends.last().map(|(sequence, _)| *sequence)
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(Self::KEPT);
        self.ends.clear();
    }

    /// The records as they are to be stored: key and value.
    pub fn blocks(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let mut next = 0;
        std::iter::from_fn(move || {
            let first = self.ends.get(next)?.0;
            let count = self.fitting(next);
            let (start, end) = (self.start(next), self.ends[next + count - 1].1);
            next += count;
            Some((first, &self.bytes[start..end]))
        })
    }

    /// How many of the records from `next` on make the next value.
    fn fitting(&self, next: usize) -> usize {
        let (start, left) = (self.start(next), self.bytes.len() - self.start(next));
        let Some(room) = RUNS.iter().map(|pages| pages * PAGE - LEAF).find(|room| *room <= left) else { return 1 };
        let consecutive = self.ends[next..].iter().zip(self.ends[next].0..);
        consecutive.take_while(|((sequence, end), due)| sequence == due && end - start <= room).count().max(1)
    }

    fn start(&self, index: usize) -> usize {
        index.checked_sub(1).map_or(0, |before| self.ends[before].1)
    }
}

/// The records of the value stored under `first`: each one's sequence and bytes. Contents are not checked; where a
/// header is damaged, the last item is the sequence that should have been there.
pub(super) fn records(first: u64, value: &[u8]) -> impl Iterator<Item = Result<(u64, &[u8]), u64>> {
    let (mut next, mut rest) = (first, value);
    let mut intact = true;
    std::iter::from_fn(move || {
        if rest.is_empty() || !intact {
            return None;
        }
        let due = next;
        match record::header(rest) {
            Ok((sequence, body)) if sequence == due && rest.len() >= record::HEADER + body => {
                let (record, after) = rest.split_at(record::HEADER + body);
                (next, rest) = (due.saturating_add(1), after);
                Some(Ok((due, record)))
            }
            _ => {
                intact = false;
                Some(Err(due))
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::reading::{Body, Gap, Received};
    use record::{Content, Stored};

    fn gap(size: usize) -> Stored {
        let noticed = Received { wall_ms: 1, boot_ms: 5, boot_id: 9, synchronised: true };
        let gap = Gap { first: 5, last: 9, reason: "x".repeat(size), noticed };
        Stored { release_point: 4, content: Content::Record(Body::Gap(gap)) }
    }

    proptest! {
        /// Promise 1: what is stored as blocks is what was given, record by record, whatever their sizes.
        #[test]
        fn records_come_out_of_blocks_as_they_went_in(
            first in 1u64..u64::MAX / 2,
            records in proptest::collection::vec((0u64..3, 0usize..20_000), 1..200),
        ) {
            let mut batch = Batch::default();
            let (mut expected, mut sequence) = (Vec::new(), first);
            for (skipped, size) in records {
                let size = if size > 19_900 { size * 10 } else { size / 20 };
                sequence += skipped;
                batch.push(1, sequence, &gap(size)).expect("encodes");
                expected.push((sequence, gap(size)));
                sequence += 1;
            }
            prop_assert_eq!(batch.last(), Some(sequence - 1));
            let (mut found, mut last_key) = (Vec::new(), 0);
            for (key, value) in batch.blocks() {
                prop_assert!(key > last_key);
                last_key = key;
                for record in super::records(key, value) {
                    let (sequence, bytes) = record.expect("whole");
                    found.push((sequence, record::decode(1, sequence, bytes).expect("whole")));
                }
            }
            prop_assert_eq!(found, expected);
        }

        /// Promise 7: a changed bit in a block is noticed in the record that it hit, and its predecessors are served.
        #[test]
        fn damage_in_a_block_is_noticed(count in 2usize..60, bit in any::<proptest::sample::Index>()) {
            let mut batch = Batch::default();
            for sequence in 1..=count as u64 {
                batch.push(1, sequence, &gap(450)).expect("encodes");
            }
            let mut value = batch.bytes.clone();
            let bit = bit.index(value.len() * 8);
            value[bit / 8] ^= 1 << (bit % 8);
            let hit = batch.ends.partition_point(|(_, end)| *end <= bit / 8);
            let refused = records(1, &value).position(|record| {
                record.is_err() || record.is_ok_and(|(sequence, bytes)| record::decode(1, sequence, bytes) != Ok(gap(450)))
            });
            prop_assert_eq!(refused, Some(hit));
        }
    }

    /// Promise 9: a block fills its pages but for part of a record, and few records stay records.
    #[test]
    fn blocks_fill_page_runs() {
        let mut batch = Batch::default();
        for sequence in 1..=1_000 {
            batch.push(1, sequence, &gap(450)).expect("encodes");
        }
        let values: Vec<usize> = batch.blocks().map(|(_, value)| value.len()).collect();
        let pages: usize = values.iter().map(|size| (size + LEAF).div_ceil(PAGE).next_power_of_two()).sum();
        assert!(pages * PAGE < batch.size() * 102 / 100 + 20 * PAGE, "{pages} pages for {} bytes", batch.size());
        assert!(values.len() < 32, "{values:?}");
        let mut few = Batch::default();
        (1..=5).for_each(|sequence| few.push(1, sequence, &gap(450)).expect("encodes"));
        assert_eq!(few.blocks().count(), 5, "they share a page with their neighbours");
    }
}

//! Consecutive records in a row, stored as one value under the first one's sequence.
//!
//! A separate value for each record costs more than writing it: a thousand at once are a thousand walks through the
//! tree and a page written for every few of them. So a group commit stores runs of records as blocks. Inside, each record
//! is as it would be alone (see [`super::record`]), so that a block of one is a single record, and salvage finds the
//! records of a block as it finds all others.
//!
//! In a packed segment a value is a row of frames (see [`super::frame`]) instead.
//!
//! The database gives a large value a run of pages, a power of two of them. A block is cut to fill such a run; what is
//! left of a commit below the smallest run goes in record by record, so that it shares a page with its neighbours.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use super::{frame, record};
use crate::reading::Mark;

/// The database's page.
const PAGE: usize = 4096;
/// What a page run holds besides the value: the leaf's header, one key, one length.
const LEAF: usize = 16;
/// Page runs, largest first. Beyond 64 KiB a commit gains nothing more, but a reader that wants one record reads it all.
const RUNS: [usize; 4] = [16, 8, 4, 2];

/// Encoded records, or frames of packed ones, that wait for their commit.
#[derive(Debug, Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    /// Of each record or frame, its first sequence and where it ends in `bytes`.
    ends: Vec<(u64, usize)>,
    /// What the redelivery window is to remember of them, by source, once they are on disk.
    marks: Vec<(Arc<str>, Mark)>,
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

    /// Adds a frame. Sequences rise.
    pub fn push_frame(&mut self, first: u64, frame: &[u8]) {
        self.bytes.extend_from_slice(frame);
        self.ends.push((first, self.bytes.len()));
    }

    /// Adds what the redelivery window is to remember of the record added last.
    pub fn remember(&mut self, source: Arc<str>, mark: Mark) {
        self.marks.push((source, mark));
    }

    /// By source, oldest first.
    pub fn marks(&self) -> impl Iterator<Item = (&str, Mark)> {
        self.marks.iter().map(|(source, mark)| (&**source, *mark))
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
        self.marks.clear();
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
        let frames = self.bytes[start..].starts_with(&frame::MAGIC);
        let following = self.ends[next..].iter().zip(self.ends[next].0..);
        following.take_while(|((sequence, end), due)| (frames || sequence == due) && end - start <= room).count().max(1)
    }

    fn start(&self, index: usize) -> usize {
        index.checked_sub(1).map_or(0, |before| self.ends[before].1)
    }
}

/// A value that is not what was stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("record {sequence}: {reason}")]
pub(super) struct BlockError {
    /// That was due where the fault is.
    pub sequence: u64,
    pub reason: String,
}

impl BlockError {
    fn new(sequence: u64, reason: impl ToString) -> Self {
        Self { sequence, reason: reason.to_string() }
    }
}

/// One thing in a value.
enum Item<'a> {
    Record(u64, &'a [u8]),
    Frame(frame::Header, &'a [u8]),
}

impl Item<'_> {
    fn last(&self) -> u64 {
        match self {
            Self::Record(sequence, _) => *sequence,
            Self::Frame(header, _) => header.last,
        }
    }
}

/// What the value stored under `first` holds. The contents of records are not checked, those of frames are.
fn items(origin: u128, first: u64, value: &[u8]) -> impl Iterator<Item = Result<Item<'_>, BlockError>> {
    let (mut due, mut rest) = (first, value);
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let item = item(origin, due, due == first, rest);
        match &item {
            Ok((found, size)) => (due, rest) = (found.last().saturating_add(1), &rest[*size..]),
            Err(_) => rest = &[],
        }
        Some(item.map(|(found, _)| found))
    })
}

/// The item at the start of `rest`, and its size. Records follow each other without a gap; frames may leave some out.
fn item(origin: u128, due: u64, is_first: bool, rest: &[u8]) -> Result<(Item<'_>, usize), BlockError> {
    if rest.starts_with(&frame::MAGIC) {
        let header = frame::verify(origin, rest).map_err(|error| BlockError::new(due, error))?;
        let fits = if is_first { header.first == due } else { header.first >= due };
        if !fits || header.last < header.first {
            return Err(BlockError::new(due, frame::FrameError::Header));
        }
        return Ok((Item::Frame(header, &rest[..header.size()]), header.size()));
    }
    let (sequence, body) = record::header(rest).map_err(|error| BlockError::new(due, error))?;
    let size = record::HEADER + body;
    if sequence != due || rest.len() < size {
        return Err(BlockError::new(due, record::RecordError::Header));
    }
    Ok((Item::Record(sequence, &rest[..size]), size))
}

/// Shows `show` the records of the value stored under `first` that are within `wanted`, until it breaks. Breaks too where
/// there can be no more of them. The contents of records are not checked.
pub(super) fn visit(
    origin: u128,
    first: u64,
    value: &[u8],
    wanted: &Range<u64>,
    show: &mut impl FnMut(u64, &[u8]) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, BlockError> {
    let mut show = |sequence: u64, bytes: &[u8]| {
        if sequence >= wanted.end {
            return ControlFlow::Break(());
        }
        if sequence < wanted.start { ControlFlow::Continue(()) } else { show(sequence, bytes) }
    };
    for item in items(origin, first, value) {
        let shown = match item? {
            Item::Record(sequence, bytes) => show(sequence, bytes),
            Item::Frame(header, _) if header.last < wanted.start => ControlFlow::Continue(()),
            Item::Frame(header, frame) => {
                frame::unpack(origin, frame, &mut show).map_err(|error| BlockError::new(header.first, error))?
            }
        };
        if shown.is_break() {
            return Ok(shown);
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// The newest sequence of the value stored under `first`.
pub(super) fn last(origin: u128, first: u64, value: &[u8]) -> Result<u64, BlockError> {
    let last = items(origin, first, value).last().transpose()?;
    last.map(|item| item.last()).ok_or_else(|| BlockError::new(first, record::RecordError::Header))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::reading::{Body, Gap, Received};
    use record::{Content, RecordError, Stored};

    /// Each record of the value, decoded; ends with a fault.
    fn decoded(first: u64, value: &[u8], wanted: Range<u64>) -> Vec<(u64, Result<Stored, RecordError>)> {
        let mut found = Vec::new();
        let visited = visit(1, first, value, &wanted, &mut |sequence, bytes| {
            found.push((sequence, record::decode(1, sequence, bytes)));
            ControlFlow::Continue(())
        });
        if let Err(error) = visited {
            found.push((error.sequence, Err(RecordError::Header)));
        }
        found
    }

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
                let records = decoded(key, value, 0..u64::MAX);
                prop_assert_eq!(Ok(records.last().expect("not empty").0), last(1, key, value));
                found.extend(records.into_iter().map(|(sequence, stored)| (sequence, stored.expect("whole"))));
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
            let refused = decoded(1, &value, 0..u64::MAX).iter().position(|(_, stored)| *stored != Ok(gap(450)));
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

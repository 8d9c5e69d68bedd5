//! Reads committed records in order, segment by segment, in short read transactions.
//!
//! Sequences that are not there any more come out as gaps, so that what a reader sees never jumps.

use std::ops::ControlFlow;

use super::folder::Folder;
use super::identity::Lost;
use super::record::{self, Content};
use super::segment::{Reader, SegmentError};
use super::shared::State;
use crate::reading::{Body, Entry, Fingerprint, Gap, Received};

/// A reader's place in the folder: keeps the segment that it read last open.
pub(super) struct Cursor {
    folder: Folder,
    origin: u128,
    open: Option<(u64, Reader)>,
}

/// Reading stopped before its limits.
#[derive(Debug)]
pub(super) struct Stopped {
    /// First sequence of the segment at fault.
    pub segment: u64,
    pub error: SegmentError,
}

impl Cursor {
    pub fn new(folder: &Folder, origin: u128) -> Self {
        Self { folder: folder.clone(), origin, open: None }
    }

    /// Lets go of the open file, as before it is replaced.
    pub fn close(&mut self) {
        self.open = None;
    }

    /// Records from `from` on, below `state.end`: at most `count`, at most `bytes` (but at least one).
    pub fn read(
        &mut self,
        state: &State,
        from: u64,
        count: usize,
        bytes: usize,
        now: Received,
    ) -> Result<Vec<Entry>, Stopped> {
        let mut batch = Batch {
            entries: Vec::new(),
            next: from.max(1),
            count,
            bytes,
            size: 0,
            now,
            full: false,
            lost: &state.lost,
        };
        while batch.next < state.end && !batch.full {
            let (first, until) = state.segment_of(batch.next);
            if let Some(first) = first {
                self.read_segment(first, until, &mut batch)?;
            }
            if !batch.full && batch.next < until {
                batch.hole(until);
            }
        }
        Ok(batch.entries)
    }

    fn read_segment(&mut self, first: u64, until: u64, batch: &mut Batch<'_>) -> Result<(), Stopped> {
        let origin = self.origin;
        let reader = self.reader(first)?;
        let mut damage = None;
        let scanned = reader.scan(batch.next, until, |sequence, bytes| match record::decode(origin, sequence, bytes) {
            Ok(stored) => batch.take(sequence, bytes, stored.content),
            Err(error) => {
                damage = Some(format!("record {sequence}: {error}"));
                ControlFlow::Break(())
            }
        });
        let damaged =
            damage.map(|reason| SegmentError::Damaged { path: super::segment::path(&self.folder, first), reason });
        match scanned.err().or(damaged) {
            None => Ok(()),
            // What was read before the fault is good; the fault comes up again at the next call.
            Some(_) if !batch.entries.is_empty() => {
                batch.full = true;
                Ok(())
            }
            Some(error) => Err(Stopped { segment: first, error }),
        }
    }

    /// What the record (or the gap that stands for it) at `sequence` is compared by; none where it is gone.
    pub fn fingerprint(&mut self, state: &State, sequence: u64) -> Result<Option<Fingerprint>, Stopped> {
        let oldest = state.segments.first().copied().unwrap_or(state.end);
        if sequence < oldest || sequence >= state.end {
            return Ok(None);
        }
        let (Some(first), _) = state.segment_of(sequence) else { return Ok(None) };
        let reader = self.reader(first)?;
        let mut found = None;
        reader
            .scan(sequence, sequence + 1, |sequence, bytes| {
                found = Some(record::fingerprint(sequence, bytes));
                ControlFlow::Break(())
            })
            .map_err(|error| Stopped { segment: first, error })?;
        Ok(Some(found.unwrap_or_else(|| record::hole_fingerprint(sequence))))
    }

    fn reader(&mut self, first: u64) -> Result<&Reader, Stopped> {
        if self.open.as_ref().is_none_or(|(open, _)| *open != first) {
            self.open = None;
            let reader =
                Reader::open(&self.folder, first, self.origin).map_err(|error| Stopped { segment: first, error })?;
            self.open = Some((first, reader));
        }
        match &self.open {
            Some((_, reader)) => Ok(reader),
            None => unreachable!("the segment was opened above"),
        }
    }
}

struct Batch<'a> {
    entries: Vec<Entry>,
    /// The sequence that is to come next.
    next: u64,
    count: usize,
    bytes: usize,
    size: usize,
    now: Received,
    full: bool,
    lost: &'a [Lost],
}

impl Batch<'_> {
    fn take(&mut self, sequence: u64, bytes: &[u8], content: Content) -> ControlFlow<()> {
        let Content::Record(body) = content else { return ControlFlow::Continue(()) };
        if sequence > self.next {
            self.hole(sequence);
        }
        if self.full
            || self.entries.len() >= self.count
            || (!self.entries.is_empty() && self.size + bytes.len() > self.bytes)
        {
            self.full = true;
            return ControlFlow::Break(());
        }
        self.size += bytes.len();
        self.next = sequence + 1;
        self.entries.push(Entry { sequence, size: bytes.len(), body });
        ControlFlow::Continue(())
    }

    /// Explains the sequences up to `until` (exclusive), which are not there.
    fn hole(&mut self, until: u64) {
        if self.entries.len() >= self.count {
            self.full = true;
            return;
        }
        let last = until - 1;
        let known = self.lost.iter().find(|lost| lost.first <= self.next && self.next <= lost.last);
        let reason = known.map_or("these records are missing from the queue's files", |lost| lost.reason.as_str());
        let gap = Gap { first: self.next, last, reason: reason.to_owned(), noticed: self.now };
        self.entries.push(Entry { sequence: last, size: record::HEADER, body: Body::Gap(gap) });
        self.next = until;
    }
}

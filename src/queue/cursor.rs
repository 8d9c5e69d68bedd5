//! Reads committed records in order, segment by segment, in short read transactions.
//!
//! Sequences that are not there any more come out as gaps, so that what a reader sees never jumps.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use super::folder::Folder;
use super::record::{self, Content, WINDOW_KEY};
use super::salvage;
use super::segment::{Reader, SegmentError};
use super::shared::State;
use super::view;
use crate::reading::{Body, Entry, Fingerprint, Gap, Received};

/// A reader's place in the folder: keeps the segment that it read last open.
pub(super) struct Cursor {
    folder: Folder,
    origin: u128,
    open: Option<Open>,
    /// Where the last reads ended, and what the records there are compared by: they may be dropped while it is not known
    /// yet whether Kafka has them.
    handed_out: VecDeque<(u64, Fingerprint)>,
}

/// The segment that was read last.
struct Open {
    first: u64,
    reader: Reader,
    /// It is a copy, which holds the records below this sequence.
    copied: Option<u64>,
}

/// More reads than are under way at once.
const HANDED_OUT: usize = 16;

/// Reading stopped before its limits.
#[derive(Debug)]
pub(super) enum Stopped {
    /// `segment` is the first sequence of the one at fault.
    Fault { segment: u64, error: SegmentError },
    /// These sequences, both inclusive, should be in `segment`, or in one that is not there. Nobody knows yet why they are
    /// not: it is to be written down before they are explained.
    Missing { segment: Option<u64>, first: u64, last: u64 },
}

impl Cursor {
    pub fn new(folder: &Folder, origin: u128) -> Self {
        Self { folder: folder.clone(), origin, open: None, handed_out: VecDeque::new() }
    }

    /// Lets go of the open file, as before it is replaced.
    pub fn close(&mut self) {
        self.open = None;
    }

    /// Whether the segment at fault has to be salvaged.
    pub fn is_wreck(&self, error: &SegmentError) -> bool {
        salvage::is_wreck(&self.folder, error)
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
            state,
            newest: Vec::new(),
            missing: None,
        };
        while batch.next < state.end && !batch.full {
            let (first, until) = state.segment_of(batch.next);
            if let Some(first) = first {
                self.read_segment(first, until, &mut batch)?;
            }
            batch.hole(until);
            match batch.missing.take() {
                // What was read before is good; the missing come up again at the next call.
                Some(_) if !batch.entries.is_empty() => batch.full = true,
                Some(_) if self.is_copy() => {
                    // The writer may have had the file open when it was copied.
                    self.open = None;
                    let (segment, path) = (first.unwrap_or(batch.next), self.folder.path().to_owned());
                    return Err(Stopped::Fault { segment, error: SegmentError::Busy { path } });
                }
                Some((missing, last)) => return Err(Stopped::Missing { segment: first, first: missing, last }),
                None => {}
            }
        }
        if let Some(print) = batch.print() {
            self.handed_out.push_back(print);
            if self.handed_out.len() > HANDED_OUT {
                self.handed_out.pop_front();
            }
        }
        Ok(batch.entries)
    }

    fn read_segment(&mut self, first: u64, until: u64, batch: &mut Batch<'_>) -> Result<(), Stopped> {
        let origin = self.origin;
        let reader = self.reader(first, batch.state)?;
        let mut damage = None;
        let scanned = reader.scan(batch.next, until, |sequence, bytes| match record::decode(origin, sequence, bytes) {
            Ok(_) if sequence != WINDOW_KEY && sequence < batch.next => {
                damage = Some(format!("record {sequence}: it does not belong here"));
                ControlFlow::Break(())
            }
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
                // After a failed read the database only says that there was one.
                self.open = None;
                batch.full = true;
                Ok(())
            }
            Some(error) => {
                self.open = None;
                Err(Stopped::Fault { segment: first, error })
            }
        }
    }

    /// What the record (or the gap that stands for it) at `sequence` is compared by; none where it is gone.
    pub fn fingerprint(&mut self, state: &State, sequence: u64) -> Result<Option<Fingerprint>, Stopped> {
        if let Some((_, print)) = self.handed_out.iter().rev().find(|(known, _)| *known == sequence) {
            return Ok(Some(*print));
        }
        if sequence >= state.end {
            return Ok(None);
        }
        let (Some(first), _) = state.segment_of(sequence) else {
            // Missing ones are sent as a gap; released ones are not known any more.
            return Ok((sequence >= state.release_point).then(|| record::hole_fingerprint(sequence)));
        };
        let reader = self.reader(first, state)?;
        let mut found = None;
        reader
            .scan(sequence, sequence + 1, |sequence, bytes| {
                found = Some(record::fingerprint(sequence, bytes));
                ControlFlow::Break(())
            })
            .map_err(|error| Stopped::Fault { segment: first, error })?;
        Ok(Some(found.unwrap_or_else(|| record::hole_fingerprint(sequence))))
    }

    fn is_copy(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.copied.is_some())
    }

    fn reader(&mut self, first: u64, state: &State) -> Result<&Reader, Stopped> {
        let fits = |open: &Open| open.first == first && open.copied.is_none_or(|end| end == state.end);
        if !self.open.as_ref().is_some_and(fits) {
            self.open = None;
            let mut copied = None;
            let reader = match Reader::open(&self.folder, first, self.origin) {
                // A write has failed, and the writer could not repair it yet.
                Err(SegmentError::NotClosed { .. }) if state.segments.last() == Some(&first) => {
                    copied = Some(state.end);
                    view::open_copy(&self.folder, first, self.origin)
                }
                reader => reader,
            };
            let reader = reader.map_err(|error| Stopped::Fault { segment: first, error })?;
            self.open = Some(Open { first, reader, copied });
        }
        match &self.open {
            Some(open) => Ok(&open.reader),
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
    state: &'a State,
    /// The bytes of the newest record taken; empty where a gap for missing ones came last.
    newest: Vec<u8>,
    /// Sequences that are not there, and nobody knows why.
    missing: Option<(u64, u64)>,
}

impl Batch<'_> {
    fn take(&mut self, sequence: u64, bytes: &[u8], content: Content) -> ControlFlow<()> {
        let Content::Record(body) = content else { return ControlFlow::Continue(()) };
        self.hole(sequence);
        if self.missing.is_some() {
            return ControlFlow::Break(());
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
        self.newest.clear();
        self.newest.extend_from_slice(bytes);
        self.entries.push(Entry { sequence, size: bytes.len(), body });
        ControlFlow::Continue(())
    }

    /// Explains the sequences up to `until` (exclusive), which are not there: one gap for each reason.
    fn hole(&mut self, until: u64) {
        while !self.full && self.missing.is_none() && self.next < until {
            if self.entries.len() >= self.count {
                self.full = true;
                return;
            }
            let (reason, holds_until) = self.state.missing(self.next);
            let last = holds_until.min(until - 1);
            let Some(reason) = reason else {
                self.missing = Some((self.next, last));
                return;
            };
            let gap = Gap { first: self.next, last, reason, noticed: self.now };
            self.entries.push(Entry { sequence: last, size: record::HEADER, body: Body::Gap(gap) });
            self.newest.clear();
            self.next = last + 1;
        }
    }

    /// What the newest entry is compared by.
    fn print(&self) -> Option<(u64, Fingerprint)> {
        let sequence = self.entries.last()?.sequence;
        let print = if self.newest.is_empty() {
            record::hole_fingerprint(sequence)
        } else {
            record::fingerprint(sequence, &self.newest)
        };
        Some((sequence, print))
    }
}

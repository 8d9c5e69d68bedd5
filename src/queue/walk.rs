//! Every record of a folder, one after the other, whatever is wrong between them. Changes nothing, and may go on for
//! hours beside the agent.

use std::io;
use std::ops::ControlFlow;
use std::time::Duration;

use super::error::QueueError;
use super::folder::Folder;
use super::identity::{Identity, Lost};
use super::record::{self, Content, Stored};
use super::segment::{Reader, SegmentError};
use super::tolerant::{self, Seen};
use super::view::View;
use crate::reading::Entry;

/// How long a segment that another process holds is waited for, in steps.
const BUSY: (u32, Duration) = (50, Duration::from_millis(100));

/// What stands at the next sequence.
#[derive(Debug, Clone, PartialEq)]
pub enum Find {
    Record(Entry),
    /// Nothing, and why as far as it is known; both ends inclusive.
    Missing {
        first: u64,
        last: u64,
        reason: String,
    },
    /// Something that cannot be read; both ends inclusive.
    Damaged {
        first: u64,
        last: u64,
        reason: String,
    },
}

/// A place in a folder.
pub struct Walk {
    /// The queue's own folder.
    home: Folder,
    identity: Identity,
    view: View,
    open: Option<(u64, Reader)>,
    next: u64,
    end: u64,
}

impl Walk {
    /// From `from` up to `to` (inclusive), or the newest record that there is now.
    pub(super) fn new(home: &Folder, identity: Identity, view: View, from: u64, to: u64) -> Self {
        let end = view.end.min(to.saturating_add(1));
        let next = from.max(view.oldest());
        Self { home: home.clone(), identity, view, open: None, next, end }
    }

    /// The next sequence.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// One past the last sequence.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// How many sequences are left.
    pub fn left(&self) -> u64 {
        self.end.saturating_sub(self.next)
    }

    /// Goes on at `sequence`, or where the files begin.
    pub fn seek(&mut self, sequence: u64) {
        self.next = sequence.max(self.view.oldest());
    }

    /// The first record from `sequence` on that can be read; none where there is none within the next few.
    pub fn record_at(&mut self, sequence: u64) -> Result<Option<Entry>, QueueError> {
        const NEAR: usize = 64;
        self.seek(sequence);
        let finds = self.read(NEAR, 1)?;
        Ok(finds.into_iter().find_map(|find| match find {
            Find::Record(entry) => Some(entry),
            Find::Missing { .. } | Find::Damaged { .. } => None,
        }))
    }

    /// What comes next: at most `count` finds, about `bytes` of records. Empty at the end.
    pub fn read(&mut self, count: usize, bytes: usize) -> Result<Vec<Find>, QueueError> {
        let mut batch = Batch { finds: Vec::new(), count: count.max(1), bytes, size: 0 };
        let mut busy = 0;
        while self.next < self.end && !batch.is_full() {
            let (first, until) = self.view.segment_of(self.next);
            let until = until.min(self.end).max(self.next + 1);
            let Some(first) = first else {
                self.missing(until, &mut batch);
                continue;
            };
            match self.read_segment(first, until, &mut batch) {
                Ok(()) => {}
                Err(SegmentError::Busy { .. }) if busy < BUSY.0 => {
                    busy += 1;
                    std::thread::sleep(BUSY.1);
                }
                Err(SegmentError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                    // Unlinked since: its records are in Kafka.
                    self.view = View::of(&self.home, &self.identity)?;
                    self.next = self.next.max(until);
                }
                Err(error @ SegmentError::Io { .. }) if !tolerant::is_medium(&error) => return Err(error.into()),
                Err(error @ SegmentError::Busy { .. }) => return Err(error.into()),
                Err(error) => {
                    self.open = None;
                    batch.damaged(self.next, until - 1, tolerant::reason(&error));
                    self.next = until;
                }
            }
        }
        Ok(batch.finds)
    }

    fn read_segment(&mut self, first: u64, until: u64, batch: &mut Batch) -> Result<(), SegmentError> {
        if self.open.as_ref().is_none_or(|(open, _)| *open != first) {
            self.open = Some((first, Reader::open(&self.view.folder, first, self.identity.origin)?));
        }
        let Some((_, reader)) = &self.open else { return Ok(()) };
        let (origin, lost, mut next) = (self.identity.origin, &self.identity.lost, self.next);
        let scanned = tolerant::scan(reader, next, until, |seen| {
            let (sequence, last) = match &seen {
                Seen::Bytes(sequence, _) => (*sequence, *sequence),
                Seen::Unreadable(first, last, _) => (*first, (*last).min(until - 1)),
            };
            if sequence > next {
                batch.missing(next, sequence - 1, lost);
            }
            if batch.is_full() {
                next = sequence;
                return ControlFlow::Break(());
            }
            next = last + 1;
            match seen {
                Seen::Bytes(_, bytes) => batch.bytes(origin, sequence, bytes),
                Seen::Unreadable(_, _, error) => batch.damaged(sequence, last, tolerant::reason(error)),
            }
            if batch.is_full() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        self.next = next;
        scanned?;
        if !batch.is_full() && self.next < until {
            self.missing(until, batch);
        }
        Ok(())
    }

    fn missing(&mut self, until: u64, batch: &mut Batch) {
        batch.missing(self.next, until - 1, &self.identity.lost);
        self.next = until;
    }
}

struct Batch {
    finds: Vec<Find>,
    count: usize,
    bytes: usize,
    size: usize,
}

impl Batch {
    fn is_full(&self) -> bool {
        self.finds.len() >= self.count || self.size >= self.bytes
    }

    fn bytes(&mut self, origin: u128, sequence: u64, bytes: &[u8]) {
        match record::decode(origin, sequence, bytes) {
            Ok(Stored { content: Content::Record(body), .. }) => {
                self.size += bytes.len();
                self.finds.push(Find::Record(Entry { sequence, size: bytes.len(), body }));
            }
            Ok(_) => self.damaged(sequence, sequence, "a window record out of its place".to_owned()),
            Err(error) => self.damaged(sequence, sequence, error.to_string()),
        }
    }

    fn missing(&mut self, first: u64, last: u64, lost: &[Lost]) {
        let known = lost.iter().find(|lost| lost.first <= first && first <= lost.last);
        let reason = known.map_or("not in the queue's files", |lost| lost.reason.as_str());
        self.finds.push(Find::Missing { first, last, reason: reason.to_owned() });
    }

    /// Neighbours with the same fault become one.
    fn damaged(&mut self, first: u64, last: u64, reason: String) {
        if let Some(Find::Damaged { last: before, reason: same, .. }) = self.finds.last_mut()
            && *before + 1 == first
            && *same == reason
        {
            *before = last;
            return;
        }
        self.finds.push(Find::Damaged { first, last, reason });
    }
}

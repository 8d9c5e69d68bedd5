//! A folder as it can be read from outside: beside the agent, after a kill, on a medium that takes no write.

use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use super::error::QueueError;
use super::folder::Folder;
use super::identity::Identity;
use super::lock;
use super::open::segments;
use super::overlay::Overlay;
use super::record::{self, WINDOW_KEY};
use super::release;
use super::segment::{self, Active, Reader, SegmentError};

/// Where the records are, and how far they reach.
pub(super) struct View {
    /// Where segments are opened.
    pub folder: Folder,
    /// First sequences, rising.
    pub segments: Vec<u64>,
    /// As far as it is on disk.
    pub release_point: u64,
    /// One past the newest record that can be read.
    pub end: u64,
    /// Why the newest segment, and with it `end`, cannot be read.
    pub unreadable: Option<SegmentError>,
    /// The newest segment was not closed by whoever wrote it last.
    pub not_closed: bool,
}

impl View {
    /// Looks at `folder` and changes nothing in it. A segment that a kill left open has to be repaired before it can be
    /// read: that is done in memory, so that neither the lock nor a write is needed here.
    pub fn of(folder: &Folder, identity: &Identity) -> Result<Self, QueueError> {
        let segments: Vec<u64> =
            segments(folder).map_err(|source| unreadable(folder.path(), source))?.into_iter().collect();
        let mut view = Self {
            folder: folder.clone(),
            end: segments.last().copied().unwrap_or(1),
            segments,
            release_point: release::read(folder, identity.origin).unwrap_or(1),
            unreadable: None,
            not_closed: false,
        };
        let Some(newest) = view.segments.last().copied() else { return Ok(view) };
        match view.open(newest, identity.origin) {
            Ok(reader) => view.look(&reader, newest, identity.origin),
            Err(error @ (SegmentError::Damaged { .. } | SegmentError::Io { .. } | SegmentError::NotClosed { .. })) => {
                view.unreadable = Some(error);
            }
            Err(error @ SegmentError::Busy { .. }) => return Err(error.into()),
        }
        Ok(view)
    }

    fn open(&mut self, newest: u64, origin: u128) -> Result<Reader, SegmentError> {
        match Reader::open(&self.folder, newest, origin) {
            Err(SegmentError::NotClosed { path }) => {
                self.not_closed = true;
                if lock::is_held(&self.folder) {
                    // An agent is about to repair it.
                    return Err(SegmentError::Busy { path });
                }
                self.folder = repaired(&self.folder, &path, |folder| Active::open(folder, newest)?.seal())?;
                Reader::open(&self.folder, newest, origin)
            }
            result => result,
        }
    }

    fn look(&mut self, reader: &Reader, newest: u64, origin: u128) {
        let last = match reader.last() {
            Ok(last) => last,
            Err(error) => {
                self.unreadable = Some(error);
                return;
            }
        };
        self.end = last.map_or(newest, |last| last + 1);
        let mut known = 0;
        let scanned = reader.scan(last.unwrap_or(WINDOW_KEY), u64::MAX, |sequence, bytes| {
            if let Ok(stored) = record::decode(origin, sequence, bytes) {
                known = stored.release_point;
            }
            ControlFlow::Break(())
        });
        self.unreadable = scanned.err();
        self.release_point = self.release_point.max(known);
    }

    /// The segment that holds `sequence` if any does, and where the next one begins.
    pub fn segment_of(&self, sequence: u64) -> (Option<u64>, u64) {
        let at = self.segments.partition_point(|first| *first <= sequence);
        let until = self.segments.get(at).copied().unwrap_or(self.end).min(self.end);
        (at.checked_sub(1).and_then(|before| self.segments.get(before).copied()), until)
    }

    /// The oldest sequence that may still be there.
    pub fn oldest(&self) -> u64 {
        self.segments.first().copied().unwrap_or(self.end)
    }
}

/// Opens a copy in memory of a segment that was not closed and is not repaired at the moment, as where the disk is full.
pub(super) fn open_copy(folder: &Folder, first: u64, origin: u128) -> Result<Reader, SegmentError> {
    let copy = repaired(folder, &segment::path(folder, first), |folder| Active::open(folder, first)?.seal())?;
    Reader::open(&copy, first, origin)
}

/// The same folder, but the file at `path` is a copy in memory that `repair` has opened for writing and closed.
pub(super) fn repaired(
    folder: &Folder,
    path: &Path,
    repair: impl FnOnce(&Folder) -> Result<(), SegmentError>,
) -> Result<Folder, SegmentError> {
    let overlay = Overlay::of(Arc::clone(&folder.disk), path)
        .map_err(|source| SegmentError::Io { path: path.to_owned(), source })?;
    let folder = Folder::new(Arc::new(overlay), folder.path());
    repair(&folder)?;
    Ok(folder)
}

pub(super) fn unreadable(path: &Path, source: io::Error) -> QueueError {
    QueueError::Read { path: path.to_owned(), source }
}

//! A look into a queue's folder from outside, beside the agent or without it. Changes nothing, but for the repair of a
//! segment that a kill left open.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use super::cursor::Cursor;
use super::dead_letter::DeadLetters;
use super::disk::{Disk, LocalDisk};
use super::error::{OpenError, QueueError};
use super::folder::Folder;
use super::identity::{Identity, Unreadable};
use super::lock;
use super::open::segments;
use super::record::{self, WINDOW_KEY};
use super::release;
use super::segment::{Active, Reader, SegmentError};
use super::shared::State;
use crate::clock::Clock;
use crate::reading::{DeadLetter, Entry};

/// What a folder shows.
#[derive(Debug, Clone)]
pub struct Status {
    pub identity: Identity,
    /// An agent has the folder.
    pub running: bool,
    pub segments: Vec<u64>,
    /// Bytes of all files.
    pub disk_bytes: u64,
    /// Bytes free on the file system.
    pub free_bytes: u64,
    /// As far as it is on disk: a running agent may be ahead of it.
    pub release_point: u64,
    /// One past the newest record.
    pub end: u64,
    pub dead_letters: u64,
}

/// A queue's folder, opened for looking.
pub struct Inspector {
    folder: Folder,
    identity: Identity,
}

impl Inspector {
    /// Fails where there is no queue, or one of a newer format.
    pub fn open(folder: &Path) -> Result<Self, OpenError> {
        Self::open_on(Arc::new(LocalDisk), folder)
    }

    /// [`Inspector::open`] on another disk than the machine's own.
    pub fn open_on(disk: Arc<dyn Disk>, path: &Path) -> Result<Self, OpenError> {
        let folder = Folder::new(disk, path);
        let missing = |reason: &str| OpenError::Folder {
            path: path.to_owned(),
            source: std::io::Error::new(std::io::ErrorKind::NotFound, reason.to_owned()),
        };
        match Identity::read(&folder) {
            Ok(Some(identity)) => Ok(Self { folder, identity }),
            Ok(None) => Err(missing("there is no queue in it (no queue.toml)")),
            Err(Unreadable::Refused(error)) => Err(error),
            Err(Unreadable::Damaged(reason)) => Err(missing(&format!("queue.toml is damaged: {reason}"))),
        }
    }

    pub fn status(&self) -> Result<Status, QueueError> {
        let state = self.state()?;
        let unreadable = |source| QueueError::Write { path: self.folder.path().to_owned(), source };
        Ok(Status {
            identity: self.identity.clone(),
            running: lock::is_held(&self.folder),
            disk_bytes: self.folder.used().map_err(unreadable)?,
            free_bytes: self.folder.free().map_err(unreadable)?,
            release_point: state.release_point,
            end: state.end,
            segments: state.segments.into_iter().collect(),
            dead_letters: self.letters().count()?,
        })
    }

    /// Records from `from` on, or from the release point; at most `count`, released ones included where they are still
    /// there.
    pub fn peek(&self, from: Option<u64>, count: usize) -> Result<Vec<Entry>, QueueError> {
        let state = self.state()?;
        let oldest = state.segments.first().copied().unwrap_or(state.end);
        let from = from.unwrap_or(state.release_point).max(oldest);
        let mut cursor = Cursor::new(&self.folder, self.identity.origin);
        cursor
            .read(&state, from, count, usize::MAX, Clock::new().now())
            .map_err(|stopped| QueueError::Segment(stopped.error))
    }

    pub fn dead_letters(&self) -> Result<Vec<DeadLetter>, QueueError> {
        Ok(self.letters().list()?)
    }

    fn letters(&self) -> DeadLetters {
        DeadLetters::new(&self.folder, u64::MAX)
    }

    /// A segment that a kill left open is repaired as the agent's next start would do, if no agent has the folder.
    fn open_newest(&self, newest: u64) -> Result<Reader, QueueError> {
        match Reader::open(&self.folder, newest, self.identity.origin) {
            Err(SegmentError::NotClosed { path }) => {
                let Ok(_lock) = lock::take(&self.folder) else { return Err(SegmentError::NotClosed { path }.into()) };
                Active::open(&self.folder, newest)?.seal()?;
                Ok(Reader::open(&self.folder, newest, self.identity.origin)?)
            }
            result => Ok(result?),
        }
    }

    fn state(&self) -> Result<State, QueueError> {
        let segments = segments(&self.folder)
            .map_err(|source| QueueError::Write { path: self.folder.path().to_owned(), source })?;
        let mut state = State {
            queue_id: self.identity.queue_id(),
            end: segments.last().copied().unwrap_or(1),
            segments,
            release_point: release::read(&self.folder, self.identity.origin).unwrap_or(1),
            lost: self.identity.lost.clone(),
            dropped: self.identity.dropped.clone(),
            handed_out: 0,
            moved: false,
            stopped: false,
        };
        let Some(newest) = state.segments.last().copied() else { return Ok(state) };
        let reader = self.open_newest(newest)?;
        let last = reader.last()?;
        state.end = last.map_or(newest, |last| last + 1);
        reader.scan(last.unwrap_or(WINDOW_KEY), u64::MAX, |sequence, bytes| {
            if let Ok(stored) = record::decode(self.identity.origin, sequence, bytes) {
                state.release_point = state.release_point.max(stored.release_point);
            }
            ControlFlow::Break(())
        })?;
        Ok(state)
    }
}

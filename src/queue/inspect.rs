//! A look into a queue's folder from outside, beside the agent or without it. Changes nothing.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::dead_letter::DeadLetters;
use super::disk::{Disk, LocalDisk};
use super::error::{OpenError, QueueError};
use super::folder::Folder;
use super::identity::{self, Identity, Unreadable};
use super::lock;
use super::tolerant;
use super::view::{View, unreadable};
use super::walk::{Find, Walk};
use crate::clock;
use crate::reading::{Body, DeadLetter, Entry, Received};

/// What a folder shows.
#[derive(Debug, Clone)]
pub struct Status {
    pub identity: Identity,
    /// An agent has the folder.
    pub running: bool,
    pub segments: Vec<u64>,
    /// Bytes of all files.
    pub disk_bytes: u64,
    /// Bytes of the segments.
    pub segment_bytes: u64,
    /// Bytes free on the file system.
    pub free_bytes: u64,
    /// As far as it is on disk: a running agent may be ahead of it.
    pub release_point: u64,
    /// One past the newest record.
    pub end: u64,
    /// None where the file cannot be read.
    pub dead_letters: Option<u64>,
    /// Damaged files that a salvage replaced and kept, by name.
    pub set_aside: Vec<String>,
    /// The newest segment was not closed: the agent was killed, and repairs it at its next start.
    pub not_closed: bool,
    /// Why the newest segment cannot be read.
    pub unreadable: Option<String>,
}

/// How fast records came in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Inflow {
    pub records: u64,
    pub over: Duration,
}

impl Inflow {
    /// Records a second.
    pub fn rate(&self) -> f64 {
        if self.over.is_zero() { 0.0 } else { self.records as f64 / self.over.as_secs_f64() }
    }
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
        let missing = || {
            let what = match std::fs::metadata(path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => "there is no such folder",
                Ok(found) if !found.is_dir() => "it is not a folder",
                _ => "no queue.toml is in it",
            };
            OpenError::NoQueue { path: path.to_owned(), what: what.to_owned() }
        };
        match Identity::read(&folder) {
            Ok(Some(identity)) => Ok(Self { folder, identity }),
            Ok(None) => Err(missing()),
            Err(Unreadable::Refused(OpenError::Folder { .. })) if path.is_file() => Err(missing()),
            Err(Unreadable::Refused(error)) => Err(error),
            Err(Unreadable::Damaged(reason)) => {
                Err(OpenError::NoIdentity { path: folder.file(identity::FILE), reason })
            }
        }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Whether an agent has the folder now.
    pub fn is_running(&self) -> bool {
        lock::is_held(&self.folder)
    }

    pub(super) fn place(&self) -> &Folder {
        &self.folder
    }

    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Looks at a few records only, however many there are.
    pub fn status(&self) -> Result<Status, QueueError> {
        let view = self.view()?;
        let failed = |source| unreadable(self.folder.path(), source);
        Ok(Status {
            identity: self.identity.clone(),
            running: self.is_running(),
            disk_bytes: self.folder.used().map_err(failed)?,
            segment_bytes: self.segment_bytes(&view),
            free_bytes: self.folder.free().map_err(failed)?,
            release_point: view.release_point,
            end: view.end,
            dead_letters: self.letters().count().ok(),
            set_aside: self.set_aside()?,
            not_closed: view.not_closed,
            unreadable: view.unreadable.as_ref().map(tolerant::reason),
            segments: view.segments,
        })
    }

    fn segment_bytes(&self, view: &View) -> u64 {
        let size = |first: &u64| self.folder.disk.size(&super::segment::path(&self.folder, *first)).ok();
        view.segments.iter().filter_map(size).sum()
    }

    /// Everything from `from` on, or from the release point, up to `to` (inclusive), or the newest; released records
    /// included where they are still there.
    pub fn walk(&self, from: Option<u64>, to: Option<u64>) -> Result<Walk, QueueError> {
        let view = self.view()?;
        let from = from.unwrap_or(view.release_point);
        Ok(Walk::new(&self.folder, self.identity.clone(), view, from, to.unwrap_or(u64::MAX)))
    }

    /// Records from `from` on, or from the release point; at most `count`. What is missing or damaged is passed over.
    pub fn peek(&self, from: Option<u64>, count: usize) -> Result<Vec<Entry>, QueueError> {
        let mut walk = self.walk(from, None)?;
        let mut entries = Vec::new();
        while entries.len() < count {
            let finds = walk.read(count - entries.len(), usize::MAX)?;
            if finds.is_empty() {
                break;
            }
            entries.extend(finds.into_iter().filter_map(|find| match find {
                Find::Record(entry) => Some(entry),
                Find::Missing { .. } | Find::Damaged { .. } => None,
            }));
        }
        Ok(entries)
    }

    /// All dead letters, the oldest first.
    pub fn dead_letters(&self) -> Result<Vec<DeadLetter>, QueueError> {
        let mut letters = Vec::new();
        self.visit_letters(&self.letter_ids()?, |letter| {
            letters.push(letter);
            ControlFlow::Continue(())
        })?;
        Ok(letters)
    }

    /// What came in within `span` before `now`, as far back as the files reach; none where nothing did.
    pub fn inflow(&self, span: Duration, now: &Received) -> Result<Option<Inflow>, QueueError> {
        let mut walk = self.walk(Some(0), None)?;
        let (mut low, mut high) = (walk.next(), walk.end());
        let (end, mut oldest) = (high, None);
        // The lowest sequence that is young enough: a few dozen records are looked at, however many there are.
        while low < high {
            let middle = low + (high - low) / 2;
            let Some(entry) = walk.record_at(middle)? else {
                high = middle;
                continue;
            };
            let age = clock::age(received(&entry.body), now);
            if age <= span {
                oldest = Some((middle, age));
                high = middle;
            } else {
                low = entry.sequence.max(middle) + 1;
            }
        }
        // What came all at once has no rate.
        let inflow = oldest.map(|(first, age)| Inflow { records: end - first, over: age });
        Ok(inflow.filter(|inflow| inflow.over >= Duration::from_secs(1)))
    }

    /// Names of what a salvage replaced and kept, and of identities that could not be read.
    pub fn set_aside(&self) -> Result<Vec<String>, QueueError> {
        let mut names = self.folder.names().map_err(|source| unreadable(self.folder.path(), source))?;
        names.retain(|name| name.contains(".damaged-"));
        names.sort();
        Ok(names)
    }

    pub(super) fn letters(&self) -> DeadLetters {
        DeadLetters::new(&self.folder, u64::MAX)
    }

    fn view(&self) -> Result<View, QueueError> {
        View::of(&self.folder, &self.identity)
    }
}

/// When something was received, set aside or noticed.
pub fn received(body: &Body) -> &Received {
    match body {
        Body::Reading(reading) => &reading.received,
        Body::Dead(dead) => &dead.received,
        Body::Gap(gap) => &gap.noticed,
        Body::Daily(daily) => &daily.noticed,
    }
}

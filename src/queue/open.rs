//! From a folder in whatever state a power cut left it to a store that takes readings.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tracing::{error, warn};

use super::dead_letter::DeadLetters;
use super::disk::Disk;
use super::error::OpenError;
use super::folder::Folder;
use super::identity::{self, Identity, Unreadable};
use super::limit::Limit;
use super::lock::{self, Lock};
use super::record::{self, Content, WINDOW_KEY};
use super::release;
use super::segment::{self, Active, Reader, SegmentError};
use super::shared::{Shared, State};
use super::store::{Capacity, Store, remember};
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::reading::{Body, Mark};

/// What a queue is opened with.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder.
    pub path: PathBuf,
    /// Bytes the folder may take.
    pub max_size: u64,
    /// Bytes that stay free on the file system.
    pub min_free: u64,
    /// Bytes of a segment's file, at which the next one begins.
    pub segment_size: u64,
    /// Marks remembered of a source that `windows` does not name.
    pub redelivery_window: usize,
    /// Marks remembered of each source.
    pub windows: BTreeMap<String, usize>,
    /// Bytes of dead letters; above it the oldest are deleted.
    pub max_dead_letters: u64,
    /// Dead letters older than this are deleted; none: only the limit of size.
    pub dead_letters_max_age: Option<Duration>,
    /// The agent's id if it is configured.
    pub agent_id: Option<String>,
    /// The id that a new queue gets otherwise.
    pub default_agent_id: String,
    /// Tells a moved or cloned card; none where the machine has none.
    pub hardware_serial: Option<String>,
}

pub(super) fn open(
    disk: Arc<dyn Disk>,
    options: &Options,
    metrics: Arc<Metrics>,
    clock: Clock,
) -> Result<(Store, Lock), OpenError> {
    let folder = &Folder::new(disk, &options.path);
    let unusable = |source| OpenError::Folder { path: options.path.clone(), source };
    folder.create().map_err(unusable)?;
    let lock = lock::take(folder)?;
    folder.remove_unfinished().map_err(unusable)?;
    let segments = segments(folder).map_err(unusable)?;
    let (identity, fresh) = identity(folder, options, &segments)?;
    let released = release::read(folder, identity.origin);
    let moved = matches!((&identity.hardware_serial, &options.hardware_serial), (Some(then), Some(now)) if then != now);
    let shared = Shared::new(State {
        queue_id: identity.queue_id(),
        end: segments.last().copied().unwrap_or(1),
        segments,
        release_point: released.unwrap_or(0),
        lost: identity.lost.clone(),
        moved,
        stopped: false,
    });
    let mut store = Store {
        folder: folder.clone(),
        hardware_serial: options.hardware_serial.clone(),
        active: None,
        newest: 0,
        next: 1,
        release_point: released.unwrap_or(1),
        released_on_disk: released.unwrap_or(0),
        marks: BTreeMap::new(),
        window: Capacity { of: options.windows.clone(), otherwise: options.redelivery_window },
        segment_size: options.segment_size,
        limit: Limit { max_size: options.max_size, min_free: options.min_free },
        at_rest: 0,
        dead_letters: DeadLetters::new(folder, options.max_dead_letters),
        dead_letters_max_age: options.dead_letters_max_age,
        shared: Arc::new(shared),
        metrics,
        clock,
        open_day: None,
        identity,
    };
    store.recover(fresh)?;
    store.adopt_agent_id(options)?;
    Ok((store, lock))
}

impl Store {
    fn recover(&mut self, fresh: bool) -> Result<(), OpenError> {
        let newest = self.shared.state().segments.last().copied();
        match newest {
            None => {
                if !fresh {
                    self.fork("the queue's files are gone").map_err(unopened)?;
                }
                self.begin_segment().map_err(unopened)?;
            }
            Some(newest) => {
                self.newest = newest;
                self.open_day = self.identity.daily.as_ref().and_then(|daily| daily.open_day);
                self.recover_newest()?;
            }
        }
        if fresh || (self.identity.hardware_serial.is_none() && self.hardware_serial.is_some()) {
            self.identity.hardware_serial.clone_from(&self.hardware_serial);
            self.write_identity().map_err(unopened)?;
        }
        let end = self.shared.state().end;
        self.next = self.next.max(end);
        self.release_point = self.release_point.clamp(1, end);
        let release_point = self.release_point;
        self.shared.change(|state| state.release_point = release_point);
        self.begin_ledger();
        if self.released_on_disk == 0 {
            self.released_on_disk = release_point;
            if let Err(error) = release::write(&self.folder, self.identity.origin, release_point) {
                warn!(%error, "the release point cannot be put on disk, will retry");
                self.released_on_disk = 0;
            }
        }
        let queue = &self.metrics.queue;
        queue.next_sequence.set(end);
        queue.release_point.set(release_point);
        queue.dead_letters.set(self.dead_letters.count().unwrap_or_default());
        self.measure();
        Ok(())
    }

    /// Opens the newest segment, or what can be read of it, and takes from it what a start needs to know.
    fn recover_newest(&mut self) -> Result<(), OpenError> {
        match Active::open(&self.folder, self.newest) {
            Ok(active) => self.active = Some(active),
            // Nothing can be written, but everything can be read and sent, which is what makes room.
            Err(error) if error.is_full() => {
                warn!(%error, "the disk is full: the queue takes nothing until there is room")
            }
            Err(error) if error.is_damage() => return self.salvage_newest(&error),
            Err(error) => return Err(error.into()),
        }
        match self.read_newest() {
            Err(error) if error.is_damage() => self.salvage_newest(&error),
            result => Ok(result?),
        }
    }

    fn salvage_newest(&mut self, error: &SegmentError) -> Result<(), OpenError> {
        error!(%error, "the newest segment is damaged: what can be read is kept");
        let damaged = self.newest;
        self.salvage(damaged).map_err(unopened)?;
        self.read_window_and_marks(damaged)?;
        // The new segment was begun before the marks were read back: it is the next roll that keeps them.
        Ok(())
    }

    fn read_newest(&mut self) -> Result<(), SegmentError> {
        let newest = self.newest;
        let complete = self.read_window_and_marks(newest)?;
        if !complete {
            let before = self.shared.state().segments.range(..newest).next_back().copied();
            if let Some(before) = before {
                let newer = std::mem::take(&mut self.marks);
                self.read_window_and_marks(before)?;
                for (source, marks) in newer {
                    for mark in marks {
                        remember(&mut self.marks, &source, mark, &self.window);
                    }
                }
            }
        }
        Ok(())
    }

    /// Reads one segment through. True if it began with a window record.
    fn read_window_and_marks(&mut self, first: u64) -> Result<bool, SegmentError> {
        let reader = Reader::open(&self.folder, first, self.identity.origin)?;
        let (origin, capacity) = (self.identity.origin, self.window.clone());
        let marks = std::mem::take(&mut self.marks);
        let mut found = Found { marks, release_point: 0, end: first, window: false, receipt: None };
        let mut damage = None;
        reader.scan(WINDOW_KEY, u64::MAX, |sequence, bytes| match record::decode(origin, sequence, bytes) {
            Ok(stored) => {
                found.take(sequence, stored.release_point, stored.content, &capacity);
                ControlFlow::Continue(())
            }
            Err(error) => {
                damage = Some(format!("record {sequence}: {error}"));
                ControlFlow::Break(())
            }
        })?;
        self.marks = found.marks;
        if let Some(reason) = damage {
            self.marks.clear();
            return Err(SegmentError::Damaged { path: segment::path(&self.folder, first), reason });
        }
        self.release_point = self.release_point.max(found.release_point);
        self.shared.change(|state| state.end = state.end.max(found.end));
        self.know_receipt(found.receipt);
        Ok(found.window)
    }

    fn adopt_agent_id(&mut self, options: &Options) -> Result<(), OpenError> {
        let Some(configured) = options.agent_id.as_ref().filter(|id| **id != self.identity.agent_id) else {
            return Ok(());
        };
        if self.release_point < self.shared.state().end {
            return Err(OpenError::OtherAgent {
                path: self.folder.path().to_owned(),
                found: self.identity.agent_id.clone(),
                configured: configured.clone(),
            });
        }
        self.identity.agent_id.clone_from(configured);
        self.write_identity().map_err(unopened)
    }
}

struct Found {
    marks: BTreeMap<String, VecDeque<Mark>>,
    release_point: u64,
    end: u64,
    window: bool,
    /// The latest day that has its place for a receipt.
    receipt: Option<i32>,
}

impl Found {
    fn take(&mut self, sequence: u64, release_point: u64, content: Content, capacity: &Capacity) {
        self.release_point = self.release_point.max(release_point);
        match content {
            Content::Window(window) => {
                self.window = true;
                for (source, marks) in window.marks {
                    for mark in marks {
                        remember(&mut self.marks, &source, mark, capacity);
                    }
                }
            }
            Content::Record(body) => {
                self.end = sequence + 1;
                if let Body::Daily(daily) = &body {
                    self.receipt = self.receipt.max(Some(daily.day));
                }
                if let Some((source, mark)) = mark_of(&body) {
                    remember(&mut self.marks, source, mark, capacity);
                }
            }
        }
    }
}

/// What the redelivery window remembers of a stored message.
pub(super) fn mark_of(body: &Body) -> Option<(&str, Mark)> {
    match body {
        Body::Reading(reading) => {
            let mark =
                Mark::of(&reading.sender, reading.packet_id, &reading.topic, &reading.payload, reading.self_identified);
            Some((&reading.source, mark))
        }
        Body::Dead(dead) => {
            Some((&dead.source, Mark::of(&dead.sender, dead.packet_id, &dead.topic, &dead.payload, false)))
        }
        Body::Gap(_) | Body::Daily(_) => None,
    }
}

fn unopened(error: super::error::QueueError) -> OpenError {
    match error {
        super::error::QueueError::Segment(error) => OpenError::Segment(error),
        super::error::QueueError::Write { path, source } => OpenError::Folder { path, source },
        other => OpenError::Folder { path: PathBuf::new(), source: io::Error::other(other.to_string()) },
    }
}

/// First sequences of the folder's segments.
pub(super) fn segments(folder: &Folder) -> io::Result<BTreeSet<u64>> {
    Ok(folder.names()?.iter().filter_map(|name| segment::first_of(name)).collect())
}

/// The folder's identity, and whether it was made just now.
pub(super) fn identity(
    folder: &Folder,
    options: &Options,
    segments: &BTreeSet<u64>,
) -> Result<(Identity, bool), OpenError> {
    let unusable = |source| OpenError::Folder { path: options.path.clone(), source };
    let reason = match Identity::read(folder) {
        Ok(Some(identity)) => return Ok((identity, false)),
        Ok(None) if segments.is_empty() => None,
        Ok(None) => Some("it is missing".to_owned()),
        Err(Unreadable::Refused(error)) => return Err(error),
        Err(Unreadable::Damaged(reason)) => Some(reason),
    };
    let agent_id = options.agent_id.clone().unwrap_or_else(|| options.default_agent_id.clone());
    let mut identity = Identity::new(&agent_id, options.hardware_serial.clone());
    let Some(reason) = reason else {
        identity.write(folder).map_err(unusable)?;
        return Ok((identity, true));
    };
    error!(%reason, "queue.toml is damaged: the queue goes on under a new queue id, and what is not known to be released is sent again");
    let path = folder.file(identity::FILE);
    if folder.has(&path).map_err(unusable)? {
        let stamp = Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
        let set_aside = folder.file(&format!("{}.damaged-{stamp}", identity::FILE));
        folder.disk.rename(&path, &set_aside).map_err(unusable)?;
    }
    if let Some(origin) = segments.iter().rev().find_map(|first| origin_of(folder, *first)) {
        identity.origin = origin;
    }
    identity.write(folder).map_err(unusable)?;
    Ok((identity, false))
}

/// The origin that a segment's own window record tells.
fn origin_of(folder: &Folder, first: u64) -> Option<u128> {
    // A segment that was not closed is repaired by the first opening for writing.
    drop(Active::open(folder, first));
    // The window record is never packed.
    let reader = Reader::open(folder, first, 0).ok()?;
    let mut origin = None;
    reader
        .scan(WINDOW_KEY, WINDOW_KEY + 1, |_, bytes| {
            origin = record::claimed_origin(bytes);
            ControlFlow::Break(())
        })
        .ok()?;
    origin
}

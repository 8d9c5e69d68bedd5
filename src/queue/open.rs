//! From a folder in whatever state a power cut left it to a store that takes readings.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tracing::{error, warn};

use super::carve;
use super::claim::{claim, unusable};
use super::dead_letter::DeadLetters;
use super::diary::Diary;
use super::disk::Disk;
use super::error::{OpenError, QueueError};
use super::folder::{Folder, is_full};
use super::identity::{self, Identity, Unreadable};
use super::inspect;
use super::limit::Limit;
use super::lock::{self, Lock};
use super::record::{self, Content, WINDOW_KEY};
use super::release;
use super::room::Room;
use super::salvage;
use super::segment::{self, Active, Reader, SegmentError};
use super::shared::{Shared, State};
use super::store::{Capacity, Store, remember};
use super::view;
use crate::clock::Clock;
use crate::config::settings::WhenFull;
use crate::metrics::Metrics;
use crate::reading::{Body, Mark, Received};

/// Segments asked whose they are, when the newest is damaged.
const WITNESSES: usize = 4;

/// What a queue is opened with.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder.
    pub path: PathBuf,
    /// Bytes the folder may take.
    pub max_size: u64,
    /// Bytes that stay free on the file system.
    pub min_free: u64,
    /// What happens when there is no room.
    pub when_full: WhenFull,
    /// Bytes of a segment's file, at which the next one begins.
    pub segment_size: u64,
    /// Sealed segments are packed when nothing was released for so long; see [`super::PACK_AFTER`].
    pub pack_after: Duration,
    /// Marks remembered of a source that `windows` does not name.
    pub redelivery_window: usize,
    /// Marks remembered of each source.
    pub windows: BTreeMap<String, usize>,
    /// Bytes of dead letters; above it the oldest are deleted.
    pub max_dead_letters: u64,
    /// Dead letters older than this are deleted; none: only the limit of size.
    pub dead_letters_max_age: Option<Duration>,
    /// Whether the figures of the card's wear are kept in the folder.
    pub keeps_wear: bool,
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
    let unusable = |source| unusable(&options.path, source);
    claim(folder)?;
    let lock = lock::take(folder)?;
    folder.remove_unfinished().map_err(unusable)?;
    // Names that were given before the last end may not be on the medium yet.
    let named = match folder.sync() {
        // Everything can be read and sent, which is what makes room. Nothing is appended before they are.
        Err(error) if is_full(&error) => {
            warn!(%error, "the disk is full: the queue takes nothing until there is room");
            false
        }
        synchronised => synchronised.map(|()| true).map_err(unusable)?,
    };
    let segments = segments(folder).map_err(unusable)?;
    let (identity, fresh) = identity(folder, options, &segments)?;
    release::settle(folder);
    let released = release::read(folder, identity.origin);
    let moved = matches!((&identity.hardware_serial, &options.hardware_serial), (Some(then), Some(now)) if then != now);
    let shared = Shared::new(State {
        queue_id: identity.queue_id(),
        end: segments.last().copied().unwrap_or(1),
        segments,
        release_point: released.unwrap_or(0),
        lost: identity.lost.clone(),
        dropped: identity.dropped.clone(),
        handed_out: 0,
        moved,
        stopped: false,
    });
    let mut store = Store {
        folder: folder.clone(),
        hardware_serial: options.hardware_serial.clone(),
        active: None,
        newest: 0,
        named,
        stray: None,
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
        wear: Diary::open(folder, options.keeps_wear),
        cut_short: false,
        newest_received: None,
        open_day: None,
        identity,
        room: Room::new(options.when_full, options.pack_after, Instant::now()),
    };
    if let Recovery::Foreign(origin) = store.recover(fresh)? {
        error!(
            "queue.toml is another queue's: this queue goes on under a new queue id, and what is not known to be released is sent again"
        );
        store.identity = replaced_identity(folder, options, Some(origin))?;
        let released = release::read(folder, store.identity.origin);
        (store.release_point, store.released_on_disk) = (released.unwrap_or(1), released.unwrap_or(0));
        let queue_id = store.identity.queue_id();
        store.shared.change(|state| {
            state.queue_id = queue_id;
            state.lost = Vec::new();
            state.dropped = Vec::new();
            state.release_point = released.unwrap_or(0);
            state.moved = false;
        });
        store.recover(false)?;
    }
    store.adopt_agent_id(options)?;
    store.keep_reserve();
    Ok((store, lock))
}

/// What a recovery found.
enum Recovery {
    Done,
    /// The segments are not of the queue that `queue.toml` names, but of one with this origin.
    Foreign(u128),
}

impl Store {
    fn recover(&mut self, fresh: bool) -> Result<Recovery, OpenError> {
        let newest = self.shared.state().segments.last().copied();
        match newest {
            None => {
                if !fresh {
                    // Without a note of any, a first start was cut short, most likely; a full disk has none either.
                    let why = match self.identity.newest {
                        0 => "nothing is in the queue: its first start was cut short, or its files are gone",
                        _ => "the queue's files are gone",
                    };
                    self.fork(why).map_err(unopened)?;
                }
                if self.identity.newest == 0 {
                    self.begin_segment().map_err(unopened)?;
                }
            }
            Some(newest) => {
                self.newest = newest;
                self.open_day = self.identity.daily.as_ref().and_then(|daily| daily.open_day);
                if let Some(origin) = self.recover_newest()? {
                    return Ok(Recovery::Foreign(origin));
                }
            }
        }
        self.recover_end().map_err(unopened)?;
        if fresh || (self.identity.hardware_serial.is_none() && self.hardware_serial.is_some()) {
            let serial = self.hardware_serial.clone();
            self.change_identity(|identity| identity.hardware_serial = serial).map_err(unopened)?;
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
        match self.unlink_released() {
            Err(error) if error.is_full() => warn!(%error, "released segments cannot be unlinked yet"),
            result => result.map_err(unopened)?,
        }
        let queue = &self.metrics.queue;
        queue.next_sequence.set(end);
        queue.release_point.set(release_point);
        self.tell_missing();
        match self.dead_letters.recover() {
            Ok(count) => queue.dead_letters.set(count),
            // None of them is needed to go on.
            Err(error) => warn!(%error, "the dead letters cannot be opened, will retry with the next one"),
        }
        self.measure();
        Ok(Recovery::Done)
    }

    /// No sequence is given out twice, whatever was lost.
    fn recover_end(&mut self) -> Result<(), QueueError> {
        if self.identity.newest > self.newest {
            return self.miss_newest();
        }
        // A power cut came after the loss was written down, and before a segment was begun behind it.
        let behind_loss = self.identity.lost.iter().map(|lost| lost.last + 1).max().unwrap_or(0);
        if behind_loss > self.shared.state().end { self.resume_at(behind_loss) } else { Ok(()) }
    }

    /// Opens the newest segment, or what can be read of it, and takes from it what a start needs to know. The origin of
    /// the segments, if it is not the one in `queue.toml`.
    fn recover_newest(&mut self) -> Result<Option<u128>, OpenError> {
        let opened = Reader::open(&self.folder, self.newest, self.identity.origin);
        self.cut_short = matches!(opened, Err(SegmentError::NotClosed { .. }));
        drop(opened);
        match Active::open(&self.folder, self.newest) {
            Ok(active) => self.active = Some(active),
            // Nothing can be written, but everything can be read and sent, which is what makes room.
            Err(error) if error.is_full() => {
                warn!(%error, "the disk is full: the queue takes nothing until there is room")
            }
            Err(error) if salvage::is_wreck(&self.folder, &error) => return self.salvage_newest(&error),
            Err(error) => return Err(error.into()),
        }
        match self.read_newest() {
            Err(error) if salvage::is_wreck(&self.folder, &error) => self.salvage_newest(&error),
            result => {
                result?;
                Ok(None)
            }
        }
    }

    fn salvage_newest(&mut self, error: &SegmentError) -> Result<Option<u128>, OpenError> {
        self.abandon();
        let claims = claims(&self.folder, &self.shared.state().segments.clone());
        // Another queue's would hardly name the newest of these files.
        let fits = usize::from(self.identity.newest == self.newest);
        if let Some(origin) = most_claimed(&claims)
            && votes(&claims, origin) > votes(&claims, self.identity.origin) + fits
        {
            return Ok(Some(origin));
        }
        error!(%error, "the newest segment is damaged: what can be read is kept");
        self.salvage(self.newest).map_err(unopened)?;
        Ok(None)
    }

    /// Takes the marks anew from what is left of the newest segments.
    pub(super) fn recover_marks(&mut self) {
        let segments: Vec<u64> = self.shared.state().segments.iter().rev().take(2).copied().collect();
        self.marks.clear();
        for first in segments.into_iter().rev() {
            if let Err(error) = self.read_window_and_marks(first) {
                warn!(%error, "the redelivery window is not complete: readings that are sent again may be stored again");
            }
        }
    }

    fn read_newest(&mut self) -> Result<(), SegmentError> {
        let newest = self.newest;
        let complete = self.read_window_and_marks(newest)?;
        if !complete {
            let before = self.shared.state().segments.range(..newest).next_back().copied();
            if let Some(before) = before {
                let newer = std::mem::take(&mut self.marks);
                // What is wrong there is mended when its turn comes, and nothing is wrong here.
                if let Err(error) = self.read_window_and_marks(before) {
                    warn!(%error, "the redelivery window is not complete: readings that are sent again may be stored again");
                }
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
        let reader = match Reader::open(&self.folder, first, self.identity.origin) {
            // The disk is full: it could not be opened for writing, and so not be repaired.
            Err(SegmentError::NotClosed { .. }) if first == self.newest && self.active.is_none() => {
                view::open_copy(&self.folder, first, self.identity.origin)?
            }
            reader => reader?,
        };
        let (origin, capacity) = (self.identity.origin, self.window.clone());
        let marks = std::mem::take(&mut self.marks);
        let mut found = Found { marks, release_point: 0, end: first, window: false, receipt: None, received: None };
        let mut damage = None;
        reader.scan(WINDOW_KEY, u64::MAX, |sequence, bytes| match record::decode(origin, sequence, bytes) {
            Ok(_) if sequence != WINDOW_KEY && sequence < found.end => {
                damage = Some(format!("record {sequence}: it does not belong here"));
                ControlFlow::Break(())
            }
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
        if first == self.newest || self.newest_received.is_none() {
            self.newest_received = found.received;
        }
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
        self.change_identity(|identity| identity.agent_id.clone_from(configured)).map_err(unopened)
    }
}

struct Found {
    marks: BTreeMap<String, VecDeque<Mark>>,
    release_point: u64,
    end: u64,
    window: bool,
    /// The latest day that has its place for a receipt.
    receipt: Option<i32>,
    /// When the last record was received.
    received: Option<Received>,
}

impl Found {
    fn take(&mut self, sequence: u64, release_point: u64, content: Content, capacity: &Capacity) {
        self.release_point = self.release_point.max(release_point);
        match content {
            Content::Window(window) => {
                self.window = true;
                self.received = self.received.or(Some(window.made));
                for (source, marks) in window.marks {
                    for mark in marks {
                        remember(&mut self.marks, &source, mark, capacity);
                    }
                }
            }
            Content::Record(body) => {
                self.end = sequence + 1;
                self.received = Some(*inspect::received(&body));
                if let Body::Daily(daily) = &body {
                    self.receipt = self.receipt.max(Some(daily.day));
                }
                if let (Some(source), marks) = body.marks() {
                    marks.iter().for_each(|mark| remember(&mut self.marks, source, *mark, capacity));
                }
            }
        }
    }
}

fn unopened(error: super::error::QueueError) -> OpenError {
    match error {
        super::error::QueueError::Segment(error) => OpenError::Segment(error),
        super::error::QueueError::Write { path, source } => unusable(&path, source),
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
    let Some(reason) = reason else {
        let identity = new_identity(options);
        identity.write(folder).map_err(unusable)?;
        return Ok((identity, true));
    };
    error!(%reason, "queue.toml is damaged: the queue goes on under a new queue id, and what is not known to be released is sent again");
    let origin = most_claimed(&claims(folder, segments));
    Ok((replaced_identity(folder, options, origin)?, false))
}

/// The origins that the files in the folder name themselves: the newest segments first, then `released`.
fn claims(folder: &Folder, segments: &BTreeSet<u64>) -> Vec<u128> {
    let newest = segments.iter().rev().take(WITNESSES);
    let claimed = newest.filter_map(|first| salvage::claimed_origin(folder, *first));
    claimed.chain(release::claimed_origin(folder)).collect()
}

/// Files of another queue may have got here, but hardly most of them. Of as many on either side, the first counts.
fn most_claimed(claims: &[u128]) -> Option<u128> {
    claims.iter().rev().max_by_key(|origin| votes(claims, **origin)).copied()
}

fn votes(claims: &[u128], origin: u128) -> usize {
    claims.iter().filter(|claim| **claim == origin).count()
}

fn new_identity(options: &Options) -> Identity {
    let agent_id = options.agent_id.clone().unwrap_or_else(|| options.default_agent_id.clone());
    Identity::new(&agent_id, options.hardware_serial.clone())
}

/// A new identity for segments that are there, in the place of one that is no good.
fn replaced_identity(folder: &Folder, options: &Options, origin: Option<u128>) -> Result<Identity, OpenError> {
    let unusable = |source| unusable(&options.path, source);
    let path = folder.file(identity::FILE);
    if folder.has(&path).map_err(unusable)? {
        carve::set_aside(folder, &path, Timestamp::now()).map_err(unusable)?;
        carve::keep_newest(folder).map_err(unusable)?;
    }
    let mut identity = new_identity(options);
    identity.origin = origin.unwrap_or(identity.origin);
    identity.write(folder).map_err(unusable)?;
    Ok(identity)
}

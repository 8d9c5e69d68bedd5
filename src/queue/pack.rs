//! Rewrites a sealed segment: its records packed, all of them or the thinned ones.
//!
//! The rewritten segment is made beside the old one, read back and compared, and takes its place in one rename, which is
//! the writer's to do. Every record is checked on the way.

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::block::Batch;
use super::disk::{Disk, LocalDisk};
use super::error::{OpenError, QueueError};
use super::folder::Folder;
use super::frame::Packer;
use super::identity::{FORMAT, Identity, Unreadable};
use super::lock;
use super::open::segments;
use super::record::{self, Content, Stored, WINDOW_KEY};
use super::release;
use super::segment::{self, Active, Reader, SegmentError};
use super::thin::Thinning;
use crate::reading::{Body, Gap, Reading};

/// Packed bytes in one transaction; what the database holds back until then fits its write buffer.
const FLUSH: usize = 512 << 10;

/// Why a forgotten reading is missing.
const FORGOTTEN: &str = "the device was forgotten";

/// What stays of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    All,
    /// The last reading of each interval.
    OneIn {
        seconds: u64,
    },
}

/// A rewritten segment, whole, not published.
#[derive(Debug)]
pub(super) struct Rewritten {
    pub unfinished: PathBuf,
    /// Bytes of its file.
    pub bytes: u64,
    /// Records that were left out, or became gaps.
    pub dropped: u64,
}

/// Rewrites the sealed segment `first`. None where it was cancelled; then, as after an error, nothing of it stays.
pub(super) fn rewrite(
    folder: &Folder,
    first: u64,
    origin: u128,
    keep: Keep,
    cancelled: &AtomicBool,
) -> Result<Option<Rewritten>, SegmentError> {
    let path = segment::path(folder, first);
    rewritten(folder, first, origin, cancelled, |source| match keep {
        Keep::All => Ok(Some(Choice::All)),
        Keep::OneIn { seconds } => Ok(source.thinned(seconds, &path)?.map(Choice::These)),
    })
}

/// Rewrites the sealed segment `first`; readings that `is_meant` points at become gaps.
pub(super) fn rewrite_without(
    folder: &Folder,
    first: u64,
    origin: u128,
    is_meant: &dyn Fn(&Reading) -> bool,
) -> Result<Option<Rewritten>, SegmentError> {
    rewritten(folder, first, origin, &AtomicBool::new(false), |_| Ok(Some(Choice::Without(is_meant))))
}

/// Which records stay as they are.
enum Choice<'a> {
    All,
    /// Rising; the others are left out.
    These(Vec<u64>),
    /// In place of such readings there are gaps.
    Without(&'a dyn Fn(&Reading) -> bool),
}

/// `choose` gives none where it was cancelled.
fn rewritten<'a>(
    folder: &Folder,
    first: u64,
    origin: u128,
    cancelled: &AtomicBool,
    choose: impl FnOnce(&Source<'_>) -> Result<Option<Choice<'a>>, SegmentError>,
) -> Result<Option<Rewritten>, SegmentError> {
    let unfinished = segment::replacement(folder, first);
    let source = Source { reader: Reader::open(folder, first, origin)?, origin, cancelled };
    let rewritten = choose(&source).and_then(|choice| match choice {
        Some(choice) => write(folder, &source, segment::path(folder, first), &choice, &unfinished),
        None => Ok(None),
    });
    if !matches!(rewritten, Ok(Some(_))) {
        // What cannot be removed now is removed at the next start.
        let _ = folder.remove_if_there(&unfinished);
    }
    rewritten
}

fn write(
    folder: &Folder,
    source: &Source<'_>,
    path: PathBuf,
    choice: &Choice<'_>,
    unfinished: &Path,
) -> Result<Option<Rewritten>, SegmentError> {
    let failed = |error: io::Error| SegmentError::Io { path: unfinished.to_owned(), source: error };
    let target = Active::begin(folder, unfinished.to_owned(), source.window(&path)?.into_iter())?;
    let mut pen = Pen { packer: Packer::new(source.origin).map_err(failed)?, target, batch: Batch::default() };
    let (mut kept, mut dropped) = (Digest::default(), 0);
    let complete = source.each(&path, |sequence, bytes, stored| {
        let gap = match choice {
            Choice::All => None,
            Choice::These(chosen) if chosen.binary_search(&sequence).is_ok() => None,
            Choice::These(_) => {
                dropped += 1;
                return Ok(());
            }
            Choice::Without(is_meant) => forgotten(sequence, stored, *is_meant),
        };
        let gap = gap.map(|gap| record::encode(source.origin, sequence, &gap)).transpose();
        let gap = gap.map_err(|error| failed(io::Error::other(error.to_string())))?;
        dropped += u64::from(gap.is_some());
        let bytes = gap.as_deref().unwrap_or(bytes);
        kept.add(sequence, bytes);
        pen.put(sequence, bytes).map_err(|error| error.at(unfinished))
    })?;
    if !complete {
        return Ok(None);
    }
    pen.finish().map_err(|error| error.at(unfinished))?;
    let reader = Reader::open_at(folder, unfinished.to_owned(), source.origin)?;
    let written = Source { reader, origin: source.origin, cancelled: source.cancelled };
    let mut found = Digest::default();
    if !written.each(unfinished, |sequence, bytes, _| {
        found.add(sequence, bytes);
        Ok(())
    })? {
        return Ok(None);
    }
    if found != kept {
        let reason = "it does not hold what was put into it".to_owned();
        return Err(SegmentError::Damaged { path: unfinished.to_owned(), reason });
    }
    let bytes = folder.disk.size(unfinished).map_err(failed)?;
    Ok(Some(Rewritten { unfinished: unfinished.to_owned(), bytes, dropped }))
}

/// What stands in a reading's place, if it is one of those that are meant.
fn forgotten(sequence: u64, stored: &Stored, is_meant: &dyn Fn(&Reading) -> bool) -> Option<Stored> {
    let Content::Record(Body::Reading(reading)) = &stored.content else { return None };
    is_meant(reading).then(|| {
        let gap = Gap { first: sequence, last: sequence, reason: FORGOTTEN.to_owned(), noticed: reading.received };
        Stored { release_point: stored.release_point, content: Content::Record(Body::Gap(gap)) }
    })
}

/// A segment whose records are checked as they are read.
struct Source<'a> {
    reader: Reader,
    origin: u128,
    cancelled: &'a AtomicBool,
}

impl Source<'_> {
    /// Shows all records but the window. False where it was cancelled.
    fn each(
        &self,
        path: &Path,
        mut show: impl FnMut(u64, &[u8], &Stored) -> Result<(), SegmentError>,
    ) -> Result<bool, SegmentError> {
        let (mut failed, mut complete) = (None, true);
        self.reader.scan(WINDOW_KEY + 1, u64::MAX, |sequence, bytes| {
            let shown = match record::decode(self.origin, sequence, bytes) {
                Ok(stored) => show(sequence, bytes, &stored),
                Err(error) => {
                    Err(SegmentError::Damaged { path: path.to_owned(), reason: format!("record {sequence}: {error}") })
                }
            };
            complete = !self.cancelled.load(Ordering::Relaxed);
            failed = shown.err();
            if failed.is_some() || !complete { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        match failed {
            Some(error) => Err(error),
            None => Ok(complete),
        }
    }

    /// The sequences that stay; none where it was cancelled.
    fn thinned(&self, every_s: u64, path: &Path) -> Result<Option<Vec<u64>>, SegmentError> {
        let mut thinning = Thinning::new(every_s);
        let complete = self.each(path, |sequence, _, stored| {
            if let Content::Record(body) = &stored.content {
                thinning.see(sequence, body);
            }
            Ok(())
        })?;
        Ok(complete.then(|| thinning.finish()))
    }

    /// The window record, without the marks: only the newest segment's are ever asked for, and they pack badly.
    fn window(&self, path: &Path) -> Result<Option<(u64, Vec<u8>)>, SegmentError> {
        let mut found = None;
        self.reader.scan(WINDOW_KEY, WINDOW_KEY + 1, |sequence, bytes| {
            found = Some(record::decode(self.origin, sequence, bytes));
            ControlFlow::Break(())
        })?;
        let damaged =
            |error: String| SegmentError::Damaged { path: path.to_owned(), reason: format!("window: {error}") };
        let Some(stored) = found else { return Ok(None) };
        let mut stored = stored.map_err(|error| damaged(error.to_string()))?;
        if let Content::Window(window) = &mut stored.content {
            window.marks.clear();
        }
        let bytes = record::encode(self.origin, WINDOW_KEY, &stored).map_err(|error| damaged(error.to_string()))?;
        Ok(Some((WINDOW_KEY, bytes)))
    }
}

/// Writes frames into the new segment.
struct Pen {
    packer: Packer,
    target: Active,
    batch: Batch,
}

/// Why a frame was not written.
enum PenError {
    Packer(io::Error),
    Segment(SegmentError),
}

impl PenError {
    fn at(self, path: &Path) -> SegmentError {
        match self {
            Self::Packer(source) => SegmentError::Io { path: path.to_owned(), source },
            Self::Segment(error) => error,
        }
    }
}

impl Pen {
    fn put(&mut self, sequence: u64, record: &[u8]) -> Result<(), PenError> {
        if self.packer.is_full(record.len()) {
            self.frame()?;
            if self.batch.size() >= FLUSH {
                self.flush()?;
            }
        }
        self.packer.add(sequence, record);
        Ok(())
    }

    fn frame(&mut self) -> Result<(), PenError> {
        if let Some((first, frame)) = self.packer.finish().map_err(PenError::Packer)? {
            self.batch.push_frame(first, &frame);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), PenError> {
        self.target.append(self.batch.blocks()).map_err(PenError::Segment)?;
        self.batch.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<(), PenError> {
        self.frame()?;
        if !self.batch.is_empty() {
            self.flush()?;
        }
        self.target.seal().map_err(PenError::Segment)
    }
}

/// Tells whether two rows of records are the same.
#[derive(Debug, Default, PartialEq, Eq)]
struct Digest {
    records: u64,
    bytes: u64,
    crc: u32,
}

impl Digest {
    fn add(&mut self, sequence: u64, bytes: &[u8]) {
        let mut crc = crc32fast::Hasher::new_with_initial(self.crc);
        crc.update(&sequence.to_le_bytes());
        crc.update(bytes);
        *self = Self { records: self.records + 1, bytes: self.bytes + bytes.len() as u64, crc: crc.finalize() };
    }
}

/// How far [`pack`] has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Segments looked at, of `segments`.
    pub done: usize,
    pub segments: usize,
    /// Segments that were packed.
    pub packed: usize,
    /// Bytes of those before and after.
    pub before: u64,
    pub after: u64,
}

/// Packs every sealed segment of a queue that no agent has open and that still waits for Kafka, oldest first. `progress`
/// is told after each; false from it ends the work, and what is done stays. A segment that is damaged is passed over:
/// the agent salvages it.
pub fn pack(folder: &Path, progress: &mut dyn FnMut(&Progress) -> bool) -> Result<Progress, PackError> {
    pack_on(Arc::new(LocalDisk), folder, progress)
}

/// [`pack`] on another disk than the machine's own.
pub fn pack_on(
    disk: Arc<dyn Disk>,
    path: &Path,
    progress: &mut dyn FnMut(&Progress) -> bool,
) -> Result<Progress, PackError> {
    let folder = Folder::new(disk, path);
    let unusable = |source| PackError::Open(OpenError::Folder { path: path.to_owned(), source });
    let missing = |reason: String| unusable(io::Error::new(io::ErrorKind::NotFound, reason));
    let mut identity = match Identity::read(&folder) {
        Ok(Some(identity)) => identity,
        Ok(None) => return Err(missing("there is no queue in it (no queue.toml)".to_owned())),
        Err(Unreadable::Refused(error)) => return Err(error.into()),
        Err(Unreadable::Damaged(reason)) => return Err(missing(format!("queue.toml is damaged: {reason}"))),
    };
    let _lock = lock::take(&folder)?;
    folder.remove_unfinished().map_err(unusable)?;
    if identity.format < FORMAT {
        identity.format = FORMAT;
        identity.write(&folder).map_err(unusable)?;
    }
    let released = release::read(&folder, identity.origin).unwrap_or(1);
    let all: Vec<u64> = segments(&folder).map_err(unusable)?.into_iter().collect();
    let waiting: Vec<u64> = all.windows(2).filter(|pair| pair[1] > released).map(|pair| pair[0]).collect();
    let mut so_far = Progress { segments: waiting.len(), ..Progress::default() };
    for first in waiting {
        match pack_one(&folder, first, identity.origin) {
            Ok(None) => {}
            Ok(Some((before, after))) => {
                so_far.packed += 1;
                so_far.before += before;
                so_far.after += after;
            }
            Err(error) if error.is_damage() => {
                tracing::warn!(%error, "a segment cannot be packed; the agent salvages it when it comes to it");
            }
            Err(error) => return Err(PackError::Queue(error.into())),
        }
        so_far.done += 1;
        if !progress(&so_far) {
            break;
        }
    }
    Ok(so_far)
}

/// Bytes before and after; none where nothing was gained.
fn pack_one(folder: &Folder, first: u64, origin: u128) -> Result<Option<(u64, u64)>, SegmentError> {
    let path = segment::path(folder, first);
    let failed = |source| SegmentError::Io { path: path.clone(), source };
    if Reader::open(folder, first, origin)?.is_packed()? {
        return Ok(None);
    }
    let before = folder.disk.size(&path).map_err(failed)?;
    let Some(rewritten) = rewrite(folder, first, origin, Keep::All, &AtomicBool::new(false))? else {
        return Ok(None);
    };
    if !is_worth_it(before, rewritten.bytes) {
        folder.remove_if_there(&rewritten.unfinished).map_err(failed)?;
        return Ok(None);
    }
    segment::publish(folder, &rewritten.unfinished, first)?;
    Ok(Some((before, rewritten.bytes)))
}

/// A packed file that is hardly smaller is not worth being read slower.
pub(super) fn is_worth_it(before: u64, after: u64) -> bool {
    after < before / 4 * 3
}

/// Why a queue was not packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Queue(#[from] QueueError),
}

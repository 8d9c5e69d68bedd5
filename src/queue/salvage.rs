//! What can be read of a segment that the database refuses, or that holds a record whose checksum does not fit.
//!
//! The damaged file stays, under a name with its date; the salvaged segment takes its place in one rename, so that a power
//! cut leaves one of the two. What is lost is known, and can be written down, before that.

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;

use jiff::Timestamp;
use redb::StorageBackend;

use super::carve::{self, Place};
use super::disk::Access;
use super::folder::{Folder, is_medium};
use super::frame;
use super::record::{self, HEADER, MAGIC, WINDOW_KEY};
use super::segment::{self, Active, SegmentError, guarded};

/// A damaged segment's file and what can be read of it.
pub(super) struct Wreck {
    folder: Folder,
    first: u64,
    file: Box<dyn StorageBackend>,
    /// Where a record stands, or a frame of packed ones, and the sequences in it.
    found: BTreeMap<u64, (Place, Vec<u64>)>,
}

impl Wreck {
    /// Looks through the segment `first`. Its sequences are at least `first` and below `end`.
    pub fn look_through(folder: &Folder, first: u64, end: u64, origin: u128) -> Result<Self, SegmentError> {
        let path = segment::path(folder, first);
        guarded(&path, || {
            let file = folder.disk.open(&path, Access::Read)?;
            let mut found = frames(&*file, first..end, origin)?;
            let packed: Vec<(u64, u64)> =
                found.iter().filter_map(|(first, (_, sequences))| Some((*first, *sequences.last()?))).collect();
            for (sequence, place) in records(&*file, first..end, origin)? {
                if !packed.iter().any(|(first, last)| (first..=last).contains(&&sequence)) {
                    found.insert(sequence, (place, vec![sequence]));
                }
            }
            Ok(Self { folder: folder.clone(), first, file, found })
        })
    }

    /// Of the records below `end` that can be read, rising; without the window record.
    pub fn sequences(&self, end: u64) -> Vec<u64> {
        let all = self.found.values().flat_map(|(_, sequences)| sequences.iter().copied());
        all.filter(|sequence| *sequence != WINDOW_KEY && *sequence < end).collect()
    }

    /// Only gives the damaged file another name, which it returns.
    pub fn set_aside(self, now: Timestamp) -> Result<PathBuf, SegmentError> {
        let path = segment::path(&self.folder, self.first);
        guarded(&path, || {
            let set_aside = carve::set_aside(&self.folder, &path, now)?;
            self.folder.disk.remove(&path)?;
            self.folder.sync()?;
            carve::keep_newest(&self.folder)?;
            Ok(set_aside)
        })
    }

    /// Puts what can be read in the place of the damaged file; returns that one's new name.
    pub fn replace(self, now: Timestamp) -> Result<PathBuf, SegmentError> {
        let path = segment::path(&self.folder, self.first);
        guarded(&path, || {
            let set_aside = carve::set_aside(&self.folder, &path, now)?;
            let records = self.found.iter().map(|(first, (place, _))| Ok((*first, place.read(&*self.file)?)));
            Active::create_sealed(&self.folder, self.first, records)?;
            carve::keep_newest(&self.folder)?;
            Ok(set_aside)
        })
    }
}

/// Whether a segment, or the dead letters, have to be salvaged: their content is at fault, or the medium refuses a part of
/// it, again and again.
pub(super) fn is_wreck(folder: &Folder, error: &SegmentError) -> bool {
    let SegmentError::Io { path, source } = error else { return error.is_damage() };
    is_medium(source) && folder.disk.open(path, Access::Read).is_ok_and(|file| !carve::is_readable(&*file))
}

/// Every whole record that stands alone or in a block.
fn records(
    file: &dyn StorageBackend,
    belongs: std::ops::Range<u64>,
    origin: u128,
) -> io::Result<impl Iterator<Item = (u64, Place)>> {
    let found = carve::carve(file, MAGIC, HEADER, record_length, |bytes| {
        let (sequence, _) = record::header(bytes).ok()?;
        let ours = sequence == WINDOW_KEY || belongs.contains(&sequence);
        (ours && record::decode(origin, sequence, bytes).is_ok()).then_some((sequence, ()))
    })?;
    Ok(found.into_iter().map(|(sequence, (place, ()))| (sequence, place)))
}

/// Every whole frame. It counts as a whole or not at all: its one checksum is over all of it.
fn frames(
    file: &dyn StorageBackend,
    belongs: std::ops::Range<u64>,
    origin: u128,
) -> io::Result<BTreeMap<u64, (Place, Vec<u64>)>> {
    let length = |header: &[u8]| frame::Header::read(header).ok().map(|header| header.size());
    carve::carve(file, frame::MAGIC, frame::HEADER, length, |bytes| {
        let header = frame::Header::read(bytes).ok()?;
        let (mut sequences, mut good) = (Vec::new(), true);
        let unpacked = frame::unpack(origin, bytes, |sequence, record| {
            good = record::decode(origin, sequence, record).is_ok() && belongs.contains(&sequence);
            sequences.push(sequence);
            if good { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        let whole = unpacked.is_ok() && good && sequences.first() == Some(&header.first);
        whole.then_some((header.first, sequences))
    })
}

fn record_length(header: &[u8]) -> Option<usize> {
    record::header(header).ok().map(|(_, body)| HEADER + body)
}

/// The origin that a segment's own window record tells, found without the database.
pub(super) fn claimed_origin(folder: &Folder, first: u64) -> Option<u128> {
    let file = folder.disk.open(&segment::path(folder, first), Access::Read).ok()?;
    let mut origin = None;
    carve::carve(&*file, MAGIC, HEADER, record_length, |bytes| {
        let (sequence, _) = record::header(bytes).ok()?;
        if sequence == WINDOW_KEY {
            origin = origin.or_else(|| record::claimed_origin(bytes));
        }
        None::<((), ())>
    })
    .ok()?;
    origin
}

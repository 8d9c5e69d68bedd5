//! What can be read of a segment that the database refuses, or that holds a record whose checksum does not fit.
//!
//! Every record, and every frame of packed ones, carries a header of its own (see [`super::record`], [`super::frame`]), so
//! they are found in the file's bytes without the database. Pages that the database had given up still hold the same records as they were appended, which makes more
//! than one copy of most. The damaged file stays, under a name with its date; the salvaged segment takes its place in
//! one rename, so that a power cut leaves one of the two.

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use redb::StorageBackend;

use super::disk::Access;
use super::folder::Folder;
use super::frame;
use super::record::{self, HEADER, MAGIC};
use super::segment::{self, Active, Failure, SegmentError, guarded};

/// Bytes of the file looked at in one step.
const STEP: usize = 1 << 20;
/// Damaged files that are kept; the oldest beyond that goes.
const KEPT: usize = 8;
const DAMAGED: &str = ".damaged-";

/// What was salvaged.
pub(super) struct Salvaged {
    /// Sequences of the records, rising; without the window record.
    pub sequences: Vec<u64>,
    /// The damaged file's new name.
    pub set_aside: PathBuf,
}

/// Replaces the segment `first` by what can be read of it. Its sequences are at least `first` and below `end`.
pub(super) fn salvage(
    folder: &Folder,
    first: u64,
    end: u64,
    origin: u128,
    now: Timestamp,
) -> Result<Salvaged, SegmentError> {
    let path = segment::path(folder, first);
    guarded(&path, || {
        let file = &*folder.disk.open(&path, Access::Read)?;
        let found = carve(file, origin, |sequence| sequence == record::WINDOW_KEY || (first..end).contains(&sequence))?;
        let set_aside = set_aside(folder, &path, now)?;
        let mut failed = None;
        let records = found.iter().map_while(|(sequence, place)| match place.read(file) {
            Ok(bytes) => Some((*sequence, bytes)),
            Err(error) => {
                failed = Some(error);
                None
            }
        });
        Active::create(folder, first, records)?.seal()?;
        if let Some(error) = failed {
            return Err(Failure::Io(error));
        }
        keep_newest(folder)?;
        let sequences = found.into_iter().flat_map(|(sequence, place)| place.sequences(sequence));
        let sequences = sequences.filter(|sequence| *sequence != record::WINDOW_KEY).collect();
        Ok(Salvaged { sequences, set_aside })
    })
}

struct Place {
    offset: u64,
    length: usize,
    /// Of the records after the first, in a frame of packed ones.
    others: Vec<u64>,
}

impl Place {
    fn sequences(self, first: u64) -> impl Iterator<Item = u64> {
        std::iter::once(first).chain(self.others)
    }

    /// None where it would reach beyond the file's end, or cannot be read.
    fn read_within(&self, file: &dyn StorageBackend, size: u64) -> Option<Vec<u8>> {
        let end = self.offset.checked_add(self.length as u64)?;
        if end > size { None } else { self.read(file).ok() }
    }

    fn read(&self, file: &dyn StorageBackend) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.length];
        file.read(self.offset, &mut bytes)?;
        Ok(bytes)
    }
}

/// Every whole record of the file, alone or in a whole frame; unreadable blocks are passed over.
fn carve(file: &dyn StorageBackend, origin: u128, belongs: impl Fn(u64) -> bool) -> io::Result<BTreeMap<u64, Place>> {
    let size = file.len()?;
    let mut found = BTreeMap::new();
    let mut buffer = vec![0; STEP + MAGIC.len() - 1];
    let mut start = 0;
    while start < size {
        let filled = read_some(file, size, &mut buffer, start);
        for at in candidates(&buffer[..filled]) {
            let offset = start + at as u64;
            let whole = if buffer[at..].starts_with(&MAGIC) { whole_record } else { whole_frame };
            if let Some((sequence, place)) = whole(file, size, offset, origin)
                && belongs(sequence)
                && place.others.last().is_none_or(|last| belongs(*last))
            {
                found.entry(sequence).or_insert(place);
            }
        }
        start += STEP as u64;
    }
    Ok(found)
}

fn candidates(bytes: &[u8]) -> impl Iterator<Item = usize> {
    let magic = |window: &[u8]| window == MAGIC || window == frame::MAGIC;
    bytes.windows(MAGIC.len()).enumerate().filter(move |(_, window)| magic(window)).map(|(at, _)| at)
}

/// As many bytes as can be read at `offset`; a block that the medium refuses reads as zeros.
fn read_some(file: &dyn StorageBackend, size: u64, buffer: &mut [u8], offset: u64) -> usize {
    const BLOCK: usize = 4096;
    let length = usize::try_from(size.saturating_sub(offset)).map_or(buffer.len(), |left| left.min(buffer.len()));
    for (number, block) in buffer[..length].chunks_mut(BLOCK).enumerate() {
        if file.read(offset + (number * BLOCK) as u64, block).is_err() {
            block.fill(0);
        }
    }
    length
}

fn whole_record(file: &dyn StorageBackend, size: u64, offset: u64, origin: u128) -> Option<(u64, Place)> {
    let mut header = [0; HEADER];
    file.read(offset, &mut header).ok()?;
    let (sequence, body) = record::header(&header).ok()?;
    let place = Place { offset, length: HEADER + body, others: Vec::new() };
    let bytes = place.read_within(file, size)?;
    record::decode(origin, sequence, &bytes).ok()?;
    Some((sequence, place))
}

/// A frame counts as a whole or not at all: its one checksum is over all of it.
fn whole_frame(file: &dyn StorageBackend, size: u64, offset: u64, origin: u128) -> Option<(u64, Place)> {
    let mut header = [0; frame::HEADER];
    file.read(offset, &mut header).ok()?;
    let header = frame::Header::read(&header).ok()?;
    let mut place = Place { offset, length: header.size(), others: Vec::new() };
    let bytes = place.read_within(file, size)?;
    let mut good = true;
    let unpacked = frame::unpack(origin, &bytes, |sequence, record| {
        good = record::decode(origin, sequence, record).is_ok();
        place.others.push(sequence);
        if good { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    if unpacked.is_err() || !good || place.others.first() != Some(&header.first) {
        return None;
    }
    place.others.remove(0);
    Some((header.first, place))
}

/// Gives the damaged file a second name, so that it outlives being replaced.
fn set_aside(folder: &Folder, path: &Path, now: Timestamp) -> io::Result<PathBuf> {
    let stamp = now.strftime("%Y%m%dT%H%M%SZ");
    for attempt in 0..1000 {
        let mut name = path.as_os_str().to_owned();
        name.push(format!("{DAMAGED}{stamp}"));
        if attempt > 0 {
            name.push(format!("-{attempt}"));
        }
        match folder.disk.link(path, Path::new(&name)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
            Ok(()) => return Ok(name.into()),
        }
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, "no free name to set it aside under"))
}

fn keep_newest(folder: &Folder) -> io::Result<()> {
    let mut damaged = Vec::new();
    for name in folder.names()? {
        if let Some((_, date)) = name.split_once(DAMAGED) {
            damaged.push((date.to_owned(), folder.file(&name)));
        }
    }
    damaged.sort();
    let surplus = damaged.len().saturating_sub(KEPT);
    for (_, path) in damaged.into_iter().take(surplus) {
        folder.remove_if_there(&path)?;
    }
    Ok(())
}

//! What can be read of a segment that the database refuses, or that holds a record whose checksum does not fit.
//!
//! Every record carries a header of its own (see [`super::record`]), so they are found in the file's bytes without the
//! database. Pages that the database had given up still hold the same records as they were appended, which makes more
//! than one copy of most. The damaged file stays, under a name with its date; the salvaged segment takes its place in
//! one rename, so that a power cut leaves one of the two.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

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
    folder: &Path,
    first: u64,
    end: u64,
    origin: u128,
    now: Timestamp,
) -> Result<Salvaged, SegmentError> {
    let path = segment::path(folder, first);
    guarded(&path, || {
        let file = File::open(&path)?;
        let found =
            carve(&file, origin, |sequence| sequence == record::WINDOW_KEY || (first..end).contains(&sequence))?;
        let set_aside = set_aside(&path, now)?;
        let mut failed = None;
        let records = found.iter().map_while(|(sequence, place)| match place.read(&file) {
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
        let sequences = found.into_keys().filter(|sequence| *sequence != record::WINDOW_KEY).collect();
        Ok(Salvaged { sequences, set_aside })
    })
}

struct Place {
    offset: u64,
    length: usize,
}

impl Place {
    fn read(&self, file: &File) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.length];
        file.read_exact_at(&mut bytes, self.offset)?;
        Ok(bytes)
    }
}

/// Every whole record of the file; unreadable blocks are passed over.
fn carve(file: &File, origin: u128, belongs: impl Fn(u64) -> bool) -> io::Result<BTreeMap<u64, Place>> {
    let size = file.metadata()?.len();
    let mut found = BTreeMap::new();
    let mut buffer = vec![0; STEP + MAGIC.len() - 1];
    let mut start = 0;
    while start < size {
        let filled = read_some(file, &mut buffer, start);
        for at in candidates(&buffer[..filled]) {
            let offset = start + at as u64;
            if let Some((sequence, place)) = whole(file, size, offset, origin)
                && belongs(sequence)
            {
                found.entry(sequence).or_insert(place);
            }
        }
        start += STEP as u64;
    }
    Ok(found)
}

fn candidates(bytes: &[u8]) -> impl Iterator<Item = usize> {
    bytes.windows(MAGIC.len()).enumerate().filter(|(_, window)| *window == MAGIC).map(|(at, _)| at)
}

/// As many bytes as can be read at `offset`; a block that the medium refuses reads as zeros.
fn read_some(file: &File, buffer: &mut [u8], offset: u64) -> usize {
    const BLOCK: usize = 4096;
    let mut filled = 0;
    while filled < buffer.len() {
        let end = (filled + BLOCK).min(buffer.len());
        match file.read_at(&mut buffer[filled..end], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(_) => {
                buffer[filled..end].fill(0);
                filled = end;
            }
        }
    }
    filled
}

fn whole(file: &File, size: u64, offset: u64, origin: u128) -> Option<(u64, Place)> {
    let mut header = [0; HEADER];
    file.read_exact_at(&mut header, offset).ok()?;
    let (sequence, body) = record::header(&header).ok()?;
    let length = HEADER + body;
    if offset + length as u64 > size {
        return None;
    }
    let place = Place { offset, length };
    let bytes = place.read(file).ok()?;
    record::decode(origin, sequence, &bytes).ok()?;
    Some((sequence, place))
}

/// Gives the damaged file a second name, so that it outlives being replaced.
fn set_aside(path: &Path, now: Timestamp) -> io::Result<PathBuf> {
    let stamp = now.strftime("%Y%m%dT%H%M%SZ");
    for attempt in 0..1000 {
        let mut name = path.as_os_str().to_owned();
        name.push(format!("{DAMAGED}{stamp}"));
        if attempt > 0 {
            name.push(format!("-{attempt}"));
        }
        match fs::hard_link(path, &name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
            Ok(()) => return Ok(name.into()),
        }
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, "no free name to set it aside under"))
}

fn keep_newest(folder: &Path) -> io::Result<()> {
    let mut damaged = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if let Some((_, date)) = name.split_once(DAMAGED) {
            damaged.push((date.to_owned(), path));
        }
    }
    damaged.sort();
    let surplus = damaged.len().saturating_sub(KEPT);
    for (_, path) in damaged.into_iter().take(surplus) {
        segment::remove_if_there(&path)?;
    }
    Ok(())
}

//! Finds whole records in a file's bytes, without the database around them.
//!
//! Whatever the queue stores begins with a header of its own: a magic number, a length, a checksum. Pages that the
//! database had given up still hold the same records as they were appended, which makes more than one copy of most.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use redb::StorageBackend;

use super::folder::{Folder, TRIES, is_medium};

/// First bytes of everything that can be found.
pub(super) type Magic = [u8; 3];
/// Bytes of the file looked at in one step.
const STEP: usize = 1 << 20;
/// Damaged files that are kept; the oldest beyond that goes.
const KEPT: usize = 8;
const DAMAGED: &str = ".damaged-";

/// Where something whole begins, and how many bytes it has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub offset: u64,
    pub length: usize,
}

impl Place {
    pub fn read(&self, file: &dyn StorageBackend) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.length];
        file.read(self.offset, &mut bytes)?;
        Ok(bytes)
    }
}

/// The first copy of everything whole; unreadable blocks are passed over. `length` tells from `header` bytes how many it
/// has, `whole` tells from all of them what it is.
pub(super) fn carve<K: Ord, V>(
    file: &dyn StorageBackend,
    magic: Magic,
    header: usize,
    length: impl Fn(&[u8]) -> Option<usize>,
    mut whole: impl FnMut(&[u8]) -> Option<(K, V)>,
) -> io::Result<BTreeMap<K, (Place, V)>> {
    let size = file.len()?;
    let mut found = BTreeMap::new();
    let mut buffer = vec![0; STEP + magic.len() - 1];
    let mut start = 0;
    while start < size {
        let filled = read_some(file, size, &mut buffer, start);
        for at in candidates(&buffer[..filled], magic) {
            let offset = start + at as u64;
            let Some(length) = header_at(file, offset, header).and_then(|bytes| length(&bytes)) else { continue };
            let place = Place { offset, length };
            if offset.checked_add(length as u64).is_some_and(|end| end <= size)
                && let Ok(bytes) = place.read(file)
                && let Some((key, value)) = whole(&bytes)
            {
                found.entry(key).or_insert((place, value));
            }
        }
        start += STEP as u64;
    }
    Ok(found)
}

/// Whether the medium gives every byte of a file.
pub(super) fn is_readable(file: &dyn StorageBackend) -> bool {
    let Ok(size) = file.len() else { return true };
    let mut buffer = vec![0; STEP];
    (0..size).step_by(STEP).all(|offset| {
        let length = usize::try_from(size - offset).map_or(STEP, |left| left.min(STEP));
        (0..TRIES.0).any(|again| {
            if again > 0 {
                std::thread::sleep(TRIES.1);
            }
            !file.read(offset, &mut buffer[..length]).is_err_and(|error| is_medium(&error))
        })
    })
}

fn candidates(bytes: &[u8], magic: Magic) -> impl Iterator<Item = usize> {
    bytes.windows(magic.len()).enumerate().filter(move |(_, window)| *window == magic).map(|(at, _)| at)
}

fn header_at(file: &dyn StorageBackend, offset: u64, length: usize) -> Option<Vec<u8>> {
    let place = Place { offset, length };
    place.read(file).ok()
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

/// Gives a damaged file a second name, with the date, so that it outlives being replaced.
pub(super) fn set_aside(folder: &Folder, path: &Path, now: Timestamp) -> io::Result<PathBuf> {
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

/// Removes the oldest of the files that were set aside, beyond those that are kept.
pub(super) fn keep_newest(folder: &Folder) -> io::Result<()> {
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

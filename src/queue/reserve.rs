//! `reserve`: room kept back for what must be written even on a full disk, so that it can be drained: a new queue id, and
//! the first dead letters. Its content means nothing.

use std::io;

use super::folder::Folder;

pub(super) const FILE: &str = "reserve";
/// `queue.toml` with its filters, and a reading of the default `max_reading_size` in a database of its own; no more than
/// this part of `max_size`, to which it counts.
const SIZE: u64 = 512 * 1024;
const PART: u64 = 64;

/// Keeps the room back, if it is there. A file whose blocks a power cut has taken is made anew.
pub(super) fn keep(folder: &Folder, max_size: u64) -> io::Result<()> {
    let size = SIZE.min(max_size / PART);
    let path = folder.file(FILE);
    match folder.disk.size(&path) {
        Ok(kept) if kept >= size => return Ok(()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    folder.disk.allocate(&path, size).or_else(|error| {
        folder.remove_if_there(&path)?;
        Err(error)
    })
}

/// Gives the room to whoever writes next. False where there was none.
pub(super) fn give(folder: &Folder) -> io::Result<bool> {
    match folder.disk.remove(&folder.file(FILE)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::disk::LocalDisk;
    use super::*;

    /// Promise 5: the room is there until it is given, and can be kept again.
    #[test]
    fn room_is_kept_and_given_once() {
        use std::os::unix::fs::MetadataExt;
        let place = tempfile::tempdir().expect("a temporary folder");
        let folder = Folder::new(Arc::new(LocalDisk), place.path());
        assert!(!give(&folder).expect("nothing there"));
        for _ in 0..2 {
            keep(&folder, u64::MAX).expect("room");
            let kept = std::fs::metadata(folder.file(FILE)).expect("kept");
            assert!(kept.len() == SIZE && kept.blocks() * 512 >= SIZE, "blocks, not a hole");
        }
        assert!(give(&folder).expect("given"));
        assert!(!give(&folder).expect("given once"));
    }
}

//! `reserve`: room kept back for what must be written even on a full disk, so that it can be drained: a new queue id, and
//! the first dead letters. Its content means nothing.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;

use nix::fcntl::{FallocateFlags, fallocate};

use super::segment::remove_if_there;

pub(super) const FILE: &str = "reserve";
/// `queue.toml` with its filters, and a reading of the default `max_reading_size` in a database of its own; no more than
/// this part of `max_size`, to which it counts.
const SIZE: u64 = 512 * 1024;
const PART: u64 = 64;

/// Keeps the room back, if it is there. A file whose blocks a power cut has taken is made anew.
pub(super) fn keep(folder: &Path, max_size: u64) -> io::Result<()> {
    let size = SIZE.min(max_size / PART);
    let path = folder.join(FILE);
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path)?;
    if file.metadata()?.len() >= size {
        return Ok(());
    }
    let length = i64::try_from(size).map_err(io::Error::other)?;
    // Blocks without writes: a card wears by writing.
    match fallocate(&file, FallocateFlags::empty(), 0, length) {
        Ok(()) => Ok(()),
        Err(error) => {
            remove_if_there(&path)?;
            Err(error.into())
        }
    }
}

/// Gives the room to whoever writes next. False where there was none.
pub(super) fn give(folder: &Path) -> io::Result<bool> {
    match fs::remove_file(folder.join(FILE)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Promise 5: the room is there until it is given, and can be kept again.
    #[test]
    fn room_is_kept_and_given_once() {
        use std::os::unix::fs::MetadataExt;
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert!(!give(folder.path()).expect("nothing there"));
        for _ in 0..2 {
            keep(folder.path(), u64::MAX).expect("room");
            let kept = fs::metadata(folder.path().join(FILE)).expect("kept");
            assert!(kept.len() == SIZE && kept.blocks() * 512 >= SIZE, "blocks, not a hole");
        }
        assert!(give(folder.path()).expect("given"));
        assert!(!give(folder.path()).expect("given once"));
    }
}

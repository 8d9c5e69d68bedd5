//! `released`: the release point, for when no record carries it: at a pause, at a stop, before an unlink.
//!
//! One line of text: origin (32 hexadecimal digits), next sequence (20 digits), CRC-32 of the two (8 hexadecimal digits). A
//! file that does not fit is ignored: the release point that the newest record carries is older, never wrong.
//!
//! The line has always the same length and is made at the first start, so that on a full disk it can be written where it
//! stands: without it nothing could be unlinked, and the disk would stay full.

use std::io;

use super::folder::Folder;

pub(super) const FILE: &str = "released";

/// The release point kept in `folder`; none where there is none that can be trusted.
pub(super) fn read(folder: &Folder, origin: u128) -> Option<u64> {
    let text = String::from_utf8(folder.read(FILE).ok()?).ok()?;
    let mut words = text.split_whitespace();
    let (owner, next, crc) = (words.next()?, words.next()?, words.next()?);
    let next: u64 = next.parse().ok()?;
    let fits = owner == format!("{origin:032x}") && crc == checksum(owner, next);
    fits.then_some(next)
}

/// The origin of the queue that the file in `folder` belongs to, if it is whole.
pub(super) fn claimed_origin(folder: &Folder) -> Option<u128> {
    let text = String::from_utf8(folder.read(FILE).ok()?).ok()?;
    let origin = u128::from_str_radix(text.split_whitespace().next()?, 16).ok()?;
    read(folder, origin).map(|_| origin)
}

/// Has the file read as the medium has it: it may have been written where it stands, and not have been flushed.
pub(super) fn settle(folder: &Folder) {
    match folder.disk.drop_cache(&folder.file(FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::debug!(%error, "the release point is read from memory");
        }
        _ => {}
    }
}

/// Durable when it returns.
pub(super) fn write(folder: &Folder, origin: u128, next: u64) -> io::Result<()> {
    let line = line(origin, next);
    match folder.replace(FILE, line.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::StorageFull => overwrite(folder, &line),
        result => result,
    }
}

/// In its own place: a power cut may leave a line that does not fit, which is ignored.
fn overwrite(folder: &Folder, line: &str) -> io::Result<()> {
    folder.disk.overwrite(&folder.file(FILE), line.as_bytes())
}

fn line(origin: u128, next: u64) -> String {
    let owner = format!("{origin:032x}");
    let crc = checksum(&owner, next);
    format!("{owner} {next:020} {crc}\n")
}

fn checksum(owner: &str, next: u64) -> String {
    format!("{:08x}", crc32fast::hash(format!("{owner} {next}").as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use super::super::disk::LocalDisk;
    use super::*;

    /// Promise 2: a release point of another queue, or a damaged one, releases nothing.
    #[test]
    fn only_an_own_and_whole_file_is_believed() {
        let temporary = tempfile::tempdir().expect("a temporary folder");
        let folder = &Folder::new(Arc::new(LocalDisk), temporary.path());
        assert_eq!(read(folder, 1), None);
        write(folder, 1, 42).expect("written");
        assert_eq!(read(folder, 1), Some(42));
        assert_eq!(read(folder, 2), None);
        overwrite(folder, &line(1, u64::MAX)).expect("written");
        assert_eq!(read(folder, 1), Some(u64::MAX));
        overwrite(folder, &line(1, 42)).expect("written");
        let path = folder.file(FILE);
        let text = fs::read_to_string(&path).expect("text").replace("42 ", "43 ");
        fs::write(&path, text).expect("written");
        assert_eq!(read(folder, 1), None);
    }
}

//! What can be read of a dying card: every file of a queue, block by block, into a folder of this machine. The card is
//! opened for reading only.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::queue;
use crate::queue::mend::Mended;

/// Bytes read at once where all is well.
const STEP: usize = 1 << 20;
/// Where a step fails it is read in these: what a card's controller reads at least.
const BLOCK: usize = 4096;
/// The record of what was copied, in the work folder.
pub const RECORD: &str = "rescue.toml";

/// What was copied, and from what.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Everything was read that could be.
    pub complete: bool,
    /// What was wrong with it: found once, before anything was sent and could be forgotten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<Mended>,
    #[serde(default)]
    pub file: Vec<Copied>,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copied {
    pub name: String,
    pub size: u64,
    /// When it was changed last, as the card has it: tells a card that has lived on since.
    pub modified: i64,
    /// Bytes that could not be read; zeros stand in their place.
    #[serde(default)]
    pub unreadable: u64,
    #[serde(default)]
    pub places: u64,
    #[serde(default)]
    pub done: bool,
}

impl Record {
    pub fn read(work: &Path) -> Option<Self> {
        toml::from_str(&fs::read_to_string(work.join(RECORD)).ok()?).ok()
    }

    pub fn write(&self, work: &Path) -> io::Result<()> {
        let unfinished = work.join("rescue.new");
        fs::write(&unfinished, toml::to_string(self).map_err(io::Error::other)?)?;
        File::open(&unfinished)?.sync_all()?;
        fs::rename(unfinished, work.join(RECORD))
    }

    /// Whether it is of a card that holds `listing`.
    pub fn is_of(&self, listing: &[Copied]) -> bool {
        let same = |a: &Copied, b: &Copied| a.name == b.name && a.size == b.size && a.modified == b.modified;
        self.file.len() == listing.len() && self.file.iter().zip(listing).all(|(a, b)| same(a, b))
    }

    pub fn unreadable(&self) -> (u64, u64) {
        self.file.iter().fold((0, 0), |(bytes, places), file| (bytes + file.unreadable, places + file.places))
    }

    pub fn size(&self) -> u64 {
        self.file.iter().map(|file| file.size).sum()
    }
}

/// The files of the queue in `card`, by name.
pub fn listing(card: &Path) -> io::Result<Vec<Copied>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(card)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !queue::is_needed(&name) {
            continue;
        }
        // What cannot be looked at is not readable either, but it was there.
        let (size, modified) =
            entry.metadata().map_or((0, 0), |it| (if it.is_file() { it.len() } else { 0 }, it.mtime()));
        files.push(Copied { name, size, modified, unreadable: 0, places: 0, done: false });
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

/// Copies what `listing` names from `card` to `work`; goes on where an earlier attempt was stopped. `progress` is told the
/// bytes done and the name of the file; it says whether to go on.
pub fn copy(
    card: &Path,
    work: &Path,
    listing: Vec<Copied>,
    mut progress: impl FnMut(u64, &str) -> bool,
) -> io::Result<Record> {
    let mut record = Record::read(work).filter(|record| record.is_of(&listing)).unwrap_or(Record {
        complete: false,
        found: None,
        file: listing,
    });
    let mut done = 0;
    for at in 0..record.file.len() {
        let mut file = record.file[at].clone();
        if !file.done {
            let before = done;
            let whole = one(card, work, &mut file, |part, name| progress(before + part, name))?;
            if !whole {
                return Ok(record);
            }
            file.done = true;
            record.file[at] = file.clone();
            record.write(work)?;
        }
        done += file.size;
    }
    record.complete = true;
    record.write(work)?;
    Ok(record)
}

fn one(card: &Path, work: &Path, file: &mut Copied, mut progress: impl FnMut(u64, &str) -> bool) -> io::Result<bool> {
    let target = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(work.join(&file.name))?;
    target.set_len(file.size)?;
    let source = File::open(card.join(&file.name));
    let mut gaps = Gaps::default();
    let whole = transfer(
        file.size,
        |buffer, offset| match &source {
            Ok(source) => source.read_at(buffer, offset),
            Err(error) => Err(error.kind().into()),
        },
        |bytes, offset| target.write_all_at(bytes, offset),
        &mut gaps,
        |done| progress(done, &file.name),
    )?;
    target.sync_all()?;
    (file.unreadable, file.places) = (gaps.bytes, gaps.places);
    Ok(whole)
}

/// What could not be read.
#[derive(Debug, Default, PartialEq, Eq)]
struct Gaps {
    bytes: u64,
    places: u64,
    /// Where the last one ends.
    end: Option<u64>,
}

impl Gaps {
    fn add(&mut self, offset: u64, length: u64) {
        self.bytes += length;
        if self.end != Some(offset) {
            self.places += 1;
        }
        self.end = Some(offset + length);
    }
}

/// Reads `size` bytes and writes those that can be read. A file that ends early has a gap at its end. False where
/// `progress` stopped it.
fn transfer(
    size: u64,
    mut read: impl FnMut(&mut [u8], u64) -> io::Result<usize>,
    mut write: impl FnMut(&[u8], u64) -> io::Result<()>,
    gaps: &mut Gaps,
    mut progress: impl FnMut(u64) -> bool,
) -> io::Result<bool> {
    let mut buffer = vec![0; STEP];
    let (mut offset, mut small_until) = (0, 0);
    while offset < size {
        if !progress(offset) {
            return Ok(false);
        }
        let step = if offset < small_until { BLOCK } else { STEP };
        let wanted = usize::try_from(size - offset).unwrap_or(STEP).min(step);
        match read(&mut buffer[..wanted], offset) {
            Ok(0) => {
                gaps.add(offset, size - offset);
                break;
            }
            Ok(length) => {
                write(&buffer[..length], offset)?;
                offset += length as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) if wanted > BLOCK => small_until = offset + wanted as u64,
            Err(_) => {
                gaps.add(offset, wanted as u64);
                offset += wanted as u64;
            }
        }
    }
    progress(size);
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Promise 5: every byte that the card still gives is copied, to its own place, and every other is counted.
        #[test]
        fn all_that_can_be_read_is_read(
            size in 0u64..6_000_000,
            bad in proptest::collection::btree_set(0u64..1500, 0..20),
            shorter in 0u64..9_000,
        ) {
            let bad: BTreeSet<u64> = bad;
            let there = size.saturating_sub(if shorter > 8_000 { shorter } else { 0 });
            let byte = |at: u64| (at % 251) as u8 + 1;
            let read = |buffer: &mut [u8], offset: u64| {
                let end = (offset + buffer.len() as u64).min(there);
                let blocks = offset / BLOCK as u64..end.div_ceil(BLOCK as u64);
                if blocks.into_iter().any(|block| bad.contains(&block)) {
                    return Err(io::Error::from_raw_os_error(nix::errno::Errno::EIO as i32));
                }
                let length = end.saturating_sub(offset) as usize;
                buffer[..length].iter_mut().enumerate().for_each(|(at, to)| *to = byte(offset + at as u64));
                Ok(length)
            };
            let mut copy = vec![0; size as usize];
            let write = |bytes: &[u8], offset: u64| {
                copy[offset as usize..][..bytes.len()].copy_from_slice(bytes);
                Ok(())
            };
            let mut gaps = Gaps::default();
            prop_assert!(transfer(size, read, write, &mut gaps, |_| true).expect("it is written"));
            let mut missing = 0;
            for (at, found) in copy.iter().enumerate() {
                let at = at as u64;
                let readable = at < there && !bad.contains(&(at / BLOCK as u64));
                missing += u64::from(!readable);
                prop_assert_eq!(*found, if readable { byte(at) } else { 0 }, "byte {}", at);
            }
            prop_assert_eq!(gaps.bytes, missing);
        }
    }

    /// Promise 3: a copy that was stopped goes on; one of a card that has lived on since is not taken for it.
    #[test]
    fn a_stopped_copy_goes_on() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (card, work) = (folder.path().join("card"), folder.path().join("work"));
        fs::create_dir_all(&card).expect("made");
        fs::create_dir_all(&work).expect("made");
        for (name, text) in [("queue.toml", "a"), ("released", "b"), ("lock", "1"), ("00000000000000000001.redb", "c")]
        {
            fs::write(card.join(name), text).expect("written");
        }
        // A file that cannot be read at all.
        fs::create_dir(card.join("00000000000000000009.redb")).expect("made");
        let names: Vec<_> = listing(&card).expect("listed").into_iter().map(|file| file.name).collect();
        assert_eq!(names, ["00000000000000000001.redb", "00000000000000000009.redb", "queue.toml", "released"]);
        let stopped =
            copy(&card, &work, listing(&card).expect("listed"), |_, name| name != "queue.toml").expect("copied");
        assert!(!stopped.complete);
        let mut seen = Vec::new();
        let whole = copy(&card, &work, listing(&card).expect("listed"), |_, name| {
            seen.push(name.to_owned());
            true
        });
        let whole = whole.expect("copied");
        assert!(whole.complete && !seen.contains(&"00000000000000000001.redb".to_owned()), "{seen:?}");
        assert_eq!(fs::read_to_string(work.join("released")).expect("read"), "b");
        assert!(Record::read(&work).expect("kept").is_of(&listing(&card).expect("listed")));
        fs::write(card.join("released"), "newer").expect("written");
        assert!(!whole.is_of(&listing(&card).expect("listed")));
    }
}

//! What qemu's `blklogwrites` has logged of a disk, and every medium that a power cut may have left.
//!
//! The format is that of Linux' dm-log-writes, version 1, in sectors of 512 bytes, numbers in little endian: in the first
//! sector magic, version, entries (8 bytes each) and the sector's size (4); then for each entry a sector with where it
//! was written, how much (both in sectors), flags and the length of a mark (8 bytes each), and then what was written.

use std::fmt;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rand::RngExt;
use rand::rngs::StdRng;
use tempfile::TempDir;

/// What a disk writes at once or not at all.
pub const SECTOR: usize = 512;

const MAGIC: u64 = 0x006a_7366_7773_6872;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;

/// Parts of an image with nothing but zeros are left out of the file.
const HOLE: usize = 64 * 1024;

/// One write, or a flush with nothing to write.
#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Where on the disk, in bytes.
    at: usize,
    bytes: usize,
    flags: u64,
    /// Where in the log.
    data: u64,
}

impl Entry {
    fn has(&self, flag: u64) -> bool {
        self.flags & flag != 0
    }
}

/// A disk as it was at first, and everything that was written on it since.
pub struct BlockLog {
    folder: TempDir,
    log: File,
    entries: Vec<Entry>,
}

impl BlockLog {
    /// Of the disk that was `image` in `folder` at first, and has `log.img` there.
    pub(super) fn read(folder: TempDir) -> Self {
        let log = File::open(folder.path().join("log.img")).expect("a log");
        let words = |sector: u64| {
            let mut bytes = [0; 32];
            log.read_exact_at(&mut bytes, sector * SECTOR as u64).expect("an entry");
            let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
            [word(0), word(8), word(16), word(24)]
        };
        let [magic, version, count, size] = words(0);
        assert!((magic, version) == (MAGIC, 1) && size & 0xffff_ffff == SECTOR as u64, "not a log: {:x?}", words(0));
        let mut entries = Vec::new();
        let mut sector = 1;
        for _ in 0..count {
            let [at, sectors, flags, _] = words(sector);
            let entry = Entry { at: bytes(at), bytes: bytes(sectors), flags, data: (sector + 1) * SECTOR as u64 };
            sector += 1 + if entry.has(DISCARD) { 0 } else { sectors };
            entries.push(entry);
        }
        Self { folder, log, entries }
    }

    /// How many writes and flushes there were.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Begins with the first disk.
    pub fn replay(&self) -> Replay<'_> {
        let medium = fs::read(self.folder.path().join("image")).expect("the first image");
        Replay { log: self, medium, durable: 0 }
    }

    fn data(&self, entry: &Entry) -> Vec<u8> {
        let mut data = vec![0; entry.bytes];
        if !entry.has(DISCARD) {
            self.log.read_exact_at(&mut data, entry.data).expect("what was written");
        }
        data
    }
}

/// The medium, as far as it is certain.
pub struct Replay<'l> {
    log: &'l BlockLog,
    medium: Vec<u8>,
    /// So many entries are on it.
    durable: usize,
}

/// What a power cut did to the writes after the last flush.
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    /// So many entries had reached the disk.
    pub at: usize,
    pub waiting: usize,
    pub lost: usize,
    /// One of those that were not lost, of which so many sectors were written: the first, or the last.
    pub torn: Option<(usize, usize)>,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a cut after {} writes, {} of the last {} lost", self.at, self.lost, self.waiting)?;
        match self.torn {
            None => Ok(()),
            Some((sectors, whole)) => write!(f, ", one torn after {sectors} of {whole} sectors"),
        }
    }
}

impl Replay<'_> {
    /// Writes into `path` what a power cut has left after `at` entries. What was written before the last flush is there; of
    /// what came later `choices` says. `at` rises from call to call.
    pub fn cut(&mut self, at: usize, choices: &mut StdRng, path: &Path) -> Cut {
        let entries = &self.log.entries[..at];
        let flushed = entries.iter().rposition(|entry| entry.has(FLUSH)).map_or(0, |last| last + 1);
        while self.durable < flushed {
            let entry = &entries[self.durable];
            self.medium[entry.at..entry.at + entry.bytes].copy_from_slice(&self.log.data(entry));
            self.durable += 1;
        }
        let waiting: Vec<_> = entries[self.durable..].iter().filter(|entry| entry.bytes > 0).collect();
        let kept = keep(&waiting, choices);
        let torn = tear(&kept, choices);
        let file = write_image(&self.medium, path);
        for (number, entry) in kept.iter().enumerate() {
            let sectors = match &torn {
                Some((which, sectors)) if *which == number => sectors.clone(),
                _ => 0..entry.bytes / SECTOR,
            };
            let (from, to) = (sectors.start * SECTOR, sectors.end * SECTOR);
            file.write_all_at(&self.log.data(entry)[from..to], (entry.at + from) as u64).expect("room for an image");
        }
        let torn = torn.map(|(which, sectors)| (sectors.len(), kept[which].bytes / SECTOR));
        Cut { at, waiting: waiting.len(), lost: waiting.len() - kept.len(), torn }
    }
}

/// Which of the writes since the last flush reach the medium: all, none or any.
fn keep<'e>(waiting: &[&'e Entry], choices: &mut StdRng) -> Vec<&'e Entry> {
    let probability = [1.0, 0.0, 0.1, 0.5, 0.5, 0.9][choices.random_range(0..6)];
    let kept = |entry: &&&Entry| entry.has(FUA) || choices.random_bool(probability);
    waiting.iter().filter(kept).copied().collect()
}

/// Where ext4's superblock stands, in bytes; it has 1,024.
const SUPERBLOCK: usize = 1_024;

/// Of every second cut one write is torn: its number, and the sectors of it that are written.
fn tear(kept: &[&Entry], choices: &mut StdRng) -> Option<(usize, std::ops::Range<usize>)> {
    if kept.is_empty() || choices.random() {
        return None;
    }
    let which = choices.random_range(0..kept.len());
    let sectors = kept[which].bytes / SECTOR;
    if kept[which].has(FUA) || sectors < 2 {
        return None;
    }
    let at = choices.random_range(1..sectors);
    // ext4's superblock has two sectors and one checksum: torn between them, no kernel mounts the medium, whoever wrote on it.
    if kept[which].at + at * SECTOR == SUPERBLOCK + SECTOR {
        return None;
    }
    Some((which, if choices.random() { 0..at } else { at..sectors }))
}

/// A sparse file with these bytes.
fn write_image(medium: &[u8], path: &Path) -> File {
    let file = File::create(path).expect("a file of our own");
    file.set_len(medium.len() as u64).expect("a sparse file");
    for (number, part) in medium.chunks(HOLE).enumerate() {
        if part.iter().any(|byte| *byte != 0) {
            file.write_all_at(part, (number * HOLE) as u64).expect("room for an image");
        }
    }
    file
}

fn bytes(sectors: u64) -> usize {
    usize::try_from(sectors).expect("a small disk") * SECTOR
}

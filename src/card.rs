//! The card under the queue, as the kernel shows it, and how long it will last. Estimates are called estimates.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::stat::{major, minor};
use serde::{Deserialize, Serialize};

use crate::wear::{self, Wear};

/// What a card is taken to bear where nobody says better: so many times its size. Consumer cards of TLC flash bear a few
/// hundred; write amplification below the file system takes its share.
pub const TIMES: u64 = 300;
/// The kernel counts sectors of this size, whatever the device's are.
const SECTOR: u64 = 512;
/// What the whole machine writes is told from this long on: a start writes more than the hours after it.
const SETTLED: Duration = Duration::from_secs(3600);

/// The block device under a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// As the kernel calls it: mmcblk0.
    pub device: String,
    pub bytes: u64,
    /// Bytes that the whole machine has written to it since it was switched on.
    pub written: Option<u64>,
    /// Per cent of its life that are used, from and to, as an eMMC says itself (JEDEC 84-B51, DEVICE_LIFE_TIME_EST; the worse of
    /// its two kinds of memory). More than 100: beyond what it was made for.
    pub life_used: Option<(u8, u8)>,
    /// An eMMC says that its spare blocks go to an end: 2 (80 % used) or 3 (urgent).
    pub pre_eol: Option<u8>,
}

impl Card {
    /// None where there is no such device: a file system in memory or over the network, or one of several devices.
    pub fn under(folder: &Path) -> Option<Self> {
        let device = fs::metadata(folder).ok()?.dev();
        Self::read(Path::new("/sys"), major(device), minor(device))
    }

    fn read(sys: &Path, major: u64, minor: u64) -> Option<Self> {
        let partition = fs::canonicalize(sys.join(format!("dev/block/{major}:{minor}"))).ok()?;
        let whole = if partition.join("partition").exists() { partition.parent()?.to_owned() } else { partition };
        let text = |name: &str| fs::read_to_string(PathBuf::from(&whole).join(name)).ok();
        let bytes = text("size")?.trim().parse::<u64>().ok()? * SECTOR;
        // Documentation/block/stat.rst: the seventh figure is the sectors written.
        let written = text("stat").and_then(|text| text.split_whitespace().nth(6)?.parse::<u64>().ok());
        let hex = |word: &str| u8::from_str_radix(word.trim_start_matches("0x"), 16).ok();
        let life = text("device/life_time").and_then(|text| text.split_whitespace().filter_map(hex).max());
        Some(Self {
            device: whole.file_name()?.to_string_lossy().into_owned(),
            bytes,
            written: written.map(|sectors| sectors * SECTOR),
            // 1: up to 10 %; 10: 90 to 100 %; 11: beyond it; 0: not told.
            life_used: life.filter(|step| (1..=11).contains(step)).map(|step| ((step - 1) * 10, step * 10)),
            pre_eol: text("device/pre_eol_info")
                .and_then(|text| hex(text.trim()))
                .filter(|step| (2..=3).contains(step)),
        })
    }
}

/// How long a card will last, as far as can be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outlook {
    /// Bytes that it is taken to bear.
    pub endurance: u64,
    /// They are [`TIMES`] its size; otherwise `queue.card_endurance`.
    pub assumed: bool,
    /// Bytes a year that are written to it.
    pub per_year: u64,
    /// Of these, by meterferry.
    pub own_per_year: u64,
    /// When they are written, counted from when the wear was first seen, milliseconds since 1970; none: beyond the
    /// calendar.
    pub until_ms: Option<i64>,
}

impl Outlook {
    /// `endurance` as configured, `up` since the machine was switched on. None while too little was seen.
    pub fn of(card: &Card, endurance: Option<u64>, wear: &Wear, up: Duration, now_ms: i64) -> Option<Self> {
        let own_per_year = wear.bytes_per_year()?;
        let whole = card.written.filter(|_| up >= SETTLED).map(|bytes| wear::in_a_year(bytes, up));
        let per_year = whole.unwrap_or(0).max(own_per_year);
        let bears = endurance.unwrap_or(card.bytes.saturating_mul(TIMES));
        let from_ms = if wear.since_ms > 0 { wear.since_ms } else { now_ms };
        let lasts_ms = i64::try_from(wear::lasts(bears, per_year).as_millis()).ok();
        Some(Self {
            endurance: bears,
            assumed: endurance.is_none(),
            per_year,
            own_per_year,
            until_ms: lasts_ms.and_then(|lasts| from_ms.checked_add(lasts)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR_MS: i64 = 31_557_600_000;

    /// Promise 9: a partition's card is the whole device; an eMMC's own word is read, and a card without one is no error.
    #[test]
    fn cards_are_read_from_sysfs() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let disk = root.path().join("devices/mmcblk0");
        fs::create_dir_all(disk.join("mmcblk0p2")).expect("made");
        fs::create_dir_all(disk.join("device")).expect("made");
        fs::create_dir_all(root.path().join("dev/block")).expect("made");
        let link = root.path().join("dev/block/179:2");
        std::os::unix::fs::symlink(disk.join("mmcblk0p2"), link).expect("linked");
        fs::write(disk.join("mmcblk0p2/partition"), "2\n").expect("written");
        fs::write(disk.join("size"), "62333952\n").expect("written");
        fs::write(disk.join("stat"), "  100 0 800 5 200 0 4096 7 0 0 0 0 0 0 0\n").expect("written");
        let card = Card::read(root.path(), 179, 2).expect("a card");
        assert_eq!((&*card.device, card.bytes, card.written), ("mmcblk0", 31_914_983_424, Some(4096 * 512)));
        assert_eq!((card.life_used, card.pre_eol), (None, None));
        fs::write(disk.join("device/life_time"), "0x01 0x03\n").expect("written");
        fs::write(disk.join("device/pre_eol_info"), "0x02\n").expect("written");
        let card = Card::read(root.path(), 179, 2).expect("a card");
        assert_eq!((card.life_used, card.pre_eol), (Some((20, 30)), Some(2)));
        assert_eq!(Card::read(root.path(), 0, 40), None);
    }

    /// Promise 9: the date follows from what the whole machine writes, and begins where the wear was first seen.
    #[test]
    fn a_date_from_what_is_written() {
        let card =
            Card { device: "mmcblk0".into(), bytes: 32 << 30, written: Some(6 << 30), life_used: None, pre_eol: None };
        let wear = Wear { since_ms: YEAR_MS, seconds: 86_400, bytes: 600 << 20, flushes: 1, readings: 1 };
        let up = Duration::from_secs(2 * 86_400);
        let of = |card: &Card, endurance, up| Outlook::of(card, endurance, &wear, up, 50 * YEAR_MS).expect("enough");
        let outlook = of(&card, None, up);
        assert_eq!((outlook.endurance, outlook.assumed), (300 * (32 << 30), true));
        assert_eq!((outlook.per_year >> 30, outlook.own_per_year >> 20), (1_095, 219_150));
        let years = (outlook.until_ms.expect("a date") - YEAR_MS) as f64 / YEAR_MS as f64;
        assert!((8.7..8.8).contains(&years), "{years}");
        assert_eq!(of(&card, Some(1 << 40), up).endurance, 1 << 40);
        let new = of(&card, None, Duration::from_secs(60));
        assert_eq!(new.per_year, new.own_per_year, "a start is no example");
        assert_eq!(Outlook::of(&card, None, &Wear { seconds: 5, ..wear }, up, 0), None);
    }
}

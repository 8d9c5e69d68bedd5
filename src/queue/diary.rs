//! `wear`: what was written to the card over all runs. Nothing hangs on it: it is written seldom, beside something else, and
//! where it cannot be read it begins anew.

use std::time::{Duration, Instant};

use tracing::debug;

use super::folder::Folder;
use crate::reading::Received;
use crate::wear::{Meter, Wear};

pub(super) const FILE: &str = "wear";
/// A power cut costs the figures of so long.
const INTERVAL: Duration = Duration::from_secs(3600);

/// Keeps the figures, or does not.
#[derive(Debug)]
pub(super) struct Diary {
    pub meter: Meter,
    /// None: nothing is kept.
    next: Option<Instant>,
}

impl Diary {
    /// Goes on with what is in the folder. Nothing is kept there unless `keeps`.
    pub fn open(folder: &Folder, keeps: bool) -> Self {
        let text = folder.read(FILE).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let before = text.and_then(|text| toml::from_str::<Wear>(&text).ok()).unwrap_or_default();
        Self { meter: Meter::begin(before), next: keeps.then(|| Instant::now() + INTERVAL) }
    }

    pub fn is_due(&self, now: Instant) -> bool {
        self.next.is_some_and(|next| now >= next)
    }

    /// Writes the figures.
    pub fn keep(&mut self, folder: &Folder, stored: u64, now: &Received) {
        let Some(next) = &mut self.next else { return };
        *next = Instant::now() + INTERVAL;
        let wear = self.meter.read(stored, now.synchronised.then_some(now.wall_ms));
        let text = match toml::to_string(&wear) {
            Ok(text) => text,
            Err(error) => return debug!(%error, "the wear cannot be written down"),
        };
        if let Err(error) = folder.replace(FILE, text.as_bytes()) {
            debug!(%error, "the wear is not kept, will retry");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use super::super::disk::LocalDisk;
    use super::*;

    /// Promise 9: figures go on after a restart; a file that makes no sense begins anew.
    #[test]
    fn figures_go_on_after_a_restart() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let folder = Folder::new(Arc::new(LocalDisk), root.path());
        let now = Received { wall_ms: 1_800_000_000_000, boot_ms: 5, boot_id: 9, synchronised: true };
        let mut diary = Diary::open(&folder, true);
        assert!(!diary.is_due(Instant::now()) && diary.is_due(Instant::now() + INTERVAL));
        diary.keep(&folder, 7, &now);
        let mut again = Diary::open(&folder, true);
        assert_eq!(again.meter.read(3, None).readings, 10);
        again.keep(&folder, 3, &now);
        assert_eq!(Diary::open(&folder, true).meter.read(0, None).readings, 10);
        fs::write(root.path().join(FILE), [0xff; 40]).expect("written");
        assert_eq!(Diary::open(&folder, true).meter.read(0, None).readings, 0);
        fs::remove_file(root.path().join(FILE)).expect("there");
        Diary::open(&folder, false).keep(&folder, 3, &now);
        assert!(!root.path().join(FILE).exists());
    }
}

//! Tells of which cut a failure is, and keeps the medium.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::harness::block_log::{BlockLog, Cut};

/// What is lost by a cut depends on its seed alone.
pub fn chances(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}

/// While it lives, what fails is of this cut.
pub struct Witness<'r> {
    pub log: &'r BlockLog,
    pub seed: u64,
    pub cut: Cut,
    pub failed: &'r AtomicBool,
}

impl Drop for Witness<'_> {
    fn drop(&mut self) {
        if !thread::panicking() {
            return;
        }
        self.failed.store(true, Ordering::SeqCst);
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/power-cut");
        let path = folder.join(format!("{}.img", self.seed));
        if fs::create_dir_all(&folder).is_ok() {
            self.log.replay().cut(self.cut.at, &mut chances(self.seed), &path);
        }
        eprintln!("it was {}; the medium is kept as {}", self.cut, path.display());
    }
}

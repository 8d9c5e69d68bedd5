//! A wall clock that a test sets, for the agent's process alone; see `clock.c`.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tempfile::TempDir;

use super::process;

/// A clock, and the file in which its shift stands.
pub struct Clock {
    folder: TempDir,
    shift: File,
}

impl Clock {
    /// Right at first.
    pub fn new() -> Self {
        let folder = process::scratch("clock");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/harness/clock.c");
        let mut command = Command::new("cc");
        command.args(["-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-pthread", "-o"]);
        process::run(command.arg(folder.path().join("clock.so")).arg(source));
        let shift = File::create_new(folder.path().join("shift")).expect("a new file");
        let this = Self { folder, shift };
        this.set(Duration::ZERO, false);
        this
    }

    /// Sets it `ahead` by so much, or back.
    pub fn set(&self, by: Duration, ahead: bool) {
        let nanoseconds = i64::try_from(by.as_nanos()).expect("less than 292 years");
        let shift = if ahead { nanoseconds } else { -nanoseconds };
        self.shift.write_all_at(&shift.to_ne_bytes(), 0).expect("write");
    }

    /// As a machine without a clock starts: a minute after 1970 began.
    pub fn set_to_1970(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
        self.set(now.saturating_sub(Duration::from_secs(60)), false);
    }

    /// It is right again.
    pub fn set_right(&self) {
        self.set(Duration::ZERO, false);
    }

    /// What stands before the command of whoever is to have this clock.
    pub fn words(&self) -> Vec<String> {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        let shift = format!("METERFERRY_CLOCK_SHIFT={}", path("shift"));
        vec!["env".to_owned(), format!("LD_PRELOAD={}", path("clock.so")), shift]
    }

    /// The same for a machine on which systemd-timesyncd keeps the clock, which takes root: it is synchronised once
    /// [`Clock::synchronise`] says so.
    pub fn words_with_timesyncd(&self) -> Vec<String> {
        let timesync = self.folder.path().join("timesync");
        fs::create_dir_all(&timesync).expect("our own folder");
        // Never in the machine's own /run: every agent here would wait for a clock that nobody synchronises.
        let script = "mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/timesync && \
                      mount --bind \"$0\" /run/systemd/timesync && exec \"$@\"";
        let mut words = ["unshare", "--mount", "sh", "-c", script].map(str::to_owned).to_vec();
        words.push(timesync.display().to_string());
        words.extend(self.words());
        words
    }

    /// systemd-timesyncd says that the clock is right.
    pub fn synchronise(&self) {
        fs::write(self.folder.path().join("timesync/synchronized"), "").expect("write");
    }
}

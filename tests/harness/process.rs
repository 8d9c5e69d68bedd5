//! Child processes, and the guard that ends them when the test process can no longer do it.
//!
//! The guard is a shell that reads which processes run from a pipe. When the pipe ends, because the test process has
//! finished, panicked or was killed, it kills what is left and removes the test process's folder.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::wait;

/// `$1` is the folder; empty: keep it. A killed process that nobody reaps stays as a zombie: that is ended enough.
const GUARD: &str = r#"
trap '' INT TERM HUP
pids=' '
while read -r verb pid; do
    case $verb in
        +) pids="$pids$pid " ;;
        -) pids="${pids%% "$pid" *} ${pids#* "$pid" }" ;;
    esac
done
for pid in $pids; do kill -9 "$pid" 2>/dev/null; done
for pid in $pids; do
    tries=0
    while kill -0 "$pid" 2>/dev/null && ! grep -q '^State:.Z' "/proc/$pid/status" 2>/dev/null && [ $tries -lt 50 ]; do
        tries=$((tries + 1)); sleep 0.1
    done
done
[ -z "$1" ] || rm -rf -- "$1"
"#;

static BED: LazyLock<Bed> = LazyLock::new(Bed::new);

/// What one test process has: its folder, its guard.
struct Bed {
    folder: PathBuf,
    guard: Mutex<ChildStdin>,
    /// Never waited for: it ends after this process.
    _guard: Child,
}

impl Bed {
    fn new() -> Self {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR"));
        fs::create_dir_all(root).expect("cargo's folder for tests can be made");
        let folder =
            tempfile::Builder::new().prefix("meterferry-").tempdir_in(root).expect("a folder for this process").keep();
        let mut guard = Command::new("sh")
            .args(["-c", GUARD, "guard"])
            .arg(if keep() { Path::new("") } else { &folder })
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh runs");
        let pipe = guard.stdin.take().expect("the guard's input is a pipe");
        Self { folder, guard: Mutex::new(pipe), _guard: guard }
    }

    fn tell(&self, verb: char, pid: u32) {
        let mut pipe = self.guard.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        writeln!(pipe, "{verb} {pid}").expect("the guard listens");
    }
}

/// METERFERRY_KEEP leaves every folder for a look at what is in it.
fn keep() -> bool {
    std::env::var_os("METERFERRY_KEEP").is_some()
}

/// A folder for one thing under test; removed when dropped, and by the guard in any case.
pub fn scratch(name: &str) -> TempDir {
    let prefix = format!("{name}-");
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix).disable_cleanup(keep()).tempdir_in(&BED.folder).expect("a folder for this test")
}

/// A port on 127.0.0.1 that nobody uses now, and that this process is given once.
///
/// Below the range from which the kernel picks ports of outgoing connections: otherwise a client that tries again and
/// again to reach a stopped server could be given the server's port, and even connect to itself.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    for _ in 0..1000 {
        let port = rand::random_range(15_000..32_000);
        if !given.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            given.insert(port);
            return port;
        }
    }
    panic!("no free port between 15000 and 32000");
}

/// A child process whose standard output and error go to a file. Killed when dropped.
pub struct Running {
    name: String,
    child: Child,
    log: PathBuf,
    /// Where this run's part of the log begins: a restart appends.
    log_start: u64,
}

impl Running {
    /// Starts `command`, appending what it prints to `log`.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log).expect("a log file");
        let log_start = file.metadata().expect("a log file").len();
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a second handle"))
            .stderr(file)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name} ({command:?}): {error}; tests/run installs it"));
        BED.tell('+', child.id());
        Self { name: name.to_owned(), child, log: log.to_owned(), log_start }
    }

    /// What this run printed so far.
    pub fn log(&self) -> String {
        let all = fs::read(&self.log).unwrap_or_default();
        let start = usize::try_from(self.log_start).expect("a log fits into memory").min(all.len());
        String::from_utf8_lossy(&all[start..]).into_owned()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a process id"));
        let _ = kill(pid, signal);
    }

    /// How it ended; none while it runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Waits for its own end.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let what = format!("the end of {}; its log:\n{}", self.name, self.tail(40));
        wait::until(&what, limit, || self.ended())
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, and waits for an orderly end.
    #[track_caller]
    pub fn terminate(&mut self, limit: Duration) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait(limit)
    }

    /// The last lines of the log.
    pub fn tail(&self, lines: usize) -> String {
        let log = self.log();
        let skip = log.lines().count().saturating_sub(lines);
        log.lines().skip(skip).map(|line| format!("    {line}\n")).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {} printed last:\n{}", self.name, self.tail(25));
        }
        self.kill();
        BED.tell('-', self.child.id());
    }
}

/// Runs a command to its end and returns what it printed; panics when it fails.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}; tests/run installs it"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} ended with {}\n{text}{errors}", output.status);
    text
}

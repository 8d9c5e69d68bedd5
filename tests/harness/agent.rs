//! The agent under test: the real program, as a process.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use meterferry::agent::live::{self, Live};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::config::Config;
use super::process::{self, Running};
use super::wait;

/// The agent's folder, configuration and process; the process can be ended and started again.
pub struct Agent {
    // Before its folder, so that what it printed last can still be shown.
    running: Option<Running>,
    folder: TempDir,
    failpoint: Option<String>,
    log_filter: &'static str,
    /// A program, with its arguments, that runs the agent in other surroundings.
    inside: Vec<String>,
    environment: Vec<(&'static str, String)>,
    /// Where its queue is, as seen from here.
    queue: PathBuf,
}

impl Agent {
    /// A folder and a configuration, made by `config` from the place for the queue; nothing runs yet.
    pub fn new(config: impl FnOnce(&Path) -> Config) -> Self {
        let folder = process::scratch("agent");
        let queue = folder.path().join("queue");
        let text = config(&queue).text();
        let this = Self {
            folder,
            running: None,
            failpoint: None,
            log_filter: "info",
            inside: Vec::new(),
            environment: Vec::new(),
            queue,
        };
        fs::write(this.config(), text).expect("write");
        this
    }

    /// Replaces the configuration; the next start reads it.
    pub fn reconfigure(&self, config: impl FnOnce(&Path) -> Config) {
        fs::write(self.config(), config(&self.queue()).text()).expect("write");
    }

    pub fn config(&self) -> PathBuf {
        self.folder.path().join("meterferry.toml")
    }

    pub fn queue(&self) -> PathBuf {
        self.queue.clone()
    }

    /// Its configuration names another place, which is here, as seen from this process.
    pub fn queue_is_at(&mut self, queue: PathBuf) {
        self.queue = queue;
    }

    /// A filter for what it logs from the next start on; `info` otherwise.
    pub fn log_filter(&mut self, filter: &'static str) {
        self.log_filter = filter;
    }

    /// From the next start on it runs in the surroundings that these words make, which stand before its command and end
    /// with `exec`.
    pub fn inside(&mut self, words: Vec<String>) {
        self.inside = words;
    }

    /// From the next start on it has this variable in its environment.
    pub fn variable(&mut self, name: &'static str, value: impl Into<String>) {
        self.environment.push((name, value.into()));
    }

    /// From the next start on it kills itself at this point (`<name>[:<nth>]`), stops itself there (`…:hold`), or lets the
    /// thread hang that comes by (`…:hang`); none: no longer.
    #[track_caller]
    pub fn failpoint(&mut self, point: Option<&str>) {
        if cfg!(not(feature = "failpoints")) {
            panic!("built without the feature failpoints: use tests/run");
        }
        self.failpoint = point.map(str::to_owned);
    }

    /// Starts it; does not wait for anything.
    pub fn start(&mut self) {
        assert!(self.running.is_none(), "the agent runs already");
        let mut command = self.command(&["run"]);
        if let Some(point) = &self.failpoint {
            command.env("METERFERRY_FAILPOINT", point);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        self.running = Some(Running::start("the agent", &mut command, &self.log_path()));
    }

    /// A subcommand of the agent with its configuration.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let program = env!("CARGO_BIN_EXE_meterferry");
        let mut command = match self.inside.split_first() {
            None => Command::new(program),
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
        };
        command.args(arguments).arg("--config").arg(self.config());
        command.args(["--log", self.log_filter, "--color", "never"]);
        // A test must not depend on the files and folders of whoever runs it.
        command.env("XDG_STATE_HOME", self.folder.path()).env("XDG_CONFIG_HOME", self.folder.path());
        command.env_remove("STATE_DIRECTORY").env_remove("CREDENTIALS_DIRECTORY").env_remove("METERFERRY_FAILPOINT");
        command
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.running.take().expect("the agent runs").kill();
    }

    /// SIGTERM, and an orderly end with exit code 0.
    #[track_caller]
    pub fn stop(&mut self) {
        // Before it says so a signal finds a process that is not an agent yet.
        self.wait_log(" starts ", wait::SOON);
        let mut running = self.running.take().expect("the agent runs");
        let status = running.terminate(Duration::from_secs(40));
        assert!(status.success(), "the agent ended with {status}:\n{}", running.tail(40));
    }

    /// Waits for its own end, by a failpoint or an error.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let mut running = self.running.take().expect("the agent runs");
        running.wait(limit)
    }

    /// Waits until it has killed itself at the failpoint; it must not end in another way.
    #[track_caller]
    pub fn wait_failpoint(&mut self) {
        use std::os::unix::process::ExitStatusExt;
        let mut running = self.running.take().expect("the agent runs");
        let status = running.wait(wait::PATIENT);
        assert_eq!(status.signal(), Some(9), "not the failpoint: {status}\n{}", running.tail(40));
    }

    /// Holds the process (SIGSTOP) or lets it go on (SIGCONT).
    pub fn hold(&self, on: bool) {
        let running = self.running.as_ref().expect("the agent runs");
        running.signal(if on { Signal::SIGSTOP } else { Signal::SIGCONT });
    }

    /// Waits until it has stopped itself at its failpoint.
    #[track_caller]
    pub fn wait_held(&mut self) {
        let pid = self.pid();
        wait::until_true("the agent to hold at its failpoint", wait::PATIENT, || {
            assert!(self.ended().is_none(), "the agent ended:\n{}", self.log());
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            status.lines().any(|line| line.starts_with("State:") && line.contains("(stopped)"))
        });
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.running.as_ref().expect("the agent runs").signal(signal);
    }

    /// How it ended; none while it runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.running.as_mut().and_then(Running::ended)
    }

    pub fn pid(&self) -> u32 {
        self.running.as_ref().expect("the agent runs").pid()
    }

    /// What it logged since its last start.
    pub fn log(&self) -> String {
        self.running.as_ref().map_or_else(|| self.full_log(), Running::log)
    }

    /// What it logged over all starts.
    pub fn full_log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_path()).unwrap_or_default()).into_owned()
    }

    /// Waits until this run's log holds `text`.
    #[track_caller]
    pub fn wait_log(&self, text: &str, limit: Duration) {
        let running = self.running.as_ref().expect("the agent runs");
        wait::until_true(&format!("{text:?} in the agent's log"), limit, || running.log().contains(text));
    }

    /// The running agent's own figures; none while it does not answer.
    pub fn figures(&self) -> Option<Live> {
        live::ask(&self.queue())
    }

    /// Waits until the running agent's figures are so.
    #[track_caller]
    pub fn wait_figures(&mut self, what: &str, limit: Duration, mut so: impl FnMut(&Live) -> bool) {
        wait::until_true(what, limit, || {
            assert!(self.ended().is_none(), "the agent ended by itself:\n{}", self.log());
            self.figures().is_some_and(|figures| so(&figures))
        });
    }

    /// Sets back which day the next receipt is of, as if that day's midnight was still to come. The agent must not run.
    pub fn set_open_day(&self, days_ago: i64) {
        assert!(self.running.is_none(), "stop the agent before its queue is changed");
        let path = self.queue().join("queue.toml");
        let text = fs::read_to_string(&path).expect("a queue");
        let day = jiff::Timestamp::now().as_second().div_euclid(24 * 60 * 60) - days_ago;
        let line = |line: &str| match line.starts_with("open_day = ") {
            true => format!("open_day = {day}\n"),
            false => format!("{line}\n"),
        };
        assert!(text.contains("open_day = "), "no open day in {text}");
        // The first line is the checksum of what follows.
        let content: String = text.lines().filter(|line| !line.starts_with('#')).map(line).collect();
        let checksum = crc32fast::hash(content.as_bytes());
        fs::write(path, format!("# crc32 {checksum:08x}\n{content}")).expect("write");
    }

    /// Copies the queue's folder, as a backup of the card would. The agent must not run.
    pub fn copy_queue(&self) -> TempDir {
        assert!(self.running.is_none(), "stop the agent before its queue is copied");
        let copy = process::scratch("copy");
        copy_folder(&self.queue(), copy.path());
        copy
    }

    /// Puts a copy in the queue's place. The agent must not run.
    pub fn restore_queue(&self, copy: &TempDir) {
        assert!(self.running.is_none(), "stop the agent before its queue is replaced");
        fs::remove_dir_all(self.queue()).expect("the queue's folder");
        fs::create_dir(self.queue()).expect("the agent's folder");
        copy_folder(copy.path(), &self.queue());
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("agent.log")
    }
}

fn copy_folder(from: &Path, to: &Path) {
    let permissions = fs::metadata(from).expect("a folder").permissions();
    fs::set_permissions(to, permissions).expect("our own folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        if entry.file_type().expect("a type").is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).expect("room for a copy");
        }
    }
}

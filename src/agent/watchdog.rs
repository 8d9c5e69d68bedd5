//! Feeds the service manager's watchdog as long as every stage moves, and says which one does not.
//!
//! On a thread of its own: a task that blocks the runtime's workers must not keep anybody from naming it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tracing::{error, warn};

use crate::health::Health;
use crate::notify::Notifier;

/// Between two looks.
const TICK: Duration = Duration::from_secs(1);
/// Between two looks while the queue is opened, and how much longer the start may take each time.
const STARTING: Duration = Duration::from_secs(5);
const EXTENSION: Duration = Duration::from_secs(60);
/// A stage that still hangs is named again.
const REMINDER: Duration = Duration::from_secs(60);

/// The watching thread; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Watchdog {
    started: Option<SyncSender<Health>>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// The start begins: the service manager is asked for more time as long as this process reads or writes.
    ///
    /// # Errors
    ///
    /// The thread cannot be started.
    pub fn new(notifier: Arc<Notifier>) -> io::Result<Self> {
        let (started, told) = sync_channel(1);
        let thread = std::thread::Builder::new().name("watchdog".into()).spawn(move || watch(&notifier, &told))?;
        Ok(Self { started: Some(started), thread: Some(thread) })
    }

    /// The start is over: from now on every stage in `health` has to move.
    pub fn watch(&self, health: Health) {
        if let Some(started) = &self.started {
            // Fails only where the thread has gone, and then nobody feeds the watchdog.
            let _ = started.send(health);
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.started.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn watch(notifier: &Notifier, told: &Receiver<Health>) {
    let mut moved = Transferred::now();
    let health = loop {
        match told.recv_timeout(STARTING) {
            Ok(health) => break health,
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                let now = Transferred::now();
                if now != moved {
                    notifier.still_starting(EXTENSION);
                }
                moved = now;
            }
        }
    };
    let interval = notifier.watchdog.map_or(TICK, |limit| limit / 3);
    let (mut next, mut complaint) = (Instant::now(), Complaint::default());
    loop {
        let now = Instant::now();
        let hung = health.hung(now);
        complaint.of(&hung, now);
        if hung.is_empty() && now >= next {
            notifier.alive();
            next = now + interval;
        }
        if !matches!(told.recv_timeout(TICK.min(interval)), Err(RecvTimeoutError::Timeout)) {
            return;
        }
    }
}

/// What is said of the stages that hang: each once, and again while it goes on.
#[derive(Debug, Default)]
struct Complaint {
    hung: BTreeSet<String>,
    again: Option<Instant>,
}

impl Complaint {
    fn of(&mut self, hung: &[(&str, Duration)], now: Instant) {
        let again = self.again.is_some_and(|again| now >= again);
        for (stage, silence) in hung {
            if again || !self.hung.contains(*stage) {
                let silent_s = silence.as_secs();
                error!(
                    stage,
                    silent_s, "this stage hangs: the watchdog is not fed, so that systemd starts the agent anew"
                );
                self.again = Some(now + REMINDER);
            }
        }
        for stage in self.hung.iter().filter(|stage| hung.iter().all(|(name, _)| name != stage)) {
            warn!(stage, "this stage moves again");
        }
        self.hung = hung.iter().map(|(stage, _)| (*stage).to_owned()).collect();
    }
}

/// Bytes that this process has read and written, by the kernel's count (proc(5), `/proc/pid/io`).
#[derive(Debug, PartialEq, Eq)]
struct Transferred(Vec<String>);

impl Transferred {
    fn now() -> Self {
        let text = fs::read_to_string("/proc/self/io").unwrap_or_default();
        // What this very reading adds to rchar is no progress.
        let disk = |line: &&str| line.starts_with("read_bytes") || line.starts_with("write_bytes");
        Self(text.lines().filter(disk).map(str::to_owned).collect())
    }
}

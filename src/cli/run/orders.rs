//! What the agent is told by signals: to stop, or to begin anew with the configuration as it is now.

use std::sync::Arc;

use nix::sys::signal::SigSet;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use crate::cli::Global;
use crate::config::{self, Environment};
use crate::metrics::Flag;
use crate::notify::Notifier;
use crate::shutdown::Shutdown;

/// What comes after the orderly end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// Nothing.
    Stop,
    /// Another run in the same process, with the configuration as it is now.
    Reload,
}

/// The signals of one run.
#[derive(Debug)]
pub(super) struct Orders {
    pub shutdown: Shutdown,
    told: Arc<Told>,
    listening: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Told {
    stop: Flag,
    reload: Flag,
}

impl Orders {
    /// Listens to SIGTERM, SIGINT and SIGHUP. `hangup` holds SIGHUP, which this thread has blocked so far.
    ///
    /// To be called in a runtime.
    pub fn new(notifier: Arc<Notifier>, global: Global, hangup: SigSet) -> Self {
        let (shutdown, told) = (Shutdown::new(), Arc::new(Told::default()));
        let signals = (|| {
            Ok::<_, std::io::Error>(Signals {
                terminate: signal(SignalKind::terminate())?,
                interrupt: signal(SignalKind::interrupt())?,
                hangup: signal(SignalKind::hangup())?,
            })
        })();
        let listener = Listener { notifier, global, shutdown: shutdown.clone(), told: Arc::clone(&told) };
        let listening = tokio::spawn(async move {
            match signals {
                Ok(signals) => listener.listen(signals).await,
                Err(error) => warn!(%error, "signals cannot be caught: the agent ends without an orderly stop"),
            }
        });
        if let Err(error) = hangup.thread_unblock() {
            warn!(%error, "SIGHUP stays blocked: a new configuration takes a restart");
        }
        Self { shutdown, told, listening }
    }

    /// After the agent's orderly end: what comes then. No signal is listened to any more.
    pub fn ending(self) -> Ending {
        self.listening.abort();
        if self.told.reload.get() && !self.told.stop.get() { Ending::Reload } else { Ending::Stop }
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

struct Listener {
    notifier: Arc<Notifier>,
    global: Global,
    shutdown: Shutdown,
    told: Arc<Told>,
}

impl Listener {
    async fn listen(self, mut signals: Signals) {
        loop {
            tokio::select! {
                _ = signals.terminate.recv() => self.stop("SIGTERM"),
                _ = signals.interrupt.recv() => self.stop("SIGINT"),
                _ = signals.hangup.recv() => self.reload().await,
            }
        }
    }

    fn stop(&self, signal: &str) {
        info!("{signal} received");
        self.told.stop.set(true);
        self.shutdown.ask();
    }

    /// A configuration that is wrong changes nothing: the one in force stays.
    async fn reload(&self) {
        if self.shutdown.is_asked() {
            return;
        }
        self.notifier.reloading();
        let file = self.global.config.clone();
        let read = move || {
            let environment = Environment::of_process().beside_service(file.as_deref());
            config::load(file.as_deref(), &environment)
        };
        match tokio::task::spawn_blocking(read).await {
            Ok(Ok(loaded)) => {
                let files: Vec<_> = loaded.files.iter().map(|file| file.display().to_string()).collect();
                info!(files = files.join(", "), "SIGHUP received: beginning anew with the configuration as it is now");
                self.told.reload.set(true);
                self.shutdown.ask();
            }
            Ok(Err(problems)) => {
                for problem in &problems.errors {
                    error!(hint = problem.hint.as_deref().unwrap_or_default(), "{}", problem.text());
                }
                self.refuse(&problems.count());
            }
            Err(error) => self.refuse(&error.to_string()),
        }
    }

    fn refuse(&self, why: &str) {
        error!(why, "SIGHUP received: the configuration is wrong and was not taken; the one in force stays");
        self.notifier.refused("the new configuration is wrong, the old one stays in force; see the log");
    }
}

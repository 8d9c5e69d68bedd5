//! `meterferry run`: the agent, from the configuration to the orderly end.

use std::process::ExitCode;

use nix::sys::prctl;
use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};

use super::{EX_CONFIG, Global, chain, check, fail, load, terminal};
use crate::agent;
use crate::config::Environment;
use crate::config::machine::Machine;
use crate::config::settings::Settings;
use crate::notify::Notifier;
use crate::shutdown::Shutdown;

/// Sources are few and light; the disk and Kafka have threads of their own.
const WORKERS: usize = 2;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meterferry run                                  with /etc/meterferry/meterferry.toml
  meterferry run --config ./meterferry.toml       with this file, and conf.d/*.toml beside it
  meterferry run --log debug

Signals:
  SIGTERM, SIGINT   stop orderly, within agent.stop_timeout
  SIGHUP            nothing changes: a new configuration takes a restart

Exit codes:
  0   stopped orderly
  1   a stage failed; another start recovers
  2   the command line is wrong
  78  the configuration is wrong")]
pub struct Args {
    /// Stop when the process that started this one is gone
    #[arg(long, hide = true)]
    with_parent: bool,
}

pub fn run(args: Args, global: &Global) -> ExitCode {
    if args.with_parent
        && let Err(error) = prctl::set_pdeathsig(Signal::SIGTERM)
    {
        return fail(&error);
    }
    let settings = match load(global) {
        Ok(loaded) => {
            let mut errors = anstream::AutoStream::new(std::io::stderr(), terminal::colours(global.color));
            let _closed = check::report_warnings(&mut errors, &loaded.warnings);
            agent::live::configured_by(&loaded.files);
            loaded.settings
        }
        Err(code) => return code,
    };
    if let Err(code) = super::log::start(global) {
        return code;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            error!(%error, "the runtime cannot be started");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(supervised(settings));
    // What still blocks (a call into the Kafka client) does not hold up the end: the queue is closed, or repairs itself.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{}", chain(&error));
            ExitCode::from(if error.is_configuration() { EX_CONFIG } else { 1 })
        }
    }
}

async fn supervised(settings: Settings) -> Result<(), agent::AgentError> {
    let shutdown = Shutdown::new();
    let signals = tokio::spawn(obey_signals(shutdown.clone()));
    let environment = Environment::of_process();
    let notifier = Notifier::new(
        environment.variable("NOTIFY_SOCKET").and_then(|value| value.to_str()),
        environment.variable("WATCHDOG_USEC").and_then(|value| value.to_str()),
    );
    let result = agent::run(settings, &Machine::here(), notifier, shutdown).await;
    signals.abort();
    result
}

async fn obey_signals(shutdown: Shutdown) {
    let (term, int, hup) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()));
    let (Ok(mut term), Ok(mut int), Ok(mut hup)) = (term, int, hup) else {
        warn!("signals cannot be caught: the agent ends without an orderly stop");
        return;
    };
    loop {
        tokio::select! {
            _ = term.recv() => info!("SIGTERM received"),
            _ = int.recv() => info!("SIGINT received"),
            _ = hup.recv() => {
                warn!("SIGHUP received: the configuration is not read again, restart the agent for that");
                continue;
            }
        }
        shutdown.ask();
    }
}

//! `meterferry run`: the agent, from the configuration to the orderly end.
//!
//! A reload is an orderly stop, after which the process executes itself anew: what the next run finds is what it would find
//! after a restart, so that nothing is lost, repeated or reordered by it. The process keeps its number.

use std::process::ExitCode;
use std::sync::Arc;

use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use tracing::error;

use super::{EX_CONFIG, Global, chain, check, fail, load, terminal};
use crate::agent;
use crate::config::Environment;
use crate::config::machine::Machine;
use crate::config::settings::Settings;
use crate::notify::Notifier;
use orders::{Ending, Orders};

mod again;
mod orders;

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
  SIGHUP            read the configuration again: if it is right, stop orderly and begin anew with it, in the same
                    process; if not, say what is wrong with it and go on as before

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
    // Until the agent listens to it, a reload asked for has to wait: it must not end the process.
    let mut hangup = SigSet::empty();
    hangup.add(Signal::SIGHUP);
    if let Err(error) = hangup.thread_block() {
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
    let (result, ending) = runtime.block_on(supervised(settings, global.clone(), hangup));
    // What still blocks (a call into the Kafka client) does not hold up the end: the queue is closed, or repairs itself.
    runtime.shutdown_background();
    match result {
        Ok(()) if ending == Ending::Reload => again::execute(hangup),
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{}", chain(&error));
            ExitCode::from(if error.is_configuration() { EX_CONFIG } else { 1 })
        }
    }
}

async fn supervised(settings: Settings, global: Global, hangup: SigSet) -> (Result<(), agent::AgentError>, Ending) {
    let environment = Environment::of_process();
    let notifier = Arc::new(Notifier::new(
        environment.variable("NOTIFY_SOCKET").and_then(|value| value.to_str()),
        environment.variable("WATCHDOG_USEC").and_then(|value| value.to_str()),
    ));
    let orders = Orders::new(Arc::clone(&notifier), global, hangup);
    let result = agent::run(settings, &Machine::here(), &notifier, orders.shutdown.clone()).await;
    (result, orders.ending())
}

//! The command line: one file a subcommand.
//!
//! Exit codes: 0 done; 1 it failed, or an audit found a loss; 2 the command line is wrong; 69 an audit could not read to
//! the end (`EX_UNAVAILABLE`); 78 the configuration is wrong (`EX_CONFIG`: systemd does not restart on it).

use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ColorChoice, Parser, Subcommand};

use crate::config::{self, Environment, Loaded};

pub use units::chain;

pub mod audit;
mod base64;
pub mod check;
mod cluster;
pub mod consume;
pub mod dead_letters;
pub mod demo;
pub mod doctor;
pub mod end_session;
mod lasting;
pub mod log;
pub mod map;
mod progress;
pub mod queue;
pub mod rescue;
pub mod run;
mod signals;
pub mod simulate;
pub mod status;
mod terminal;
pub mod units;
pub mod version;

/// The command line is wrong, as clap ends.
pub const EX_USAGE: u8 = 2;

/// The configuration is wrong (sysexits.h, `EX_CONFIG`).
pub const EX_CONFIG: u8 = 78;

/// Where help puts the options below: behind those of the subcommand.
const GLOBAL: &str = "Options of every command";

/// Options that every subcommand takes.
#[derive(Debug, Clone, clap::Args)]
pub struct Global {
    /// Configuration file [default: /etc/meterferry/meterferry.toml, else meterferry/meterferry.toml in the XDG folder]
    #[arg(long, short, global = true, value_name = "FILE", help_heading = GLOBAL)]
    pub config: Option<PathBuf>,

    /// What to log: error, warn, info, debug, trace, or a filter such as meterferry::queue=debug
    #[arg(long, global = true, value_name = "FILTER", default_value = "info", help_heading = GLOBAL)]
    pub log: String,

    /// When to colour the output
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", help_heading = GLOBAL)]
    pub color: ColorChoice,
}

/// Carries every reading of a smart meter to Kafka: once, in order, whatever happens in between
#[derive(Debug, Parser)]
#[command(name = "meterferry", version, max_term_width = 100, after_long_help = EXAMPLES)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,

    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  meterferry demo                        the whole line in one terminal, nothing installed
  meterferry check                       is the configuration right?
  meterferry doctor                      is everything right, from the broker to the cluster?
  meterferry map message.json            which payload fits a device's message?
  meterferry run                         run the agent
  meterferry status                      the running agent at a glance
  meterferry queue status                what waits, since when, and when it will be full
  meterferry dead-letters list           what could not be decoded, or was refused
  meterferry rescue /mnt/.../queue       send on the queue of a dying card
  meterferry consume --brokers HOST:9092 read the readings on the other side
  meterferry audit --brokers HOST:9092   is everything there?

Exit codes:
  0   done
  1   it failed, or an audit found a loss
  2   the command line is wrong
  78  the configuration is wrong";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the agent
    Run(run::Args),
    /// Show the running agent at a glance
    Status(status::Args),
    /// Check the configuration; report all that is wrong with it at once
    Check(check::Args),
    /// Check everything from the configuration to the cluster, with the cure for what is wrong
    Doctor(doctor::Args),
    /// Show the whole line at work in one terminal, with nothing installed
    Demo(demo::Args),
    /// Show what a mapping makes of a message, or find the one that fits
    Map(map::Args),
    /// Be a smart meter adapter
    Simulate(simulate::Args),
    /// Read the readings from Kafka
    Consume(consume::Args),
    /// Check that every reading the agents had is in Kafka
    Audit(audit::Args),
    /// Look into the queue, export, verify and repair it
    #[command(subcommand)]
    Queue(queue::Command),
    /// Look into the dead letters, export, replay and delete them
    #[command(subcommand)]
    DeadLetters(dead_letters::Command),
    /// Send on the queue of a dying card, read in another machine
    Rescue(rescue::Args),
    /// End the sessions at the MQTT brokers, for an agent that is given up: they forget what they keep for it
    EndSession(end_session::Args),
    /// Print the versions of meterferry and of what it is built with
    Version(version::Args),
}

impl Cli {
    /// Runs the subcommand.
    pub fn run(self) -> ExitCode {
        let global = &self.global;
        match self.command {
            Command::Run(args) => run::run(args, global),
            Command::Status(args) => status::run(&args, global),
            Command::Check(args) => check::run(args, global),
            Command::Doctor(args) => doctor::run(args, global),
            Command::Demo(args) => demo::run(args, global),
            Command::Map(args) => map::run(args, global),
            Command::Simulate(args) => simulate::run(args, global),
            Command::Consume(args) => consume::run(args, global),
            Command::Audit(args) => audit::run(args, global),
            Command::Queue(command) => queue::run(command, global),
            Command::DeadLetters(command) => dead_letters::run(command, global),
            Command::Rescue(args) => rescue::run(&args, global),
            Command::EndSession(args) => end_session::run(&args, global),
            Command::Version(args) => version::run(args, global),
        }
    }
}

/// The configuration, or what is wrong with it on standard error and exit code 78. Its warnings are about the agent: only
/// `run` and `check` print them.
fn load(global: &Global) -> Result<Loaded, ExitCode> {
    let mut errors = anstream::AutoStream::new(std::io::stderr(), terminal::colours(global.color));
    match config::load(global.config.as_deref(), &Environment::of_process().beside_service(global.config.as_deref())) {
        Ok(loaded) => Ok(loaded),
        Err(problems) => {
            let _ = check::report(&mut errors, &problems);
            Err(ExitCode::from(EX_CONFIG))
        }
    }
}

/// Prints an error with its causes.
fn fail(error: &(dyn Error + 'static)) -> ExitCode {
    anstream::eprintln!("error: {}", chain(error));
    ExitCode::FAILURE
}

/// Prints to standard output; a reader that has gone (`| head`) is a quiet end.
fn out(text: &str) -> ExitCode {
    let mut out = anstream::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => fail(&error),
        _ => ExitCode::SUCCESS,
    }
}

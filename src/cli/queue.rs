//! `meterferry queue`: a look into the queue, beside the agent or without it, and what there is to do about damage.

use std::path::PathBuf;
use std::process::ExitCode;

use super::units::count;
use super::{Global, fail, load};
use crate::agent;
use crate::config::machine::Machine;
use crate::config::settings::Settings;
use crate::queue::Options;
use crate::queue::inspect::Inspector;
use crate::queue::walk::Walk;

mod export;
pub(super) mod forecast;
mod forget;
mod pack;
mod peek;
pub(super) mod record;
mod repair;
pub(super) mod status;
mod verify;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// What waits, since when, how fast it grows, and how long there is room
    Status(status::Args),
    /// Show the records that wait, oldest first
    Peek(peek::Args),
    /// Write records as JSON lines, payloads included
    Export(export::Args),
    /// Read every record and hold it against its checksum; changes nothing
    Verify(verify::Args),
    /// Repair the queue while no agent runs; the agent does the same by itself
    Repair(repair::Args),
    /// Take a device's readings out while no agent runs: for who moves out
    Forget(forget::Args),
    /// Compress what waits while no agent runs; the agent does the same by itself when nothing can be sent for long
    Pack(pack::Args),
}

/// Which queue.
#[derive(Debug, clap::Args)]
pub struct Folder {
    /// The queue's folder [default: queue.path of the configuration]
    #[arg(long, value_name = "FOLDER")]
    pub path: Option<PathBuf>,
}

impl Folder {
    /// The folder, and the configuration it comes from. Where only the folder is named there is none: the one that happens
    /// to be on this machine may be another agent's.
    pub(super) fn find(&self, global: &Global) -> Result<(PathBuf, Option<Settings>), ExitCode> {
        match (&self.path, &global.config) {
            (Some(path), None) => Ok((path.clone(), None)),
            (said, _) => {
                let settings = load(global)?.settings;
                Ok((said.clone().unwrap_or_else(|| settings.queue.path.clone()), Some(settings)))
            }
        }
    }

    /// What the folder is opened with by a command that writes, and the configuration. One with nothing of a queue in it is
    /// not made a queue.
    pub(super) fn options(&self, global: &Global) -> Result<(Options, Option<Settings>), ExitCode> {
        let (path, settings) = self.find(global)?;
        if !crate::queue::is_there(&path) {
            self.inspect(global)?;
        }
        let options = match &settings {
            Some(settings) => agent::queue_options(settings, &path, &Machine::here()),
            None => agent::unconfigured_options(&path),
        };
        Ok((options, settings))
    }

    /// The folder, opened for looking.
    pub(super) fn inspect(&self, global: &Global) -> Result<(Inspector, Option<Settings>), ExitCode> {
        let (path, settings) = self.find(global)?;
        match Inspector::open(&path) {
            Ok(inspector) => Ok((inspector, settings)),
            Err(error) => Err(fail(&error)),
        }
    }
}

/// What is said where a walk was to begin beyond the queue's end.
fn nothing_from(from: u64, walk: &Walk) -> String {
    format!("Nothing is there from {} on: the queue ends with {}.", count(from), count(walk.end().saturating_sub(1)))
}

pub fn run(command: Command, global: &Global) -> ExitCode {
    let result = match command {
        Command::Status(args) => status::run(&args, global),
        Command::Peek(args) => peek::run(&args, global),
        Command::Export(args) => export::run(&args, global),
        Command::Verify(args) => verify::run(&args, global),
        Command::Repair(args) => repair::run(&args, global),
        Command::Forget(args) => forget::run(&args, global),
        Command::Pack(args) => pack::run(&args, global),
    };
    result.unwrap_or_else(|code| code)
}

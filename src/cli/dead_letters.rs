//! `meterferry dead-letters`: what could not be decoded or was refused: looked at, kept elsewhere, tried again, given up.

use std::process::ExitCode;

use super::Global;

mod choice;
mod delete;
mod export;
mod letter;
mod list;
mod replay;
mod show;
mod waiting;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List the dead letters, oldest first
    List(list::Args),
    /// Show one with its whole payload
    Show(show::Args),
    /// Write them as JSON lines, payloads included
    Export(export::Args),
    /// Decode them again and put them back into the queue
    Replay(replay::Args),
    /// Delete them for good
    Delete(delete::Args),
}

pub fn run(command: Command, global: &Global) -> ExitCode {
    let result = match command {
        Command::List(args) => list::run(&args, global),
        Command::Show(args) => show::run(&args, global),
        Command::Export(args) => export::run(&args, global),
        Command::Replay(args) => replay::run(&args, global),
        Command::Delete(args) => delete::run(&args, global),
    };
    result.unwrap_or_else(|code| code)
}

//! `meterferry dead_letters`

use std::process::ExitCode;

use super::Global;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List
    List,
}

pub fn run(_command: Command, _global: &Global) -> ExitCode {
    ExitCode::FAILURE
}

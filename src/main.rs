//! The story of start and stop, nothing else.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    meterferry::cli::Cli::parse().run()
}

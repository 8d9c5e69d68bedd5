//! `meterferry dead-letters list`

use std::process::ExitCode;

use super::choice::{self, Filter};
use super::export;
use super::letter;
use crate::cli::queue::Folder;
use crate::cli::{Global, out};

const EXAMPLES: &str = "\
Examples:
  meterferry dead-letters list
  meterferry dead-letters list --source meter --reason JSON
  meterferry dead-letters list --json | jq -r .reason | sort | uniq -c

A dead letter is a message that could not be decoded, or a reading that Kafka refused for good. Its
sequence is explained in Kafka by a gap record. queue.max_dead_letters bounds them by size,
queue.dead_letters_max_age by age. Works beside the running agent.

Exit codes:
  0   done
  1   they cannot be read
  78  the configuration is wrong";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    folder: Folder,
    #[command(flatten)]
    filter: Filter,
    /// One JSON object a line, with the whole payload
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, global: &Global) -> Result<ExitCode, ExitCode> {
    let (inspector, _) = args.folder.inspect(global)?;
    let ids = choice::ids(&inspector, &[], &args.filter)?;
    if args.json {
        return export::write(&inspector, &ids, &mut std::io::stdout().lock(), |letter| {
            format!("{}\n", letter::json(letter))
        });
    }
    if ids.is_empty() {
        return Ok(out("There are no dead letters.\n"));
    }
    out(&letter::header());
    export::write(&inspector, &ids, &mut std::io::stdout().lock(), letter::lines)
}

//! `meterferry dead-letters list`

use std::process::ExitCode;

use super::choice::{self, Filter};
use super::export;
use super::letter::{self, Place};
use super::waiting::{Reach, Search};
use crate::cli::queue::Folder;
use crate::cli::{Global, out};
use crate::reading::DeadLetter;

const EXAMPLES: &str = "\
Examples:
  meterferry dead-letters list
  meterferry dead-letters list --source meter --reason JSON
  meterferry dead-letters list --json | jq -r .reason | sort | uniq -c
  meterferry dead-letters list --waiting         look through all of a long queue too

A dead letter is a message that could not be decoded, or a reading that Kafka refused for good. Its
sequence is explained in Kafka by a gap record. queue.max_dead_letters bounds them by size,
queue.dead_letters_max_age by age. As long as Kafka cannot be reached, a message that could not be decoded
waits in the queue; it is listed too, in JSON with set_aside null. Of a long queue only the newest 50,000
records are looked through, without --waiting. Works beside the running agent.

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
    #[command(flatten)]
    reach: Reach,
    /// One JSON object a line, with the whole payload
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, global: &Global) -> Result<ExitCode, ExitCode> {
    let (inspector, _) = args.folder.inspect(global)?;
    let search = Search::begin(&inspector, &args.reach, &args.filter)?;
    let chosen = choice::chosen(&inspector, &[], &args.filter)?;
    let mut sink = std::io::stdout().lock();
    if args.json {
        let line = |letter: &DeadLetter, place| format!("{}\n", letter::json(letter, place));
        return Ok(export::write(&inspector, &chosen, Some(search), &mut sink, line)?.code);
    }
    let mut before = None;
    let written = export::write(&inspector, &chosen, Some(search), &mut sink, |letter, place| {
        let header = if before.is_none() { letter::header() } else { String::new() };
        let waiting = if before != Some(place) && place == Place::Queue { letter::WAITING } else { "" };
        before = Some(place);
        format!("{header}{waiting}{}", letter::lines(letter))
    })?;
    drop(sink);
    if written.letters == 0 && written.code == ExitCode::SUCCESS {
        return Ok(out(&choice::none_of(written.there, "There are no dead letters.\n")));
    }
    Ok(written.code)
}

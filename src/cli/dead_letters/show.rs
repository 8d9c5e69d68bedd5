//! `meterferry dead-letters show`

use std::io::{self, IsTerminal, Write};
use std::ops::ControlFlow;
use std::process::ExitCode;

use super::choice::{self, Filter, Name};
use super::letter::{self, Place};
use crate::cli::queue::Folder;
use crate::cli::{Global, fail, out, terminal};
use crate::reading::{Body, DeadLetter};

const EXAMPLES: &str = "\
Examples:
  meterferry dead-letters show 31245              reason, times and payload, safe for a terminal
  meterferry dead-letters show 31245 --raw > x    the payload's bytes as they came
  meterferry dead-letters show 31245 --json

What is not printable is spelt out; a payload that is not UTF-8 is shown in hexadecimal. One that waits
in the queue, as long as Kafka cannot be reached, is shown too.

Exit codes:
  0   done
  1   it is not there, or cannot be read
  78  the configuration is wrong";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    folder: Folder,
    /// Its sequence, or its whole ce_id
    #[arg(value_name = "SEQUENCE")]
    name: Name,
    /// One JSON object
    #[arg(long, conflicts_with = "raw")]
    json: bool,
    /// Only the payload's bytes
    #[arg(long)]
    raw: bool,
}

pub fn run(args: &Args, global: &Global) -> Result<ExitCode, ExitCode> {
    let (inspector, _) = args.folder.inspect(global)?;
    let mut chosen = choice::chosen(&inspector, &[args.name], &Filter::default())?;
    let mut found = chosen.waiting.pop().map(|letter| (letter, Place::Queue));
    let looked = inspector.visit_letters(&chosen.ids, |letter| {
        found = Some((letter, Place::SetAside));
        ControlFlow::Break(())
    });
    looked.map_err(|error| fail(&error))?;
    let Some((letter, place)) = found else {
        terminal::fail("the dead letter does not fit its checksum");
        return Err(ExitCode::FAILURE);
    };
    if args.raw {
        return raw(&letter);
    }
    Ok(out(&if args.json { format!("{}\n", letter::json(&letter, place)) } else { letter::page(&letter, place) }))
}

fn raw(letter: &DeadLetter) -> Result<ExitCode, ExitCode> {
    let payload = match &letter.body {
        Body::Reading(reading) => &reading.payload[..],
        Body::Dead(dead) => &dead.payload[..],
        Body::Gap(_) | Body::Daily(_) => &[],
    };
    let mut sink = io::stdout().lock();
    if sink.is_terminal() {
        terminal::fail("the payload is not written to a terminal as it is\n  hint: send it to a file: --raw > FILE");
        return Err(ExitCode::FAILURE);
    }
    match sink.write_all(payload).and_then(|()| sink.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(fail(&error)),
        _ => Ok(ExitCode::SUCCESS),
    }
}

//! `meterferry dead-letters export`

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::ExitCode;

use super::choice::{self, Filter, Name};
use super::letter;
use crate::cli::bar::{Bar, Unit};
use crate::cli::queue::Folder;
use crate::cli::units::count;
use crate::cli::{Global, fail, terminal};
use crate::queue::inspect::Inspector;
use crate::queue::letters::LetterId;
use crate::reading::DeadLetter;

const EXAMPLES: &str = "\
Examples:
  meterferry dead-letters export > letters.jsonl      all of them
  meterferry dead-letters export 31245 | jq -r .payload
  meterferry dead-letters export --older-than 30d -o old.jsonl

One JSON object a line, as meterferry queue export writes them, with the reason. Works beside the
running agent, and changes nothing.

Exit codes:
  0   all are written
  1   one cannot be read or written, or is not there
  78  the configuration is wrong";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    folder: Folder,
    /// Sequences, or whole ce_ids [default: all]
    #[arg(value_name = "SEQUENCE")]
    names: Vec<Name>,
    #[command(flatten)]
    filter: Filter,
    /// A new file to write to, which only you may read [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Same as without: the lines are JSON in any case
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, global: &Global) -> Result<ExitCode, ExitCode> {
    let (inspector, _) = args.folder.inspect(global)?;
    let ids = choice::ids(&inspector, &args.names, &args.filter)?;
    let line = |letter: &DeadLetter| format!("{}\n", letter::json(letter));
    let Some(path) = &args.output else { return write(&inspector, &ids, &mut io::stdout().lock(), line) };
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(mut file) => {
            let code = write(&inspector, &ids, &mut file, line)?;
            terminal::say(format_args!("{} dead letters written", count(ids.len() as u64)));
            Ok(code)
        }
        Err(error) => {
            terminal::fail(format_args!("{} cannot be made: {error}\n  hint: name a new file", path.display()));
            Err(ExitCode::FAILURE)
        }
    }
}

/// Writes each of `ids` as `line` has it. A reader that has gone (`| head`) is a quiet end.
pub fn write(
    inspector: &Inspector,
    ids: &[LetterId],
    sink: &mut dyn Write,
    line: impl Fn(&DeadLetter) -> String,
) -> Result<ExitCode, ExitCode> {
    let mut sink = BufWriter::new(sink);
    let (mut written, mut failed) = (0, None);
    let mut progress = Bar::new("writing", ids.len() as u64, Unit::Records);
    let looked = inspector.visit_letters(ids, |letter| {
        written += 1;
        progress.at(written);
        match sink.write_all(line(&letter).as_bytes()) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        }
    });
    drop(progress);
    let damaged = looked.map_err(|error| fail(&error))?;
    match failed.or_else(|| sink.flush().err()) {
        Some(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
        Some(error) => return Err(fail(&error)),
        None => {}
    }
    if damaged > 0 {
        terminal::fail(format_args!("{damaged} dead letters do not fit their checksum and are left out"));
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

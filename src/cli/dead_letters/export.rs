//! `meterferry dead-letters export`

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::ExitCode;

use super::choice::{self, Chosen, Filter, Name};
use super::letter::{self, Place};
use super::waiting::{Reach, Search};
use crate::cli::progress::{Progress, Unit};
use crate::cli::queue::Folder;
use crate::cli::units::count;
use crate::cli::{Global, fail, terminal};
use crate::queue::inspect::Inspector;
use crate::reading::DeadLetter;

const EXAMPLES: &str = "\
Examples:
  meterferry dead-letters export > letters.jsonl      all of them
  meterferry dead-letters export 31245 | jq -r .payload
  meterferry dead-letters export --older-than 30d -o old.jsonl

One JSON object a line, as meterferry queue export writes them, with the reason. Those that wait in the
queue, as long as Kafka cannot be reached, have set_aside null; of a long queue only the newest 50,000
records are looked through, without --waiting. Works beside the running agent, and changes nothing.

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
    #[command(flatten)]
    reach: Reach,
    /// A new file to write to, which only you may read [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Same as without: the lines are JSON in any case
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, global: &Global) -> Result<ExitCode, ExitCode> {
    let (inspector, _) = args.folder.inspect(global)?;
    let named = !args.names.is_empty();
    let search = if named { None } else { Some(Search::begin(&inspector, &args.reach, &args.filter)?) };
    let chosen = choice::chosen(&inspector, &args.names, &args.filter)?;
    let line = |letter: &DeadLetter, place| format!("{}\n", letter::json(letter, place));
    let Some(path) = &args.output else {
        return Ok(write(&inspector, &chosen, search, &mut io::stdout().lock(), line)?.code);
    };
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(mut file) => {
            let written = write(&inspector, &chosen, search, &mut file, line)?;
            terminal::say(format_args!("{} dead letters written", count(written.letters)));
            Ok(written.code)
        }
        Err(error) => {
            terminal::fail(format_args!("{} cannot be made: {error}\n  hint: name a new file", path.display()));
            Err(ExitCode::FAILURE)
        }
    }
}

/// What came of it.
#[derive(Debug, PartialEq)]
pub struct Written {
    pub letters: u64,
    /// All that were found, chosen or not.
    pub there: u64,
    pub code: ExitCode,
}

/// Writes each that was chosen as `line` has it, then those that `search` finds in the queue. A reader that has gone
/// (`| head`) is a quiet end.
pub fn write(
    inspector: &Inspector,
    chosen: &Chosen,
    search: Option<Search<'_>>,
    sink: &mut dyn Write,
    mut line: impl FnMut(&DeadLetter, Place) -> String,
) -> Result<Written, ExitCode> {
    let mut sink = BufWriter::new(sink);
    let (mut letters, mut there, mut failed) = (0, chosen.all.len() as u64, None);
    let mut put = |letter: &DeadLetter, place| {
        letters += 1;
        match sink.write_all(line(letter, place).as_bytes()) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        }
    };
    let (mut progress, mut done) = (Progress::new("writing", chosen.ids.len() as u64, Unit::Records), 0);
    let mut ended = ControlFlow::Continue(());
    let looked = inspector.visit_letters(&chosen.ids, |letter| {
        done += 1;
        progress.at(done);
        ended = put(&letter, Place::SetAside);
        ended
    });
    drop(progress);
    let damaged = looked.map_err(|error| fail(&error))?;
    for letter in &chosen.waiting {
        if ended.is_continue() {
            ended = put(letter, Place::Queue);
        }
    }
    if let Some(mut search) = search.filter(|_| ended.is_continue()) {
        search.visit(&chosen.all, |letter| put(letter, Place::Queue))?;
        there += search.seen;
        search.say_passed_over();
    }
    let code = match failed.or_else(|| sink.flush().err()) {
        Some(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(fail(&error)),
        None if damaged > 0 => {
            terminal::fail(format_args!("{damaged} dead letters do not fit their checksum and are left out"));
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    };
    Ok(Written { letters, there, code })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::choice::Choice;
    use super::*;
    use crate::agent;
    use crate::clock::Clock;
    use crate::queue::{self, Queue};
    use crate::reading::{Body, Dead, Mark};
    use crate::receipt::Receipt;

    /// Promise 5: what could not be decoded is listed from the moment on in which the log tells of it, although Kafka is away;
    /// once, although it is set aside before its record is released. It can be replayed or deleted only then.
    #[test]
    fn letters_that_wait_are_written_too() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("queue");
        let options = agent::unconfigured_options(&path);
        let Queue { intake, mut outlet, writer, .. } =
            queue::open(&options, Arc::default(), Clock::new(), Arc::new(|| ())).expect("the queue opens");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        for number in 1..=5 {
            let dead = Dead {
                source: "meter".into(),
                topic: "sma".into(),
                sender: String::new(),
                packet_id: None,
                received: Clock::new().now(),
                reason: "not JSON".into(),
                marks: Vec::new(),
                payload: format!("{number}").into(),
            };
            let mark = Mark::of("", None, "sma", &dead.payload, false);
            let appended = intake.append(Body::Dead(dead), mark, Receipt::unneeded(), Duration::ZERO);
            runtime.block_on(appended).expect("the queue takes it");
        }
        assert!(outlet.wait(5, Duration::from_secs(30)), "all are committed");
        let inspector = Inspector::open(&path).expect("a queue");
        let some = [1, 2].map(|sequence| inspector.waiting_letter(0, sequence).expect("readable").expect("it waits"));
        outlet.set_aside(some.into()).expect("put away");

        let listed = |names: &[&str], filter: &Filter| {
            let names: Vec<Name> = names.iter().map(|name| name.parse().expect("a name")).collect();
            let search =
                names.is_empty().then(|| Search::begin(&inspector, &Reach::default(), filter).expect("readable"));
            let chosen = choice::chosen(&inspector, &names, filter)?;
            let mut text = Vec::new();
            let line = |letter: &DeadLetter, place| format!("{} {place:?};", letter.sequence);
            let written = write(&inspector, &chosen, search, &mut text, line)?;
            Ok::<_, ExitCode>((String::from_utf8(text).expect("text"), written.there))
        };
        let all = "1 SetAside;2 SetAside;3 Queue;4 Queue;5 Queue;";
        assert_eq!(listed(&[], &Filter::default()), Ok((all.into(), 5)));
        let source = |name: &str| Filter { source: Some(name.into()), ..Filter::default() };
        assert_eq!(listed(&[], &source("meter")), Ok((all.into(), 5)));
        assert_eq!(listed(&[], &source("nosuch")), Ok((String::new(), 5)), "five are there, none fits");
        let old = Filter { older_than: Some(Duration::ZERO), ..Filter::default() };
        assert!(!listed(&[], &old).expect("readable").0.contains("Queue"), "they are not set aside at all");
        assert_eq!(listed(&["4", "2"], &Filter::default()), Ok(("2 SetAside;4 Queue;".into(), 2)));
        let other = format!("{:032x}-4", 7);
        assert_eq!(listed(&[&other], &Filter::default()), Err(ExitCode::FAILURE), "of another queue id");

        let choice = |name: &str| {
            let names = vec![name.parse().expect("a name")];
            Choice { names, all: false, filter: Filter::default() }.chosen(&inspector)
        };
        assert_eq!(choice("2").map(|chosen| chosen.ids.len()), Ok(1));
        assert_eq!(choice("4"), Err(ExitCode::FAILURE));
        let all = Choice { names: Vec::new(), all: true, filter: Filter::default() };
        assert_eq!(all.chosen(&inspector).map(|chosen| chosen.ids.len()), Ok(2));
        drop((intake, outlet));
        writer.join().expect("an orderly end");
    }
}

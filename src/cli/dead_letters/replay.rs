//! `meterferry dead-letters replay`

use std::process::ExitCode;

use serde_json::json;

use super::choice::{Choice, Chosen};
use crate::agent;
use crate::agent::replay::{self, Outcome, ReplayError};
use crate::cli::progress::{Progress, Unit};
use crate::cli::queue::Folder;
use crate::cli::terminal::printable;
use crate::cli::units::count;
use crate::cli::{Global, fail, load, out, terminal};
use crate::config::machine::Machine;
use crate::queue::OpenError;
use crate::queue::letters::LetterId;

const EXAMPLES: &str = "\
Examples:
  systemctl stop meterferry
  meterferry dead-letters replay --reason \"not JSON\"    after source.payload was corrected
  meterferry dead-letters replay 31245                  after the topic's max.message.bytes was raised
  systemctl start meterferry

Each is decoded as its source is configured now, and put into the queue under a new sequence; then, once
that is on disk, the dead letter is deleted. In Kafka the header ce_replayof names the sequence that it
had. What still cannot be decoded stays a dead letter; one that waits in the queue has to be set aside by
the agent first. Needs the agent stopped; what the broker receives meanwhile waits there.

Exit codes:
  0   all that were chosen are in the queue
  1   one stays a dead letter, or is not there, or an agent has the queue
  2   the command line is wrong
  78  the configuration is wrong";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    folder: Folder,
    #[command(flatten)]
    choice: Choice,
    /// One JSON object a letter instead of words
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, global: &Global) -> Result<ExitCode, ExitCode> {
    // How a source is decoded stands in the configuration, wherever the queue is.
    let settings = load(global)?.settings;
    let (inspector, _) = args.folder.inspect(global)?;
    let chosen = args.choice.chosen(&inspector)?;
    let ids = &chosen.ids;
    if ids.is_empty() {
        return Ok(out(&nothing(&chosen, args.json)));
    }
    let options = agent::queue_options(&settings, inspector.folder(), &Machine::here());
    let (mut text, mut told) = (String::new(), Told::default());
    let mut progress = Progress::new("replaying", ids.len() as u64, Unit::Records);
    let result = replay::replay(&settings, &options, ids, |id, outcome| {
        text.push_str(&if args.json { format!("{}\n", outcome_json(id, &outcome)) } else { line(id, &outcome) });
        told.count(&outcome);
        progress.at(told.queued + told.refused);
    });
    drop(progress);
    if !args.json {
        text.push_str(&told.words(result.is_err()));
    }
    let printed = out(&text);
    match result {
        Ok(()) if told.refused == 0 => Ok(printed),
        Ok(()) => Ok(ExitCode::FAILURE),
        Err(ReplayError::Open(error)) => Err(agent_has_it(error, "dead-letters replay")),
        Err(error) => Err(fail(&error)),
    }
}

/// An agent that runs is the only one that writes to the folder: says what to do.
pub fn agent_has_it(error: OpenError, command: &str) -> ExitCode {
    match error {
        OpenError::Locked { path, pid } => {
            terminal::fail(format_args!(
                "an agent (process {pid}) has the queue in {}, and only one may write there\n  hint: stop it for a \
                 moment; what the broker receives meanwhile waits there: systemctl stop meterferry; meterferry {command} \
                 ...; systemctl start meterferry",
                path.display()
            ));
            ExitCode::FAILURE
        }
        error => fail(&error),
    }
}

/// What is printed where none is chosen: no lines of JSON.
fn nothing(chosen: &Chosen, json: bool) -> String {
    if json { String::new() } else { chosen.none() }
}

#[derive(Default)]
struct Told {
    queued: u64,
    refused: u64,
}

impl Told {
    fn count(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Queued(_) | Outcome::WasQueued => self.queued += 1,
            Outcome::Refused(_) => self.refused += 1,
        }
    }

    /// Where nothing was begun, the error says all there is to say.
    fn words(&self, failed: bool) -> String {
        if failed && self.queued + self.refused == 0 {
            return String::new();
        }
        let stay = match self.refused {
            0 => String::new(),
            n => format!("; {} stay dead letters", count(n)),
        };
        format!("{} put into the queue{stay}.\n", count(self.queued))
    }
}

fn line(id: LetterId, outcome: &Outcome) -> String {
    match outcome {
        Outcome::Queued(sequence) => format!("{:>10}  waits in the queue as {sequence}\n", id.1),
        Outcome::WasQueued => format!("{:>10}  was put into the queue by an earlier replay\n", id.1),
        Outcome::Refused(why) => format!("{:>10}  stays a dead letter: {}\n", id.1, printable(why, usize::MAX)),
    }
}

fn outcome_json(id: LetterId, outcome: &Outcome) -> serde_json::Value {
    let ce_id = format!("{}-{}", id.0, id.1);
    match outcome {
        Outcome::Queued(sequence) => json!({"replay_of": ce_id, "outcome": "queued", "sequence": sequence}),
        Outcome::WasQueued => json!({"replay_of": ce_id, "outcome": "was queued"}),
        Outcome::Refused(why) => json!({"replay_of": ce_id, "outcome": "refused", "reason": why}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::QueueId;

    /// Promise 9: a program is answered in JSON or not at all, and who is refused is not told of a success.
    #[test]
    fn last_words() {
        let none = Chosen::default();
        assert_eq!(
            (nothing(&none, true).as_str(), nothing(&none, false).as_str()),
            ("", "No dead letter is set aside.\n")
        );
        let others = Chosen { all: vec![(QueueId(7), 1), (QueueId(7), 2)], ..Chosen::default() };
        assert_eq!(nothing(&others, false), "None of the 2 dead letters fits.\n");
        let (begun, done) = (Told::default(), Told { queued: 2, refused: 1 });
        assert_eq!((begun.words(true).as_str(), begun.words(false).as_str()), ("", "0 put into the queue.\n"));
        assert_eq!(done.words(true), "2 put into the queue; 1 stay dead letters.\n");
    }
}

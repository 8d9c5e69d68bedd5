//! `meterferry dead-letters delete`

use std::process::ExitCode;

use serde_json::json;

use super::choice::Choice;
use crate::cli::queue::Folder;
use crate::cli::units::count;
use crate::cli::{Global, fail, out, terminal};
use crate::queue::inspect::Inspector;
use crate::queue::letters::{LetterId, Occupied};

const EXAMPLES: &str = "\
Examples:
  systemctl stop meterferry
  meterferry dead-letters export -o kept.jsonl && meterferry dead-letters delete --all
  meterferry dead-letters delete 31245 31246
  meterferry dead-letters delete --older-than 90d
  systemctl start meterferry

For good: a gap record in Kafka is all that is left of them. One that waits in the queue has to be set
aside by the agent first. Needs the agent stopped, since only one may write to the queue's folder; what the
broker receives meanwhile waits there. A damaged file is first replaced by what can be read of it, and kept
under a name with its date. To have old ones deleted by the agent set queue.dead_letters_max_age.

Exit codes:
  0   deleted
  1   one is not there, or an agent has the queue
  2   the command line is wrong
  78  the configuration is wrong";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    folder: Folder,
    #[command(flatten)]
    choice: Choice,
    /// One JSON object instead of words
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, global: &Global) -> Result<ExitCode, ExitCode> {
    let (inspector, _) = args.folder.inspect(global)?;
    args.choice.is_made()?;
    let kept = inspector.set_aside().map_err(|error| fail(&error))?;
    if inspector.letter_ids().is_err_and(|error| error.is_damage()) {
        occupied(&inspector)?.recover_letters().map_err(|error| fail(&error))?;
    }
    let chosen = args.choice.chosen(&inspector)?;
    let deleted = if chosen.ids.is_empty() { 0 } else { delete(&inspector, &chosen.ids)? };
    let now_kept = inspector.set_aside().map_err(|error| fail(&error))?;
    if let Some(name) = now_kept.into_iter().find(|name| !kept.contains(name)) {
        terminal::say(format_args!(
            "The dead letters were damaged: what could be read of them went on, and may hold some that were deleted before. The \
             damaged file is kept as {name}."
        ));
    }
    let text = if args.json {
        format!("{}\n", json!({ "deleted": deleted }))
    } else if chosen.ids.is_empty() {
        chosen.none()
    } else if deleted == 1 {
        "1 dead letter deleted.\n".to_owned()
    } else {
        format!("{} dead letters deleted.\n", count(deleted))
    };
    Ok(out(&text))
}

fn delete(inspector: &Inspector, ids: &[LetterId]) -> Result<u64, ExitCode> {
    occupied(inspector)?.delete_letters(ids).map_err(|error| fail(&error))
}

fn occupied(inspector: &Inspector) -> Result<Occupied<'_>, ExitCode> {
    inspector.occupy().map_err(|error| super::replay::agent_has_it(error, "dead-letters delete"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::Arc;

    use clap::Parser;

    use crate::agent;
    use crate::clock::Clock;
    use crate::metrics::Metrics;
    use crate::queue::{self, Queue};
    use crate::reading::{Body, DeadLetter, Gap};

    use super::*;

    fn set_aside(folder: &Path, count: u64) {
        let clock = Clock::new();
        let (metrics, options) = (Arc::new(Metrics::default()), agent::unconfigured_options(folder));
        let Queue { intake, mut outlet, writer, .. } =
            queue::open(&options, metrics, clock, Arc::new(|| {})).expect("a new queue");
        let (queue_id, now) = (outlet.queue_id(), clock.now());
        let body = |reason: &str| Body::Gap(Gap { first: 1, last: 1, reason: reason.into(), noticed: now });
        let letter = |sequence| {
            let reason = "refused".repeat(100);
            DeadLetter { queue_id, sequence, body: body(&reason), reason, set_aside: now }
        };
        outlet.set_aside((1..=count).map(letter).collect()).expect("set aside");
        drop((intake, outlet));
        writer.join().expect("an orderly end");
    }

    fn delete(folder: &Path, what: &str) -> Result<ExitCode, ExitCode> {
        let path = folder.to_str().expect("plain");
        let cli = crate::cli::Cli::parse_from(["meterferry", "dead-letters", "delete", "--path", path, what]);
        match cli.command {
            crate::cli::Command::DeadLetters(super::super::Command::Delete(args)) => run(&args, &cli.global),
            other => panic!("{other:?}"),
        }
    }

    /// Promise 7: a damaged file of dead letters does not keep a person from deleting: what can be read is kept first.
    #[test]
    fn damaged_letters_are_salvaged_first() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let folder = root.path().join("queue");
        set_aside(&folder, 50);
        let path = folder.join("dead-letters.redb");
        let mut bytes = fs::read(&path).expect("a file");
        let letter = bytes.windows(4).rposition(|window| window == b"MFL\x01").expect("a letter");
        bytes[letter + 40] ^= 1;
        fs::write(&path, bytes).expect("written");
        let inspector = Inspector::open(&folder).expect("a queue");
        assert_eq!(delete(&folder, "7"), Ok(ExitCode::SUCCESS));
        let left = inspector.letter_ids().expect("readable");
        assert!((45..50).contains(&left.len()) && !left.iter().any(|id| id.1 == 7), "{left:?}");
        let kept = inspector.set_aside().expect("a folder");
        assert!(kept.len() == 1 && kept[0].starts_with("dead-letters.redb.damaged-"), "{kept:?}");
    }
}

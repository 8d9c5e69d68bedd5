//! `meterferry dead-letters delete`

use std::process::ExitCode;

use serde_json::json;

use super::choice::Choice;
use crate::cli::queue::Folder;
use crate::cli::units::count;
use crate::cli::{Global, fail, out};
use crate::queue::inspect::Inspector;
use crate::queue::letters::LetterId;

const EXAMPLES: &str = "\
Examples:
  systemctl stop meterferry
  meterferry dead-letters export -o kept.jsonl && meterferry dead-letters delete --all
  meterferry dead-letters delete 31245 31246
  meterferry dead-letters delete --older-than 90d
  systemctl start meterferry

For good: a gap record in Kafka is all that is left of them. One that waits in the queue has to be set
aside by the agent first. Needs the agent stopped, since only one may write to the queue's folder; what the
broker receives meanwhile waits there. To have old ones deleted by
the agent set queue.dead_letters_max_age.

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
    let chosen = args.choice.chosen(&inspector)?;
    let deleted = if chosen.ids.is_empty() { 0 } else { delete(&inspector, &chosen.ids)? };
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
    let occupied = inspector.occupy().map_err(|error| super::replay::agent_has_it(error, "dead-letters delete"))?;
    occupied.delete_letters(ids).map_err(|error| fail(&error))
}

//! `meterferry queue repair`

use std::process::ExitCode;

use serde_json::json;

use super::Folder;
use crate::cli::progress::{Progress, Unit};
use crate::cli::units::count;
use crate::cli::{Global, fail, out, terminal};
use crate::queue::OpenError;
use crate::queue::repair::{self, RepairError, Repaired};
use crate::queue::segment_file;

const EXAMPLES: &str = "\
Examples:
  systemctl stop meterferry && meterferry queue repair && systemctl start meterferry
  meterferry queue repair --path /srv/copy-of-a-queue

The agent does all of this by itself: it recovers at its start, within a second, and salvages a damaged
segment when it comes to it. This is for looking at the outcome before it starts, or for a copy. A damaged
file is kept under a name with its date; what can be read of it takes its place; what is lost is told, and
explained to Kafka. Doing it twice changes nothing more.

Exit codes:
  0   the queue is sound now
  1   it could not be repaired, or an agent has it
  78  the configuration is wrong";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    folder: Folder,
    /// One JSON object instead of lines
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, global: &Global) -> Result<ExitCode, ExitCode> {
    let (options, _) = args.folder.options(global)?;
    let repaired = {
        let mut progress = Progress::new("repairing", crate::queue::bytes_there(&options.path), Unit::Bytes);
        repair::repair(&options, |read| progress.at(read)).map_err(failed)?
    };
    Ok(out(&if args.json { format!("{}\n", repaired_json(&repaired)) } else { text(&repaired) }))
}

fn failed(error: RepairError) -> ExitCode {
    match error {
        RepairError::Open(OpenError::Locked { path, pid }) => {
            terminal::fail(format_args!(
                "an agent (process {pid}) has the queue in {}: it repairs what it comes to by itself\n  hint: meterferry \
                 queue verify looks beside it; to repair now: systemctl stop meterferry; meterferry queue repair; systemctl \
                 start meterferry",
                path.display()
            ));
            ExitCode::FAILURE
        }
        error => fail(&error),
    }
}

fn text(repaired: &Repaired) -> String {
    let mut text = String::new();
    if repaired.closed {
        text.push_str("The newest segment was closed: the agent had been killed.\n");
    }
    for segment in &repaired.salvaged {
        text.push_str(&format!("segment {} was salvaged:\n", segment_file(segment.first)));
        for wrong in &segment.wrong {
            text.push_str(&format!("  {wrong}\n"));
        }
    }
    for lost in &repaired.lost {
        text.push_str(&format!(
            "lost: sequences {} to {} ({}); Kafka will be told\n",
            lost.first, lost.last, lost.reason
        ));
    }
    for name in &repaired.set_aside {
        text.push_str(&format!("kept: {name}\n"));
    }
    if repaired.forked {
        text.push_str("The queue has a new id: its own could not be trusted. What waits is sent under the new one.\n");
    }
    if repaired.is_nothing() {
        text.push_str("There was nothing to repair.\n");
    }
    text.push_str(&format!("{} records are whole.\n", count(repaired.records)));
    text
}

fn repaired_json(repaired: &Repaired) -> serde_json::Value {
    json!({
        "closed": repaired.closed,
        "salvaged": repaired.salvaged.iter().map(|segment| json!({"first": segment.first, "wrong": segment.wrong})).collect::<Vec<_>>(),
        "lost": repaired.lost.iter().map(|lost| json!({"first": lost.first, "last": lost.last, "reason": lost.reason})).collect::<Vec<_>>(),
        "kept": repaired.set_aside,
        "forked": repaired.forked,
        "records": repaired.records,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::verify::Verified;

    /// Promise 7: what a repair says to a person.
    #[test]
    fn repair_in_words() {
        let sound = Repaired { records: 36_244, ..Repaired::default() };
        insta::assert_snapshot!(text(&sound), @r"
        There was nothing to repair.
        36,244 records are whole.
        ");
        let lost = crate::queue::Lost { first: 31_300, last: 31_303, reason: "damaged on the disk".into() };
        let wrong = vec!["record 31300: the checksum does not fit".to_owned()];
        let repaired = Repaired {
            closed: true,
            salvaged: vec![Verified { first: 31_245, wrong, ..Verified::default() }],
            lost: vec![lost],
            set_aside: vec!["00000000000000031245.redb.damaged-20261123T040000Z".into()],
            forked: true,
            records: 36_240,
        };
        insta::assert_snapshot!(text(&repaired), @r"
        The newest segment was closed: the agent had been killed.
        segment 00000000000000031245.redb was salvaged:
          record 31300: the checksum does not fit
        lost: sequences 31300 to 31303 (damaged on the disk); Kafka will be told
        kept: 00000000000000031245.redb.damaged-20261123T040000Z
        The queue has a new id: its own could not be trusted. What waits is sent under the new one.
        36,240 records are whole.
        ");
    }
}

//! `meterferry queue pack`

use std::process::ExitCode;

use serde_json::json;

use super::Folder;
use crate::cli::progress::{Progress, Unit};
use crate::cli::units::{bytes, count};
use crate::cli::{Global, fail, out, signals, terminal};
use crate::queue::{self, OpenError, PackError};

const EXAMPLES: &str = "\
Examples:
  systemctl stop meterferry && meterferry queue pack && systemctl start meterferry
  meterferry queue pack --path /srv/copy-of-a-queue

Rewrites what waits as compressed blocks, one file to one file; a year of readings at one a second takes
about 1.5 GB. The agent does this by itself when nothing could be sent for long; this is for making room
at once. Ctrl-C ends it; what is done stays. A cut at any moment keeps one of the two files.

Exit codes:
  0  what could be packed is packed
  1  it was stopped or failed, or an agent has the queue";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    folder: Folder,
    /// One JSON object instead of words
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, global: &Global) -> Result<ExitCode, ExitCode> {
    let (path, _) = args.folder.find(global)?;
    let shutdown = signals::stop_on_signals().map_err(|error| fail(&error))?;
    let mut bar = Progress::new("packing files", 0, Unit::Records);
    let packed = queue::pack(&path, &mut |progress| {
        bar.of(progress.segments as u64);
        bar.at(progress.done as u64);
        !shutdown.is_asked()
    });
    drop(bar);
    let done = packed.map_err(|error| match error {
        PackError::Open(OpenError::Locked { path, pid }) => {
            terminal::fail(format_args!(
                "an agent (process {pid}) has the queue in {}\n  hint: it packs by itself when nothing could be sent for \
                 long; to do it now: systemctl stop meterferry; meterferry queue pack; systemctl start meterferry",
                path.display()
            ));
            ExitCode::FAILURE
        }
        error => fail(&error),
    })?;
    let printed = out(&if args.json { format!("{}\n", done_json(&done)) } else { text(&done) });
    Ok(if done.done < done.segments { ExitCode::FAILURE } else { printed })
}

fn text(done: &queue::Progress) -> String {
    let mut text = match done.packed {
        0 => "There was nothing to pack.\n".to_owned(),
        packed => format!(
            "{} files packed: {} instead of {}, {} free again.\n",
            count(packed as u64),
            bytes(done.after),
            bytes(done.before),
            bytes(done.before.saturating_sub(done.after))
        ),
    };
    if done.done < done.segments {
        text.push_str(&format!("Stopped after {} of {} files.\n", done.done, done.segments));
    }
    text
}

fn done_json(done: &queue::Progress) -> serde_json::Value {
    json!({
        "files": done.segments, "looked_at": done.done, "packed": done.packed,
        "bytes_before": done.before, "bytes_after": done.after,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Promise 6: what packing says to a person.
    #[test]
    fn pack_in_words() {
        assert_eq!(text(&queue::Progress::default()), "There was nothing to pack.\n");
        let done = queue::Progress { done: 3, segments: 5, packed: 2, before: 32 << 20, after: 3 << 20 };
        insta::assert_snapshot!(text(&done), @r"
        2 files packed: 3.0 MiB instead of 32.0 MiB, 29.0 MiB free again.
        Stopped after 3 of 5 files.
        ");
    }
}

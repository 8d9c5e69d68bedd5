//! `meterferry queue peek`

use std::process::ExitCode;

use super::record::{find_json, preview};
use super::{Folder, nothing_from};
use crate::agent::live;
use crate::cli::terminal::printable;
use crate::cli::units::{bytes, local_time};
use crate::cli::{Global, fail, out};
use crate::daily::date_of;
use crate::queue::inspect::received;
use crate::queue::walk::Find;
use crate::reading::Body;

const EXAMPLES: &str = "\
Examples:
  meterferry queue peek                    the ten oldest that wait
  meterferry queue peek -n 3 --json        with the whole payload, for programs
  meterferry queue peek --from 31245       from this sequence on, if it is still there
  meterferry queue peek --newest           the ten newest

Works beside the running agent. What the agent sent within the last seconds may be shown where it does
not answer.

Exit codes:
  0  done
  1  the queue cannot be read";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    folder: Folder,
    /// Records shown
    #[arg(long, short = 'n', default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    count: u32,
    /// First sequence shown [default: the release point]
    #[arg(long, value_name = "SEQUENCE")]
    from: Option<u64>,
    /// Show the newest instead of the oldest
    #[arg(long, conflicts_with = "from")]
    newest: bool,
    /// One JSON object a line, with the whole payload
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, global: &Global) -> Result<ExitCode, ExitCode> {
    let (inspector, _) = args.folder.inspect(global)?;
    let failed = |error| fail(&error);
    let live = live::ask(inspector.folder());
    let mut walk = inspector.walk(args.from, None).map_err(failed)?;
    if args.newest {
        walk.seek(walk.end().saturating_sub(u64::from(args.count)));
    } else if let (None, Some(live)) = (args.from, live) {
        // The agent knows of releases that are not on disk yet.
        walk.seek(walk.next().max(live.release_point));
    }
    let finds = walk.read(args.count as usize, usize::MAX).map_err(failed)?;
    if args.json {
        let queue_id = inspector.identity().queue_id();
        return Ok(out(&finds.iter().map(|find| format!("{}\n", find_json(find, queue_id))).collect::<String>()));
    }
    if finds.is_empty() {
        return Ok(out(&match args.from {
            None => "Nothing waits.\n".to_owned(),
            Some(from) => format!("{}\n", nothing_from(from, &walk)),
        }));
    }
    Ok(out(&table(&finds)))
}

fn table(finds: &[Find]) -> String {
    let mut text =
        format!("{:>10}  {:<19}  {:<12}  {:<16}  {:>10}\n", "sequence", "received", "source", "device", "size");
    for find in finds {
        text.push_str(&lines(find));
    }
    text
}

/// The columns, then the content, on lines that fit a terminal of 80.
fn lines(find: &Find) -> String {
    const WIDTH: usize = 67;
    let entry = match find {
        Find::Record(entry) => entry,
        Find::Missing { first, last, reason } => return format!("{first:>10}  to {last} missing: {reason}\n"),
        Find::Damaged { first, last, reason } => return format!("{first:>10}  to {last} damaged: {reason}\n"),
    };
    let (source, device, payload, content) = match &entry.body {
        Body::Reading(reading) => {
            let payload = &reading.payload;
            (&*reading.source, reading.device.as_str(), payload.len(), preview(payload, WIDTH))
        }
        Body::Dead(dead) => (&*dead.source, "(dead letter)", dead.payload.len(), printable(&dead.reason, WIDTH)),
        Body::Gap(gap) => ("", "(gap)", 0, printable(&format!("{} to {}: {}", gap.first, gap.last, gap.reason), WIDTH)),
        Body::Daily(daily) => ("", "(receipt)", 0, date_of(daily.day).to_string()),
    };
    format!(
        "{:>10}  {:<19}  {:<12}  {:<16}  {:>10}\n{:12}{content}\n",
        entry.sequence,
        local_time(received(&entry.body).wall_ms),
        printable(source, 12),
        printable(device, 16),
        bytes(payload as u64),
        ""
    )
}

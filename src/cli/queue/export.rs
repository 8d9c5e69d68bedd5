//! `meterferry queue export`: records as JSON lines, to a file or a pipe.

use std::fs::Permissions;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tempfile::NamedTempFile;

use super::record::find_json;
use super::{Folder, nothing_from};
use crate::agent::live;
use crate::cli::progress::{Progress, Unit};
use crate::cli::units::count;
use crate::cli::{Global, fail, signals, terminal};
use crate::queue::walk::{Find, Walk};
use crate::reading::QueueId;
use crate::shutdown::Shutdown;

/// Records read at a time: bounds what is held in memory.
const CHUNK: (usize, usize) = (512, 1 << 20);

const EXAMPLES: &str = "\
Examples:
  meterferry queue export > waiting.jsonl         everything that waits
  meterferry queue export | jq -r .payload        the documents alone
  meterferry queue export --released -o all.jsonl also what Kafka has, as far as it is still here
  meterferry queue export --from 31245 --to 31300
  meterferry queue export --limit 1000 | gzip > part.jsonl.gz

One JSON object a line: sequence, ce_id (its name in Kafka), kind, source, device, topic, times and the
payload: as text, or as payload_base64 where it is not UTF-8. What is not there is a line of kind
\"missing\" or \"damaged\", with first, last and reason. Works beside the running agent, and changes nothing.

Exit codes:
  0  everything asked for is written
  1  something could not be read or written";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    folder: Folder,
    /// First sequence [default: the release point]
    #[arg(long, value_name = "SEQUENCE")]
    from: Option<u64>,
    /// Last sequence, inclusive [default: the newest]
    #[arg(long, value_name = "SEQUENCE")]
    to: Option<u64>,
    /// The most records
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// From the oldest record that is still here, although Kafka has it
    #[arg(long, conflicts_with = "from")]
    released: bool,
    /// A new file to write to, which only you may read [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Same as without: the lines are JSON in any case
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, global: &Global) -> Result<ExitCode, ExitCode> {
    let (inspector, _) = args.folder.inspect(global)?;
    let from = if args.released { Some(0) } else { args.from };
    let mut walk = inspector.walk(from, args.to).map_err(|error| fail(&error))?;
    if let (None, Some(live)) = (from, live::ask(inspector.folder())) {
        walk.seek(walk.next().max(live.release_point));
    }
    if let (Some(from), Some(to)) = (args.from, args.to)
        && from > to
    {
        terminal::fail(format_args!(
            "--from {from} is above --to {to}\n  hint: both are sequences; the lower one comes first"
        ));
        return Err(ExitCode::from(2));
    }
    if let Some(from) = args.from.filter(|from| *from >= walk.end()) {
        terminal::say(nothing_from(from, &walk));
    }
    let (limit, queue_id) = (args.limit.unwrap_or(u64::MAX), inspector.identity().queue_id());
    let done = match &args.output {
        None => write(&mut walk, queue_id, limit, &mut io::stdout().lock(), None)?,
        Some(path) => {
            let shutdown = signals::stop_on_signals().map_err(|error| fail(&error))?;
            let mut file = unfinished(path)?;
            let done = write(&mut walk, queue_id, limit, file.as_file_mut(), Some(&shutdown))?;
            // Under its name it is whole: an interrupted export leaves none.
            if let Err(error) = file.as_file().sync_all().and_then(|()| Ok(file.persist_noclobber(path)?)) {
                return Err(not_made(path, &error));
            }
            done
        }
    };
    if args.output.is_some() {
        terminal::say(format_args!("{} records written", count(done.records)));
    }
    if done.damaged > 0 {
        terminal::fail(format_args!(
            "{} sequences cannot be read: they are lines of kind \"damaged\"\n  hint: the agent salvages what can be read \
             when it comes to them; or stop it and run meterferry queue repair",
            count(done.damaged)
        ));
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// A file beside `path`, to be named so when it is whole.
fn unfinished(path: &Path) -> Result<NamedTempFile, ExitCode> {
    if path.exists() {
        return Err(not_made(path, &io::ErrorKind::AlreadyExists.into()));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let private = Permissions::from_mode(0o600);
    let made = tempfile::Builder::new().prefix(".meterferry-export-").permissions(private).tempfile_in(folder);
    made.map_err(|error| not_made(path, &error))
}

fn not_made(path: &Path, error: &io::Error) -> ExitCode {
    let hint = if error.kind() == io::ErrorKind::AlreadyExists { "\n  hint: name a new file" } else { "" };
    terminal::fail(format_args!("{} cannot be made: {error}{hint}", path.display()));
    ExitCode::FAILURE
}

#[derive(Default)]
struct Done {
    records: u64,
    damaged: u64,
}

fn write(
    walk: &mut Walk,
    queue_id: QueueId,
    limit: u64,
    sink: &mut dyn Write,
    shutdown: Option<&Shutdown>,
) -> Result<Done, ExitCode> {
    let mut sink = BufWriter::new(sink);
    let mut done = Done::default();
    let total = walk.left().min(limit);
    let mut progress = Progress::new("exporting", total, Unit::Records);
    while done.records < limit {
        if shutdown.is_some_and(Shutdown::is_asked) {
            drop(progress);
            terminal::fail("stopped before everything was written: no file was made");
            return Err(ExitCode::FAILURE);
        }
        let most = usize::try_from(limit - done.records).unwrap_or(usize::MAX).min(CHUNK.0);
        let finds = walk.read(most, CHUNK.1).map_err(|error| fail(&error))?;
        if finds.is_empty() {
            break;
        }
        for find in &finds {
            match find {
                Find::Record(_) => done.records += 1,
                Find::Damaged { first, last, .. } => done.damaged += last - first + 1,
                Find::Missing { .. } => {}
            }
            let written = serde_json::to_writer(&mut sink, &find_json(find, queue_id))
                .map_err(io::Error::from)
                .and_then(|()| sink.write_all(b"\n"));
            if let Err(error) = written {
                return ended(&error, done);
            }
        }
        progress.at(if limit == u64::MAX { total.saturating_sub(walk.left()) } else { done.records });
    }
    match sink.flush() {
        Ok(()) => Ok(done),
        Err(error) => ended(&error, done),
    }
}

/// A reader that has gone (`| head`) is a quiet end.
fn ended(error: &io::Error, done: Done) -> Result<Done, ExitCode> {
    if error.kind() == io::ErrorKind::BrokenPipe { Ok(done) } else { Err(fail(error)) }
}

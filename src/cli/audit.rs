//! `meterferry audit`: is everything in Kafka that the agents had? Works from any machine that may read the topics.

use std::process::ExitCode;

use jiff::Timestamp;

use super::cluster::{Address, Cluster};
use super::progress::{Progress, Unit};
use super::{Global, signals, terminal, units};

mod account;
mod intervals;
mod json;
pub(super) mod reader;
mod report;
mod tally;
#[cfg(test)]
mod tests;

use reader::{ReadError, Reader};
use tally::{Conclusion, Tally, TooMuch};

/// Nothing can be said (sysexits.h, `EX_UNAVAILABLE`): Kafka could not be read to its end.
const EX_UNAVAILABLE: u8 = 69;

/// Records between two looks at the clock.
const STRIDE: u64 = 1024;

/// Offsets that are looked back first, in each partition: a clock that is behind, a start. Each step is larger, so that
/// few are needed however far it is.
const STEP_BACK: i64 = 1_000;
const STEP_GROWTH: i64 = 4;

const EXAMPLES: &str = "\
Examples:
  meterferry audit                                  all topics of the configuration
  meterferry audit --brokers kafka:9092             from any machine; topic sma-kafka
  meterferry audit --topic meters --topic plugs     all topics that the agents send to
  meterferry audit --from 2026-06-21T00:00:00Z      what Kafka dates since then
  meterferry audit --json | jq .queues[].missing    for programs

Every queue (agent and queue id) numbers its records without holes. Missing is a number that no
record in the topics has and that neither a gap record nor a daily receipt explains. What Kafka's
retention has deleted, or may have, is said, and not missing. All topics that an agent sends to
must be named, or what it sent to the others counts as missing.

With --from, what Kafka dates earlier is in no figure. It is read where a number would be missing
without it: dates do not always rise with the numbers.

A queue that begins with 1 although the agent had another before is one whose folder was deleted: what
still waited in the old one is lost, and nothing in Kafka knows of it. That is said.

A queue that begins above 1 is a fork, which goes on counting, or has lost its beginning. Where no
other queue of the agent ends there, that is said; it does not change the exit code.

Exit codes:
  0   nothing is missing but what is explained, from where each queue begins
  1   something is missing and not explained, or there is no record of an agent
  2   the command line is wrong
  69  Kafka could not be read to the end: nothing is known
  78  the configuration is wrong";

/// Check that every reading the agents had is in Kafka
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    cluster: Cluster,

    /// Where to begin: beginning, or a time (RFC 3339) as Kafka dates records
    #[arg(long, value_name = "TIME", default_value = "beginning", value_parser = begin)]
    from: Begin,

    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// `--from`; none: the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Begin(Option<Timestamp>);

fn begin(text: &str) -> Result<Begin, String> {
    match text {
        "beginning" => Ok(Begin(None)),
        text => text
            .parse()
            .map(|time| Begin(Some(time)))
            .map_err(|_| "write beginning or a time such as 2026-06-21T06:00:00+02:00".to_owned()),
    }
}

/// Why there is no outcome.
#[derive(Debug, thiserror::Error)]
enum AuditError {
    #[error("cannot wait for signals")]
    Signals(#[source] std::io::Error),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    TooMuch(#[from] TooMuch),
}

pub fn run(args: Args, global: &Global) -> ExitCode {
    terminal::colours(global.color).write_global();
    let address = match args.cluster.address(global) {
        Ok(address) => address,
        Err(code) => return code,
    };
    match audit(&address, args.from.0) {
        Ok((reader, conclusion)) => {
            let text = match args.json {
                true => json::text(&reader.partitions, &conclusion),
                false => report::text(&reader.partitions, &conclusion),
            };
            let printed = super::out(&text);
            if conclusion.is_complete() { printed } else { ExitCode::FAILURE }
        }
        Err(error) => {
            terminal::fail(super::chain(&error));
            ExitCode::from(EX_UNAVAILABLE)
        }
    }
}

fn audit(address: &Address, from: Option<Timestamp>) -> Result<(Reader, Conclusion), AuditError> {
    let shutdown = signals::stop_on_signals().map_err(AuditError::Signals)?;
    let topics = address.topics.join(", ");
    terminal::say(format_args!("reading {topics} at {}", address.brokers));
    let mut reader = Reader::open(address, from, &shutdown)?;
    let mut tally = Tally::new(&reader.kept()?, from.map(Timestamp::as_millisecond));
    pass(&mut reader, &mut tally)?;
    // A transaction that was seen in one partition may have been on its way in another.
    tally.set_horizon();
    reader.extend()?;
    pass(&mut reader, &mut tally)?;
    look_back(&mut reader, &mut tally)?;
    Ok((reader, tally.conclude()))
}

/// What seems to be missing may stand in front of what was read: dates do not rise with the sequences.
fn look_back(reader: &mut Reader, tally: &mut Tally) -> Result<(), AuditError> {
    let mut width = STEP_BACK;
    let mut sought = tally.sought();
    while sought.count > 0 && reader.step_back(width, |place| tally.is_settled(place, &sought))? {
        if width == STEP_BACK {
            let number = units::count(sought.count);
            terminal::say(format_args!("looking for {number} that would be missing in what Kafka dates earlier"));
        }
        let mut progress = Progress::new("looking back", reader.left(), Unit::Records);
        let mut done = 0;
        reader.read(|record, place| {
            tally.look_back(record, place)?;
            done += 1;
            if u64::is_multiple_of(done, STRIDE) {
                progress.at(done);
            }
            Ok::<(), AuditError>(())
        })?;
        sought = tally.sought();
        width = width.saturating_mul(STEP_GROWTH);
    }
    Ok(())
}

fn pass(reader: &mut Reader, tally: &mut Tally) -> Result<(), AuditError> {
    let before = tally.records();
    let mut progress = Progress::new("reading", reader.left(), Unit::Records);
    reader.read(|record, place| {
        tally.take(record, place)?;
        let done = tally.records() - before;
        if done.is_multiple_of(STRIDE) {
            progress.at(done);
        }
        Ok(())
    })
}

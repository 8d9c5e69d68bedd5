//! `meterferry consume`: the readings on the other side, for a person to read or a program to parse.

use std::io::{self, BufWriter, IsTerminal, Stdout, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anstream::AutoStream;
use jiff::civil::Date;

use super::cluster::{Address, Cluster};
use super::{Global, signals, terminal};
use crate::shutdown::Shutdown;

mod chart;
pub(super) mod client;
mod flows;
mod from;
mod json;
mod kafka;
pub(super) mod record;
mod repeats;
mod table;

use from::From;
use kafka::{Connection, Heard, Reader};
use record::{Content, Record};
use repeats::Repeats;
use table::Table;

/// How long one poll waits: what a signal waits for at most.
const POLL: Duration = Duration::from_millis(200);

/// How often what was printed is committed.
const COMMIT_EVERY: Duration = Duration::from_secs(1);

const EXAMPLES: &str = "\
Examples:
  meterferry consume --brokers kafka:9092         a table, from the beginning, until Ctrl-C
  meterferry consume --from end                   only what comes from now on
  meterferry consume --from 2026-06-21T00:00:00Z  what Kafka got since then
  meterferry consume --json --count 10 | jq .key  for programs
  meterferry consume --chart 90296857             one device's day

A group goes on where it left off; --from reads from there instead. Repeats are dropped by ce_id:
the newest 1,024 sequences of each queue and partition are remembered, until it ends. Records that
meterferry has not written are shown too.

Exit codes:
  0   done
  1   it failed
  2   the command line is wrong
  78  the configuration is wrong";

/// Read the readings from Kafka
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    cluster: Cluster,

    /// Consumer group
    #[arg(long, default_value = "meterferry-consume", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    group: String,

    /// Where to begin: beginning, end, a time (RFC 3339) or an offset [default: where the group left off, else the
    /// beginning]
    #[arg(long, value_name = "WHERE")]
    from: Option<From>,

    /// One JSON object a line: key, value, headers, topic, partition, offset, timestamp
    #[arg(long)]
    json: bool,

    /// Ends after so many records
    #[arg(long, value_name = "N")]
    count: Option<u64>,

    /// Show repeats too
    #[arg(long)]
    repeats: bool,

    /// One device's day as a chart of its net power; joins no group
    #[arg(long, value_name = "DEVICE", conflicts_with_all = ["from", "json", "count", "repeats", "group"])]
    chart: Option<String>,

    /// Which day, by the local clock [default: today]
    #[arg(long, value_name = "YYYY-MM-DD", requires = "chart")]
    day: Option<Date>,
}

/// The version of the Kafka library.
pub fn librdkafka_version() -> String {
    kafka::library_version()
}

pub fn run(args: Args, global: &Global) -> ExitCode {
    let colours = terminal::colours(global.color);
    colours.write_global();
    let out = AutoStream::new(io::stdout(), colours);
    let address = match args.cluster.address(global) {
        Ok(address) => address,
        Err(code) => return code,
    };
    let consumed = match &args.chart {
        Some(device) => day(device, args.day, &address, out),
        None => consume(args, address, out),
    };
    match consumed {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            terminal::fail(message);
            ExitCode::FAILURE
        }
    }
}

fn day(device: &str, day: Option<Date>, address: &Address, mut out: AutoStream<Stdout>) -> Result<(), String> {
    let shutdown = signals::stop_on_signals().map_err(|error| format!("cannot wait for signals: {error}"))?;
    let chart = chart::chart(address, device, day, columns().unwrap_or(100), &shutdown)?;
    match out.write_all(chart.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(format!("cannot print: {error}")),
        _ => Ok(()),
    }
}

fn consume(args: Args, address: Address, out: AutoStream<Stdout>) -> Result<(), String> {
    let shutdown = signals::stop_on_signals().map_err(|error| format!("cannot wait for signals: {error}"))?;
    let connection = Connection { address, group: args.group.clone(), from: args.from };
    let reader = Reader::new(&connection).map_err(|error| error.to_string())?;
    let begin = match args.from {
        Some(from) => format!("from {from}"),
        None => "from where the group left off, else from the beginning".to_owned(),
    };
    let topics = connection.address.topics.join(", ");
    terminal::say(format_args!(
        "reading {topics} at {} as group {}, {begin}; Ctrl-C ends",
        connection.address.brokers, connection.group
    ));
    let mut view = View::new(&args, out);
    let ended = view.follow(&reader, &shutdown);
    reader.leave();
    match ended {
        Ok(()) => {
            terminal::say(view.summary());
            Ok(())
        }
        // Whoever read the output has seen enough (`| head`).
        Err(Ended::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(Ended::Output(error)) => Err(format!("cannot print: {error}")),
        Err(Ended::Kafka(message)) => Err(message),
    }
}

/// Why it cannot go on.
enum Ended {
    Output(io::Error),
    Kafka(String),
}

impl std::convert::From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// What is shown, and what is counted.
struct View {
    out: BufWriter<AutoStream<Stdout>>,
    /// None: JSON.
    table: Option<Table>,
    repeats: Repeats,
    keep_repeats: bool,
    limit: Option<u64>,
    shown: u64,
    gaps: u64,
    receipts: u64,
    repeats_seen: u64,
    foreign: u64,
}

/// Of the terminal that standard output is; none: it is none.
fn columns() -> Option<usize> {
    let width = || terminal_size::terminal_size().map_or(80, |(width, _)| usize::from(width.0));
    io::stdout().is_terminal().then(width)
}

impl View {
    fn new(args: &Args, out: AutoStream<Stdout>) -> Self {
        Self {
            out: BufWriter::new(out),
            table: (!args.json).then(|| Table::new(columns())),
            repeats: Repeats::default(),
            keep_repeats: args.repeats,
            limit: args.count,
            shown: 0,
            gaps: 0,
            receipts: 0,
            repeats_seen: 0,
            foreign: 0,
        }
    }

    /// Shows what comes until the stop is asked for or the limit is reached.
    fn follow(&mut self, reader: &Reader, shutdown: &Shutdown) -> Result<(), Ended> {
        let mut committed = Instant::now();
        let mut waiting = false;
        while !shutdown.is_asked() && self.limit.is_none_or(|limit| self.shown < limit) {
            // Printed at once when nothing more is waiting, in larger pieces while there is.
            let heard = reader.hear(if waiting { POLL } else { Duration::ZERO });
            waiting = matches!(heard, Heard::Nothing);
            match heard {
                Heard::Record(record) => {
                    self.show(&record)?;
                    reader.written(&record);
                }
                Heard::News(news) => terminal::say(news),
                Heard::Fatal(message) => return Err(Ended::Kafka(message)),
                Heard::Nothing => self.flush(reader)?,
            }
            if committed.elapsed() >= COMMIT_EVERY {
                self.flush(reader)?;
                reader.commit();
                committed = Instant::now();
            }
        }
        self.flush(reader)?;
        Ok(())
    }

    fn flush(&mut self, reader: &Reader) -> io::Result<()> {
        self.out.flush()?;
        reader.flushed();
        Ok(())
    }

    fn show(&mut self, record: &Record) -> io::Result<()> {
        let repeated = record.event().is_some_and(|event| self.repeats.is_repeat(record, &event));
        if repeated {
            self.repeats_seen += 1;
            if !self.keep_repeats {
                return Ok(());
            }
        }
        let content = record.content();
        match content {
            Content::Gap(_) => self.gaps += 1,
            Content::Receipt(_) => self.receipts += 1,
            Content::Other => self.foreign += 1,
            Content::Reading(_) => {}
        }
        self.shown += 1;
        match &mut self.table {
            Some(table) => table.write(&mut self.out, record, &content),
            None => json::write(&mut self.out, record),
        }
    }

    fn summary(&self) -> String {
        let readings = self.shown - self.gaps - self.receipts - self.foreign;
        let counts = [
            (readings, "reading", "readings"),
            (self.gaps, "gap record", "gap records"),
            (self.receipts, "daily receipt", "daily receipts"),
            (self.foreign, "record of another kind", "records of another kind"),
        ];
        let mut parts: Vec<String> = counts
            .into_iter()
            .filter(|(count, ..)| *count > 0)
            .map(|(count, one, many)| format!("{count} {}", if count == 1 { one } else { many }))
            .collect();
        if parts.is_empty() {
            parts.push("nothing".to_owned());
        }
        let dropped = match (self.repeats_seen, self.keep_repeats) {
            (0, _) => String::new(),
            (count, true) => format!("; {count} of these were repeats"),
            (1, false) => "; 1 repeat dropped".to_owned(),
            (count, false) => format!("; {count} repeats dropped"),
        };
        format!("{} shown{dropped}", parts.join(", "))
    }
}

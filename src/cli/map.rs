//! `meterferry map`

use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use jiff::tz::TimeZone;

use super::{EX_CONFIG, Global, check, out, terminal};
use crate::config::{self, PRESETS, Preset};
use attempt::Attempt;

mod attempt;
mod json;
mod print;

/// Bytes of the largest message that is tried.
const LARGEST: u64 = 1 << 20;

/// The document of the Austrian adapter; it needs no table.
const SMA: &str = "sma";

const EXAMPLES: &str = "\
Examples:
  mosquitto_sub -t tele/plug/SENSOR -C 1 > message.json    save one message of a device
  meterferry map message.json                              which payload fits it?
  meterferry map message.json --payload tasmota-plug       what this one makes of it
  meterferry map --show tasmota-plug > mine.toml           a table to change
  meterferry map message.json --mapping mine.toml          what the changed one makes of it
  echo 42.5 | meterferry map - --topic meter/sensor/power_delivered/state
                                                           a topic a value

What fits goes into the configuration as payload = \"...\" or mapping_file = \"mine.toml\".

Exit codes:
  0   it is a reading
  1   it is none, or the file cannot be read
  2   the command line is wrong
  78  the mapping is not right";

/// Show what a mapping makes of a message, or find the one that fits
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// A file with one message as the device sent it; - reads standard input
    #[arg(value_name = "TRY-FILE", required_unless_present_any = ["list", "show"])]
    file: Option<PathBuf>,

    /// The payload to try; without it, all of them
    #[arg(long, value_name = "PRESET", value_parser = payloads(), hide_possible_values = true, conflicts_with = "mapping")]
    payload: Option<String>,

    /// A mapping of your own to try
    #[arg(long, value_name = "FILE")]
    mapping: Option<PathBuf>,

    /// The MQTT topic that the message came on
    #[arg(long, default_value = "", hide_default_value = true)]
    topic: String,

    /// The zone of local times, such as Europe/Vienna [default: the system's]
    #[arg(long, value_name = "ZONE", value_parser = zone)]
    timezone: Option<TimeZone>,

    /// Print JSON
    #[arg(long)]
    json: bool,

    /// List the payloads that are known
    #[arg(long, conflicts_with_all = ["file", "show"])]
    list: bool,

    /// Print the mapping of a payload, to copy and change it
    #[arg(long, value_name = "PRESET", value_parser = tables(), hide_possible_values = true, conflicts_with = "file")]
    show: Option<String>,
}

fn tables() -> clap::builder::PossibleValuesParser {
    PRESETS.iter().map(|preset| preset.name).collect::<Vec<_>>().into()
}

fn payloads() -> clap::builder::PossibleValuesParser {
    [SMA].into_iter().chain(PRESETS.iter().map(|preset| preset.name)).collect::<Vec<_>>().into()
}

fn zone(text: &str) -> Result<TimeZone, String> {
    config::zone(text).map_err(|hint| format!("no time zone of this system; {hint}"))
}

pub fn run(args: Args, global: &Global) -> ExitCode {
    let colours = terminal::colours(global.color);
    colours.write_global();
    if args.list {
        return out(&print::list());
    }
    if let Some(preset) = args.show.as_deref().and_then(Preset::named) {
        return out(preset.text);
    }
    let file = args.file.as_deref().unwrap_or(Path::new("-"));
    let message = match read(file) {
        Ok(message) => message,
        Err(error) => {
            terminal::fail(format_args!("{} cannot be read: {error}", file.display()));
            return ExitCode::FAILURE;
        }
    };
    let zone = args.timezone.clone().unwrap_or_else(TimeZone::system);
    let attempts = match attempts(&args, &zone, &message) {
        Ok(attempts) => attempts,
        Err(problems) => {
            let _ = check::report(&mut anstream::AutoStream::new(io::stderr(), colours), &problems);
            return ExitCode::from(EX_CONFIG);
        }
    };
    let understood = attempts.first().is_some_and(|attempt| attempt.result.is_ok());
    let text = if args.json { json::written(&attempts) } else { print::shown(&attempts, &args.topic, columns()) };
    match out(&text) {
        ExitCode::SUCCESS if !understood => ExitCode::FAILURE,
        code => code,
    }
}

/// What was asked for, or all that is known: what fits best comes first.
fn attempts(args: &Args, zone: &TimeZone, message: &[u8]) -> Result<Vec<Attempt>, config::Problems> {
    let topic = args.topic.as_str();
    if let Some(file) = &args.mapping {
        let mapping = config::mapping_file(file, zone.clone())?;
        return Ok(vec![Attempt::of(&mapping, topic, message)]);
    }
    let one = |name: &str| match Preset::named(name) {
        Some(preset) => Attempt::of(&preset.mapping(zone.clone()), topic, message),
        None => Attempt::of_adapter(topic, message),
    };
    if let Some(name) = &args.payload {
        return Ok(vec![one(name)]);
    }
    let mut all: Vec<_> = [SMA].into_iter().chain(PRESETS.iter().map(|preset| preset.name)).map(one).collect();
    all.sort_by_key(|attempt| std::cmp::Reverse(attempt.score()));
    Ok(all)
}

/// The columns of the terminal; none where the output goes elsewhere.
fn columns() -> Option<usize> {
    let width = terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
    width.filter(|_| io::stdout().is_terminal())
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut message = Vec::new();
    if file == Path::new("-") {
        io::stdin().take(LARGEST + 1).read_to_end(&mut message)?;
    } else {
        std::fs::File::open(file)?.take(LARGEST + 1).read_to_end(&mut message)?;
    }
    if message.len() as u64 > LARGEST {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 1 MiB"));
    }
    Ok(message)
}

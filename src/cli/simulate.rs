//! `meterferry simulate`

use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::{SignedDuration, Timestamp};

use super::{EX_USAGE, Global, signals, terminal};
use crate::config;
use crate::config::settings::Login;
use crate::shutdown::Shutdown;
use crate::simulate::adapter::{self, Adapter};
use crate::simulate::mqtt::{self, Event, FAST_STEP, Options};
use crate::simulate::reader::Reader;

mod reader;

mod modbus;
mod rest;

/// Documents of one adapter on their way at one time.
const WINDOW: usize = 100;

/// The same of an adapter that speaks to the agent itself: one like it has few.
const DIRECT_WINDOW: usize = 10;

/// What the adapter speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Interface {
    /// MQTT, to a broker
    Mqtt,
    /// MQTT, to the agent's own listener (a source of type mqtt-listener)
    MqttDirect,
    /// HTTP: an adapter that waits to be asked
    Rest,
    /// Modbus TCP: a SunSpec meter that waits to be asked
    Modbus,
}

impl Interface {
    /// Who takes what is published.
    fn taker(self) -> &'static str {
        if self == Self::MqttDirect { "agent" } else { "broker" }
    }
}

const EXAMPLES: &str = "\
Examples:
  meterferry simulate                             one adapter, a document a second, to localhost
  meterferry simulate --devices 20 --interval 5s  a house with twenty flats
  meterferry simulate --interval 0 --count 10000  ten thousand, as fast as the broker takes them
  meterferry simulate --print --count 3           look at the documents
  meterferry simulate --reader tasmota-sml        an optical head with Tasmota at the same meter
  meterferry simulate --interface mqtt-direct     the same adapter, connected to the agent's own listener
  meterferry simulate --interface rest            an adapter that is asked over HTTPS, on a free port
  meterferry simulate --interface rest --http --token-file key --fault html --fault-every 5
                                                  without TLS, and a web page with every fifth request
  meterferry simulate --interface modbus          a SunSpec meter at 127.0.0.1:1502, for a source of type modbus
  meterferry simulate --interface modbus --fault exception:6 --fault-every 5
                                                  one that is busy at every fifth reading
  meterferry simulate --start 2026-06-21T00:00:00Z --interval 0 --count 86400
                                                  a whole summer's day, the same each time

Published is what the broker (or with mqtt-direct the agent) has acknowledged. Like the real adapter, a simulated one measures on
while no broker listens, and what it measured then is gone; with --start it waits instead. Two
simulators at the same broker need two seeds: the client ids are made from them too. A Modbus meter
answers who asks; its options are below the heading Modbus, and of the others --devices, --count,
--seed and --start are its too.

Exit codes:
  0  all that was sent is acknowledged
  1  something sent was not acknowledged when it stopped, or it could not start
  2  the command line is wrong";

/// Be a smart meter adapter
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// What the adapter speaks
    #[arg(long, value_enum, default_value_t = Interface::Mqtt)]
    interface: Interface,

    /// The MQTT broker's name or address (or that of the agent's own listener)
    #[arg(long, value_name = "NAME", default_value = "localhost")]
    host: String,

    /// Its port
    #[arg(long, default_value_t = 1883)]
    port: u16,

    /// MQTT topic; real adapters all use the same
    #[arg(long, default_value = "sma", value_parser = topic)]
    topic: String,

    /// Be another maker's reader, on its own topics, such as tasmota-sml; meterferry map --list names them
    #[arg(long, value_name = "PRESET", value_parser = reader::named, conflicts_with = "topic")]
    reader: Option<Reader>,

    /// Adapters, each with a meter, a household and an MQTT connection of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    devices: u32,

    /// From document to document, such as 1s, 500ms, 5m; 0: as fast as possible, a second apart by the meter's clock
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    interval: Duration,

    /// Documents of each adapter; without it, until Ctrl-C
    #[arg(long, value_name = "N")]
    count: Option<u64>,

    /// MQTT quality of service: 1 acknowledged, 0 not
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=1))]
    qos: u8,

    /// Another seed is another household with another meter
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// The meter's clock at the first document [default: now]
    #[arg(long, value_name = "RFC 3339")]
    start: Option<Timestamp>,

    /// MQTT user
    #[arg(long, requires = "password_file")]
    user: Option<String>,

    /// File with the MQTT user's password
    #[arg(long, value_name = "FILE", requires = "user")]
    password_file: Option<PathBuf>,

    /// Print the documents instead of publishing them
    #[arg(long, conflicts_with_all = ["user", "password_file"])]
    print: bool,

    #[command(flatten)]
    asked: Asked,

    #[command(flatten)]
    rest: rest::Args,

    #[command(flatten)]
    modbus: modbus::Args,
}

/// What rest and modbus have in common.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Devices that are asked (rest, modbus)")]
#[group(skip)]
struct Asked {
    /// Where clients connect to [default: 127.0.0.1, modbus at port 1502]; port 0: any free one, which is printed
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,

    /// What goes wrong. modbus: slow, half, cut, reset, wrong-unit, wrong-transaction, wrong-function, short, oversized,
    /// endless, garbage, turn-over, went-back, exception:N. rest: slow, slow-body, broken-json, html, empty, truncated, huge,
    /// endless, reset, gzip, latin1, foreign-json, or a status from 300 to 599
    #[arg(long, value_name = "FAULT")]
    fault: Option<String>,

    /// Every so many readings it does [default: 10]
    #[arg(long, value_name = "N", requires = "fault", value_parser = clap::value_parser!(u64).range(1..))]
    fault_every: Option<u64>,
}

impl Asked {
    /// The fault, and every so many readings.
    fn fault<F: FromStr<Err = String>>(&self) -> Result<Option<(F, u64)>, String> {
        let Some(text) = &self.fault else { return Ok(None) };
        let fault = text.parse().map_err(|error| format!("--fault is {text}: {error}"))?;
        Ok(Some((fault, self.fault_every.unwrap_or(10))))
    }
}

/// A topic to publish to (MQTT 3.1.1, 4.7.1 and 4.7.3).
fn topic(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > 65_535 || text.contains(['+', '#', '\0']) {
        return Err("1 to 65535 bytes, and neither + nor #".to_owned());
    }
    Ok(text.to_owned())
}

/// A human time; 0 needs no unit.
fn interval(text: &str) -> Result<Duration, String> {
    let longest = Duration::from_secs(86_400);
    let duration = match text {
        "0" => Duration::ZERO,
        _ => text
            .parse::<SignedDuration>()
            .ok()
            .and_then(|duration| Duration::try_from(duration).ok())
            .ok_or("write it as 1s, 500ms or 5m, or 0 for as fast as possible")?,
    };
    if duration > longest || (!duration.is_zero() && duration < Duration::from_millis(1)) {
        return Err("from 1ms to 24h, or 0 for as fast as possible".to_owned());
    }
    Ok(duration)
}

/// What does not go together.
fn contradiction(args: &Args) -> Option<String> {
    let is_asked = [Interface::Rest, Interface::Modbus].contains(&args.interface);
    let asked = [("--listen", args.asked.listen.is_some()), ("--fault", args.asked.fault.is_some())];
    let of_mqtt = [("--user", args.user.is_some()), ("--print", args.print)];
    let of_many = [("--devices", args.devices > 1), ("--count", args.count.is_some())];
    let given = |options: [(&'static str, bool); 2], out_of_place: bool| {
        options.into_iter().find(|(_, given)| *given && out_of_place).map(|(option, _)| option)
    };
    let of_modbus = args.modbus.given().filter(|_| args.interface != Interface::Modbus);
    let of_rest = args.rest.given().filter(|_| args.interface != Interface::Rest);
    [
        (of_modbus, "modbus"),
        (of_rest, "rest"),
        (given(asked, !is_asked), "rest and modbus"),
        (given(of_mqtt, is_asked), "mqtt and mqtt-direct"),
        (given(of_many, args.interface == Interface::Rest), "mqtt, mqtt-direct and modbus"),
    ]
    .into_iter()
    .find_map(|(option, interfaces)| option.map(|option| format!("{option} belongs to --interface {interfaces}")))
}

pub fn run(args: Args, global: &Global) -> ExitCode {
    terminal::colours(global.color).write_global();
    if let Some(message) = contradiction(&args) {
        terminal::fail(message);
        return ExitCode::from(EX_USAGE);
    }
    match start(args) {
        Ok(code) => code,
        Err(message) => {
            terminal::fail(message);
            ExitCode::FAILURE
        }
    }
}

fn start(args: Args) -> Result<ExitCode, String> {
    let login = login(&args)?;
    let shutdown = signals::stop_on_signals().map_err(|error| format!("cannot wait for signals: {error}"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    if args.interface == Interface::Rest {
        return runtime.block_on(args.rest.run(&args.asked, args.interval, args.seed, args.start, &shutdown));
    }
    if args.interface == Interface::Modbus {
        let serving = args.modbus.run(&args.asked, args.devices, args.count, args.seed, args.start, &shutdown);
        return runtime.block_on(serving);
    }
    if args.print {
        return match runtime.block_on(print(&args, &shutdown)) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(format!("cannot print: {error}")),
            _ => Ok(ExitCode::SUCCESS),
        };
    }
    let interface = args.interface;
    let options = Options {
        host: args.host,
        port: args.port,
        topic: args.topic,
        reader: args.reader,
        login,
        devices: args.devices,
        interval: args.interval,
        count: args.count,
        acknowledged: args.qos == 1,
        seed: args.seed,
        start_ms: args.start.map(Timestamp::as_millisecond),
        window: if interface == Interface::MqttDirect { DIRECT_WINDOW } else { WINDOW },
    };
    Ok(runtime.block_on(publish(options, interface, &shutdown)))
}

fn login(args: &Args) -> Result<Option<Login>, String> {
    let (Some(user), Some(file)) = (&args.user, &args.password_file) else { return Ok(None) };
    Ok(Some(Login { username: user.clone(), password: config::password(file)? }))
}

/// Prints what would be published, at the same pace.
async fn print(args: &Args, shutdown: &Shutdown) -> io::Result<()> {
    let step = if args.interval.is_zero() { FAST_STEP } else { args.interval };
    let start_ms = args.start.unwrap_or_else(Timestamp::now).as_millisecond();
    let adapter = |index| Adapter::new(&adapter::Options { seed: args.seed, index, name: None, start_ms, step });
    let mut adapters: Vec<Adapter> = (0..args.devices).map(adapter).collect();
    let mut out = io::stdout().lock();
    for round in 0.. {
        if shutdown.is_asked() || args.count.is_some_and(|count| round >= count) {
            break;
        }
        if round > 0 && !args.interval.is_zero() {
            tokio::select! {
                () = tokio::time::sleep(args.interval) => {}
                () = shutdown.asked() => break,
            }
        }
        for adapter in &mut adapters {
            match args.reader {
                None => {
                    let mut document = adapter.document();
                    document.push(b'\n');
                    out.write_all(&document)?;
                }
                Some(reader) => reader::print(&mut out, reader, &adapter.moment())?,
            }
        }
        out.flush()?;
    }
    Ok(())
}

/// Publishes, with one line that says how far it is.
async fn publish(options: Options, interface: Interface, shutdown: &Shutdown) -> ExitCode {
    let screen = Arc::new(Screen::new(&options, interface));
    let observer = {
        let screen = Arc::clone(&screen);
        Arc::new(move |event: Event<'_>| screen.show(&event))
    };
    let began = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_millis(200));
    let mut publishing = std::pin::pin!(mqtt::run(options, observer, shutdown));
    let report = loop {
        tokio::select! {
            report = &mut publishing => break report,
            _ = ticks.tick() => screen.progress(began.elapsed()),
        }
    };
    screen.bar.finish_and_clear();
    terminal::say(format_args!("{report} in {:.1} s", began.elapsed().as_secs_f64()));
    if report.unacknowledged == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What is shown while it publishes.
struct Screen {
    bar: ProgressBar,
    broker: String,
    topic: String,
    devices: u32,
    count: Option<u64>,
    published: AtomicU64,
    connected: AtomicU64,
    /// The last failure shown: twenty adapters that cannot connect fail alike.
    failure: Mutex<Option<String>>,
}

impl Screen {
    fn new(options: &Options, interface: Interface) -> Self {
        let target =
            if io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let style =
            ProgressStyle::with_template("{spinner} {wide_msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
        let screen = Self {
            bar: ProgressBar::with_draw_target(None, target).with_style(style),
            broker: format!("{} {}", interface.taker(), config::show_address(&options.host, options.port)),
            topic: options.reader.map_or_else(|| options.topic.clone(), |_| "its own topics".to_owned()),
            devices: options.devices,
            count: options.count.map(|count| count.saturating_mul(u64::from(options.devices))),
            published: AtomicU64::new(0),
            connected: AtomicU64::new(0),
            failure: Mutex::new(None),
        };
        screen.bar.set_message(format!("connecting to {}", screen.broker));
        screen
    }

    fn show(&self, event: &Event<'_>) {
        match event {
            Event::Published { .. } => {
                self.published.fetch_add(1, Ordering::Relaxed);
            }
            Event::Connected { .. } => {
                self.connected.fetch_add(1, Ordering::Relaxed);
                if self.failed(None).is_some() {
                    self.line(&format!("{}: connected again", self.broker));
                }
            }
            Event::Disconnected { error, was_connected, .. } => {
                self.connected.fetch_sub(u64::from(*was_connected), Ordering::Relaxed);
                if self.failed(Some(error)).as_deref() != Some(*error) {
                    self.line(&format!("{}: {error}; trying again{}", self.broker, hint(error)));
                }
            }
            Event::Missed { device, count } => {
                self.line(&format!("{device}: {count} documents missed, nobody listened"));
            }
        }
    }

    /// Remembers the failure; returns the one before.
    fn failed(&self, error: Option<&str>) -> Option<String> {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut failure, error.map(str::to_owned))
    }

    fn line(&self, text: &str) {
        self.bar.suspend(|| terminal::say(text));
    }

    fn progress(&self, elapsed: Duration) {
        let connected = self.connected.load(Ordering::Relaxed);
        if connected == 0 {
            return self.bar.set_message(format!("connecting to {}", self.broker));
        }
        let published = self.published.load(Ordering::Relaxed);
        let of = self.count.map(|count| format!(" of {count}")).unwrap_or_default();
        let rate = published as f64 / elapsed.as_secs_f64().max(0.001);
        let adapters = if self.devices == 1 { "1 adapter".to_owned() } else { format!("{} adapters", self.devices) };
        self.bar.tick();
        self.bar.set_message(format!(
            "{adapters} → {} at {}: {published}{of} published, {rate:.1} a second",
            self.topic, self.broker
        ));
    }
}

fn hint(error: &str) -> &'static str {
    if error.contains("BadUserNamePassword") || error.contains("NotAuthorized") {
        "\nhint: name the user with --user and --password-file"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Promise 6: what no broker takes as a topic is refused at once.
    #[test]
    fn topics_are_topics() {
        assert_eq!(topic("sma/1").as_deref(), Ok("sma/1"));
        for wrong in ["", "a/#", "+", "a\0b", &"x".repeat(65_536)] {
            assert!(topic(wrong).is_err(), "{wrong:.20}");
        }
    }

    /// Times are written as a person writes them, and have limits.
    #[test]
    fn intervals_are_human_and_limited() {
        assert_eq!(interval("0"), Ok(Duration::ZERO));
        assert_eq!(interval("1s"), Ok(Duration::from_secs(1)));
        assert_eq!(interval("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(interval("5m"), Ok(Duration::from_secs(300)));
        for wrong in ["", "1", "-1s", "1us", "25h", "soon"] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
    }
}

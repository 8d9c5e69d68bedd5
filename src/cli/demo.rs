//! `meterferry demo`: the whole line in one terminal, with nothing installed.
//!
//! Simulated meters ([`meters`]) speak MQTT, HTTPS and Modbus TCP with the agent, a child process ([`agent`]) whose queue lies in a folder of
//! its own ([`workplace`]); it sends to the client library's stand-in for Kafka or to a real one ([`cluster`]), from which
//! a consumer reads ([`auditor`]). The [`story`] switches Kafka off, kills the agent, and brings both back; the [`board`]
//! holds the figures, [`picture`] and [`screen`] show them. At the end, [`audit`] compares every reading that a meter
//! was told is safe with every record that was read.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Global, chain, fail};
use crate::config::{parse_duration, show_address};
use crate::simulate::mqtt::Report;

mod agent;
mod audit;
mod auditor;
mod board;
mod canvas;
mod closing;
mod cluster;
mod depth;
mod meters;
mod picture;
mod screen;
mod story;
mod workplace;

use agent::Agent;
use audit::Audit;
use auditor::Auditor;
use board::Board;
use closing::{Closing, Ending};
use cluster::Cluster;
use depth::Gauge;
use meters::{House, Meters, Till};
use picture::Caption;
use screen::Screen;
use story::{Stage, StoryError};
use workplace::{Configuration, Polled, Source, Workplace};

/// From one picture to the next.
const FRAME: Duration = Duration::from_millis(125);

/// Documents that the stand-in surely keeps until they are read: it has room for 5 MiB a partition.
const STAND_IN_MOST: u64 = 8_000;

/// Documents whose fingerprints the audit holds in memory.
const MOST: u64 = 500_000;

const EXAMPLES: &str = "\
Examples:
  meterferry demo                          45 seconds, nothing installed, nothing left behind
  meterferry demo --seconds 20             the short version
  meterferry demo --devices 20             a street
  meterferry demo --kafka localhost:9092   into a real Kafka, exactly once
  meterferry demo --broker localhost:1883  through a real MQTT broker

The agent is a child process: `meterferry run` with a configuration, a queue
and a log in a temporary folder (--keep leaves it for a look).

Exit codes:
  0    nothing lost, nothing repeated, nothing out of order
  1    the audit found otherwise, or the story could not be told to its end
  2    the command line is wrong
  130  ended by Ctrl-C";

/// Show the whole line at work in one terminal, with nothing installed
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// About how long the story takes
    #[arg(long, value_name = "N", default_value_t = 45, value_parser = clap::value_parser!(u64).range(8..=3600))]
    seconds: u64,

    /// Simulated meters; those on MQTT, REST and Modbus TCP take turns
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=50))]
    devices: u32,

    /// From reading to reading of each meter on MQTT, such as 200ms or 1s; the others are asked once a second
    #[arg(long, value_name = "TIME", default_value = "200ms", value_parser = interval)]
    interval: Duration,

    /// A real Kafka instead of the stand-in, without TLS and login: exactly once, topics of its own, deleted at the end
    #[arg(long, value_name = "HOST:PORT", value_parser = super::cluster::servers)]
    kafka: Option<String>,

    /// A real MQTT broker between the meters on MQTT and the agent, without TLS and login
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    broker: Option<(String, u16)>,

    /// Keep the folder with the agent's configuration, queue and log
    #[arg(long)]
    keep: bool,

    /// Plain lines instead of a picture
    #[arg(long)]
    plain: bool,
}

fn interval(text: &str) -> Result<Duration, String> {
    parse_duration(text)
        .filter(|duration| (Duration::from_millis(5)..=Duration::from_secs(2)).contains(duration))
        .ok_or_else(|| "from 5ms to 2s, such as 200ms".to_owned())
}

/// HOST:PORT, an IPv6 address in brackets; 1883 where there is no port.
fn address(text: &str) -> Result<(String, u16), String> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
            (host, port.parse().map_err(|_| format!("{port:?} is no port; write it as HOST:PORT"))?)
        }
        _ => (text, 1883),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() { Err("write it as HOST:PORT".to_owned()) } else { Ok((host.to_owned(), port)) }
}

pub fn run(args: Args, global: &Global) -> ExitCode {
    super::terminal::colours(global.color).write_global();
    if let Err(message) = args.check() {
        anstream::eprintln!("error: {message}");
        return ExitCode::from(2);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    match runtime.block_on(perform(&args, global)) {
        Ok(code) => code,
        Err(error) => fail(&error),
    }
}

impl Args {
    fn length(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    /// Whether what will be published can be held.
    fn check(&self) -> Result<(), String> {
        let house = House::of(self.devices);
        let each = |interval: Duration| {
            u64::try_from(self.length().as_millis() / interval.as_millis().max(1)).unwrap_or(u64::MAX)
        };
        let published = each(self.interval).saturating_mul(u64::from(house.mqtt));
        let readings = published.saturating_add(each(meters::POLL).saturating_mul(u64::from(house.polled())));
        let (most, what) = match self.kafka {
            Some(_) => (MOST, "more than the audit holds"),
            None => (STAND_IN_MOST, "more than the stand-in for Kafka surely keeps"),
        };
        if readings <= most {
            return Ok(());
        }
        Err(format!(
            "--devices {} × --seconds {} / --interval {} ms make {readings} readings, {what}: {most}\n  \
             hint: fewer devices, a shorter story, a longer interval{}",
            self.devices,
            self.seconds,
            self.interval.as_millis(),
            if self.kafka.is_none() { ", or --kafka with a real one" } else { "" }
        ))
    }

    fn caption(&self) -> Caption {
        Caption {
            meters: House::of(self.devices).caption(self.interval),
            kafka: self.kafka.clone().unwrap_or_else(|| "stand-in".to_owned()),
            delivery: if self.kafka.is_some() { "exactly once" } else { "at least once" },
            broker: self.broker.as_ref().map(|(host, port)| show_address(host, *port)),
        }
    }

    fn configuration(&self, servers: String, topic: String, polled: Vec<Polled>) -> Result<Configuration, StoryError> {
        let agent_id = format!("demo-{:08x}", rand::random::<u32>());
        let source = match &self.broker {
            Some((host, port)) => Source::Broker {
                host: host.clone(),
                port: *port,
                topic: agent_id.clone(),
                client_id: format!("meterferry-{agent_id}"),
            },
            None => Source::Listener { port: free_port().map_err(StoryError::Port)?, topic: "sma".to_owned() },
        };
        let resume_topic = format!("{topic}-resume");
        Ok(Configuration { agent_id, servers, topic, resume_topic, exactly_once: self.kafka.is_some(), source, polled })
    }
}

/// A port that was free a moment ago: the agent has to have the same one after each start.
fn free_port() -> std::io::Result<u16> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Sets the stage.
async fn stage(args: &Args) -> Result<Stage, StoryError> {
    let (cluster, topic) = match &args.kafka {
        Some(servers) => (Cluster::real(servers)?, format!("meterferry-demo-{:08x}", rand::random::<u32>())),
        None => (Cluster::stand_in("sma-kafka")?, "sma-kafka".to_owned()),
    };
    let board = Arc::new(Board::new(args.length()));
    let audit = Arc::new(Mutex::new(Audit::new(args.kafka.is_none())));
    let house = House::of(args.devices);
    let till = Till::new(Arc::clone(&audit), Arc::clone(&board));
    let (meters, polled) = Meters::open(house, till).await?;
    let configuration = args.configuration(cluster.servers(), topic, polled)?;
    let workplace = Workplace::new().map_err(StoryError::Folder)?;
    let executable: PathBuf = std::env::current_exe().map_err(StoryError::Executable)?;
    Ok(Stage {
        agent: Agent::new(executable, workplace.configuration(), workplace.log()),
        cluster,
        workplace,
        configuration,
        board,
        audit,
        meters: Some(meters),
        house,
        interval: args.interval,
        length: args.length(),
        report: Report::default(),
    })
}

async fn perform(args: &Args, global: &Global) -> Result<ExitCode, StoryError> {
    let mut signals = Signals::new().map_err(StoryError::Signals)?;
    let mut stage = stage(args).await?;
    let board = Arc::clone(&stage.board);
    let auditor = Auditor::start(
        &stage.configuration.servers,
        &stage.configuration.topic,
        Arc::clone(&stage.audit),
        Arc::clone(&board),
    )?;
    let gauge = Gauge::start(stage.workplace.queue(), Arc::clone(&board));
    let mut screen = Screen::new(args.plain, global.color, args.caption());

    let ending = match watched(story::tell(&mut stage), &mut screen, &board, &mut signals).await {
        Some(Ok(())) => Ending::Told,
        Some(Err(error)) => Ending::Failed { why: chain(&error), kafka: auditor.trouble() },
        None => Ending::Interrupted,
    };
    if !matches!(ending, Ending::Told) && board.figures().starts > 0 {
        board.say("Ending: the adapters stop, then the agent.");
        // A second signal does not wait any more: what still runs is killed when it is dropped.
        let _ = watched(stage.end(), &mut screen, &board, &mut signals).await;
    }
    drop((gauge, auditor));
    let _ = screen.finish(&board.figures());
    Ok(Closing { args, ending }.say(stage).await)
}

/// Runs `play` while the screen shows the board. None: a signal came first.
async fn watched<T>(
    play: impl Future<Output = T>,
    screen: &mut Screen,
    board: &Board,
    signals: &mut Signals,
) -> Option<T> {
    let mut play = std::pin::pin!(play);
    let mut frames = tokio::time::interval(FRAME);
    loop {
        tokio::select! {
            done = &mut play => return Some(done),
            () = signals.any() => return None,
            // A screen that is gone (a closed pipe) is no reason to leave the story and its processes half-way.
            _ = frames.tick() => drop(screen.show(&board.figures())),
        }
    }
}

/// What asks for the end. A closed terminal too: the agent would outlive it.
struct Signals([Signal; 3]);

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self([signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?]))
    }

    async fn any(&mut self) {
        let Self([interrupt, terminate, hangup]) = self;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

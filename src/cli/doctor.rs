//! `meterferry doctor`: every stage that a reading passes, from the configuration to the cluster.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::progress::{Progress, Unit};
use super::{EX_CONFIG, Global, fail, terminal};
use crate::agent::live::{self, Live};
use crate::clock::Clock;
use crate::config::settings::{Interface, Settings};
use crate::config::{self, Environment, Loaded, parse_duration, show_duration};
use crate::queue;
use account::Account;
use check::{Check, Group, Summary};

mod account;
mod broker;
mod certificate;
mod check;
mod clock;
mod cluster;
mod configuration;
mod folder;
mod kafka;
mod listener;
mod modbus;
mod place;
mod print;
mod reach;
mod rest;
mod rights;
mod service;
mod topic;

/// The longest that a source is listened to.
const LONGEST_WAIT: Duration = Duration::from_secs(60 * 60);

/// What all questions to a broker or a cluster take together at most, besides the wait for messages.
const LIMIT: Duration = Duration::from_secs(3 * 60);

/// How often the bar moves.
const TICK: Duration = Duration::from_millis(250);

/// How often the running agent is asked whether a message has come.
const ASK: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Changes nothing, and disturbs no running agent: brokers are visited under a name of the doctor's own, and what is tried in
Kafka happens in a transaction that is aborted. Takes --wait for the sources' messages, less where they come, and at
most three minutes more where nothing answers.

Examples:
  sudo meterferry doctor               everything, as the agent's user would find it
  meterferry doctor --only kafka       the cluster alone
  meterferry doctor --wait 10min       for adapters that send seldom
  meterferry doctor --json | jq '.checks[] | select(.verdict == \"wrong\")'

Exit codes:
  0   nothing is wrong; there may be warnings
  1   something is wrong
  2   the command line is wrong
  78  the configuration is wrong")]
pub struct Args {
    /// How long to wait for a message of each source
    #[arg(long, value_name = "TIME", default_value = "1min", value_parser = wait)]
    wait: Duration,

    /// Only these checks; may be given several times, or with commas
    #[arg(long, value_name = "AREA", value_delimiter = ',')]
    only: Vec<Area>,

    /// One JSON object, for programs
    #[arg(long)]
    json: bool,
}

/// What is checked, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Area {
    /// The files, and whether the agent's user may read them
    Configuration,
    /// The queue's folder and the disk below it
    Queue,
    /// The clock
    Clock,
    /// Brokers, listeners, and whether messages come
    Sources,
    /// The cluster, its topics and rights
    Kafka,
    /// The agent as a service
    Service,
}

fn wait(text: &str) -> Result<Duration, String> {
    let limits = Duration::from_secs(1)..=LONGEST_WAIT;
    let parsed = parse_duration(text).ok_or("must be a time with its unit, such as 30s or 5min")?;
    if limits.contains(&parsed) { Ok(parsed) } else { Err("must be from 1s to 1h".to_owned()) }
}

/// Prints each group as soon as it is known.
pub fn run(args: Args, global: &Global) -> ExitCode {
    let environment = Environment::of_process().beside_service(global.config.as_deref());
    let loaded = config::load(global.config.as_deref(), &environment);
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let mut report = Report::new(&args, global);
    let code = match loaded {
        Err(problems) => {
            report.group("configuration", configuration::wrong(&problems));
            for area in Area::value_variants().iter().filter(|area| **area != Area::Configuration && args.wants(**area))
            {
                report.group(area.word(), vec![Check::skipped("everything", "the configuration is wrong")]);
            }
            Some(EX_CONFIG)
        }
        Ok(loaded) => {
            runtime.block_on(examine(&args, &loaded, &mut report));
            None
        }
    };
    // A call into the Kafka client that has not come back does not hold up the end.
    runtime.shutdown_background();
    let summary = report.finish();
    match code {
        Some(code) => ExitCode::from(code),
        None if summary.wrong > 0 => ExitCode::FAILURE,
        None => ExitCode::SUCCESS,
    }
}

impl Args {
    fn wants(&self, area: Area) -> bool {
        self.only.is_empty() || self.only.contains(&area)
    }
}

impl Area {
    fn word(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Queue => "queue",
            Self::Clock => "clock",
            Self::Sources => "sources",
            Self::Kafka => "Kafka",
            Self::Service => "service",
        }
    }
}

async fn examine(args: &Args, loaded: &Loaded, report: &mut Report) {
    let settings = &loaded.settings;
    let folder = &settings.queue.path;
    let live = live::ask(folder);
    let running = live.is_some() || queue::is_running(folder);
    let account = Account::of_agent(live.as_ref().map(|live| live.process), folder);
    let agent_id = super::check::agent_id(settings);
    let clock = Clock::new();
    let now_s = clock.now().wall_ms.div_euclid(1000);

    // What takes long is begun first, and waited for in its turn.
    let sources = args.wants(Area::Sources).then(|| begin_sources(settings, &account, live.as_ref(), args.wait, now_s));
    let cluster = args.wants(Area::Kafka).then(|| {
        let (settings, agent_id) = (settings.clone(), agent_id.clone());
        tokio::spawn(async move { kafka::look(&settings, &agent_id, now_s).await })
    });
    if args.wants(Area::Configuration) {
        let unknown = settings.agent.id.is_none() && folder::is_hidden(folder);
        let agent = match (unknown, account.is_asking()) {
            (true, _) => Check::warning(
                "agent",
                format!("its id stands in {}, where you may not look; {agent_id} is assumed", folder.display()),
                "sudo meterferry doctor, or set agent.id",
            ),
            (false, true) => Check::ok("agent", agent_id.clone()),
            (false, false) => {
                Check::ok("agent", format!("{agent_id}; what the user {} may do is looked at", account.name))
            }
        };
        report.group(Area::Configuration.word(), configuration::right(loaded, &account, agent));
    }
    if args.wants(Area::Queue) {
        report.group(Area::Queue.word(), folder::look(&settings.queue, &account));
    }
    if args.wants(Area::Clock) {
        report.group(Area::Clock.word(), clock::look(&clock.now(), settings.agent.clock_wait));
    }
    for (name, task) in sources.into_iter().flatten() {
        let area = format!("source {name}");
        let what = format!("listening to {name}, {} at most", show_duration(args.wait));
        let checks = finished(&what, args.wait, args.wait + LIMIT, task).await;
        report.group(area, checks);
    }
    if let Some(task) = cluster {
        let checks = finished("asking the cluster", Duration::from_secs(30), LIMIT, task).await;
        report.group(Area::Kafka.word(), checks);
    }
    if args.wants(Area::Service) {
        report.group(Area::Service.word(), service::look(live, running).await);
    }
}

type Checking = JoinHandle<Vec<Check>>;

fn begin_sources(
    settings: &Settings,
    account: &Account,
    live: Option<&Live>,
    wait: Duration,
    now_s: i64,
) -> Vec<(String, Checking)> {
    let mut tasks = Vec::new();
    for source in &settings.sources {
        let (name, source) = (source.name.to_string(), source.clone());
        let task = match source.interface.clone() {
            Interface::Mqtt(mqtt) => tokio::spawn(async move { broker::look(&source, &mqtt, wait, now_s).await }),
            Interface::Rest(rest) => {
                let folder = settings.queue.path.clone();
                tokio::spawn(async move { rest::look(&source, &rest, &folder, now_s).await })
            }
            Interface::Modbus(modbus) => {
                let agents = live.and_then(|live| live.sources.iter().find(|one| one.name == name).cloned());
                tokio::spawn(async move { modbus::look(&source, &modbus, agents.as_ref()).await })
            }
            Interface::MqttListener(settings_of) => {
                let (account, before, folder) = (account.clone(), live.cloned(), settings.queue.path.clone());
                let name = name.clone();
                tokio::spawn(async move {
                    let mut checks = listener::look(&settings_of, &account, before.is_some(), now_s).await;
                    let of = |live: &Option<Live>| {
                        live.as_ref().and_then(|live| live.sources.iter().find(|source| source.name == name).cloned())
                    };
                    let before = of(&before);
                    let mut after = before.clone();
                    let until = Instant::now() + wait;
                    while let (Some(first), Some(now)) = (&before, &after)
                        && first.received == now.received
                        && Instant::now() < until
                    {
                        tokio::time::sleep(ASK).await;
                        after = of(&live::ask(&folder));
                    }
                    checks.push(listener::messages(before.as_ref(), after.as_ref(), wait));
                    checks
                })
            }
        };
        tasks.push((name, task));
    }
    tasks
}

/// Waits for checks that are under way, with a bar that is full after `usual`; gives up after `limit`.
async fn finished(what: &str, usual: Duration, limit: Duration, mut task: Checking) -> Vec<Check> {
    let begun = Instant::now();
    let mut progress = Progress::new(what, usual.as_secs().max(1), Unit::Seconds);
    loop {
        match timeout(TICK, &mut task).await {
            Ok(Ok(checks)) => return checks,
            Ok(Err(panicked)) => return vec![Check::wrong("check", panicked.to_string(), "please report it")],
            Err(_) if begun.elapsed() >= limit => {
                task.abort();
                let message = format!("given up after {}", show_duration(limit));
                return vec![Check::wrong(
                    "check",
                    message,
                    "something on the way answers very slowly: try again with --only",
                )];
            }
            Err(_) => progress.at(begun.elapsed().as_secs()),
        }
    }
}

/// Where the groups go.
struct Report {
    groups: Vec<Group>,
    json: bool,
    out: anstream::AutoStream<io::Stdout>,
    /// Columns of the terminal; none where the output is none.
    width: Option<usize>,
}

/// Narrower lines are folded as if for this; wider ones are hard to read.
const COLUMNS: std::ops::RangeInclusive<usize> = 40..=110;

impl Report {
    fn new(args: &Args, global: &Global) -> Self {
        let width = io::stdout().is_terminal().then(terminal_size::terminal_size).flatten();
        Self {
            groups: Vec::new(),
            json: args.json,
            out: anstream::AutoStream::new(io::stdout(), terminal::colours(global.color)),
            width: width.map(|(width, _)| usize::from(width.0).clamp(*COLUMNS.start(), *COLUMNS.end())),
        }
    }

    fn group(&mut self, area: impl Into<String>, checks: Vec<Check>) {
        let group = Group::new(area, checks);
        if !self.json {
            // Whoever reads it may have seen enough.
            let _ = print::group(&mut self.out, &group, self.width).and_then(|()| self.out.flush());
        }
        self.groups.push(group);
    }

    fn finish(mut self) -> Summary {
        let summary = Summary::of(&self.groups);
        let _ = match self.json {
            true => writeln!(self.out, "{:#}", print::json(&self.groups)),
            false => print::summary(&mut self.out, &summary),
        };
        summary
    }
}

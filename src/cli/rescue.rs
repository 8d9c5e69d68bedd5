//! `meterferry rescue`: the queue of a dying card, read in another machine and sent on under its own ids.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use super::progress::{Progress, Unit};
use super::units::{bytes, count};
use super::{Global, fail, load, out, signals, terminal};
use crate::agent;
use crate::agent::drain::{self, Drained};
use crate::config::settings::Settings;
use crate::config::{self, Environment};
use crate::queue::inspect::Inspector;
use crate::queue::mend::{self, Mended};
use crate::queue::{self, Options};
use crate::shutdown::Shutdown;

mod copy;
mod summary;

use copy::Record;
use summary::Summary;

/// Everything that could be read is in Kafka, but not everything could be read.
const NOT_WHOLE: u8 = 3;

const EXAMPLES: &str = "\
Examples:
  mount -o ro /dev/sdb2 /mnt
  meterferry rescue /mnt/var/lib/meterferry/queue --config /mnt/etc/meterferry/meterferry.toml
  meterferry rescue /mnt/var/lib/meterferry/queue --brokers kafka:9092
  meterferry rescue /mnt/var/lib/meterferry/queue --no-send     only make the copy

First everything that can be read is copied to this machine; nothing is written to the card, and what it
refuses is passed over. Then what waits is sent, as the card's own agent would: same agent id, same queue
id, same sequences, same transactional id, from Kafka's resume point on. So each reading is there once, also
when this is run twice, is interrupted, or the card's agent comes back later. Run it only where that agent is
off: a running one is fenced. Topics of sources are those of the configuration; without it everything goes to
--topic.

The copy is kept, with its dead letters: meterferry dead-letters list --path COPY.

Exit codes:
  0   everything that waited is in Kafka
  1   it failed or was stopped: run it again, it goes on
  3   everything that could be read is in Kafka, but not everything could be read
  78  the configuration is wrong";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The queue's folder on the card
    folder: PathBuf,
    /// Where the copy goes [default: rescue/<queue id> in the state folder]
    #[arg(long, value_name = "FOLDER")]
    work: Option<PathBuf>,
    /// Kafka's addresses, with commas [default: kafka.bootstrap_servers]
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    brokers: Vec<String>,
    /// Topic for what has none of its own [default: kafka.topic]
    #[arg(long)]
    topic: Option<String>,
    /// Topic of the resume point [default: kafka.resume_topic]
    #[arg(long, value_name = "TOPIC")]
    resume_topic: Option<String>,
    /// The agent's id, where queue.toml cannot be read
    #[arg(long, value_name = "ID")]
    agent_id: Option<String>,
    /// Make the copy and mend it, but send nothing
    #[arg(long)]
    no_send: bool,
    /// One JSON object instead of words
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, global: &Global) -> ExitCode {
    match rescue(args, global) {
        Ok(code) | Err(code) => code,
    }
}

fn rescue(args: &Args, global: &Global) -> Result<ExitCode, ExitCode> {
    // The forwarder says on the log what is wrong with Kafka, and what to do about it.
    let level = if global.log == "info" { "warn".to_owned() } else { global.log.clone() };
    let shutdown = signals::stop_on_signals().map_err(|error| fail(&error))?;
    super::log::start(&Global { log: level, ..global.clone() })?;
    let settings = settings(args, global)?;
    if settings.kafka.topic == settings.kafka.resume_topic {
        terminal::fail("--topic and --resume-topic are the same\n  hint: the resume point has a topic of its own");
        return Err(ExitCode::from(2));
    }
    let (work, mut record) = copied(args, &shutdown)?;
    let mut options = agent::unconfigured_options(&work);
    options.default_agent_id = agent_id(args, &work)?;
    let mended = mended(&options, &mut record)?;
    let drained = if args.no_send { None } else { Some(sent(settings, &options, &shutdown)?) };
    let letters = Inspector::open(&work).ok().and_then(|it| it.letter_ids().ok()).map_or(0, |ids| ids.len() as u64);
    let summary = Summary { work, record, mended, drained, letters };
    let printed = out(&if args.json { format!("{}\n", summary.json()) } else { summary.text() });
    Ok(match &summary.drained {
        Some(drained) if drained.left > 0 => ExitCode::FAILURE,
        _ if !summary.is_whole() => ExitCode::from(NOT_WHOLE),
        _ => printed,
    })
}

/// How Kafka is reached; without a configuration the defaults.
fn settings(args: &Args, global: &Global) -> Result<Settings, ExitCode> {
    let environment = Environment::of_process().beside_service(global.config.as_deref());
    let found = global.config.is_some() || environment.candidates().iter().any(|path| path.exists());
    let mut settings = if found { load(global)?.settings } else { config::defaults(&environment) };
    let kafka = &mut settings.kafka;
    let brokers = args.brokers.iter().map(|server| ("--brokers", server, config::is_server(server)));
    let topics = [("--topic", &args.topic), ("--resume-topic", &args.resume_topic)];
    let topics = topics.into_iter().filter_map(|(name, topic)| Some((name, topic.as_ref()?)));
    let topics = topics.map(|(name, topic)| (name, topic, config::is_kafka_topic(topic)));
    for (name, value, checked) in brokers.chain(topics) {
        if let Err(what) = checked {
            terminal::fail(format_args!("{name} is {value:?}: {what}"));
            return Err(ExitCode::from(2));
        }
    }
    if !args.brokers.is_empty() {
        kafka.bootstrap_servers.clone_from(&args.brokers);
    }
    if let Some(topic) = &args.topic {
        kafka.topic.clone_from(topic);
    }
    if let Some(topic) = &args.resume_topic {
        kafka.resume_topic.clone_from(topic);
    }
    if kafka.bootstrap_servers.is_empty() && !args.no_send {
        terminal::fail(
            "where is Kafka?\n  hint: --config FILE with the card's configuration, --brokers HOST:PORT, or --no-send",
        );
        return Err(ExitCode::from(2));
    }
    Ok(settings)
}

/// The copy: that of an earlier run if it is of this card as it is now.
fn copied(args: &Args, shutdown: &Shutdown) -> Result<(PathBuf, Record), ExitCode> {
    let card = &args.folder;
    if queue::is_running(card) {
        terminal::fail(format_args!(
            "an agent runs on {}\n  hint: rescue is for a card whose agent is off; a running one sends by itself",
            card.display()
        ));
        return Err(ExitCode::FAILURE);
    }
    let listing = match copy::listing(card) {
        Ok(listing) if listing.iter().any(|file| queue::is_needed(&file.name)) => listing,
        Ok(_) => {
            terminal::fail(format_args!(
                "there is no queue in {}\n  hint: it is the folder that holds queue.toml, such as \
                 /mnt/var/lib/meterferry/queue",
                card.display()
            ));
            return Err(ExitCode::FAILURE);
        }
        Err(error) => {
            terminal::fail(format_args!("{} cannot be listed: {error}", card.display()));
            return Err(ExitCode::FAILURE);
        }
    };
    let work = work_folder(args, card, &listing)?;
    let total: u64 = listing.iter().map(|file| file.size).sum();
    let make = fs::DirBuilder::new().recursive(true).mode(0o700).create(&work).and_then(|()| has_room(&work, total));
    if let Err(error) = make {
        terminal::fail(format_args!(
            "{} cannot hold the copy: {error}\n  hint: name a folder with room: --work FOLDER",
            work.display()
        ));
        return Err(ExitCode::FAILURE);
    }
    if let Some(record) = Record::read(&work).filter(|record| record.complete && record.is_of(&listing)) {
        terminal::say(format_args!("Going on with the copy in {}.", work.display()));
        return Ok((work, record));
    }
    let mut progress = Progress::new("copying", total, Unit::Bytes);
    let copied = copy::copy(card, &work, listing, |done, name| {
        progress.says(&format!("copying {name}"));
        progress.at(done);
        !shutdown.is_asked()
    });
    drop(progress);
    match copied {
        Ok(record) if record.complete => Ok((work, record)),
        Ok(_) => {
            terminal::fail("stopped before the copy was complete\n  hint: run it again, it goes on");
            Err(ExitCode::FAILURE)
        }
        Err(error) => {
            terminal::fail(format_args!("the copy in {} cannot be written: {error}", work.display()));
            Err(ExitCode::FAILURE)
        }
    }
}

/// The folder named, or one of this queue's own. A copy of the card as it was earlier is left alone.
fn work_folder(args: &Args, card: &Path, listing: &[copy::Copied]) -> Result<PathBuf, ExitCode> {
    let taken = |work: &Path| Record::read(work).is_some_and(|record| !record.is_of(listing));
    if let Some(work) = &args.work {
        if taken(work) || queue::is_there(work) && Record::read(work).is_none() {
            terminal::fail(format_args!(
                "{} holds something else than a copy of this card as it is now\n  hint: name a new folder",
                work.display()
            ));
            return Err(ExitCode::FAILURE);
        }
        return Ok(work.clone());
    }
    let Some(state) = Environment::of_process().state() else {
        terminal::fail("where may the copy go?\n  hint: --work FOLDER");
        return Err(ExitCode::from(2));
    };
    let name = Inspector::open(card).map_or_else(|_| "unknown".to_owned(), |it| it.identity().queue_id().to_string());
    let numbered = |n: u32| state.join("rescue").join(if n == 1 { name.clone() } else { format!("{name}-{n}") });
    (1..1000).map(numbered).find(|work| !taken(work)).ok_or_else(|| {
        terminal::fail("there are a thousand copies of this queue\n  hint: delete those that are done with");
        ExitCode::FAILURE
    })
}

/// The copy, and as much again for what a salvage rewrites, at most a few segments.
fn has_room(work: &Path, total: u64) -> std::io::Result<()> {
    const SALVAGE: u64 = 64 << 20;
    let there = queue::bytes_there(work);
    let (needed, free) = (total.saturating_sub(there) + SALVAGE, queue::bytes_free(work)?);
    if free >= needed {
        return Ok(());
    }
    Err(std::io::Error::other(format!("{} are needed, {} are free", bytes(needed), bytes(free))))
}

fn agent_id(args: &Args, work: &Path) -> Result<String, ExitCode> {
    match (&args.agent_id, Inspector::open(work)) {
        (_, Ok(inspector)) => Ok(inspector.identity().agent_id.clone()),
        (Some(id), Err(_)) if crate::config::is_agent_id(id) => Ok(id.clone()),
        (Some(id), Err(_)) => {
            terminal::fail(format_args!("--agent-id is {id:?}: must be 1 to 63 letters, digits, - and _"));
            Err(ExitCode::from(2))
        }
        (None, Err(error)) => {
            terminal::fail(format_args!(
                "{}\n  hint: what was lost with it is the agent's id: name it with --agent-id",
                super::chain(&error)
            ));
            Err(ExitCode::FAILURE)
        }
    }
}

/// What is wrong with the copy, mended. Found once: what is sent is unlinked, and its damage with it.
fn mended(options: &Options, record: &mut Record) -> Result<Mended, ExitCode> {
    if let Some(found) = &record.found {
        return Ok(found.clone());
    }
    let mut progress = Progress::new("looking for damage", 1, Unit::Records);
    let mended = mend::mend(options, |done, of| {
        progress.of(of);
        progress.at(done);
    });
    drop(progress);
    let mended = mended.map_err(|error| fail(&error))?;
    record.found = Some(mended.clone());
    match record.write(&options.path) {
        Ok(()) => Ok(mended),
        Err(error) => Err(fail(&error)),
    }
}

fn sent(settings: Settings, options: &Options, shutdown: &Shutdown) -> Result<Drained, ExitCode> {
    let default = settings.kafka.topic.clone();
    let topics: BTreeMap<Arc<str>, String> = settings
        .sources
        .iter()
        .map(|source| (Arc::clone(&source.name), source.kafka_topic.clone().unwrap_or_else(|| default.clone())))
        .collect();
    let mut progress = Progress::new("waiting for Kafka", 1, Unit::Records);
    let (mut before, mut sends) = (0, false);
    let drained = drain::drain(settings.kafka, topics, options, shutdown, |done, of| {
        progress.of(of);
        if done.is_some() != sends {
            sends = done.is_some();
            progress.says(if sends { "sending" } else { "waiting for Kafka" });
            progress.begins_at(done.unwrap_or(before));
        }
        before = done.unwrap_or(before);
        progress.at(before);
    });
    drop(progress);
    let drained = drained.map_err(|error| fail(&error))?;
    if drained.left > 0 {
        terminal::fail(format_args!(
            "stopped: {} sequences are not in Kafka yet\n  hint: run it again, it goes on",
            count(drained.left)
        ));
    }
    Ok(drained)
}

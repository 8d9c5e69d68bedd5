//! The only place that wires the stages together: sources → ingest → queue → forwarder, and their orderly end.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::clock::Clock;
use crate::config::Environment;
use crate::config::machine::Machine;
use crate::config::settings::{Interface, Settings, Source, WhenFull};
use crate::failpoint;
use crate::forwarder::{BacklogError, Forwarder};
use crate::health::{Health, Pulse};
use crate::metrics::Metrics;
use crate::notify::Notifier;
use crate::queue::{self, Intake, OpenError, Outlet, Queue, QueueError, Recovered, WriterThread};
use crate::shutdown::Shutdown;
use crate::source::modbus::ModbusSource;
use crate::source::mqtt::MqttSource;
use crate::source::mqtt_listener::{self, BindError, ListenerSource};
use crate::source::redelivery::Window;
use crate::source::rest::RestSource;
use crate::source::rest_answer::Wanted;
use crate::source::tls::TlsError;

pub mod backlog;
pub mod drain;
pub mod ingest;
pub mod live;
mod pace;
pub mod replay;
mod sight;
pub mod start;
mod summary;
mod timekeeper;
mod watchdog;
mod watched;

use backlog::QueueBacklog;
use ingest::Ingest;
use timekeeper::Timekeeper;
use watchdog::Watchdog;
use watched::Watched;

/// The agent looks this often whether a stage has ended.
const TICK: Duration = Duration::from_secs(1);
/// Silence after which a stage counts as hung. A commit on a worn card takes seconds, an fsync that never returns for ever.
const QUEUE_SILENCE: Duration = Duration::from_secs(60);
/// Beyond the longest call into the Kafka client.
const FORWARDER_SILENCE: Duration = Duration::from_secs(60);
/// A task that runs for so long without a pause has met something that blocks.
const TASK_SILENCE: Duration = Duration::from_secs(60);
/// Between two lines in `systemctl status`.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);

/// Why the agent ended although nobody asked it to.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error("the queue cannot be opened")]
    Open(#[from] OpenError),
    #[error("the queue failed")]
    Queue(#[from] QueueError),
    #[error("the forwarder failed")]
    Forwarder(#[from] BacklogError),
    #[error("source {name} cannot listen")]
    Listen {
        name: String,
        #[source]
        source: Box<BindError>,
    },
    #[error("source {name} cannot use its TLS files")]
    Tls {
        name: String,
        #[source]
        source: Box<TlsError>,
    },
    #[error(
        "the clock was set back by {0:?}, and the Kafka client waits for a time of day that does not come for as long; the \
         agent has to be started anew"
    )]
    ClockSetBack(Duration),
    #[error("a stage panicked: {0}")]
    Panicked(String),
    #[error("{0} has ended, although nobody asked it to")]
    Ended(String),
    #[error("a thread cannot be started")]
    Thread(#[source] std::io::Error),
}

impl AgentError {
    /// Whether a person has to change the configuration before another start makes sense.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Tls { .. } => true,
            Self::Open(error) => error.is_configuration(),
            Self::Listen { source, .. } => matches!(**source, BindError::Tls(_)),
            Self::Queue(_)
            | Self::Forwarder(_)
            | Self::Panicked(_)
            | Self::Ended(_)
            | Self::Thread(_)
            | Self::ClockSetBack(_) => false,
        }
    }
}

/// Runs the agent until `shutdown` is asked for or a stage fails. An orderly end is `Ok`.
pub async fn run(
    settings: Settings,
    machine: &Machine,
    notifier: &Arc<Notifier>,
    shutdown: Shutdown,
) -> Result<(), AgentError> {
    let metrics = Metrics::new(settings.sources.iter().map(|source| &source.name));
    let clock = Clock::new();
    let watchdog = Watchdog::new(Arc::clone(notifier)).map_err(AgentError::Thread)?;
    notifier.status("opening the queue");
    let mut health = Health::default();
    let opened = Instant::now();
    let pulse = health.watch("the queue", failpoint::silence(QUEUE_SILENCE));
    let options = queue_options(&settings, &settings.queue.path, machine);
    let Queue { intake, mut outlet, writer, recovered } =
        queue::open(&options, Arc::clone(&metrics), clock, Arc::new(move || pulse.beat()))?;
    say_start(&settings, &recovered.agent_id, metrics.queue.waiting(), opened.elapsed());
    outlet.show_oldest();

    let mut agent = Agent {
        settings,
        metrics,
        clock,
        shutdown,
        intake: Some(intake),
        tasks: JoinSet::new(),
        names: BTreeMap::new(),
        health,
    };
    let silence = failpoint::silence(forwarder_silence(&agent.settings));
    let forwarder_pulse = agent.health.watch("the forwarder", silence);
    let forwarder = agent.start_forwarder(outlet, &recovered, Arc::clone(&forwarder_pulse))?;
    let timekeeper = Timekeeper::new(clock, forwarder_pulse);
    let told = Arc::new(live::Told::new(&agent.settings, &recovered, &agent.metrics, clock, opened));
    let (asked, runtime) = (agent.shutdown.clone(), Environment::of_process().runtime());
    let answering = live::answer(Arc::clone(&told), runtime, asked);
    agent.spawn("the status socket".to_owned(), async move {
        answering.await;
        Ok(())
    });
    let result = match agent.start_sources(&recovered).await {
        Ok(()) => {
            notifier.ready(&summary::status(&agent.metrics));
            let pulse = agent.health.watch("the supervision", failpoint::silence(TASK_SILENCE));
            watchdog.watch(std::mem::take(&mut agent.health));
            told.started(&recovered);
            agent.watch(&writer, &forwarder, &pulse, timekeeper, notifier, &told).await
        }
        // A stop during the start: the queue may have ended before the sources were there.
        Err(AgentError::Queue(QueueError::Stopped)) if agent.shutdown.is_asked() => Ok(()),
        Err(error) => Err(error),
    };
    notifier.stopping();
    // From here on the service manager's limit for a stop holds.
    drop(watchdog);
    let stuck = matches!(result, Err(AgentError::ClockSetBack(_)));
    agent.stop(writer, forwarder, stuck).await.and(result)
}

struct Agent {
    settings: Settings,
    metrics: Arc<Metrics>,
    clock: Clock,
    shutdown: Shutdown,
    /// Dropped at the stop: the queue's writer ends when nobody can append any more.
    intake: Option<Intake>,
    tasks: JoinSet<Result<(), AgentError>>,
    names: BTreeMap<tokio::task::Id, String>,
    /// Whoever has to move; the watchdog's, once all stages run.
    health: Health,
}

type ForwarderThread = std::thread::JoinHandle<Result<(), BacklogError>>;

impl Agent {
    fn start_forwarder(
        &self,
        outlet: Outlet,
        recovered: &Recovered,
        pulse: Arc<Pulse>,
    ) -> Result<ForwarderThread, AgentError> {
        let default = &self.settings.kafka.topic;
        let topic = |source: &Source| source.kafka_topic.clone().unwrap_or_else(|| default.clone());
        let forwarder = Forwarder {
            settings: self.settings.kafka.clone(),
            agent_id: recovered.agent_id.clone(),
            topics: self.settings.sources.iter().map(|source| (Arc::clone(&source.name), topic(source))).collect(),
            backlog: Box::new(QueueBacklog { outlet, shutdown: self.shutdown.clone() }),
            metrics: Arc::clone(&self.metrics),
            clock: self.clock,
            clock_wait: self.settings.agent.clock_wait,
            shutdown: self.shutdown.clone(),
            heartbeat: Arc::new(move || pulse.beat()),
        };
        std::thread::Builder::new().name("forwarder".into()).spawn(move || forwarder.run()).map_err(AgentError::Thread)
    }

    async fn start_sources(&mut self, recovered: &Recovered) -> Result<(), AgentError> {
        self.part_with_sources(recovered).await?;
        for source in self.settings.sources.clone() {
            let Some(metrics) = self.metrics.sources.get(&source.name).cloned() else { continue };
            let Some(intake) = self.intake.clone() else { continue };
            let capacity = match &source.interface {
                Interface::Mqtt(mqtt) => mqtt.max_unacknowledged,
                Interface::MqttListener(listener) => listener.max_unacknowledged * listener.max_clients,
                // The next is asked for when the one before is on disk.
                Interface::Rest(_) | Interface::Modbus(_) => 1,
            };
            let (raws, received) = mpsc::channel(capacity);
            let marks = recovered.marks.get(&*source.name).cloned().unwrap_or_default();
            let ingest = Ingest::new(ingest::Parts {
                source: Arc::clone(&source.name),
                payload: source.payload.clone(),
                format: self.settings.kafka.format,
                privacy: self.settings.privacy.clone(),
                max_reading_size: self.settings.queue.max_reading_size,
                // Whatever an adapter sends, it fits an emptied queue.
                max_dead_size: usize::try_from(self.settings.queue.max_size / 16).unwrap_or(usize::MAX),
                commit_delay: match &source.interface {
                    Interface::Mqtt(_) => self.settings.queue.commit_delay,
                    Interface::MqttListener(listener) => listener.commit_delay.min(self.settings.queue.commit_delay),
                    // A commit must not cost a poll.
                    Interface::Rest(rest) => self.settings.queue.commit_delay.min(rest.interval / 2),
                    Interface::Modbus(modbus) => self.settings.queue.commit_delay.min(modbus.interval / 2),
                },
                window: Window::new(window(&self.settings, &source), marks),
                intake: intake.clone(),
                metrics: Arc::clone(&metrics),
                clock: self.clock,
            });
            let name = format!("the ingest of source {}", source.name);
            self.spawn_stage(name, "ingest", async move { Ok(ingest.run(received).await?) });
            match source.interface.clone() {
                Interface::Mqtt(mqtt) => {
                    let previous = recovered.filters.get(&*source.name).cloned().unwrap_or_default();
                    self.start_mqtt(&source, mqtt, raws, metrics, previous, intake, &recovered.agent_id).await?;
                }
                Interface::MqttListener(listener) => self.start_listener(&source, listener, raws, metrics).await?,
                Interface::Rest(rest) => self.start_rest(&source, rest, raws, metrics),
                Interface::Modbus(modbus) => self.start_modbus(&source, modbus, raws, metrics),
            }
        }
        Ok(())
    }

    /// Says once of each source that left the configuration that its broker still keeps messages for it.
    async fn part_with_sources(&self, recovered: &Recovered) -> Result<(), AgentError> {
        let is_mqtt = |source: &Source| matches!(source.interface, Interface::Mqtt(_));
        let there = |name: &str| self.settings.sources.iter().any(|source| &*source.name == name && is_mqtt(source));
        for (name, filters) in recovered.filters.iter().filter(|(name, filters)| !there(name) && !filters.is_empty()) {
            let client_id = client_id(&recovered.agent_id, name);
            warn!(
                source = %name,
                ?filters,
                client_id,
                "this source is no longer configured, and its MQTT broker goes on keeping messages for its session. To fetch \
                 them, configure it again under this name; to end the session, connect once with its client id and a clean \
                 session: mosquitto_sub -i CLIENT_ID -t none -E"
            );
            if let Some(intake) = &self.intake {
                intake.remember_filters(name, Vec::new()).await?;
            }
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments, reason = "what one source is made of")]
    async fn start_mqtt(
        &mut self,
        source: &Source,
        settings: crate::config::settings::Mqtt,
        raws: mpsc::Sender<crate::source::Raw>,
        metrics: Arc<crate::metrics::SourceMetrics>,
        previous: Vec<String>,
        intake: Intake,
        agent_id: &str,
    ) -> Result<(), AgentError> {
        // Remembered before they are subscribed, so that none is ever forgotten at the broker.
        let mut all = previous.clone();
        all.extend(settings.topics.iter().filter(|topic| !previous.contains(topic)).cloned());
        intake.remember_filters(&source.name, all).await?;
        let (left, mut told) = mpsc::channel(1);
        let (name, topics) = (source.name.to_string(), settings.topics.clone());
        self.spawn(format!("the filters of source {name}"), async move {
            while told.recv().await.is_some() {
                intake.remember_filters(&name, topics.clone()).await?;
            }
            Ok(())
        });
        let mqtt = MqttSource {
            name: Arc::clone(&source.name),
            client_id: settings.client_id.clone().unwrap_or_else(|| client_id(agent_id, &source.name)),
            settings,
            metrics,
            raws,
            clock: self.clock,
            previous_filters: previous,
            left: Some(left),
            stop_timeout: self.settings.agent.stop_timeout / 2,
        };
        let (name, shutdown) = (source.name.to_string(), self.shutdown.clone());
        self.spawn_stage(format!("source {name}"), "source", async move {
            mqtt.run(shutdown).await.map_err(|source| AgentError::Tls { name, source: Box::new(source) })
        });
        Ok(())
    }

    async fn start_listener(
        &mut self,
        source: &Source,
        settings: crate::config::settings::MqttListener,
        raws: mpsc::Sender<crate::source::Raw>,
        metrics: Arc<crate::metrics::SourceMetrics>,
    ) -> Result<(), AgentError> {
        let name = source.name.to_string();
        let listener = mqtt_listener::bind(ListenerSource {
            name: Arc::clone(&source.name),
            settings,
            metrics,
            raws,
            clock: self.clock,
            stop_timeout: self.settings.agent.stop_timeout / 2,
        })
        .await
        .map_err(|source| AgentError::Listen { name: name.clone(), source: Box::new(source) })?;
        let shutdown = self.shutdown.clone();
        self.spawn_stage(format!("source {name}"), "source", async move {
            listener.run(shutdown).await;
            Ok(())
        });
        Ok(())
    }

    fn start_rest(
        &mut self,
        source: &Source,
        settings: crate::config::settings::Rest,
        raws: mpsc::Sender<crate::source::Raw>,
        metrics: Arc<crate::metrics::SourceMetrics>,
    ) {
        let rest = RestSource {
            name: Arc::clone(&source.name),
            settings,
            wanted: Wanted::of(&source.payload),
            metrics,
            raws,
            clock: self.clock,
            folder: self.settings.queue.path.clone(),
        };
        let (name, shutdown) = (source.name.to_string(), self.shutdown.clone());
        self.spawn_stage(format!("source {name}"), "source", async move {
            rest.run(shutdown).await.map_err(|source| AgentError::Tls { name, source: Box::new(source) })
        });
    }

    fn start_modbus(
        &mut self,
        source: &Source,
        settings: crate::config::settings::Modbus,
        raws: mpsc::Sender<crate::source::Raw>,
        metrics: Arc<crate::metrics::SourceMetrics>,
    ) {
        let modbus = ModbusSource { name: Arc::clone(&source.name), settings, metrics, raws, clock: self.clock };
        let shutdown = self.shutdown.clone();
        self.spawn_stage(format!("source {}", source.name), "source", async move {
            modbus.run(shutdown).await;
            Ok(())
        });
    }

    fn spawn(&mut self, name: String, task: impl Future<Output = Result<(), AgentError>> + Send + 'static) {
        let id = self.tasks.spawn(task).id();
        self.names.insert(id, name);
    }

    /// A task that the watchdog watches, and that does not end before a stop is asked for.
    fn spawn_stage(
        &mut self,
        name: String,
        point: &'static str,
        task: impl Future<Output = Result<(), AgentError>> + Send + 'static,
    ) {
        let pulse = self.health.watch(&name, failpoint::silence(TASK_SILENCE));
        let (stage, shutdown) = (name.clone(), self.shutdown.clone());
        let lasting = async move {
            task.await?;
            if shutdown.is_asked() { Ok(()) } else { Err(AgentError::Ended(stage)) }
        };
        self.spawn(name, Watched::new(lasting, pulse, point));
    }

    /// Until a stop is asked for, or a stage ends that should not.
    async fn watch(
        &mut self,
        writer: &WriterThread,
        forwarder: &ForwarderThread,
        pulse: &Pulse,
        mut timekeeper: Timekeeper,
        notifier: &Notifier,
        told: &live::Told,
    ) -> Result<(), AgentError> {
        let mut summary = summary::Summary::new(&self.metrics);
        let mut pace = pace::Pace::default();
        let mut next_summary = Instant::now() + self.settings.agent.summary_interval;
        let mut next_status = Instant::now();
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                () = self.shutdown.asked() => return Ok(()),
                Some(ended) = self.tasks.join_next_with_id() => self.task_ended(ended)?,
                _ = tick.tick() => {}
            }
            if writer.is_finished() || forwarder.is_finished() {
                // Why, is told when it is joined.
                return Ok(());
            }
            let now = Instant::now();
            pace.sample(now, &self.metrics);
            pulse.beat();
            told.look(now);
            timekeeper.look(now).map_err(AgentError::ClockSetBack)?;
            if now >= next_status {
                notifier.status(&summary::status(&self.metrics));
                next_status = now + STATUS_INTERVAL;
            }
            if now >= next_summary {
                summary.say(&self.metrics);
                next_summary += self.settings.agent.summary_interval;
            }
        }
    }

    fn task_ended(
        &mut self,
        ended: Result<(tokio::task::Id, Result<(), AgentError>), tokio::task::JoinError>,
    ) -> Result<(), AgentError> {
        match ended {
            Ok((id, result)) => {
                self.names.remove(&id);
                result
            }
            Err(error) => {
                let name = self.names.remove(&error.id()).unwrap_or_default();
                Err(AgentError::Panicked(format!("{name}: {error}")))
            }
        }
    }

    /// Ends the stages in the order in which a reading travels, and says who still runs. A forwarder that is `stuck` is
    /// not waited for.
    async fn stop(mut self, writer: WriterThread, forwarder: ForwarderThread, stuck: bool) -> Result<(), AgentError> {
        self.shutdown.ask();
        let begin = Instant::now();
        let limit = self.settings.agent.stop_timeout;
        info!(limit_s = limit.as_secs(), "stopping");
        let mut result = Ok(());
        if let Some(intake) = &self.intake {
            // A queue that has gone tells why when it is joined.
            let _ = intake.hurry().await;
        }
        while let Some(wait) = limit.checked_sub(begin.elapsed()).filter(|_| !self.tasks.is_empty()) {
            match tokio::time::timeout(wait.min(limit / 4), self.tasks.join_next_with_id()).await {
                Ok(Some(ended)) => result = result.and(self.task_ended(ended)),
                Ok(None) => break,
                Err(_) => say_who_runs(&self.running(), begin, limit),
            }
        }
        if !self.tasks.is_empty() {
            warn!(running = self.running(), "these did not stop in time; what they had not acknowledged is sent again");
            self.tasks.shutdown().await;
        }
        drop(self.intake.take());
        let patience = if stuck { TICK } else { limit };
        let Some(forwarded) = ended("the forwarder", move || join(forwarder), begin, patience).await else {
            warn!("the forwarder did not stop in time; the next start takes up where Kafka is");
            return result;
        };
        let Some(written) = ended("the queue", move || writer.join(), begin, limit).await else {
            warn!("the queue did not close in time; the next start repairs it");
            return result;
        };
        let (forwarded, written) = (forwarded?, written?);
        // The cause before its consequences.
        result = written.map_err(AgentError::from).and(forwarded).and(result);
        info!(took_ms = begin.elapsed().as_millis(), "stopped");
        result
    }

    fn running(&self) -> String {
        self.names.values().cloned().collect::<Vec<_>>().join(", ")
    }
}

/// Waits for a thread's end, and says now and then that it still runs. None: it did not end within `limit` since `begin`,
/// or within [`TICK`] where that is past.
async fn ended<T: Send + 'static>(
    what: &str,
    join: impl FnOnce() -> T + Send + 'static,
    begin: Instant,
    limit: Duration,
) -> Option<Result<T, AgentError>> {
    let mut thread = tokio::task::spawn_blocking(join);
    let until = (begin + limit).max(Instant::now() + TICK);
    loop {
        let left = until.checked_duration_since(Instant::now())?;
        match tokio::time::timeout(left.min(limit / 4), &mut thread).await {
            Ok(joined) => return Some(joined.map_err(|error| AgentError::Panicked(error.to_string()))),
            Err(_) => say_who_runs(what, begin, limit),
        }
    }
}

fn say_who_runs(running: &str, begin: Instant, limit: Duration) {
    let left = limit.saturating_sub(begin.elapsed()).as_secs();
    info!(running, left_s = left, "still stopping");
}

fn join(forwarder: ForwarderThread) -> Result<(), AgentError> {
    match forwarder.join() {
        Ok(result) => Ok(result?),
        Err(_) => Err(AgentError::Panicked("the forwarder".to_owned())),
    }
}

fn forwarder_silence(settings: &Settings) -> Duration {
    FORWARDER_SILENCE + settings.kafka.request_timeout.max(settings.kafka.transaction_timeout) * 2
}

/// What the queue in `path` is opened with where there is no configuration: by a tool, for a copy. Nothing is dropped for
/// lack of room, and no window is cut short.
pub fn unconfigured_options(path: &Path) -> queue::Options {
    queue::Options {
        path: path.to_owned(),
        max_size: u64::MAX,
        min_free: 0,
        when_full: WhenFull::Block,
        pack_after: queue::PACK_AFTER,
        segment_size: 16 << 20,
        // As many packet identifiers as there are.
        redelivery_window: 65_535,
        windows: BTreeMap::new(),
        max_dead_letters: u64::MAX,
        dead_letters_max_age: None,
        keeps_wear: false,
        agent_id: None,
        default_agent_id: Machine::here().default_agent_id(),
        hardware_serial: None,
    }
}

/// What the queue in `path` is opened with.
pub fn queue_options(settings: &Settings, path: &Path, machine: &Machine) -> queue::Options {
    queue::Options {
        path: path.to_owned(),
        max_size: settings.queue.max_size,
        min_free: settings.queue.min_free,
        when_full: settings.queue.when_full,
        segment_size: settings.queue.segment_size,
        pack_after: queue::PACK_AFTER,
        redelivery_window: settings.queue.redelivery_window,
        windows: settings.sources.iter().map(|source| (source.name.to_string(), window(settings, source))).collect(),
        max_dead_letters: settings.queue.max_dead_letters,
        dead_letters_max_age: settings.queue.dead_letters_max_age,
        keeps_wear: true,
        agent_id: settings.agent.id.clone(),
        default_agent_id: machine.default_agent_id(),
        hardware_serial: machine.hardware_serial.clone(),
    }
}

/// Messages of one client of a listener that are remembered.
const ADAPTER_WINDOW: usize = 1_000;

/// Documents of a device that is asked that are remembered.
const POLLED_WINDOW: usize = 10;

/// Messages that a source remembers. The clients of a listener come and go on their own: none may push out of the window
/// what another one has still to send again. Adapters have few messages on their way, unlike a broker.
fn window(settings: &Settings, source: &Source) -> usize {
    let one = settings.queue.redelivery_window;
    match &source.interface {
        Interface::Mqtt(_) => one,
        Interface::MqttListener(listener) => {
            one.min(ADAPTER_WINDOW.max(listener.max_unacknowledged)) * listener.max_clients
        }
        // Nobody sends again what was asked for; a device may answer twice with the very same document.
        Interface::Rest(rest) => {
            if rest.store_unchanged {
                0
            } else {
                one.min(POLLED_WINDOW)
            }
        }
        // Nothing is sent a second time.
        Interface::Modbus(_) => 0,
    }
}

/// Under which an `mqtt` source keeps its session at the broker, where the configuration names no other.
pub fn client_id(agent_id: &str, source: &str) -> String {
    format!("meterferry-{agent_id}-{source}")
}

/// One line: what is read, where it is queued, where it is sent.
fn say_start(settings: &Settings, agent: &str, waiting: u64, took: Duration) {
    let reads: Vec<String> = settings.sources.iter().map(Source::to_string).collect();
    let kafka = &settings.kafka;
    let sends = if kafka.bootstrap_servers.is_empty() {
        "nowhere: kafka.bootstrap_servers is not set".to_owned()
    } else {
        format!("{} on {}", settings.kafka_topics().join(", "), kafka.bootstrap_servers.join(","))
    };
    info!(
        agent,
        reads = reads.join(", "),
        queue = %settings.queue.path.display(),
        sends,
        delivery = kafka.delivery.word(),
        waiting,
        opened_ms = took.as_millis(),
        "meterferry {} starts", env!("CARGO_PKG_VERSION")
    );
}

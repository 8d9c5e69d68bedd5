//! The story: all well; the cluster unreachable; the agent killed and back; the cluster back. Every wait has a limit.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use super::agent::{Agent, AgentError};
use super::auditor::{AuditorError, SharedAudit, lock};
use super::board::{self, Board, Depth, Figures};
use super::cluster::{Cluster, ClusterError, Switched};
use super::depth;
use super::meters::{House, Meters, MetersError};
use super::workplace::{Configuration, Source, Workplace};
use crate::cli::units::count;
use crate::config::show_address;
use crate::simulate::mqtt::Report;
use crate::simulate::session;

/// Titles of the acts.
pub const ACTS: [&str; 4] = [
    "All is well: every reading goes to the disk, then to Kafka",
    "Kafka becomes unreachable: the readings wait on the disk",
    "The agent is killed with SIGKILL, and comes back",
    "Kafka returns: the queue drains, in order",
];

/// The share of the whole that each act takes.
const SHARES: [f64; 4] = [0.25, 0.30, 0.25, 0.20];

/// Beyond the time an act is meant to take, before the story counts as stuck.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often a wait looks.
const LOOK: Duration = Duration::from_millis(50);

/// How long nothing may come any more before all has come.
const SETTLED: Duration = Duration::from_secs(1);

/// All that is on stage.
pub struct Stage {
    pub cluster: Cluster,
    pub agent: Agent,
    pub workplace: Workplace,
    pub configuration: Configuration,
    pub board: Arc<Board>,
    pub audit: SharedAudit,
    pub meters: Option<Meters>,
    pub house: House,
    /// From document to document of an adapter that publishes.
    pub interval: Duration,
    /// How long the whole is meant to take.
    pub length: Duration,
    /// What the meters said at their end.
    pub report: Report,
}

/// The story could not be told.
#[derive(Debug, thiserror::Error)]
pub enum StoryError {
    #[error("cannot prepare the demo's folder (TMPDIR puts it elsewhere)")]
    Folder(#[source] std::io::Error),
    #[error("no port of 127.0.0.1 is free")]
    Port(#[source] std::io::Error),
    #[error("cannot find this program's own file, which the agent is started from")]
    Executable(#[source] std::io::Error),
    #[error("cannot wait for signals")]
    Signals(#[source] std::io::Error),
    #[error(
        "the MQTT broker {broker} cannot be used: {why}\n  hint: it must let anybody in, without TLS and login: the demo's adapters have neither"
    )]
    Broker { broker: String, why: String },
    #[error(transparent)]
    Meters(#[from] MetersError),
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(transparent)]
    Auditor(#[from] AuditorError),
    #[error(transparent)]
    Agent(#[from] AgentError),
    #[error("waited {} s in vain: {what}", .limit.as_secs())]
    Waited { what: &'static str, limit: Duration },
    #[error("all readings are in Kafka, and {waiting} still wait in the queue of the agent that was stopped")]
    NotEmpty { waiting: u64 },
    #[error("the queue held {before} readings when the agent was killed, and {after} when it was back")]
    QueueShrank { before: u64, after: u64 },
}

/// Tells it from the beginning to the end, up to the agent's orderly stop.
pub async fn tell(stage: &mut Stage) -> Result<(), StoryError> {
    stage.open().await?;
    stage.all_well().await?;
    stage.unreachable().await?;
    stage.killed().await?;
    stage.returns().await?;
    stage.close().await
}

impl Stage {
    async fn open(&mut self) -> Result<(), StoryError> {
        self.workplace.configure(&self.configuration).map_err(StoryError::Folder)?;
        if let Source::Broker { host, port, topic, client_id } = &self.configuration.source {
            // A broker forgets what nobody has subscribed to, and the agent may be slower than its adapters.
            session::begin(host, *port, client_id, topic)
                .await
                .map_err(|why| StoryError::Broker { broker: show_address(host, *port), why })?;
        }
        self.start()?;
        self.reachable().await?;
        if let Some(meters) = &mut self.meters {
            meters.publish(&self.configuration.source, self.interval);
        }
        Ok(())
    }

    async fn all_well(&mut self) -> Result<(), StoryError> {
        self.act(0);
        self.board.say("A reading is acknowledged when it is on the disk, then carried to Kafka.");
        self.play(0).await?;
        self.until("the first readings in Kafka", |figures| figures.delivered > 0).await
    }

    async fn unreachable(&mut self) -> Result<(), StoryError> {
        self.act(1);
        let switched = self.cluster.cut()?;
        self.board.change(|figures| figures.cluster_up = false);
        match switched {
            Switched::Brokers => {
                self.board.say("Kafka is off. The meters notice nothing: readings wait on the disk.");
            }
            Switched::Address(nowhere) => {
                self.board.say(format!(
                    "A real Kafka cannot be switched off from here: the agent is restarted with {nowhere} as its address, where nobody is."
                ));
                self.restart(nowhere).await?;
            }
        }
        let before = self.board.figures().depth.end;
        self.play(1).await?;
        let wanted = before + u64::from(self.house.mqtt);
        self.until("readings to wait on the disk", |figures| figures.depth.end >= wanted && figures.depth.waiting > 0)
            .await
    }

    async fn killed(&mut self) -> Result<(), StoryError> {
        self.act(2);
        let began = Instant::now();
        let before = self.look().await.unwrap_or(self.board.figures().depth);
        self.agent.kill().await?;
        self.board.change(|figures| figures.agent = board::Agent::Killed);
        self.board.say(format!(
            "SIGKILL: nothing could be saved any more. {} readings lie on the disk.",
            count(before.waiting)
        ));
        sleep(self.share(2).mul_f64(0.25).clamp(Duration::from_millis(500), Duration::from_secs(3))).await;
        let start = Instant::now();
        self.start()?;
        self.reachable().await?;
        let after = self.stored(before.end).await?;
        let took = start.elapsed();
        if after.waiting < before.waiting {
            return Err(StoryError::QueueShrank { before: before.waiting, after: after.waiting });
        }
        self.board.say(format!(
            "Back: storing again {:.1} s after the start, and all {} readings still there.",
            took.as_secs_f64(),
            count(before.waiting)
        ));
        self.rest(self.share(2).saturating_sub(began.elapsed())).await
    }

    async fn returns(&mut self) -> Result<(), StoryError> {
        self.act(3);
        let began = Instant::now();
        let waiting = self.board.figures().depth.waiting;
        let switched = self.cluster.restore()?;
        self.board.change(|figures| figures.cluster_up = true);
        match switched {
            Switched::Brokers => self.board.say("Kafka is back. The queue drains, the oldest reading first."),
            Switched::Address(servers) => {
                self.board.say(format!("The agent is restarted with {servers}. The queue drains, the oldest first."));
                self.restart(servers).await?;
            }
        }
        // What is on its way in a second and a half of a line that keeps up.
        let usual = u64::from(self.house.mqtt)
            * (1 + u64::try_from(1_500 / self.interval.as_millis().max(1)).unwrap_or(0))
            + 3 * u64::from(self.house.polled());
        let audit = Arc::clone(&self.audit);
        self.until("the queue to drain", |_| lock(&audit).missing() <= usual).await?;
        self.board.say(format!(
            "Drained: {} readings in {:.1} s. Each goes straight through again.",
            count(waiting),
            began.elapsed().as_secs_f64()
        ));
        self.rest(self.share(3).saturating_sub(began.elapsed())).await
    }

    /// The meters fall silent, the last readings arrive, the agent stops in order.
    async fn close(&mut self) -> Result<(), StoryError> {
        self.board.say("The meters stop; the last readings arrive; the agent stops.");
        self.silence().await;
        let audit = Arc::clone(&self.audit);
        self.until("the last readings in Kafka", |_| lock(&audit).missing() == 0).await?;
        self.agent.stop().await?;
        self.settle().await;
        self.board.change(|figures| {
            figures.agent = board::Agent::Stopped;
            figures.acts_done = ACTS.len();
            figures.act = None;
        });
        // By the queue's own release point, whatever the auditor has read.
        let folder = self.workplace.queue();
        let depth = spawn_blocking(move || depth::look(&folder, 0)).await.ok().flatten();
        match depth.map(|depth| depth.waiting) {
            Some(0) => self.board.say("The agent has stopped, and nothing waits in its queue."),
            waiting => return Err(StoryError::NotEmpty { waiting: waiting.unwrap_or_default() }),
        }
        Ok(())
    }

    /// Ends what runs, wherever the story is.
    pub async fn end(&mut self) {
        self.silence().await;
        // An agent that ended badly is what the story failed over, or does not matter any more.
        let _ = self.agent.stop().await;
        self.board.change(|figures| figures.agent = board::Agent::Stopped);
        self.settle().await;
    }

    async fn silence(&mut self) {
        if let Some(mut meters) = self.meters.take() {
            let agent_lives = matches!(self.board.figures().agent, board::Agent::Running { .. });
            self.report = meters.stop(agent_lives).await;
        }
    }

    /// Waits until the auditor has heard nothing new for a while; a repeat may come last.
    async fn settle(&self) {
        let began = Instant::now();
        let mut last = (lock(&self.audit).records(), Instant::now());
        while last.1.elapsed() < SETTLED && began.elapsed() < PATIENCE {
            sleep(LOOK).await;
            let records = lock(&self.audit).records();
            if records != last.0 {
                last = (records, Instant::now());
            }
        }
    }

    fn act(&self, number: usize) {
        self.board.change(|figures| {
            figures.acts_done = number;
            figures.act = Some(number);
        });
        self.board.say(format!("Act {}. {}", number + 1, ACTS[number]));
    }

    fn start(&mut self) -> Result<(), AgentError> {
        let pid = self.agent.start()?;
        self.board.change(|figures| {
            figures.agent = board::Agent::Running { pid };
            figures.starts += 1;
        });
        Ok(())
    }

    /// An orderly stop, and a start with other servers.
    async fn restart(&mut self, servers: String) -> Result<(), StoryError> {
        self.configuration.servers = servers;
        self.workplace.configure(&self.configuration).map_err(StoryError::Folder)?;
        self.agent.stop().await?;
        self.board.change(|figures| figures.agent = board::Agent::Stopped);
        self.start()?;
        self.reachable().await
    }

    /// Waits until the agent listens; with a broker in between, the agent need not be there.
    async fn reachable(&mut self) -> Result<(), StoryError> {
        let Source::Listener { port, .. } = self.configuration.source else { return Ok(()) };
        let until = Instant::now() + PATIENCE;
        while !matches!(timeout(LOOK, TcpStream::connect(("127.0.0.1", port))).await, Ok(Ok(_))) {
            self.agent.check()?;
            if Instant::now() > until {
                return Err(StoryError::Waited { what: "the agent to listen for its adapters", limit: PATIENCE });
            }
            sleep(LOOK / 2).await;
        }
        Ok(())
    }

    fn share(&self, act: usize) -> Duration {
        self.length.mul_f64(SHARES[act])
    }

    async fn play(&mut self, act: usize) -> Result<(), StoryError> {
        self.rest(self.share(act)).await
    }

    /// Lets time pass while the agent runs.
    async fn rest(&mut self, duration: Duration) -> Result<(), StoryError> {
        let until = Instant::now() + duration;
        while Instant::now() < until {
            self.agent.check()?;
            sleep(LOOK).await;
        }
        Ok(())
    }

    async fn until(&mut self, what: &'static str, come: impl Fn(&Figures) -> bool) -> Result<(), StoryError> {
        let until = Instant::now() + PATIENCE;
        while !come(&self.board.figures()) {
            self.agent.check()?;
            if Instant::now() > until {
                return Err(StoryError::Waited { what, limit: PATIENCE });
            }
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// Waits until the queue goes beyond `end`.
    async fn stored(&mut self, end: u64) -> Result<Depth, StoryError> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(depth) = self.look().await.filter(|depth| depth.end > end) {
                return Ok(depth);
            }
            self.agent.check()?;
            if Instant::now() > until {
                return Err(StoryError::Waited {
                    what: "the agent that came back to store a reading",
                    limit: PATIENCE,
                });
            }
            sleep(LOOK).await;
        }
    }

    /// The queue's folder now.
    async fn look(&self) -> Option<Depth> {
        let (folder, delivered) = (self.workplace.queue(), self.board.figures().delivered);
        spawn_blocking(move || depth::look(&folder, delivered)).await.ok().flatten()
    }
}

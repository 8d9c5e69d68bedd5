//! What the parts of the demo know of the line, for whoever shows it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Shared by the story, the meters, the auditor and the view.
#[derive(Debug)]
pub struct Board(Mutex<Figures>);

/// The line at one moment.
#[derive(Debug, Clone)]
pub struct Figures {
    pub began: Instant,
    /// How long the story is meant to take.
    pub length: Duration,
    /// Acts that are over.
    pub acts_done: usize,
    /// The act being played: its number from 0, and what happens in it.
    pub act: Option<usize>,
    /// What happens right now, in a sentence.
    pub now: String,
    pub agent: Agent,
    /// Starts of the agent so far.
    pub starts: u32,
    pub cluster_up: bool,
    pub devices: Vec<Device>,
    /// Safe, by all that the meters were told.
    pub published: u64,
    /// Of these: sent more than once.
    pub sent_again: u64,
    /// Due while nobody listened.
    pub missed: u64,
    /// Different documents that the auditor has read.
    pub delivered: u64,
    pub depth: Depth,
    /// Readings waiting, sampled every [`SAMPLE`]; the newest last.
    pub history: Vec<u64>,
    /// What happened, with its time since the beginning.
    pub news: Vec<(Duration, String)>,
}

/// From one sample of the history to the next.
pub const SAMPLE: Duration = Duration::from_millis(500);

/// Samples kept; beyond, every second one is dropped.
const SAMPLES: usize = 4_096;

/// The agent's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agent {
    NotStarted,
    Running { pid: u32 },
    Killed,
    Stopped,
}

/// How a meter gives its readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Mqtt,
    Rest,
    Modbus,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Mqtt => "MQTT",
            Self::Rest => "REST",
            Self::Modbus => "Modbus",
        }
    }
}

/// A meter as its last reading shows it.
#[derive(Debug, Clone)]
pub struct Device {
    pub name: String,
    pub kind: Kind,
    /// Its readings that are safe.
    pub published: u64,
    /// Import positive.
    pub watts: Option<i64>,
    pub connected: bool,
}

/// The queue's folder as it lies on disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Depth {
    /// One past the newest sequence.
    pub end: u64,
    pub waiting: u64,
    pub oldest: Duration,
    pub bytes: u64,
}

impl Board {
    pub fn new(length: Duration) -> Self {
        Self(Mutex::new(Figures {
            began: Instant::now(),
            length,
            acts_done: 0,
            act: None,
            now: String::new(),
            agent: Agent::NotStarted,
            starts: 0,
            cluster_up: true,
            devices: Vec::new(),
            published: 0,
            sent_again: 0,
            missed: 0,
            delivered: 0,
            depth: Depth::default(),
            history: Vec::new(),
            news: Vec::new(),
        }))
    }

    pub fn figures(&self) -> Figures {
        self.lock().clone()
    }

    pub fn change(&self, change: impl FnOnce(&mut Figures)) {
        change(&mut self.lock());
    }

    /// Says what happened: one line.
    pub fn say(&self, text: impl Into<String>) {
        let mut figures = self.lock();
        let at = figures.began.elapsed();
        let text = text.into();
        figures.now.clone_from(&text);
        figures.news.push((at, text));
    }

    fn lock(&self) -> MutexGuard<'_, Figures> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Figures {
    /// The meter with this name, added where it is new.
    pub fn device(&mut self, name: &str) -> &mut Device {
        let at = match self.devices.iter().position(|device| device.name == name) {
            Some(at) => at,
            None => {
                // Those that are asked were made known before.
                let kind = Kind::Mqtt;
                self.devices.push(Device { name: name.to_owned(), kind, published: 0, watts: None, connected: false });
                self.devices.sort_by(|a, b| a.name.cmp(&b.name));
                self.devices.iter().position(|device| device.name == name).expect("it was just added")
            }
        };
        &mut self.devices[at]
    }

    /// A reading of this meter is safe.
    pub fn safe(&mut self, name: &str) {
        self.published += 1;
        self.device(name).published += 1;
    }

    /// Readings that are safe: those that a meter was told of, or Kafka has. Who is asked is told with the next question.
    pub fn safe_so_far(&self) -> u64 {
        self.published.max(self.delivered)
    }

    /// Safe readings of all meters of one kind.
    pub fn published_by(&self, kind: Kind) -> u64 {
        self.devices.iter().filter(|device| device.kind == kind).map(|device| device.published).sum()
    }

    /// Samples the queue.
    pub fn sample(&mut self, depth: Depth) {
        self.depth = depth;
        let due = self.began.elapsed().as_millis() / SAMPLE.as_millis();
        while (self.history.len() as u128) < due && self.history.len() < SAMPLES {
            self.history.push(depth.waiting);
        }
    }
}

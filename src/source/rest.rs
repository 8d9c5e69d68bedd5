//! A source that asks a device over HTTP: `GET` a document each interval, and its status now and then.
//!
//! - A reading is durable before the next is asked for: the round ends with the reading's receipt. A time of the grid that
//!   passed meanwhile is skipped and counted ([`super::grid`]).
//! - Which paths and which header a firmware understands is found out and remembered ([`super::rest_paths`],
//!   [`super::rest_memory`]).
//! - A document that says the same as the last one that is on disk is counted, not stored ([`super::rest_sameness`]).
//! - What is no document is counted and said once an outage ([`super::rest_trouble`], [`super::rest_outage`]). The first of
//!   an outage becomes a dead letter where it may help a person: bad JSON, and JSON without a measurement. A day of web
//!   pages would push out dead letters that matter.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::select;
use tokio::sync::mpsc::{Sender, channel};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info};

use super::grid::Grid;
use super::rest_answer::{Answer, Wanted, judge};
use super::rest_link::{Link, show_way};
use super::rest_memory::{Memory, file_of};
use super::rest_outage::Chronicle;
use super::rest_paths::{Search, Way};
use super::rest_sameness::gist;
use super::rest_trouble::Trouble;
use super::tls::TlsError;
use super::{Delivery, Raw};
use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::config::settings::Rest;
use crate::config::show_address;
use crate::metrics::SourceMetrics;
use crate::reading::{Fingerprint, Kind};
use crate::receipt::{Receipt, Ticket};
use crate::shutdown::Shutdown;

/// The first delay after a failure is at most this.
const RETRY_BASE: Duration = Duration::from_secs(1);

/// What was asked for, as it stands in [`Raw::topic`].
fn topic(kind: Kind) -> &'static str {
    match kind {
        Kind::Status => "status",
        Kind::Measured | Kind::Normalized => "measurement",
    }
}

/// A source of type `rest`.
#[derive(Debug)]
pub struct RestSource {
    /// Name of the source in the configuration.
    pub name: Arc<str>,
    pub settings: Rest,
    pub wanted: Wanted,
    pub metrics: Arc<SourceMetrics>,
    /// This source's own channel.
    pub raws: Sender<Raw>,
    pub clock: Clock,
    /// The folder in which it remembers its device.
    pub folder: PathBuf,
}

impl RestSource {
    /// Asks until a stop is asked for, or the agent takes no raws any more. No device ends it.
    ///
    /// # Errors
    ///
    /// Before anything else, if the TLS files cannot be used.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), TlsError> {
        let device = show_address(&self.settings.host, self.settings.port);
        let memory = Memory::of(file_of(&self.folder, &self.name), device.clone()).await;
        let link = Link::new(&self.settings, memory, Arc::clone(&self.metrics))?;
        let mut rounds = Rounds {
            backoff: Backoff::new(RETRY_BASE, self.settings.retry_max_delay),
            chronicle: Chronicle::new(&self.name, device),
            link,
            stored: None,
            asked: 0,
            status_said: false,
            source: &self,
        };
        select! {
            () = rounds.run() => {}
            () = shutdown.asked() => {}
        }
        drop(rounds);
        self.metrics.connected.set(false);
        info!(source = &*self.name, acknowledged = self.metrics.acknowledged.get(), "the device is no longer asked");
        Ok(())
    }
}

/// Asking, round after round.
struct Rounds<'s> {
    source: &'s RestSource,
    link: Link,
    chronicle: Chronicle,
    backoff: Backoff,
    /// What the last measurement said that is on disk.
    stored: Option<Fingerprint>,
    /// Raws handed on so far.
    asked: u64,
    /// That the device gives no status was said.
    status_said: bool,
}

/// The agent takes no raws any more.
struct Gone;

impl Rounds<'_> {
    /// Returns when the agent takes no raws any more.
    async fn run(&mut self) {
        let settings = &self.source.settings;
        let start = Instant::now();
        let mut grid = Grid::new(settings.interval);
        // The first one, now.
        grid.next(Duration::ZERO);
        let mut status_due = settings.status_interval.map(|_| start);
        let mut failed = false;
        loop {
            let measured = match self.measurement().await {
                Ok(measured) => measured,
                Err(Gone) => return,
            };
            if measured
                && let (Some(due), Some(interval)) = (status_due, settings.status_interval)
                && Instant::now() >= due
            {
                status_due = Some(Instant::now() + interval);
                if self.status().await.is_err() {
                    return;
                }
            }
            let now = start.elapsed();
            let next = grid.next(now);
            // While the device fails, the pauses are the backoff's: no time of the grid is missed by waiting.
            if measured && !failed {
                self.source.metrics.skipped.add(next.skipped);
            }
            failed = !measured;
            let at = if measured {
                next.at
            } else {
                now + settings.interval.min(RETRY_BASE) + self.backoff.next(rand::random())
            };
            sleep_until(start + at).await;
        }
    }

    /// One round; whether the device gave what was wanted.
    async fn measurement(&mut self) -> Result<bool, Gone> {
        let mut seen = None;
        match self.search(&mut seen).await {
            Ok((way, answer)) => {
                self.link.memory.found(way).await;
                self.backoff.reset();
                self.source.metrics.connected.set(true);
                let (configured, has_key) = (&self.link.configured, self.link.has_key());
                self.chronicle.answered(|| show_way(&way, configured, has_key), self.link.trusted());
                self.take(answer.body).await.map(|()| true)
            }
            Err(trouble) => {
                let metrics = &self.source.metrics;
                metrics.failed_polls.one();
                if metrics.connected.set(false) {
                    metrics.disconnects.one();
                }
                let said = self.chronicle.failed(&trouble, std::time::Instant::now());
                if let Some(answer) = seen.filter(|_| said && trouble.is_evidence()) {
                    metrics.received.one();
                    self.offer(Kind::Measured, answer.body).await?;
                }
                Ok(false)
            }
        }
    }

    /// Asks in each way that may be the right one. `seen` is the last answer.
    async fn search(&mut self, seen: &mut Option<Answer>) -> Result<(Way, Answer), Trouble> {
        let wanted = self.source.wanted;
        let mut search = Search::new(&self.link.configured, self.link.has_key(), self.link.memory.way());
        let mut worst = None;
        while let Some(way) = search.way() {
            let path = way.measurement(&self.link.configured).to_owned();
            let answer = self.link.get(&path, way.header).await?;
            let judged = judge(&answer, wanted, self.link.has_key());
            *seen = Some(answer.clone());
            match judged {
                Ok(()) => return Ok((way, answer)),
                Err(trouble) => match trouble.met() {
                    None => return Err(trouble),
                    Some(met) => {
                        worst = Some(trouble.or_worse(worst));
                        search.met(met);
                    }
                },
            }
        }
        Err(worst.unwrap_or(Trouble::Paths))
    }

    /// A measurement: hands it on unless it says what the last one said that is on disk.
    async fn take(&mut self, body: Bytes) -> Result<(), Gone> {
        let metrics = &self.source.metrics;
        metrics.received.one();
        let says = match self.source.wanted {
            Wanted::Document => gist(&body),
            _ => Some(Fingerprint::of(&[&body])),
        };
        if !self.source.settings.store_unchanged && says.is_some() && says == self.stored {
            metrics.unchanged.one();
            return Ok(());
        }
        if self.offer(Kind::Measured, body).await? {
            self.stored = says;
        }
        Ok(())
    }

    /// Asks for the status. That there is none is said once; the measurements go on.
    async fn status(&mut self) -> Result<(), Gone> {
        let Some(way) = self.link.memory.way() else { return Ok(()) };
        let Some(path) = way.status(&self.link.configured).map(str::to_owned) else { return Ok(()) };
        let judged = match self.link.get(&path, way.header).await {
            Ok(answer) => judge(&answer, Wanted::Status, self.link.has_key()).map(|()| answer.body),
            Err(trouble) => Err(trouble),
        };
        match judged {
            Ok(body) => {
                self.status_said = false;
                self.source.metrics.received.one();
                self.offer(Kind::Status, body).await?;
            }
            Err(trouble) => {
                let (source, what) = (&*self.source.name, trouble.what());
                self.source.metrics.failed_polls.one();
                if std::mem::replace(&mut self.status_said, true) {
                    debug!(source, path, "no status: {what}");
                } else {
                    info!(source, path, "no status: {what}. Measurements go on, and it is asked for again");
                }
            }
        }
        Ok(())
    }

    /// Hands a document on and waits for its receipt; whether it is on disk.
    async fn offer(&mut self, kind: Kind, payload: Bytes) -> Result<bool, Gone> {
        let source = self.source;
        let (counter, mut tickets) = channel(1);
        let ticket = Ticket { connection: source.metrics.connects.get(), ordinal: self.asked };
        self.asked += 1;
        let raw = Raw {
            source: Arc::clone(&source.name),
            kind,
            // A payload of any bytes is named after its topic, and here after its source.
            topic: if source.wanted == Wanted::Anything { String::new() } else { topic(kind).to_owned() },
            payload,
            received: source.clock.now(),
            delivery: Delivery::asked(),
            receipt: Receipt::new(counter, ticket),
        };
        source.raws.send(raw).await.map_err(|_| Gone)?;
        let stored = tickets.recv().await.is_some();
        if stored {
            source.metrics.acknowledged.one();
        }
        Ok(stored)
    }
}

/// Where the source named `source` remembers its device, in the queue's folder.
pub fn memory_of(folder: &Path, source: &str) -> PathBuf {
    file_of(folder, source)
}

//! A source that asks a Modbus TCP device: one connection, kept alive, and one question at a time.
//!
//! - Polls stay on a grid ([`Grid`]). A poll is delivered, and the next is not made before its receipt has come back.
//! - A poll that failed is tried again with backoff, in its own interval as long as that lasts, else at the next.
//! - A connection on which anything but a right answer came is dropped: a late answer would be taken for the next one.

use std::sync::Arc;
use std::time::Duration;

use tokio::select;
use tokio::sync::mpsc::{self, Sender};
use tokio::time::{Instant, sleep_until};
use tracing::info;

use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::config::settings;
use crate::metrics::SourceMetrics;
use crate::reading::Kind;
use crate::receipt::{Receipt, Ticket};
use crate::shutdown::Shutdown;
use crate::source::grid::Grid;
use crate::source::measured::{self, Counters, Flag, Picture};
use crate::source::modbus_device::{Device, Search, show_device};
use crate::source::modbus_fault::Fault;
use crate::source::modbus_outage::Chronicle;
use crate::source::{Delivery, Raw};

/// The first delay before a failed poll is tried again is at most this.
const RETRY_BASE: Duration = Duration::from_millis(500);

/// A source of type `modbus`.
#[derive(Debug)]
pub struct ModbusSource {
    /// Name of the source in the configuration.
    pub name: Arc<str>,
    pub settings: settings::Modbus,
    pub metrics: Arc<SourceMetrics>,
    /// This source's own channel.
    pub raws: Sender<Raw>,
    pub clock: Clock,
}

impl ModbusSource {
    /// Polls until a stop is asked for, or the agent takes no raws any more. No outage ends it.
    pub async fn run(self, shutdown: Shutdown) {
        let start = Instant::now();
        let mut grid = Grid::new(self.settings.interval);
        let mut poller = Poller::new(&self);
        let mut backoff = Backoff::new(RETRY_BASE, self.settings.reconnect_max_delay);
        let (mut now, mut not_before) = (Duration::ZERO, Duration::ZERO);
        while !shutdown.is_asked() && !self.raws.is_closed() {
            let slot = grid.next(now.max(not_before));
            self.metrics.skipped.add(slot.skipped);
            let mut at = slot.at;
            // Attempts of this slot.
            while self.pause_until(start + at, &shutdown).await {
                let polled = select! {
                    polled = poller.poll() => polled,
                    () = shutdown.asked() => break,
                };
                match polled {
                    Ok(payload) => {
                        backoff.reset();
                        select! {
                            () = self.deliver(payload) => {}
                            () = shutdown.asked() => {}
                        }
                        break;
                    }
                    Err(_) => {
                        at = start.elapsed() + backoff.next(rand::random());
                        not_before = at;
                        if at >= grid.following() {
                            break;
                        }
                    }
                }
            }
            now = start.elapsed();
        }
        self.metrics.connected.set(false);
        info!(source = &*self.name, polled = poller.number, "asks the Modbus device no more");
        poller.leave().await;
    }

    /// False where it is not worth going on.
    async fn pause_until(&self, until: Instant, shutdown: &Shutdown) -> bool {
        select! {
            () = sleep_until(until) => !shutdown.is_asked(),
            () = shutdown.asked() => false,
            () = self.raws.closed() => false,
        }
    }

    /// Hands a document on, and returns when it is durable, or whoever had it has gone.
    async fn deliver(&self, payload: Vec<u8>) {
        // A channel for this one alone: a receipt that is dropped closes it.
        let (counter, mut tickets) = mpsc::channel(1);
        let raw = Raw {
            source: Arc::clone(&self.name),
            kind: Kind::Measured,
            topic: String::new(),
            payload: payload.into(),
            received: self.clock.now(),
            delivery: Delivery::asked(),
            receipt: Receipt::new(counter, Ticket { connection: 1, ordinal: 0 }),
        };
        self.metrics.received.one();
        if self.raws.send(raw).await.is_ok() && tickets.recv().await.is_some() {
            self.metrics.acknowledged.one();
        }
    }
}

/// The device as it was found, and what it said before.
struct Poller<'s> {
    source: &'s ModbusSource,
    device: Option<Device>,
    search: Search,
    counters: Counters,
    /// The serial number that the counters are of.
    serial: Option<String>,
    chronicle: Chronicle,
    /// Polls that gave a reading.
    number: u64,
    /// Values were absurd, or missing, at the last poll.
    absurd: bool,
}

impl<'s> Poller<'s> {
    fn new(source: &'s ModbusSource) -> Self {
        Self {
            source,
            device: None,
            search: Search::default(),
            counters: Counters::default(),
            serial: None,
            chronicle: Chronicle::new(&source.name, show_device(&source.settings)),
            number: 0,
            absurd: false,
        }
    }

    /// One reading's document.
    ///
    /// # Cancel safety
    ///
    /// None: the connection may be within an answer, and is not to be used again.
    async fn poll(&mut self) -> Result<Vec<u8>, Fault> {
        let kept = self.device.is_some();
        let mut result = self.read().await;
        // A device that hangs up on who asks seldom is asked again at once.
        if kept && result.as_ref().is_err_and(Fault::is_hang_up) {
            self.source.metrics.disconnects.one();
            result = self.read().await;
        }
        match result.and_then(|picture| self.document(picture)) {
            Ok(document) => Ok(document),
            Err(fault) => {
                let metrics = &self.source.metrics;
                metrics.failed_polls.one();
                if self.device.is_none() {
                    metrics.connected.set(false);
                    metrics.disconnects.one();
                }
                self.chronicle.failed(&fault, Instant::now().into_std());
                Err(fault)
            }
        }
    }

    async fn read(&mut self) -> Result<Picture, Fault> {
        let mut device = match self.device.take() {
            Some(device) => device,
            None => {
                let device = Device::connect(&self.source.settings, &mut self.search).await?;
                self.source.metrics.connects.one();
                self.source.metrics.connected.set(true);
                self.chronicle.found(device.identity.to_string());
                let serial = device.identity.serial().map(str::to_owned);
                if serial != self.serial {
                    // Another meter has other counters.
                    self.counters = Counters::default();
                    self.serial = serial;
                }
                device
            }
        };
        let result = device.read().await;
        if result.as_ref().err().is_none_or(Fault::keeps_connection) {
            self.device = Some(device);
        }
        result
    }

    fn document(&mut self, mut picture: Picture) -> Result<Vec<u8>, Fault> {
        let now = Instant::now().into_std();
        let falls = self.counters.judge(&mut picture);
        if picture.measured.is_empty() {
            return Err(Fault::Nothing);
        }
        self.number += 1;
        self.chronicle.read();
        let metrics = &self.source.metrics;
        metrics.fallen.add(falls.len() as u64);
        self.chronicle.fell(&falls, now);
        let absurd: Vec<&str> = picture
            .measured
            .iter()
            .filter(|measured| measured.flag == Some(Flag::Absurd))
            .map(|measured| &*measured.code)
            .collect();
        let wrong = (absurd.len() + picture.left_out.len()) as u64;
        metrics.absurd.add(wrong);
        if wrong > 0 && !self.absurd {
            self.chronicle.absurd(&absurd.join(", "), &picture.left_out.join(", "), now);
        }
        self.absurd = wrong > 0;
        let serial = self.serial.as_deref();
        let name = self.source.settings.device.as_deref().or(serial).unwrap_or(&self.source.name);
        Ok(measured::document(serial, Some(name), &picture))
    }

    async fn leave(self) {
        if let Some(device) = self.device {
            device.close().await;
        }
    }
}

//! The simulated meters: adapters that publish over MQTT, adapters that are asked over HTTPS, and meters on Modbus TCP.
//!
//! What they gave is what the audit holds the line to: a published document is safe when it is acknowledged, a document
//! that was asked for is safe when the same client asks for the next ([`Till`]).

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinHandle;

use super::audit;
use super::auditor::{SharedAudit, lock};
use super::board::{Board, Kind};
use super::workplace::{Polled, Source};
use crate::shutdown::Shutdown;
use crate::simulate::adapter::meter_number;
use crate::simulate::meter::Meter;
use crate::simulate::mqtt::{self, Event, Options, Report};
use crate::simulate::rest::{self, CertificateError, Firmware, Identity};
use crate::simulate::{modbus, rest::Event as RestEvent};

/// Documents of one adapter on their way at one time.
const WINDOW: usize = 20;

/// From one measurement of a meter that is asked to its next; as often it is asked.
pub const POLL: Duration = Duration::from_secs(1);

/// Any free port of this machine.
const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Unit ids behind one address.
const UNITS: u32 = 200;

/// How many meters of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct House {
    pub mqtt: u32,
    pub rest: u32,
    pub modbus: u32,
}

impl House {
    /// The kinds take turns.
    pub fn of(meters: u32) -> Self {
        Self { mqtt: meters.div_ceil(3), rest: (meters + 1) / 3, modbus: meters / 3 }
    }

    pub fn polled(self) -> u32 {
        self.rest + self.modbus
    }

    /// How many of which, and how often those give a reading that are not asked.
    pub fn caption(self, interval: Duration) -> String {
        let mut caption = format!("{} MQTT every {} ms", self.mqtt, interval.as_millis());
        for (count, name) in [(self.rest, "REST"), (self.modbus, "Modbus")] {
            if count > 0 {
                caption.push_str(&format!(", {count} {name}"));
            }
        }
        caption
    }
}

/// Why there are no meters.
#[derive(Debug, thiserror::Error)]
pub enum MetersError {
    #[error("no port of 127.0.0.1 is free for a meter")]
    Port(#[from] io::Error),
    #[error("a meter cannot show who it is")]
    Certificate(#[from] CertificateError),
}

/// Meters that give readings until they are asked to stop.
#[derive(Debug)]
pub struct Meters {
    stop: Shutdown,
    publishers: Option<JoinHandle<Report>>,
    answerers: Vec<JoinHandle<()>>,
    till: Arc<Till>,
    seed: u64,
    house: House,
}

impl Meters {
    /// The meters that are asked listen from here on; returns how they are asked.
    pub async fn open(house: House, till: Till) -> Result<(Self, Vec<Polled>), MetersError> {
        // Other households each time, and with a broker no two demos with the same MQTT client ids.
        let (seed, stop, till) = (rand::random(), Shutdown::new(), Arc::new(till));
        let (mut answerers, mut polled) = (Vec::new(), Vec::new());
        for index in house.mqtt..house.mqtt + house.rest {
            let device = meter_number(seed, index);
            let (task, url, fingerprint) = answer_rest(seed, index, &till, &stop).await?;
            answerers.push(task);
            till.board.change(|figures| figures.device(&device).kind = Kind::Rest);
            polled.push(Polled::Rest { name: format!("rest-{}", index - house.mqtt + 1), url, fingerprint });
        }
        if house.modbus > 0 {
            let first = house.mqtt + house.rest;
            let (task, port) = answer_modbus(seed, first, house.modbus.min(UNITS), &till, &stop).await?;
            answerers.push(task);
            for (unit, index) in (1..=u8::MAX).zip(first..first + house.modbus) {
                let device = meter_number(seed, index);
                till.board.change(|figures| figures.device(&device).kind = Kind::Modbus);
                lock(&till.audit).identify_by_counter(&device);
                polled.push(Polled::Modbus { name: format!("modbus-{unit}"), port, unit });
            }
        }
        Ok((Self { stop, publishers: None, answerers, till, seed, house }, polled))
    }

    /// The adapters publish from here on. Live ones: what is due while nobody listens is missed.
    pub fn publish(&mut self, source: &Source, interval: Duration) {
        let (host, port) = source.address();
        let options = Options {
            host: host.to_owned(),
            port,
            reader: None,
            topic: source.topic().to_owned(),
            login: None,
            devices: self.house.mqtt,
            interval,
            count: None,
            acknowledged: true,
            seed: self.seed,
            start_ms: None,
            window: WINDOW,
        };
        let (audit, board) = (Arc::clone(&self.till.audit), Arc::clone(&self.till.board));
        let observer = Arc::new(move |event: Event<'_>| note(&event, &audit, &board));
        let asked = self.stop.clone();
        self.publishers = Some(tokio::spawn(async move { mqtt::run(options, observer, &asked).await }));
    }

    /// Asks them to stop; what is on its way is still acknowledged. `agent_lives`: who asked for a reading has it.
    pub async fn stop(&mut self, agent_lives: bool) -> Report {
        self.till.closed.store(agent_lives, Ordering::SeqCst);
        self.stop.ask();
        for task in self.answerers.drain(..) {
            finished(task).await;
        }
        // Of connections that ended with the meter's task.
        let left: Vec<_> = self.till.lock().keys().copied().collect();
        left.into_iter().for_each(|client| self.till.gone(client, None));
        let mut report = match self.publishers.take() {
            Some(task) => finished(task).await.unwrap_or_default(),
            None => Report::default(),
        };
        report.unacknowledged += self.till.uncertain.load(Ordering::SeqCst);
        report
    }
}

impl Drop for Meters {
    fn drop(&mut self) {
        self.publishers.iter().for_each(JoinHandle::abort);
        self.answerers.iter().for_each(JoinHandle::abort);
    }
}

async fn finished<T>(task: JoinHandle<T>) -> Option<T> {
    match task.await {
        Ok(value) => Some(value),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => None,
    }
}

/// An adapter that is asked over HTTPS; its address, and its certificate's fingerprint.
async fn answer_rest(
    seed: u64,
    index: u32,
    till: &Arc<Till>,
    stop: &Shutdown,
) -> Result<(JoinHandle<()>, String, [u8; 32]), MetersError> {
    let identity = Identity::new()?;
    let fingerprint = identity.fingerprint().unwrap_or_default();
    let options = rest::Options {
        listen: ANY,
        token: None,
        identity: Some(identity),
        firmware: Firmware::V1,
        interval: POLL,
        seed,
        index,
        start_ms: jiff::Timestamp::now().as_millisecond(),
        fault: None,
    };
    let (till, device) = (Arc::clone(till), meter_number(seed, index));
    let observer = Arc::new(move |event: RestEvent<'_>| match event {
        RestEvent::Connected { .. } => till.connected(&device),
        RestEvent::Disconnected { client } => till.gone(client, Some(&device)),
        RestEvent::Given { client, document } => till.given(client, &device, document.to_vec(), watts(document)),
    });
    let server = rest::bind(options, observer).await?;
    let address = server.local_addr()?;
    let asked = stop.clone();
    let task = tokio::spawn(async move {
        server.run(asked).await;
    });
    Ok((task, format!("https://{address}"), fingerprint))
}

/// Meters on Modbus TCP behind one address, with the unit ids from 1 on; their port.
async fn answer_modbus(
    seed: u64,
    index: u32,
    devices: u32,
    till: &Arc<Till>,
    stop: &Shutdown,
) -> Result<(JoinHandle<()>, u16), MetersError> {
    let options =
        modbus::Options { devices, seed, index, counts_readings: true, ..modbus::Options::of(Meter::three_phase()) };
    let till = Arc::clone(till);
    let observer = Arc::new(move |event| match event {
        modbus::Event::Read { client, unit, imported_wh, net_w } => {
            let device = meter_number(seed, index + u32::from(unit) - 1);
            till.connected(&device);
            till.given(client, &device, audit::counter(imported_wh), Some(net_w));
        }
        modbus::Event::Disconnected { client } => till.gone(client, None),
        modbus::Event::Connected { .. } | modbus::Event::Faulted { .. } => {}
    });
    let server = modbus::Server::bind(options).await?;
    let port = server.address()?.port();
    let asked = stop.clone();
    Ok((tokio::spawn(async move { server.run(observer, &asked).await }), port))
}

/// What was given to who asked, until it is known to be safe: who asks for the next has this one on its disk.
#[derive(Debug)]
pub struct Till {
    audit: SharedAudit,
    board: Arc<Board>,
    given: Mutex<HashMap<SocketAddr, Given>>,
    /// Given to a client that never asked again: it may be on the other side or not.
    uncertain: AtomicU64,
    /// Connections that end from now on end because the meters stop, and whoever has been answered lives.
    closed: AtomicBool,
}

#[derive(Debug)]
struct Given {
    device: String,
    content: Vec<u8>,
}

impl Till {
    pub fn new(audit: SharedAudit, board: Arc<Board>) -> Self {
        Self { audit, board, given: Mutex::default(), uncertain: AtomicU64::new(0), closed: AtomicBool::new(false) }
    }

    fn connected(&self, device: &str) {
        self.board.change(|figures| figures.device(device).connected = true);
    }

    fn given(&self, client: SocketAddr, device: &str, content: Vec<u8>, watts: Option<i64>) {
        let before = self.lock().insert(client, Given { device: device.to_owned(), content });
        self.board.change(|figures| figures.device(device).watts = watts);
        if let Some(before) = before {
            self.safe(&before);
        }
    }

    /// `device`: where a connection that asked for nothing is known to be one of it.
    fn gone(&self, client: SocketAddr, device: Option<&str>) {
        let last = self.lock().remove(&client);
        if let Some(device) = device.or(last.as_ref().map(|last| &*last.device)) {
            self.board.change(|figures| figures.device(device).connected = false);
        }
        match last {
            Some(last) if self.closed.load(Ordering::SeqCst) => self.safe(&last),
            Some(_) => drop(self.uncertain.fetch_add(1, Ordering::SeqCst)),
            None => {}
        }
    }

    fn safe(&self, given: &Given) {
        lock(&self.audit).published(&given.device, &given.content);
        self.board.change(|figures| figures.safe(&given.device));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<SocketAddr, Given>> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn note(event: &Event<'_>, audit: &SharedAudit, board: &Board) {
    match event {
        Event::Published { device, payload, repeated } => {
            lock(audit).published(device, payload);
            let watts = watts(payload);
            board.change(|figures| {
                figures.safe(device);
                figures.sent_again += u64::from(*repeated);
                figures.device(device).watts = watts;
            });
        }
        Event::Connected { device } => board.change(|figures| figures.device(device).connected = true),
        Event::Disconnected { device, .. } => board.change(|figures| figures.device(device).connected = false),
        Event::Missed { count, .. } => board.change(|figures| figures.missed += count),
    }
}

/// Net power of a document, import positive.
fn watts(document: &[u8]) -> Option<i64> {
    let document: Value = serde_json::from_slice(document).ok()?;
    let of = |code: &str| document.get(code)?.get("value")?.as_i64();
    Some(of("1-0:1.7.0")? - of("1-0:2.7.0")?)
}

#[cfg(test)]
mod tests {
    use super::super::audit::Audit;
    use super::*;

    /// Promise 1: a reading that was asked for counts as safe with the client's next question, and not before; the last one
    /// of a client that has gone may be there or not, unless it is known to live.
    #[test]
    fn the_next_question_says_that_it_is_safe() {
        let audit: SharedAudit = Arc::new(Mutex::new(Audit::new(false)));
        let till = Till::new(Arc::clone(&audit), Arc::new(Board::new(Duration::ZERO)));
        let client = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let published = || lock(&audit).verdict().published;
        till.given(client(1), "a", b"1".to_vec(), None);
        till.given(client(2), "b", b"1".to_vec(), None);
        assert_eq!(published(), 0);
        till.given(client(1), "a", b"2".to_vec(), None);
        assert_eq!(published(), 1);
        till.gone(client(1), None);
        assert_eq!((published(), till.uncertain.load(Ordering::SeqCst)), (1, 1));
        till.closed.store(true, Ordering::SeqCst);
        till.gone(client(2), None);
        assert_eq!((published(), till.uncertain.load(Ordering::SeqCst)), (2, 1));
    }

    /// A house has three kinds of meter, a street as many of each.
    #[test]
    fn the_kinds_take_turns() {
        let kinds = |meters| {
            let House { mqtt, rest, modbus } = House::of(meters);
            assert_eq!(mqtt + rest + modbus, meters);
            [mqtt, rest, modbus]
        };
        assert_eq!([1, 2, 3, 4, 50].map(kinds), [[1, 0, 0], [1, 1, 0], [1, 1, 1], [2, 1, 1], [17, 17, 16]]);
    }
}

//! Simulated adapters on MQTT: each a client of its own, as the real ones are.
//!
//! What is reported as published is what the broker has acknowledged (with QoS 0: what was written to the connection).
//! A document that was written and not acknowledged when the connection broke is sent again on the next one, and is
//! marked as repeated then: the broker may have it twice. Like the real adapter, a live one measures on while no broker
//! listens, and what it measured then is gone; that is reported as missed.

use std::collections::VecDeque;
use std::fmt;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use rumqttc::{
    AsyncClient, ConnAck, ConnectionError, EventLoop, MqttOptions, Outgoing, Packet, QoS, Request, StateError,
};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::adapter::{self, Adapter};
use super::flights::{Flight, Flights};
use super::reader::{Message, Reader};
use crate::backoff::Backoff;
use crate::config::settings::Login;
use crate::shutdown::Shutdown;

/// From document to document by the meter's clock where documents are sent as fast as possible.
pub const FAST_STEP: Duration = Duration::from_secs(1);

/// How long a stop waits for acknowledgements still on their way.
const STOP_WAIT: Duration = Duration::from_secs(5);

/// How long a farewell may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// First and longest ceiling of the reconnect delay.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// A connection that has lasted so long is none that another client of the same name ends at once.
const STEADY: Duration = Duration::from_secs(10);

/// A live adapter that is this late has missed documents; one that is less late catches up.
const LATE: Duration = Duration::from_secs(1);

/// Far above any document, so that the client library's own limit (10 KB) never ends a connection.
const MAX_PACKET: usize = 1024 * 1024;

/// What is simulated, and whom it speaks to.
#[derive(Debug, Clone)]
pub struct Options {
    /// Name or address, IPv6 without brackets.
    pub host: String,
    pub port: u16,
    pub topic: String,
    /// Another reader in place of the adapter, on its own topics.
    pub reader: Option<Reader>,
    pub login: Option<Login>,
    /// Adapters, each a device of its own.
    pub devices: u32,
    /// From document to document; zero: as fast as the broker acknowledges, and the meter's clock goes by
    /// [`FAST_STEP`].
    pub interval: Duration,
    /// Documents of each adapter; none: until the stop.
    pub count: Option<u64>,
    /// QoS 1; else QoS 0.
    pub acknowledged: bool,
    pub seed: u64,
    /// The meters' clock at the first document, milliseconds since 1970: the documents are then the same each time, and
    /// none is missed. None: live, the clock is this machine's.
    pub start_ms: Option<i64>,
    /// Documents of one adapter on their way at one time; at least 1.
    pub window: usize,
}

/// What happens while adapters publish.
#[derive(Debug)]
pub enum Event<'a> {
    Connected {
        device: &'a str,
    },
    /// A connection was lost, or an attempt failed. The next attempt is made after `delay`.
    Disconnected {
        device: &'a str,
        error: &'a str,
        delay: Duration,
        was_connected: bool,
    },
    /// The broker has it. `repeated`: it was sent more than once, and the broker may have it more than once.
    Published {
        device: &'a str,
        payload: &'a Bytes,
        repeated: bool,
    },
    /// Documents that were due while no broker listened, and are gone.
    Missed {
        device: &'a str,
        count: u64,
    },
}

/// Who is told. Called from the adapters' tasks: it must not block.
pub type Observer = Arc<dyn Fn(Event<'_>) + Send + Sync>;

/// What was published, all adapters together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Acknowledged by the broker.
    pub published: u64,
    /// Of these: sent more than once.
    pub repeated: u64,
    /// Sent, and not acknowledged when it stopped: the broker may or may not have it.
    pub unacknowledged: u64,
    /// Due while no broker listened, and never sent.
    pub missed: u64,
    pub connects: u64,
}

impl Report {
    fn add(&mut self, other: &Self) {
        self.published += other.published;
        self.repeated += other.repeated;
        self.unacknowledged += other.unacknowledged;
        self.missed += other.missed;
        self.connects += other.connects;
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} published", self.published)?;
        for (count, what) in
            [(self.repeated, "sent again"), (self.unacknowledged, "not acknowledged"), (self.missed, "missed")]
        {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        Ok(())
    }
}

/// Publishes until every adapter has published its count and the broker has acknowledged it, or `shutdown` is asked:
/// then what is on its way gets [`STOP_WAIT`] to be acknowledged. An unreachable broker is tried for ever.
pub async fn run(options: Options, observe: Observer, shutdown: &Shutdown) -> Report {
    let options = Arc::new(options);
    let mut adapters = JoinSet::new();
    for index in 0..options.devices {
        let (publisher, eventloop) = Publisher::new(Arc::clone(&options), index, Arc::clone(&observe));
        adapters.spawn(publisher.run(eventloop, shutdown.clone()));
    }
    let mut report = Report::default();
    while let Some(ended) = adapters.join_next().await {
        match ended {
            Ok(one) => report.add(&one),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
    report
}

/// The MQTT client id of an adapter: real ones are called like this too; the digits are the meter's.
pub fn client_id(device: &str) -> String {
    format!("sma_{:06x}", device.parse().unwrap_or(0_u32) & 0xff_ffff)
}

/// One adapter and its connection.
struct Publisher {
    options: Arc<Options>,
    index: u32,
    device: String,
    observe: Observer,
    client: AsyncClient,
    flights: Flights,
    /// Made with the first connection: a live meter's clock starts then.
    adapter: Option<Adapter>,
    /// When the next document is due.
    due: Instant,
    made: u64,
    /// Of the last document, what is not sent yet: a reader may need several messages.
    waiting: VecDeque<Message>,
    connected: bool,
    /// Until when a stop waits.
    stopping: Option<Instant>,
    backoff: Backoff,
    /// When it was connected.
    since: Instant,
    report: Report,
}

impl Publisher {
    fn new(options: Arc<Options>, index: u32, observe: Observer) -> (Self, EventLoop) {
        let device = adapter::meter_number(options.seed, index);
        let client_id = client_id(&device);
        let host = match options.host.parse::<Ipv6Addr>() {
            Ok(address) => format!("[{address}]"),
            Err(_) => options.host.clone(),
        };
        let mut mqtt = MqttOptions::new(client_id, host, options.port);
        mqtt.set_clean_session(false)
            .set_keep_alive(Duration::from_secs(30))
            .set_max_packet_size(MAX_PACKET, MAX_PACKET)
            // Packet ids go round at this number: far above the window, none is used while another document has it.
            .set_inflight(u16::try_from(options.window.saturating_mul(4)).unwrap_or(u16::MAX).max(100));
        if let Some(login) = &options.login {
            mqtt.set_credentials(&login.username, &login.password.0);
        }
        // Room for the window and the farewell: handing over never waits.
        let (client, eventloop) = AsyncClient::new(mqtt, options.window + 1);
        let publisher = Self {
            device,
            options,
            index,
            observe,
            client,
            flights: Flights::default(),
            adapter: None,
            due: Instant::now(),
            made: 0,
            waiting: VecDeque::new(),
            connected: false,
            stopping: None,
            backoff: Backoff::new(RECONNECT.0, RECONNECT.1),
            since: Instant::now(),
            report: Report::default(),
        };
        (publisher, eventloop)
    }

    async fn run(mut self, mut eventloop: EventLoop, shutdown: Shutdown) -> Report {
        while !self.is_done() {
            match self.next(&mut eventloop, &shutdown).await {
                Some(Ok(event)) => self.take(&event, &mut eventloop),
                Some(Err(error)) => self.lost(&error, &mut eventloop, &shutdown).await,
                None => break,
            }
        }
        self.leave(&mut eventloop).await;
        self.report.unacknowledged = self.flights.len() as u64;
        self.report
    }

    fn is_done(&self) -> bool {
        let enough = self.options.count.is_some_and(|count| self.made >= count);
        match self.stopping {
            Some(_) => self.flights.is_empty() || !self.connected,
            None => enough && self.waiting.is_empty() && self.flights.is_empty(),
        }
    }

    fn may_send(&self) -> bool {
        self.connected
            && self.stopping.is_none()
            && self.flights.len() < self.options.window
            && (!self.waiting.is_empty() || self.options.count.is_none_or(|count| self.made < count))
    }

    /// The connection's next event, while documents are handed to it as they come due. None: the stop waited enough.
    ///
    /// One poll of the connection is never dropped half-way: it may hold a packet that is partly written.
    async fn next(
        &mut self,
        eventloop: &mut EventLoop,
        shutdown: &Shutdown,
    ) -> Option<Result<rumqttc::Event, ConnectionError>> {
        let mut poll = std::pin::pin!(eventloop.poll());
        loop {
            let until = self.stopping.unwrap_or_else(Instant::now);
            tokio::select! {
                event = &mut poll => return Some(event),
                () = sleep_until(self.due), if self.may_send() => self.send(),
                () = shutdown.asked(), if self.stopping.is_none() => self.stopping = Some(Instant::now() + STOP_WAIT),
                () = sleep_until(until), if self.stopping.is_some() => return None,
            }
            if self.is_done() {
                return None;
            }
        }
    }

    /// Sends what is due: one document, or as fast as possible a window of them.
    fn send(&mut self) {
        let interval = self.options.interval;
        self.miss(interval);
        while self.may_send() {
            if self.waiting.is_empty() {
                let Some(messages) = self.measured() else { return };
                self.waiting = messages;
                self.made += 1;
                self.due += interval;
            }
            let Some(Message { topic, payload }) = self.waiting.pop_front() else { return };
            let payload = Bytes::from(payload);
            let qos = if self.options.acknowledged { QoS::AtLeastOnce } else { QoS::AtMostOnce };
            self.flights.push(topic.clone(), payload.clone());
            self.client
                .try_publish(topic, qos, false, payload)
                .expect("the channel has room for the window, and its other end is in this task");
            if !interval.is_zero() && self.waiting.is_empty() {
                return;
            }
        }
    }

    /// All messages of the next document.
    fn measured(&mut self) -> Option<VecDeque<Message>> {
        let adapter = self.adapter.as_mut()?;
        Some(match self.options.reader {
            Some(reader) => reader.messages(&adapter.moment(), &TimeZone::system()).into(),
            None => {
                let payload = String::from_utf8_lossy(&adapter.document()).into_owned();
                [Message { topic: self.options.topic.clone(), payload }].into()
            }
        })
    }

    /// A live meter does not wait for its listener.
    fn miss(&mut self, interval: Duration) {
        let late = self.due.elapsed();
        if interval.is_zero() || self.options.start_ms.is_some() || late < LATE.max(interval) {
            return;
        }
        let count = u64::try_from(late.as_nanos() / interval.as_nanos()).unwrap_or(u64::MAX);
        self.due += late;
        self.report.missed += count;
        if let Some(adapter) = &mut self.adapter {
            adapter.skip(count);
        }
        (self.observe)(Event::Missed { device: &self.device, count });
    }

    fn take(&mut self, event: &rumqttc::Event, eventloop: &mut EventLoop) {
        let landed = match event {
            rumqttc::Event::Incoming(Packet::ConnAck(connack)) => {
                self.connected(connack, eventloop);
                None
            }
            rumqttc::Event::Incoming(Packet::PubAck(puback)) => self.flights.acknowledged(puback.pkid),
            rumqttc::Event::Outgoing(Outgoing::Publish(packet_id)) => self.flights.sent(*packet_id),
            _ => None,
        };
        if let Some(Flight { payload, sends, .. }) = landed {
            let repeated = sends > 1;
            self.report.published += 1;
            self.report.repeated += u64::from(repeated);
            (self.observe)(Event::Published { device: &self.device, payload: &payload, repeated });
        }
    }

    fn connected(&mut self, connack: &ConnAck, eventloop: &mut EventLoop) {
        self.connected = true;
        self.report.connects += 1;
        self.since = Instant::now();
        if self.adapter.is_none() {
            self.adapter = Some(self.adapter());
            // Adapters do not all speak in the same instant.
            self.due = Instant::now() + self.options.interval * self.index / self.options.devices;
        }
        let qos = if self.options.acknowledged { QoS::AtLeastOnce } else { QoS::AtMostOnce };
        for flight in self.flights.again(connack.session_present) {
            let mut publish = rumqttc::Publish::new(&flight.topic, qos, flight.payload.clone());
            publish.pkid = flight.packet_id.unwrap_or(0);
            publish.dup = flight.packet_id.is_some();
            eventloop.pending.push_back(Request::Publish(publish));
        }
        (self.observe)(Event::Connected { device: &self.device });
    }

    fn adapter(&self) -> Adapter {
        let Options { seed, start_ms, interval, count, .. } = *self.options;
        let step = if interval.is_zero() { FAST_STEP } else { interval };
        let start_ms = start_ms.unwrap_or_else(|| {
            let now_ms = Timestamp::now().as_millisecond();
            // As fast as possible, a known number of documents ends now instead of in the future.
            let ahead = count.filter(|_| interval.is_zero()).unwrap_or(0).saturating_mul(1000);
            now_ms.saturating_sub_unsigned(ahead)
        });
        Adapter::new(&adapter::Options { seed, index: self.index, name: None, start_ms, step })
    }

    /// Forgets what the library holds of the lost connection (the flights are here), and waits for the next attempt.
    async fn lost(&mut self, error: &ConnectionError, eventloop: &mut EventLoop, shutdown: &Shutdown) {
        let was_connected = std::mem::replace(&mut self.connected, false);
        eventloop.clean();
        eventloop.pending.clear();
        eventloop.state.events.clear();
        // Another client of the same name ends each connection at once, and is ended by the next.
        if was_connected && self.since.elapsed() >= STEADY {
            self.backoff.reset();
        }
        let delay = self.backoff.next(rand::random());
        let error = words(error);
        (self.observe)(Event::Disconnected { device: &self.device, error: &error, delay, was_connected });
        tokio::select! {
            () = sleep(delay) => {}
            () = shutdown.asked() => self.stopping = Some(Instant::now()),
        }
    }

    async fn leave(&self, eventloop: &mut EventLoop) {
        if !self.connected || self.client.try_disconnect().is_err() {
            return;
        }
        let farewell = async {
            while let Ok(event) = eventloop.poll().await {
                if event == rumqttc::Event::Outgoing(Outgoing::Disconnect) {
                    break;
                }
            }
        };
        let _ = timeout(FAREWELL, farewell).await;
    }
}

/// What went wrong, without the library's layers in front.
fn words(error: &ConnectionError) -> String {
    match error {
        ConnectionError::Io(error) | ConnectionError::MqttState(StateError::Io(error)) => error.to_string(),
        ConnectionError::MqttState(StateError::ConnectionAborted) => "the broker closed the connection".to_owned(),
        ConnectionError::MqttState(StateError::AwaitPingResp) => "the broker does not answer pings".to_owned(),
        ConnectionError::NetworkTimeout | ConnectionError::FlushTimeout => "the broker does not answer".to_owned(),
        ConnectionError::ConnectionRefused(code) => format!("the broker refused the connection: {code:?}"),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;

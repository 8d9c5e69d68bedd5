//! A source that is a client of an MQTT broker: QoS 1, a session that outlives us, acknowledgements after the commit.
//!
//! - SUBSCRIBE on every CONNACK. Subscribing only without a session leaves a source deaf after a cut between CONNECT and
//!   SUBSCRIBE, and never takes up a new filter.
//! - rumqttc keeps publishes of the old connection in its event queue and its requests in a channel; both are emptied
//!   whenever a connection ends ([`MqttSource::forget`]).
//! - A blocked queue: at `max_unacknowledged` nothing more is read; if it stays so, we disconnect and come back when the
//!   queue has taken everything. Nothing is acknowledged meanwhile, so the broker keeps it.

use std::sync::Arc;
use std::time::Duration;

use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, NetworkOptions, Packet, TlsConfiguration, Transport};
use tokio::select;
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::time::{Instant, sleep};
use tracing::{debug, info};

use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::config::{settings, show_address};
use crate::metrics::SourceMetrics;
use crate::receipt::Ticket;
use crate::shutdown::Shutdown;
use crate::source::Raw;
use crate::source::mqtt_connection::{Connection, End, Memory};
use crate::source::mqtt_outage::{Chronicle, Outage, settled};
use crate::source::mqtt_subscription::Filters;
use crate::source::tls::{self, TlsError};

/// The first delay before a new connection is at most this.
const RECONNECT_BASE: Duration = Duration::from_millis(500);

/// Requests (acknowledgements for the most part) between us and the event loop. What finds no place waits in order.
const REQUESTS: usize = 256;

/// The largest packet of MQTT: what we send is a few filters, and the broker has its own limit.
const MAX_PACKET: usize = 268_435_455;

/// A source of type `mqtt`.
#[derive(Debug)]
pub struct MqttSource {
    /// Name of the source in the configuration.
    pub name: Arc<str>,
    pub settings: settings::Mqtt,
    /// Not empty, and the same after every restart: the broker keeps the session under it.
    pub client_id: String,
    pub metrics: Arc<SourceMetrics>,
    /// This source's own channel, with a capacity of `max_unacknowledged`.
    pub raws: Sender<Raw>,
    pub clock: Clock,
    /// Filters that were subscribed at any time so far. Those not configured any more are unsubscribed.
    pub previous_filters: Vec<String>,
    /// Told once the broker has confirmed that no filter is left that is not configured any more.
    pub left: Option<Sender<()>>,
    /// How long a stop waits for messages that were handed on to be stored, so that they can be acknowledged.
    pub stop_timeout: Duration,
}

impl MqttSource {
    /// Receives until a stop is asked for (then it ends orderly, the session stays), or the agent takes no raws any more.
    /// No outage ends it.
    ///
    /// # Errors
    ///
    /// Before anything else, if the TLS files cannot be used.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), TlsError> {
        let (client, mut eventloop) = client(&self.settings, &self.client_id, false)?;
        let broker = show_address(&self.settings.host, self.settings.port);
        let settled = settled(self.settings.reconnect_max_delay);
        let mut chronicle = Chronicle::new(&self.name, broker, &self.client_id, settled);
        let filters = Filters::new(&self.name, self.settings.topics.clone(), self.previous_filters.clone());
        let mut memory = Memory::new(filters);
        let mut backoff = Backoff::new(RECONNECT_BASE, self.settings.reconnect_max_delay);
        let mut number = 0;
        while !shutdown.is_asked() && !self.raws.is_closed() {
            number += 1;
            let attempts = backoff.attempts() + 1;
            let outcome = self.connect(&mut eventloop, &shutdown).await;
            let (end, lived) = match outcome {
                Ok(session_present) => {
                    chronicle.connected(session_present, attempts);
                    memory.session += u64::from(!session_present);
                    let begin = Instant::now();
                    let mut connection = Connection::new(&self, &mut memory, &client, number);
                    let end = connection.serve(&mut eventloop, &shutdown).await;
                    self.note_end(&connection);
                    (end, Some(begin.elapsed()))
                }
                Err(end) => (end, None),
            };
            Self::forget(&mut eventloop);
            self.metrics.connected.set(false);
            if lived.is_some_and(|lived| lived >= settled) {
                backoff.reset();
            }
            match end {
                End::Stopped => break,
                End::Lost(outage, error) => {
                    self.metrics.disconnects.one();
                    chronicle.ended(outage, &error, lived);
                }
                End::Blocked(tickets) => {
                    self.metrics.disconnects.one();
                    chronicle.ended(Outage::Blocked, "", lived);
                    self.unblocked(tickets, &shutdown).await;
                }
            }
            self.pause(backoff.next(rand::random()), &shutdown).await;
        }
        Ok(())
    }

    /// Connects; tells whether the broker has a session of ours.
    async fn connect(&self, eventloop: &mut EventLoop, shutdown: &Shutdown) -> Result<bool, End> {
        // Nothing is in the event loop yet, so that the poll may be dropped.
        let event = select! {
            event = eventloop.poll() => event,
            () = shutdown.asked() => return Err(End::Stopped),
        };
        match event {
            Ok(Event::Incoming(Packet::ConnAck(answer))) => {
                self.metrics.connects.one();
                self.metrics.connected.set(true);
                Ok(answer.session_present)
            }
            Ok(other) => Err(End::Lost(Outage::Malformed, format!("{other:?} instead of CONNACK"))),
            Err(error) => Err(End::Lost(Outage::of(&error, false), error.to_string())),
        }
    }

    /// Empties the event loop of everything that belonged to the connection that ended: the messages it still keeps
    /// would be handed out, and the requests be sent, on the next one.
    fn forget(eventloop: &mut EventLoop) {
        eventloop.clean();
        eventloop.state.events.clear();
        eventloop.pending.clear();
    }

    fn note_end(&self, connection: &Connection<'_>) {
        let (received, acknowledged) = (connection.received, connection.acknowledged);
        info!(source = &*self.name, received, acknowledged, "disconnected from the MQTT broker");
    }

    /// Returns when every receipt of the blocked connection has come back (or was dropped) and the agent has taken every
    /// raw, or a stop is asked for.
    async fn unblocked(&self, mut tickets: Receiver<Ticket>, shutdown: &Shutdown) {
        let eased = async {
            while tickets.recv().await.is_some() {}
            // An error: the agent has gone, which the caller sees.
            let _ = self.raws.reserve_many(self.raws.max_capacity()).await;
        };
        select! {
            () = eased => info!(source = &*self.name, "readings can be stored again"),
            () = shutdown.asked() => {}
        }
    }

    async fn pause(&self, delay: Duration, shutdown: &Shutdown) {
        debug!(source = &*self.name, delay_ms = delay.as_millis() as u64, "waiting before the next connection");
        select! {
            () = sleep(delay) => {}
            () = shutdown.asked() => {}
            () = self.raws.closed() => {}
        }
    }
}

/// A client of the source's broker, not yet connected; `clean`: without the session that the broker keeps.
pub(super) fn client(
    settings: &settings::Mqtt,
    client_id: &str,
    clean: bool,
) -> Result<(AsyncClient, EventLoop), TlsError> {
    // An IPv6 address stays without brackets: rustls takes it as it is, and the resolver splits at the last colon.
    let mut options = MqttOptions::new(client_id, &settings.host, settings.port);
    options
        .set_keep_alive(Duration::from_secs(settings.keep_alive.as_secs().clamp(1, u16::MAX.into())))
        .set_max_packet_size(settings.max_packet_size, MAX_PACKET)
        .set_manual_acks(true)
        .set_clean_session(clean);
    if let Some(login) = &settings.login {
        options.set_credentials(&login.username, &login.password.0);
    }
    if let Some(tls) = &settings.tls {
        options.set_transport(Transport::Tls(TlsConfiguration::Rustls(tls::client(tls)?)));
    }
    let (client, mut eventloop) = AsyncClient::new(options, REQUESTS);
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    // Whole seconds, and none would mean that no connection is ever in time.
    network.set_connection_timeout(settings.connect_timeout.as_millis().div_ceil(1000).max(1) as u64);
    eventloop.set_network_options(network);
    Ok((client, eventloop))
}

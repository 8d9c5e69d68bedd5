//! A source that adapters connect to themselves, with no broker: the server's side of MQTT 3.1.1, for publishers only.
//!
//! The acknowledgement is the agent's own: PUBACK leaves after the commit, in order of arrival, on the connection that
//! brought the message. Whatever one client sends ends that client at most.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rumqttc::{ConnAck, Packet};
use tokio::net::{TcpListener, TcpStream};
use tokio::select;
use tokio::sync::mpsc::Sender;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info, warn};

use crate::clock::Clock;
use crate::config::settings;
use crate::metrics::{Flag, SourceMetrics};
use crate::reading::Fingerprint;
use crate::shutdown::Shutdown;
use crate::source::Raw;
use crate::source::mqtt_publisher::{Departure, Publisher};
use crate::source::mqtt_seats::{Seat, Seats};
use crate::source::mqtt_welcome::{Guest, Refusal, is_generated, judge};
use crate::source::mqtt_wire::{FrameError, Wire};
use crate::source::tls::{self, TlsError};

/// From the TCP connection to CONNECT, TLS included.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The same while every place is taken: then the one that took longest makes room, so that those who say nothing do not
/// keep out those who have something to say. Enough for TLS on a microcontroller.
const CROWDED_TIMEOUT: Duration = Duration::from_secs(2);

/// Connections that may shake hands beside the clients that are seated; further ones wait in the kernel's queue.
const HANDSHAKES: usize = 32;

/// The delay after the system refused a connection (no file descriptors are left, for instance).
const ACCEPT_DELAY: Duration = Duration::from_millis(500);

/// The same about the same client, its coming and going too, is said once in this time, else debug.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// What is remembered as said; more in that time is debug, so that nobody can flood the log.
const MAX_COMPLAINTS: usize = 64;

/// A source of type `mqtt-listener`, not listening yet.
#[derive(Debug)]
pub struct ListenerSource {
    /// Name of the source in the configuration.
    pub name: Arc<str>,
    pub settings: settings::MqttListener,
    pub metrics: Arc<SourceMetrics>,
    /// This source's own channel; `max_unacknowledged` of one client is a good capacity.
    pub raws: Sender<Raw>,
    pub clock: Clock,
    /// How long a stop waits for messages that were handed on to be stored, so that they can be acknowledged.
    pub stop_timeout: Duration,
}

/// The listener cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("{0} is in use: another program listens there (a Mosquitto?); stop it, or set another listen address")]
    InUse(SocketAddr),
    #[error("{0} is not an address of this machine; set listen to one of its own")]
    NotOurs(SocketAddr),
    #[error("not allowed to listen on {0}: ports below 1024 need a privilege; set another port")]
    Forbidden(SocketAddr),
    #[error("cannot listen on {0}")]
    Other(SocketAddr, #[source] io::Error),
    #[error("TLS of the listener cannot be used")]
    Tls(#[from] TlsError),
}

impl BindError {
    fn of(address: SocketAddr, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::AddrInUse => Self::InUse(address),
            io::ErrorKind::AddrNotAvailable => Self::NotOurs(address),
            io::ErrorKind::PermissionDenied => Self::Forbidden(address),
            _ => Self::Other(address, error),
        }
    }
}

/// A listening socket, not serving yet.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    hall: Arc<Hall>,
}

/// Listens on `settings.listen`.
///
/// # Errors
///
/// If the address cannot be had, or the TLS files cannot be used.
pub async fn bind(source: ListenerSource) -> Result<Listener, BindError> {
    let ListenerSource { name, settings, metrics, raws, clock, stop_timeout } = source;
    let acceptor = settings.tls.as_ref().map(tls::server).transpose()?.map(TlsAcceptor::from);
    let wanted = settings.listen;
    let socket = TcpListener::bind(wanted).await.map_err(|error| BindError::of(wanted, error))?;
    let address = socket.local_addr().map_err(|error| BindError::of(wanted, error))?;
    let seats = Seats::new(settings.max_clients);
    let hall = Hall {
        name,
        settings,
        metrics,
        raws,
        clock,
        stop_timeout,
        acceptor: acceptor.map(Acceptor),
        seats,
        place_wanted: Notify::new(),
        complaints: Mutex::default(),
        ignored_said: Flag::default(),
        qos0_said: Flag::default(),
    };
    Ok(Listener { socket, address, hall: Arc::new(hall) })
}

impl Listener {
    /// Where it listens; the port is a real one also where 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves clients until a stop is asked for. Then nobody is let in, nothing more is read, and each client is
    /// acknowledged what is stored within `stop_timeout`.
    pub async fn run(self, shutdown: Shutdown) {
        let Self { socket, address, hall } = self;
        info!(source = &*hall.name, %address, tls = hall.acceptor.is_some(), "listening for MQTT clients");
        let places =
            Arc::new(Semaphore::new(hall.settings.max_clients.saturating_add(HANDSHAKES).min(Semaphore::MAX_PERMITS)));
        let mut visits = JoinSet::new();
        let mut number = 0;
        loop {
            let (stream, peer, place) = select! {
                accepted = accept(&socket, &places, &hall.place_wanted) => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        warn!(source = &*hall.name, %address, %error, "cannot accept a connection, trying again");
                        sleep(ACCEPT_DELAY).await;
                        continue;
                    }
                },
                Some(visit) = visits.join_next() => {
                    report_panic(&hall, visit);
                    continue;
                }
                () = shutdown.asked() => break,
                () = hall.raws.closed() => break,
            };
            number += 1;
            let (hall, shutdown) = (Arc::clone(&hall), shutdown.clone());
            visits.spawn(async move {
                hall.visit(stream, peer, number, &shutdown).await;
                drop(place);
            });
        }
        drop(socket);
        while let Some(visit) = visits.join_next().await {
            report_panic(&hall, visit);
        }
        info!(source = &*hall.name, %address, "no longer listening for MQTT clients");
    }
}

/// The next connection, once there is a place for it.
///
/// # Cancel safety
///
/// May be dropped and called again.
async fn accept(
    socket: &TcpListener,
    places: &Arc<Semaphore>,
    place_wanted: &Notify,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    if places.available_permits() == 0 {
        place_wanted.notify_one();
    }
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = socket.accept().await?;
    Ok((stream, peer, place))
}

fn report_panic(hall: &Hall, visit: Result<(), tokio::task::JoinError>) {
    if let Err(error) = visit {
        warn!(source = &*hall.name, %error, "the service of one client failed");
    }
}

/// `TlsAcceptor` has no `Debug`.
struct Acceptor(TlsAcceptor);

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Acceptor")
    }
}

/// What all clients of one listener share.
#[derive(Debug)]
pub(super) struct Hall {
    pub(super) name: Arc<str>,
    pub(super) settings: settings::MqttListener,
    pub(super) metrics: Arc<SourceMetrics>,
    pub(super) raws: Sender<Raw>,
    pub(super) clock: Clock,
    pub(super) stop_timeout: Duration,
    acceptor: Option<Acceptor>,
    seats: Arc<Seats>,
    /// Every place is taken, and there is need of one.
    place_wanted: Notify,
    /// When this was last complained of.
    complaints: Mutex<HashMap<(IpAddr, Fingerprint), Instant>>,
    ignored_said: Flag,
    qos0_said: Flag,
}

impl Hall {
    async fn visit(&self, stream: TcpStream, peer: SocketAddr, number: u64, shutdown: &Shutdown) {
        let silent = |text: &str| self.send_away(peer, "", text);
        let welcomed = select! {
            welcomed = self.welcome(stream, peer) => welcomed,
            () = sleep(HANDSHAKE_TIMEOUT) => return silent(&format!("it did not say CONNECT within {HANDSHAKE_TIMEOUT:?}")),
            () = self.crowded() => {
                return silent(&format!("it did not say CONNECT within {CROWDED_TIMEOUT:?}, and every place is taken"));
            }
            () = shutdown.asked() => return,
        };
        let Some((mut wire, seat, keep_alive)) = welcomed else { return };
        let (source, client_id) = (&*self.name, &*seat.client_id);
        self.metrics.connects.one();
        self.metrics.connected.set(true);
        let clients = self.seats.len();
        if self.is_news(peer.ip(), &seat.client_id, "connected") {
            info!(source, client_id, %peer, keep_alive, clients, "MQTT client connected");
        } else {
            debug!(source, client_id, %peer, keep_alive, clients, "MQTT client connected again");
        }
        let departure = Publisher::new(self, &mut wire, &seat, number, keep_alive).serve(shutdown).await;
        self.metrics.disconnects.one();
        self.metrics.connected.set(self.seats.len() > 1);
        match &departure {
            Departure::Fault(_) | Departure::Silent(_) => {
                self.complain(peer.ip(), client_id, &departure.to_string());
            }
            Departure::Orderly | Departure::Closed | Departure::TakenOver | Departure::Stopped => {
                if self.is_news(peer.ip(), client_id, &departure.to_string()) {
                    info!(source, client_id, %peer, why = %departure, "MQTT client disconnected");
                } else {
                    debug!(source, client_id, %peer, why = %departure, "MQTT client disconnected again");
                }
            }
        }
        drop(seat);
        wire.close().await;
    }

    /// Returns once it is this connection's turn to make room for others.
    async fn crowded(&self) {
        sleep(CROWDED_TIMEOUT).await;
        self.place_wanted.notified().await;
    }

    /// TLS and CONNECT; none where the client was refused, which is said here.
    async fn welcome(&self, stream: TcpStream, peer: SocketAddr) -> Option<(Wire, Seat, u16)> {
        // Small packets both ways, and each is waited for.
        let _ = stream.set_nodelay(true);
        let mut wire = match &self.acceptor {
            None => Wire::new(stream),
            Some(acceptor) => match acceptor.0.accept(stream).await {
                Ok(stream) => Wire::new(stream),
                Err(error) => {
                    self.send_away(peer, "", &format!("TLS failed: {error}"));
                    return None;
                }
            },
        };
        let connect = match wire.read().await {
            Ok(Some(Packet::Connect(connect))) => connect,
            Ok(None) => {
                debug!(source = &*self.name, %peer, "a connection was closed before CONNECT");
                return None;
            }
            Ok(Some(_)) => return None,
            Err(error) => {
                if let FrameError::Version { .. } = error {
                    refuse(&mut wire, Refusal::Version).await;
                }
                self.send_away(peer, "", &error.to_string());
                return None;
            }
        };
        let shown = connect.client_id.clone();
        let seated = match judge(connect, &self.settings) {
            Ok(guest) => self.seat(guest).await,
            Err(refusal) => Err(refusal),
        };
        let (seat, keep_alive) = match seated {
            Ok(seated) => seated,
            Err(refusal) => {
                refuse(&mut wire, refusal).await;
                self.send_away(peer, &shown, &refusal.to_string());
                return None;
            }
        };
        wire.welcome(self.settings.max_packet_size);
        let welcome = ConnAck::new(rumqttc::ConnectReturnCode::Success, false);
        if let Err(error) = wire.send(&Packet::ConnAck(welcome)).await {
            self.send_away(peer, &shown, &error.to_string());
            return None;
        }
        Some((wire, seat, keep_alive))
    }

    async fn seat(&self, guest: Guest) -> Result<(Seat, u16), Refusal> {
        let seat = self.seats.take(&guest.client_id.into()).await.map_err(|_| Refusal::Full)?;
        Ok((seat, guest.keep_alive))
    }

    /// A client was not let in.
    fn send_away(&self, peer: SocketAddr, client_id: &str, what: &str) {
        self.metrics.disconnects.one();
        self.complain(peer.ip(), client_id, what);
    }

    /// Says what is wrong with a client.
    fn complain(&self, peer: IpAddr, client_id: &str, what: &str) {
        let source = &*self.name;
        // An id that was not let in can be long.
        let client_id: String = client_id.chars().take(64).collect();
        if self.is_news(peer, &client_id, what) {
            warn!(source, %peer, client_id, "MQTT client sent away: {what}");
        } else {
            debug!(source, %peer, client_id, "MQTT client sent away: {what}");
        }
    }

    /// Whether this was not said of this client lately. Nameless ones are not told apart: each has a new name every time.
    fn is_news(&self, peer: IpAddr, client_id: &str, what: &str) -> bool {
        let name = if is_generated(client_id) { "" } else { client_id };
        let complaint = Fingerprint::of(&[name.as_bytes(), what.as_bytes()]);
        let now = Instant::now();
        let mut complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        if complaints.len() >= MAX_COMPLAINTS {
            complaints.retain(|_, last| now - *last < COMPLAINT_INTERVAL);
        }
        match complaints.get(&(peer, complaint)) {
            Some(last) if now - *last < COMPLAINT_INTERVAL => false,
            None if complaints.len() >= MAX_COMPLAINTS => false,
            _ => {
                complaints.insert((peer, complaint), now);
                true
            }
        }
    }

    /// A topic that matches no filter.
    pub(super) fn note_ignored(&self, client_id: &str, topic: &str) {
        let (source, topics) = (&*self.name, &self.settings.topics);
        self.metrics.ignored.one();
        if self.ignored_said.set(true) {
            debug!(source, client_id, topic, "a message matches none of topics");
        } else {
            warn!(
                source,
                client_id,
                topic,
                ?topics,
                "a message matches none of topics: acknowledged and dropped; further ones are only counted"
            );
        }
    }

    /// A message that nobody sends again.
    pub(super) fn note_qos0(&self, client_id: &str, topic: &str) {
        self.metrics.qos0.one();
        if !self.qos0_said.set(true) {
            let source = &*self.name;
            warn!(
                source,
                client_id, topic, "messages come with QoS 0: nobody sends a lost one again. Publish them with QoS 1"
            );
        }
    }
}

async fn refuse(wire: &mut Wire, refusal: Refusal) {
    // A client that does not take the refusal is closed all the same.
    if wire.send(&Packet::ConnAck(ConnAck::new(refusal.code(), false))).await.is_ok() {
        wire.close().await;
    }
}

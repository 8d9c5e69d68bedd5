//! Why there is no connection to the broker, in words that name the cure. One warning when the reason changes, and
//! silence (debug) while it lasts.

use std::error::Error;
use std::time::{Duration, Instant};

use rumqttc::mqttbytes::Error as PacketError;
use rumqttc::{ConnectReturnCode, ConnectionError, StateError};
use tracing::{debug, info, warn};

use crate::flapping::{Flapping, Word};

/// How long a connection has to live, beyond the longest pause between two, to be settled.
const SETTLED: Duration = Duration::from_secs(10);

/// Pauses longer than this do not put off what counts as settled any more.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Connections closed by the broker before they settled, in a row, after which another client with our id is suspected.
const SUSPICIOUS: u32 = 3;

/// Why there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outage {
    Unreachable,
    Unresponsive,
    Tls,
    TlsRefused,
    ProtocolVersion,
    ClientId,
    Unavailable,
    Login,
    NotAuthorized,
    ClosedAtOnce,
    Closed,
    TakenOver,
    TooLarge,
    Malformed,
    Blocked,
}

impl Outage {
    /// The reason behind an error of rumqttc; `connected`: it came after a good CONNACK.
    pub(super) fn of(error: &ConnectionError, connected: bool) -> Self {
        match error {
            error if is_tls_alert(error) => Self::TlsRefused,
            ConnectionError::NetworkTimeout | ConnectionError::FlushTimeout => Self::Unresponsive,
            ConnectionError::Tls(_) => Self::Tls,
            ConnectionError::ConnectionRefused(code) => Self::refused(*code),
            ConnectionError::NotConnAck(_) => Self::Malformed,
            ConnectionError::Io(_) | ConnectionError::RequestsDone => Self::io(connected),
            ConnectionError::MqttState(error) => match error {
                StateError::AwaitPingResp | StateError::CollisionTimeout => Self::Unresponsive,
                StateError::Io(_) | StateError::ConnectionAborted | StateError::Deserialization(PacketError::Io(_)) => {
                    if connected {
                        Self::Closed
                    } else {
                        Self::ClosedAtOnce
                    }
                }
                StateError::Deserialization(PacketError::PayloadSizeLimitExceeded(_)) => Self::TooLarge,
                _ => Self::Malformed,
            },
        }
    }

    fn refused(code: ConnectReturnCode) -> Self {
        match code {
            ConnectReturnCode::Success => Self::Malformed,
            ConnectReturnCode::RefusedProtocolVersion => Self::ProtocolVersion,
            ConnectReturnCode::BadClientId => Self::ClientId,
            ConnectReturnCode::ServiceUnavailable => Self::Unavailable,
            ConnectReturnCode::BadUserNamePassword => Self::Login,
            ConnectReturnCode::NotAuthorized => Self::NotAuthorized,
        }
    }

    fn io(connected: bool) -> Self {
        if connected { Self::Closed } else { Self::Unreachable }
    }

    /// What happened and what helps, for a person.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Unreachable => "cannot reach the MQTT broker; is it running, are host and port right? Trying again",
            Self::Unresponsive => "the MQTT broker does not answer in time; trying again",
            Self::Tls => {
                "TLS with the MQTT broker failed; is this its TLS port, does ca_file hold the authority of its certificate, \
                 and does the certificate name this host? Trying again"
            }
            Self::TlsRefused => {
                "the MQTT broker refuses our side of TLS; if it wants a certificate of us, set certificate_file and \
                 key_file to one of an authority that it trusts. Trying again"
            }
            Self::ProtocolVersion => "the MQTT broker refuses MQTT 3.1.1; allow it there. Trying again",
            Self::ClientId => "the MQTT broker refuses the client id; set another client_id. Trying again",
            Self::Unavailable => "the MQTT broker says that it is not available; trying again",
            Self::Login => "the MQTT broker refuses user and password; correct them. Trying again",
            Self::NotAuthorized => {
                "the MQTT broker does not authorize this client; set user and password, or allow it there. Trying again"
            }
            Self::ClosedAtOnce => {
                "the MQTT broker closed the connection before it answered; is this its MQTT port, and does it want TLS \
                 there? Trying again"
            }
            Self::Closed => "the connection to the MQTT broker was lost; trying again",
            Self::TakenOver => {
                "the connection to the MQTT broker is closed again and again soon after it was made; most likely another \
                 client uses the same client id: set another client_id in one of them. Trying again, ever more slowly"
            }
            Self::TooLarge => {
                "a packet of the MQTT broker is larger than max_packet_size, and the broker will send it again before \
                 anything else: raise max_packet_size, and set message_size_limit at the broker so that it refuses such \
                 messages itself. Trying again"
            }
            Self::Malformed => "what the MQTT broker sends is not MQTT 3.1.1 as agreed; trying again",
            Self::Blocked => {
                "readings cannot be stored, and max_unacknowledged is reached: disconnected from the MQTT broker, which \
                 keeps them. Connecting again when the queue takes readings"
            }
        }
    }
}

/// Whether the broker ended the connection with an alert of TLS, the handshake's or, since TLS 1.3 lets the client go on
/// before its certificate is judged, a later one.
fn is_tls_alert(error: &ConnectionError) -> bool {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(rustls::Error::AlertReceived(_)) = error.downcast_ref() {
            return true;
        }
        // An I/O error shows what it wraps only here: its source is that error's source.
        next = match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    false
}

/// A connection that lived this long is settled: what ends it then is a new outage, and delays begin anew. Two clients with
/// one id turn each other out: were a connection settled before the other one's pause is over, both would begin anew again
/// and again, and none would ever be suspected.
pub(super) fn settled(reconnect_max_delay: Duration) -> Duration {
    reconnect_max_delay.min(LONGEST_PAUSE) + SETTLED
}

/// What is said about one source's connection.
#[derive(Debug)]
pub(super) struct Chronicle {
    source: String,
    broker: String,
    client_id: String,
    /// See [`settled`].
    settled: Duration,
    /// The reason last warned of, since the last settled connection.
    current: Option<Outage>,
    closed_early: u32,
    flapping: Flapping,
    /// The outage is one of too many to be told.
    counted: bool,
}

impl Chronicle {
    pub(super) fn new(source: &str, broker: String, client_id: &str, settled: Duration) -> Self {
        let (source, client_id) = (source.to_owned(), client_id.to_owned());
        Self {
            source,
            broker,
            client_id,
            settled,
            current: None,
            closed_early: 0,
            flapping: Flapping::default(),
            counted: false,
        }
    }

    /// A good CONNACK came.
    pub(super) fn connected(&self, session_present: bool, attempts: u32) {
        let (source, broker, client_id) = (&self.source, &self.broker, &self.client_id);
        if self.counted || matches!(self.current, Some(Outage::Closed | Outage::TakenOver)) {
            debug!(source, broker, client_id, session_present, attempts, "connected to the MQTT broker");
        } else {
            info!(source, broker, client_id, session_present, attempts, "connected to the MQTT broker");
        }
    }

    /// A connection, or the attempt at one (`lived` is none), ended. Returns what it is taken for.
    pub(super) fn ended(&mut self, outage: Outage, error: &str, lived: Option<Duration>) -> Outage {
        let settled = lived.is_some_and(|lived| lived >= self.settled);
        if settled {
            self.current = None;
        }
        self.closed_early = match (outage, lived) {
            (Outage::Closed, Some(_)) if !settled => self.closed_early + 1,
            // An attempt that fails in between tells nothing about another client.
            (_, None) => self.closed_early,
            _ => 0,
        };
        let outage = if self.closed_early >= SUSPICIOUS { Outage::TakenOver } else { outage };
        let (source, broker, client_id) = (&self.source, &self.broker, &self.client_id);
        let news = self.current.replace(outage) != Some(outage);
        if news {
            let word = self.flapping.outage(Instant::now());
            self.counted = word == Word::Counted;
            if word == Word::Last {
                warn!(
                    source,
                    broker, "this connection comes and goes: for the rest of the hour its ends are only counted"
                );
            }
        }
        if !news || self.counted {
            debug!(source, broker, client_id, error, "{}", outage.words());
        } else {
            warn!(source, broker, client_id, error, "{}", outage.words());
        }
        outage
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::backoff::Backoff;

    /// Promise 5: a second client with our id is named as the likely cause, and not at the first lost connection.
    #[test]
    fn connections_closed_early_again_and_again_are_taken_for_a_takeover() {
        let mut chronicle = Chronicle::new("meter", "localhost:1883".to_owned(), "id", SETTLED);
        let early = Some(Duration::from_millis(300));
        assert_eq!(chronicle.ended(Outage::Closed, "", early), Outage::Closed);
        assert_eq!(chronicle.ended(Outage::Closed, "", early), Outage::Closed);
        assert_eq!(chronicle.ended(Outage::Unreachable, "", None), Outage::Unreachable);
        assert_eq!(chronicle.ended(Outage::Closed, "", early), Outage::TakenOver);
        assert_eq!(chronicle.ended(Outage::Closed, "", Some(SETTLED)), Outage::Closed);
    }

    /// Promises 5 and 6: two agents with one id (a cloned card) turn each other out, for a day: no storm, each says why,
    /// and says it once.
    #[test]
    fn two_clients_with_one_id_do_not_storm() {
        struct Client {
            chronicle: Chronicle,
            backoff: Backoff,
            /// When it connects next; none while it is connected.
            next: Option<f64>,
            since: f64,
            connects: u32,
            said: Vec<Outage>,
        }
        let longest = Duration::from_secs(60);
        let client = |next| Client {
            chronicle: Chronicle::new("meter", String::new(), "id", settled(longest)),
            backoff: Backoff::new(Duration::from_millis(500), longest),
            next: Some(next),
            since: 0.0,
            connects: 0,
            said: Vec::new(),
        };
        let mut random = StdRng::seed_from_u64(7);
        let mut clients = [client(0.0), client(30.0)];
        let due = |client: &Client| client.next.unwrap_or(f64::INFINITY);
        loop {
            let comes = usize::from(due(&clients[1]) < due(&clients[0]));
            let now = due(&clients[comes]);
            if now > 86_400.0 {
                break;
            }
            clients[comes].next = None;
            clients[comes].since = now;
            clients[comes].connects += 1;
            let other = &mut clients[1 - comes];
            if other.next.is_none() {
                let lived = Duration::from_secs_f64(now - other.since);
                if lived >= settled(longest) {
                    other.backoff.reset();
                }
                let before = other.chronicle.current;
                let outage = other.chronicle.ended(Outage::Closed, "", Some(lived));
                if before != Some(outage) {
                    other.said.push(outage);
                }
                other.next = Some(now + other.backoff.next(random.random()).as_secs_f64());
            }
        }
        for client in clients {
            assert!(client.connects < 24 * 150, "{} connections in a day", client.connects);
            assert!(client.said.contains(&Outage::TakenOver), "{:?}", client.said);
            assert!(client.said.len() < 24 * 2, "{} warnings in a day", client.said.len());
            println!("{} connections, {} warnings in a day", client.connects, client.said.len());
        }
    }

    /// Promise 5: each refusal of the broker has its own words with the cure.
    #[test]
    fn refusals_name_their_cure() {
        for (code, cure) in [
            (ConnectReturnCode::BadUserNamePassword, "correct them"),
            (ConnectReturnCode::NotAuthorized, "set user and password"),
            (ConnectReturnCode::BadClientId, "another client_id"),
            (ConnectReturnCode::RefusedProtocolVersion, "3.1.1"),
            (ConnectReturnCode::ServiceUnavailable, "not available"),
        ] {
            let outage = Outage::of(&ConnectionError::ConnectionRefused(code), false);
            assert!(outage.words().contains(cure), "{code:?}: {}", outage.words());
        }
        let large = StateError::Deserialization(PacketError::PayloadSizeLimitExceeded(7));
        assert_eq!(Outage::of(&ConnectionError::MqttState(large), true), Outage::TooLarge);
    }
}

//! Why there is no connection to the broker, in words that name the cure. One warning when the reason changes, and
//! silence (debug) while it lasts.

use std::error::Error;
use std::time::Duration;

use rumqttc::mqttbytes::Error as PacketError;
use rumqttc::{ConnectReturnCode, ConnectionError, StateError};
use tracing::{debug, info, warn};

/// A connection that lived this long is settled: what ends it then is a new outage.
pub(super) const SETTLED: Duration = Duration::from_secs(10);

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
                "the MQTT broker closes the connection again and again right after it accepted it; most likely another \
                 client uses the same client id: set another client_id in one of them. Trying again, ever more slowly"
            }
            Self::TooLarge => {
                "a packet of the MQTT broker is larger than max_packet_size, and the broker will send it again: raise \
                 max_packet_size. Trying again"
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

/// What is said about one source's connection.
#[derive(Debug)]
pub(super) struct Chronicle {
    source: String,
    broker: String,
    client_id: String,
    /// The reason last warned of, since the last settled connection.
    current: Option<Outage>,
    closed_early: u32,
}

impl Chronicle {
    pub(super) fn new(source: &str, broker: String, client_id: &str) -> Self {
        Self { source: source.to_owned(), broker, client_id: client_id.to_owned(), current: None, closed_early: 0 }
    }

    /// A good CONNACK came.
    pub(super) fn connected(&self, session_present: bool, attempts: u32) {
        let (source, broker, client_id) = (&self.source, &self.broker, &self.client_id);
        if matches!(self.current, Some(Outage::Closed | Outage::TakenOver)) {
            debug!(source, broker, client_id, session_present, attempts, "connected to the MQTT broker");
        } else {
            info!(source, broker, client_id, session_present, attempts, "connected to the MQTT broker");
        }
    }

    /// A connection, or the attempt at one (`lived` is none), ended. Returns what it is taken for.
    pub(super) fn ended(&mut self, outage: Outage, error: &str, lived: Option<Duration>) -> Outage {
        let settled = lived.is_some_and(|lived| lived >= SETTLED);
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
        if self.current.replace(outage) == Some(outage) {
            debug!(source, broker, client_id, error, "{}", outage.words());
        } else {
            warn!(source, broker, client_id, error, "{}", outage.words());
        }
        outage
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Promise 5: a second client with our id is named as the likely cause, and not at the first lost connection.
    #[test]
    fn connections_closed_early_again_and_again_are_taken_for_a_takeover() {
        let mut chronicle = Chronicle::new("meter", "localhost:1883".to_owned(), "id");
        let early = Some(Duration::from_millis(300));
        assert_eq!(chronicle.ended(Outage::Closed, "", early), Outage::Closed);
        assert_eq!(chronicle.ended(Outage::Closed, "", early), Outage::Closed);
        assert_eq!(chronicle.ended(Outage::Unreachable, "", None), Outage::Unreachable);
        assert_eq!(chronicle.ended(Outage::Closed, "", early), Outage::TakenOver);
        assert_eq!(chronicle.ended(Outage::Closed, "", Some(SETTLED)), Outage::Closed);
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

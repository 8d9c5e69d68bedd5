//! The end of our session at a broker, for an agent that does not come back: otherwise the broker goes on keeping messages
//! for it, up to its limits.
//!
//! A CONNECT with the session's client id and CleanSession 1 makes the broker forget the session, its subscriptions and
//! what it keeps for them (MQTT 3.1.1, 3.1.2.4).

use std::time::Duration;

use rumqttc::{ConnectionError, Event, Packet};
use tokio::time::timeout;

use crate::config::settings;
use crate::source::mqtt;
use crate::source::tls::TlsError;

/// How long the broker has to close the connection after DISCONNECT; the session has ended before it.
const FAREWELL: Duration = Duration::from_secs(1);

/// The session is still there, as far as is known.
#[derive(Debug, thiserror::Error)]
pub enum FarewellError {
    #[error("the TLS files cannot be used")]
    Tls(#[from] TlsError),
    #[error("the MQTT broker cannot be reached, or refuses us")]
    Connection(#[source] Box<ConnectionError>),
    #[error("the MQTT broker answers {0} instead of CONNACK")]
    Malformed(String),
    #[error("the MQTT broker does not answer within {} s", .0.as_secs())]
    Silent(Duration),
}

/// Ends the session `client_id` at the source's broker, with all that the broker keeps for it; takes `limit` and a second
/// at most. An agent that uses the session now is thrown out.
///
/// # Errors
///
/// The broker was not reached, or does not let us in.
pub async fn end_session(settings: &settings::Mqtt, client_id: &str, limit: Duration) -> Result<(), FarewellError> {
    let (client, mut eventloop) = mqtt::client(settings, client_id, |options| {
        options.set_clean_session(true);
    })?;
    match timeout(limit, eventloop.poll()).await {
        Ok(Ok(Event::Incoming(Packet::ConnAck(_)))) => {}
        Ok(Ok(other)) => return Err(FarewellError::Malformed(format!("{other:?}"))),
        Ok(Err(error)) => return Err(FarewellError::Connection(Box::new(error))),
        Err(_) => return Err(FarewellError::Silent(limit)),
    }
    // Its channel is empty, and what follows changes nothing any more.
    let _ = client.try_disconnect();
    let _ = timeout(FAREWELL, async { while eventloop.poll().await.is_ok() {} }).await;
    Ok(())
}

//! A visit to a broker: what would a source see there? As a stranger, with a session of its own that ends with the visit,
//! so that nothing is taken from the agent's.

use std::time::Duration;

use bytes::Bytes;
use rumqttc::{AsyncClient, Event, EventLoop, Packet, Publish, QoS, SubscribeFilter, SubscribeReasonCode};
use tokio::time::{Instant, timeout_at};

use crate::config::settings;
use crate::source::filter::matches;
use crate::source::mqtt::client;
use crate::source::mqtt_outage::Outage;

/// How long the broker may take to close the connection.
const FAREWELL: Duration = Duration::from_millis(500);

/// What came by one filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    pub filter: String,
    /// The QoS that the broker grants; none: it refuses the subscription.
    pub granted: Option<u8>,
    /// Messages that were published meanwhile.
    pub messages: u64,
    /// Of them, those that came with QoS 0.
    pub qos0: u64,
    /// Old values that the broker keeps; a source ignores them unless it is told otherwise.
    pub retained: u64,
    /// The first message.
    pub first: Option<Sample>,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    pub topic: String,
    pub payload: Bytes,
}

/// The broker does not let us in, or not for long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unwelcome {
    /// What happened and what helps.
    pub words: String,
    /// As the client library says it.
    pub error: String,
}

/// Connects, subscribes with QoS 1 and listens until each filter has brought a message, or `wait` is over. Takes `wait` and
/// three times `connect_timeout` at most.
///
/// # Errors
///
/// If the broker cannot be reached or refuses us, and if it ends the connection before anything has come.
pub async fn visit(settings: &settings::Mqtt, wait: Duration) -> Result<Vec<Heard>, Unwelcome> {
    let id = format!("mfdoctor{:012x}", rand::random::<u64>() >> 16);
    let (client, mut eventloop) = client(settings, &id, |options| {
        options.set_clean_session(true);
    })
    .map_err(|error| Unwelcome { words: error.to_string(), error: String::new() })?;
    // Its own limit for the connection is connect_timeout.
    match eventloop.poll().await {
        Ok(Event::Incoming(Packet::ConnAck(_))) => {}
        Ok(other) => return Err(unwelcome(Outage::Malformed, format!("{other:?} instead of CONNACK"))),
        Err(error) => return Err(unwelcome(Outage::of(&error, false), error.to_string())),
    }
    let mut heard: Vec<_> = settings.topics.iter().map(|filter| Heard::new(filter)).collect();
    let listened = listen(&client, &mut eventloop, settings, wait, &mut heard).await;
    if client.try_disconnect().is_ok() {
        let until = Instant::now() + FAREWELL;
        while timeout_at(until, eventloop.poll()).await.is_ok_and(|event| event.is_ok()) {}
    }
    match listened {
        Err(error) if heard.iter().all(|one| one.messages == 0) => Err(error),
        _ => Ok(heard),
    }
}

impl Heard {
    fn new(filter: &str) -> Self {
        Self { filter: filter.to_owned(), granted: None, messages: 0, qos0: 0, retained: 0, first: None }
    }

    fn take(&mut self, publish: &Publish) {
        if publish.retain {
            self.retained += 1;
            return;
        }
        self.messages += 1;
        self.qos0 += u64::from(publish.qos == QoS::AtMostOnce);
        self.first.get_or_insert_with(|| Sample { topic: publish.topic.clone(), payload: publish.payload.clone() });
    }

    /// Whether there is nothing left to wait for.
    fn is_done(&self) -> bool {
        self.granted.is_none() || self.messages > 0
    }
}

async fn listen(
    client: &AsyncClient,
    eventloop: &mut EventLoop,
    settings: &settings::Mqtt,
    wait: Duration,
    heard: &mut [Heard],
) -> Result<(), Unwelcome> {
    // One at a time, each answered before the next: an answer then belongs to the only request there is.
    for at in 0..heard.len() {
        let filter = SubscribeFilter::new(heard[at].filter.clone(), QoS::AtLeastOnce);
        if client.try_subscribe_many([filter]).is_err() {
            return Err(unwelcome(Outage::Unresponsive, "no room for SUBSCRIBE".to_owned()));
        }
        let until = Instant::now() + settings.connect_timeout;
        let answer = loop {
            match next(eventloop, until, heard).await? {
                Some(Packet::SubAck(answer)) => break answer,
                Some(_) => {}
                None => return Err(unwelcome(Outage::Unresponsive, "no answer to SUBSCRIBE".to_owned())),
            }
        };
        heard[at].granted = match answer.return_codes.first() {
            Some(SubscribeReasonCode::Success(qos)) => Some(*qos as u8),
            _ => None,
        };
    }
    let until = Instant::now() + wait;
    while heard.iter().any(|one| !one.is_done()) {
        if next(eventloop, until, heard).await?.is_none() {
            break;
        }
    }
    Ok(())
}

/// The next packet, messages counted; none when the time is over.
async fn next(eventloop: &mut EventLoop, until: Instant, heard: &mut [Heard]) -> Result<Option<Packet>, Unwelcome> {
    loop {
        match timeout_at(until, eventloop.poll()).await {
            Err(_) => return Ok(None),
            Ok(Err(error)) => return Err(unwelcome(Outage::of(&error, true), error.to_string())),
            Ok(Ok(Event::Incoming(Packet::Publish(publish)))) => {
                let of_it = heard.iter_mut().filter(|one| matches(&one.filter, &publish.topic));
                of_it.for_each(|one| one.take(&publish));
                return Ok(Some(Packet::Publish(publish)));
            }
            Ok(Ok(Event::Incoming(packet))) => return Ok(Some(packet)),
            Ok(Ok(Event::Outgoing(_))) => {}
        }
    }
}

/// A source would try again; a visitor does not.
fn unwelcome(outage: Outage, error: String) -> Unwelcome {
    let words = outage.words();
    let again = ["trying again", "Trying again"].iter().find_map(|end| words.strip_suffix(end));
    let words = again.unwrap_or(words).trim_end_matches([' ', '.', ';']).to_owned();
    Unwelcome { words, error }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Promise 9: what a visitor says does not promise another attempt.
    #[test]
    fn words_of_a_visitor() {
        let words = |outage| unwelcome(outage, String::new()).words;
        assert_eq!(words(Outage::Login), "the MQTT broker refuses user and password; correct them");
        assert_eq!(words(Outage::Unavailable), "the MQTT broker says that it is not available");
        assert_eq!(words(Outage::Unresponsive), "the MQTT broker does not answer in time");
    }
}

//! What is asked of the broker after each CONNACK, session present or not: SUBSCRIBE to the configured filters,
//! UNSUBSCRIBE from those that left the configuration, SUBSCRIBE to the broker's own count of dropped messages.
//!
//! One request at a time, each answered before the next: an answer then belongs to the only request there is.

use std::collections::VecDeque;
use std::time::Duration;

use rumqttc::{AsyncClient, QoS, SubAck, SubscribeFilter, SubscribeReasonCode};
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

/// Mosquitto's count of messages dropped for all its clients, because a queue was full.
pub(super) const DROPPED: &str = "$SYS/broker/publish/messages/dropped";

/// Filters in one SUBSCRIBE: some brokers take no more.
const CHUNK: usize = 8;

/// What one source keeps of its subscriptions from connection to connection.
#[derive(Debug)]
pub(super) struct Filters {
    pub(super) source: String,
    /// The configured ones.
    pub(super) wanted: Vec<String>,
    /// Those that left the configuration and may still be subscribed.
    pub(super) left: Vec<String>,
    /// The broker refused these; said once.
    refused: Vec<String>,
    /// Connections that ended, in a row, while the subscription to [`DROPPED`] was not answered.
    statistics_failed: u32,
}

impl Filters {
    pub(super) fn new(source: &str, wanted: Vec<String>, previous: Vec<String>) -> Self {
        let left = previous.into_iter().filter(|filter| !wanted.contains(filter)).collect();
        Self { source: source.to_owned(), wanted, left, refused: Vec::new(), statistics_failed: 0 }
    }

    fn judge(&mut self, filter: &str, code: Option<&SubscribeReasonCode>) -> bool {
        let source = &self.source;
        match code {
            Some(SubscribeReasonCode::Success(QoS::AtMostOnce)) => {
                warn!(source, filter, "the MQTT broker grants QoS 0 only: readings can get lost on the way from it");
            }
            Some(SubscribeReasonCode::Success(_)) => debug!(source, filter, "subscribed"),
            Some(SubscribeReasonCode::Failure) | None => {
                if !self.refused.iter().any(|known| known == filter) {
                    error!(
                        source,
                        filter,
                        code = "0x80",
                        "the MQTT broker refuses the subscription, nothing arrives by it: let this user read it there \
                         (Mosquitto: acl_file), or take it out of topics. Asking again from time to time"
                    );
                    self.refused.push(filter.to_owned());
                }
                return false;
            }
        }
        if let Some(place) = self.refused.iter().position(|known| known == filter) {
            self.refused.swap_remove(place);
            info!(source, filter, "the MQTT broker accepts the subscription now");
        }
        true
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Request {
    Subscribe(Vec<String>),
    Unsubscribe(String),
    Statistics,
}

/// The requests of one connection.
#[derive(Debug)]
pub(super) struct Subscriptions {
    requests: VecDeque<Request>,
    /// The request that is being asked, and until when it must be answered.
    asked: Option<(Request, Instant)>,
    /// Whether it could be handed to the event loop.
    sent: bool,
    refused: Vec<String>,
    ask_again: Option<Instant>,
    answer_within: Duration,
    ask_again_after: Duration,
}

/// The broker leaves a request without an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unanswered;

impl Subscriptions {
    /// All that is to be asked on a new connection.
    pub(super) fn new(filters: &Filters, answer_within: Duration, ask_again_after: Duration) -> Self {
        let mut requests: VecDeque<_> =
            filters.wanted.chunks(CHUNK).map(|chunk| Request::Subscribe(chunk.to_vec())).collect();
        requests.extend(filters.left.iter().cloned().map(Request::Unsubscribe));
        // A broker may close the connection instead of refusing; then it is not asked any more.
        if filters.statistics_failed < 2 {
            requests.push_back(Request::Statistics);
        }
        Self {
            requests,
            asked: None,
            sent: false,
            refused: Vec::new(),
            ask_again: None,
            answer_within,
            ask_again_after,
        }
    }

    /// Asks what is to be asked next, if nothing is unanswered.
    pub(super) fn advance(&mut self, client: &AsyncClient, now: Instant) -> Result<(), Unanswered> {
        if self.ask_again.is_some_and(|then| then <= now) {
            self.ask_again = None;
            let refused = std::mem::take(&mut self.refused);
            self.requests.extend(refused.chunks(CHUNK).map(|chunk| Request::Subscribe(chunk.to_vec())));
        }
        if self.asked.is_none()
            && let Some(request) = self.requests.pop_front()
        {
            self.asked = Some((request, now + self.answer_within));
            self.sent = false;
        }
        let Some((request, until)) = &self.asked else { return Ok(()) };
        if *until <= now {
            return Err(Unanswered);
        }
        if !self.sent {
            // Refused only while the bounded channel to the event loop is full: tried again after the next event.
            self.sent = request.send(client);
        }
        Ok(())
    }

    /// The broker is busy with other things, or we were: the answer may take longer.
    pub(super) fn extend(&mut self, now: Instant) {
        if let Some((_, until)) = &mut self.asked {
            *until = now + self.answer_within;
        }
    }

    /// When [`Self::advance`] wants to be called at the latest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let asked = self.asked.as_ref().map(|(_, until)| *until);
        [asked, self.ask_again].into_iter().flatten().min()
    }

    /// The answer to a SUBSCRIBE.
    pub(super) fn subscribed(&mut self, answer: &SubAck, filters: &mut Filters, now: Instant) {
        match self.asked.take() {
            Some((Request::Subscribe(asked), _)) => {
                for (n, filter) in asked.into_iter().enumerate() {
                    if !filters.judge(&filter, answer.return_codes.get(n)) {
                        self.refused.push(filter);
                        self.ask_again = Some(now + self.ask_again_after);
                    }
                }
            }
            Some((Request::Statistics, _)) => {
                filters.statistics_failed = 0;
                debug!(source = filters.source, answer = ?answer.return_codes, "asked for the broker's dropped messages");
            }
            other => self.asked = other,
        }
    }

    /// The answer to an UNSUBSCRIBE. True where it was the last that left the configuration.
    pub(super) fn unsubscribed(&mut self, filters: &mut Filters) -> bool {
        match self.asked.take() {
            Some((Request::Unsubscribe(gone), _)) => {
                info!(source = filters.source, filter = gone, "unsubscribed from a filter that left the configuration");
                filters.left.retain(|filter| *filter != gone);
                filters.left.is_empty()
            }
            other => {
                self.asked = other;
                false
            }
        }
    }

    /// The connection was lost.
    pub(super) fn lost(&self, filters: &mut Filters) {
        if matches!(self.asked, Some((Request::Statistics, _))) {
            filters.statistics_failed += 1;
        }
    }
}

impl Request {
    fn send(&self, client: &AsyncClient) -> bool {
        let sent = match self {
            Self::Subscribe(filters) => client.try_subscribe_many(
                filters.iter().map(|filter| SubscribeFilter::new(filter.clone(), QoS::AtLeastOnce)),
            ),
            Self::Unsubscribe(filter) => client.try_unsubscribe(filter.clone()),
            Self::Statistics => client.try_subscribe(DROPPED, QoS::AtMostOnce),
        };
        sent.is_ok()
    }
}

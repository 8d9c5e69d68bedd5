//! One connection to the broker, from its CONNACK to its end. All that belongs to a connection lives here and dies with
//! it, so that no ticket and no message of an earlier one can reach a later one.
//!
//! Acknowledgements do not go through the event loop's request channel: they would wait there while it reads ten
//! packets for one request, each with a write of its own, and what waits there outlives the connection. They are written
//! to the connection itself, all that are due at once, when the event loop is not polled.
//!
//! `EventLoop::poll` may be dropped for that (rumqttc 0.25.1, `eventloop.rs` and `framed.rs`): what was read stays in its
//! frame buffer or its queue of events, what was written stays in the write buffer. Only a request that it has taken from
//! its channel while more than 8 KiB wait to be written would be lost, and those (SUBSCRIBE, UNSUBSCRIBE, DISCONNECT)
//! are answered within a limit of ours or end the connection.

use std::sync::Arc;
use std::time::Duration;

use rumqttc::{AsyncClient, ConnectionError, Event, EventLoop, Packet, PubAck, Publish, QoS, StateError};
use tokio::select;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, error, info, warn};

use crate::flapping::Reminder;
use crate::reading::Kind;
use crate::receipt::Ticket;
use crate::shutdown::Shutdown;
use crate::source::mqtt::MqttSource;
use crate::source::mqtt_outage::Outage;
use crate::source::mqtt_subscription::{DROPPED, Filters, Subscriptions};
use crate::source::outstanding::{Outstanding, Unawaited};
use crate::source::{Delivery, Raw};

/// How long an orderly stop waits for the broker to close the connection after DISCONNECT.
const FAREWELL: Duration = Duration::from_secs(1);

/// What one source remembers from connection to connection.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) filters: Filters,
    /// See [`Delivery::session`].
    pub(super) session: u64,
    /// The broker's own count of dropped messages, as last seen.
    dropped: Option<u64>,
    drops: Reminder,
    qos0_said: bool,
}

impl Memory {
    pub(super) fn new(filters: Filters) -> Self {
        Self { filters, session: 0, dropped: None, drops: Reminder::default(), qos0_said: false }
    }
}

/// How a connection ends.
#[derive(Debug)]
pub(super) enum End {
    /// A stop was asked for, or the agent takes no raws any more.
    Stopped,
    Lost(Outage, String),
    /// Readings cannot be stored. The channel ends when the last receipt of the connection has come back.
    Blocked(Receiver<Ticket>),
}

/// An orderly stop on its way.
#[derive(Debug, Clone, Copy)]
struct Stop {
    until: Instant,
    /// Every receipt has come back or was dropped.
    all_back: bool,
    /// DISCONNECT was handed to the event loop.
    said: bool,
}

pub(super) struct Connection<'a> {
    source: &'a MqttSource,
    memory: &'a mut Memory,
    client: &'a AsyncClient,
    number: u64,
    subscriptions: Subscriptions,
    counter: Sender<Ticket>,
    tickets: Receiver<Ticket>,
    outstanding: Outstanding<()>,
    unawaited: Unawaited,
    /// A message that found the channel full.
    held: Option<(Raw, Option<u16>)>,
    stop: Option<Stop>,
    /// Of every broker; the topic tells devices apart.
    sender: Arc<str>,
    pub(super) received: u64,
    pub(super) acknowledged: u64,
}

impl<'a> Connection<'a> {
    pub(super) fn new(source: &'a MqttSource, memory: &'a mut Memory, client: &'a AsyncClient, number: u64) -> Self {
        let settings = &source.settings;
        // A channel for each connection: the tickets of an earlier one have nowhere to go.
        let (counter, tickets) = mpsc::channel(settings.max_unacknowledged.max(1));
        let subscriptions = Subscriptions::new(&memory.filters, settings.connect_timeout, settings.reconnect_max_delay);
        Self {
            source,
            memory,
            client,
            number,
            subscriptions,
            counter,
            tickets,
            outstanding: Outstanding::new(),
            unawaited: Unawaited::default(),
            held: None,
            stop: None,
            sender: Arc::from(""),
            received: 0,
            acknowledged: 0,
        }
    }

    /// Serves the connection until it ends. Whatever the end, the caller cleans the event loop.
    pub(super) async fn serve(&mut self, eventloop: &mut EventLoop, shutdown: &Shutdown) -> End {
        loop {
            if let Err(end) = self.turn(eventloop, shutdown).await {
                if matches!(end, End::Lost(..)) {
                    self.subscriptions.lost(&mut self.memory.filters);
                }
                return end;
            }
        }
    }

    async fn turn(&mut self, eventloop: &mut EventLoop, shutdown: &Shutdown) -> Result<(), End> {
        self.acknowledge(eventloop).await?;
        self.subscriptions
            .advance(self.client, Instant::now())
            .map_err(|_| End::Lost(Outage::Unresponsive, "no answer to SUBSCRIBE or UNSUBSCRIBE".to_owned()))?;
        self.stop_when_done()?;
        if self.stop.is_none() && !self.has_room() {
            return self.make_room(shutdown).await;
        }
        let deadline = [self.subscriptions.deadline(), self.stop.map(|stop| stop.until)].into_iter().flatten().min();
        select! {
            event = eventloop.poll() => match event {
                Ok(event) => {
                    // Whatever comes shows that the broker lives; its PINGRESP may stand behind many messages.
                    eventloop.state.await_pingresp &= !matches!(event, Event::Incoming(_));
                    self.handle(event)
                }
                Err(error) => Err(self.lost(&error)),
            },
            ticket = self.tickets.recv(), if !self.stop.is_some_and(|stop| stop.all_back) => {
                match (ticket, &mut self.stop) {
                    (Some(ticket), _) => self.redeem(ticket),
                    (None, Some(stop)) => stop.all_back = true,
                    (None, None) => {}
                }
                Ok(())
            }
            () = shutdown.asked(), if self.stop.is_none() => {
                self.begin_stop();
                Ok(())
            }
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => Ok(()),
        }
    }

    fn lost(&self, error: &ConnectionError) -> End {
        if self.stop.is_some_and(|stop| stop.said) {
            return End::Stopped;
        }
        End::Lost(Outage::of(error, true), error.to_string())
    }

    /// Takes what tickets there are, and sends every acknowledgement whose turn has come.
    async fn acknowledge(&mut self, eventloop: &mut EventLoop) -> Result<(), End> {
        while let Ok(ticket) = self.tickets.try_recv() {
            self.redeem(ticket);
        }
        if self.outstanding.due().is_none() {
            return Ok(());
        }
        let sent = timeout(self.source.settings.connect_timeout, self.send_due(eventloop));
        match sent.await {
            Ok(Ok(count)) => {
                self.acknowledged += count;
                self.source.metrics.acknowledged.add(count);
                Ok(())
            }
            Ok(Err(error)) => Err(self.lost(&ConnectionError::MqttState(error))),
            Err(_) => Err(self.lost(&ConnectionError::FlushTimeout)),
        }
    }

    async fn send_due(&mut self, eventloop: &mut EventLoop) -> Result<u64, StateError> {
        let network = eventloop.network.as_mut().ok_or(StateError::ConnectionAborted)?;
        let mut count = 0;
        while let Some(packet_id) = self.outstanding.due() {
            network.write(Packet::PubAck(PubAck::new(packet_id))).await?;
            self.outstanding.acknowledged();
            count += 1;
        }
        network.flush().await?;
        Ok(count)
    }

    fn handle(&mut self, event: Event) -> Result<(), End> {
        match event {
            Event::Incoming(Packet::Publish(publish)) => {
                self.subscriptions.extend(Instant::now());
                if self.stop.is_none() {
                    return self.receive(publish);
                }
            }
            Event::Incoming(Packet::SubAck(answer)) => {
                self.subscriptions.subscribed(&answer, &mut self.memory.filters, Instant::now());
            }
            Event::Incoming(Packet::UnsubAck(_)) => {
                let all_left = self.subscriptions.unsubscribed(&mut self.memory.filters);
                if let (true, Some(left)) = (all_left, &self.source.left) {
                    // Full: it has been told already.
                    let _ = left.try_send(());
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn receive(&mut self, publish: Publish) -> Result<(), End> {
        if publish.topic == DROPPED && publish.qos == QoS::AtMostOnce {
            self.note_dropped(&publish.payload, publish.retain);
            return Ok(());
        }
        let metrics = &self.source.metrics;
        self.received += 1;
        metrics.received.one();
        if publish.qos == QoS::ExactlyOnce {
            let text = "a PUBLISH with QoS 2, though QoS 1 was asked for".to_owned();
            return Err(End::Lost(Outage::Malformed, text));
        }
        let packet_id = (publish.qos == QoS::AtLeastOnce).then_some(publish.pkid);
        if publish.retain && !self.source.settings.retained {
            metrics.retained.one();
            if let Some(packet_id) = packet_id {
                let ordinal = self.outstanding.push(packet_id, 0, ());
                self.outstanding.redeem(ordinal);
            }
            return Ok(());
        }
        if packet_id.is_none() {
            self.note_qos0(&publish.topic);
        }
        let raw = self.raw(publish, packet_id);
        self.hand_on(raw, packet_id)
    }

    fn raw(&self, publish: Publish, packet_id: Option<u16>) -> Raw {
        Raw {
            kind: Kind::Measured,
            source: Arc::clone(&self.source.name),
            topic: publish.topic,
            payload: publish.payload,
            received: self.source.clock.now(),
            delivery: Delivery {
                sender: Arc::clone(&self.sender),
                packet_id,
                dup: publish.dup,
                retain: publish.retain,
                session: self.memory.session,
            },
            receipt: self.outstanding.receipt(packet_id, self.number, &self.counter),
        }
    }

    fn hand_on(&mut self, raw: Raw, packet_id: Option<u16>) -> Result<(), End> {
        let bytes = raw.topic.len() + raw.payload.len();
        if packet_id.is_none() {
            self.unawaited.add(bytes, &self.source.raws);
        }
        match self.source.raws.try_send(raw) {
            Ok(()) => self.handed_on(packet_id, bytes),
            Err(TrySendError::Full(raw)) => self.held = Some((raw, packet_id)),
            Err(TrySendError::Closed(_)) => return Err(End::Stopped),
        }
        Ok(())
    }

    fn handed_on(&mut self, packet_id: Option<u16>, bytes: usize) {
        if let Some(packet_id) = packet_id {
            self.outstanding.push(packet_id, bytes, ());
        }
    }

    /// Whether another message may be taken: at most `max_unacknowledged` of them, and at most `max_packet_size` bytes
    /// before the last.
    fn has_room(&self) -> bool {
        let settings = &self.source.settings;
        self.held.is_none()
            && self.outstanding.len() < settings.max_unacknowledged
            && self.outstanding.bytes() < settings.max_packet_size
            && self.unawaited.bytes() < settings.max_packet_size
    }

    /// At the limit nothing is read, so that TCP holds a fast broker up; but half a keep alive later at the latest the
    /// connection is given up, before the broker does.
    async fn make_room(&mut self, shutdown: &Shutdown) -> Result<(), End> {
        let source = self.source;
        let until = Instant::now() + source.settings.keep_alive / 2;
        while !self.has_room() {
            select! {
                // Back to the turn, which sends the acknowledgement; time begins anew with every bit of progress.
                Some(ticket) = self.tickets.recv() => {
                    self.redeem(ticket);
                    break;
                }
                place = source.raws.reserve(), if self.held.is_some() => {
                    let Ok(place) = place else { return Err(End::Stopped) };
                    if let Some((raw, packet_id)) = self.held.take() {
                        let bytes = raw.topic.len() + raw.payload.len();
                        place.send(raw);
                        self.handed_on(packet_id, bytes);
                    }
                }
                all = source.raws.reserve_many(source.raws.max_capacity()),
                    if self.held.is_none() && self.unawaited.bytes() >= source.settings.max_packet_size => {
                    if all.is_err() {
                        return Err(End::Stopped);
                    }
                    self.unawaited.forget();
                }
                () = shutdown.asked() => {
                    self.begin_stop();
                    break;
                }
                () = sleep_until(until) => return Err(self.blocked()),
            }
        }
        self.subscriptions.extend(Instant::now());
        Ok(())
    }

    fn blocked(&mut self) -> End {
        if let Some((_, None)) = self.held.take() {
            error!(source = &*self.source.name, "a QoS 0 message was lost: readings cannot be stored");
        }
        // Only the receipts hold the counter's ends from now on.
        let (counter, tickets) = mpsc::channel(1);
        self.counter = counter;
        End::Blocked(std::mem::replace(&mut self.tickets, tickets))
    }

    fn redeem(&mut self, ticket: Ticket) {
        if ticket.connection == self.number {
            self.outstanding.redeem(ticket.ordinal);
        }
    }

    fn begin_stop(&mut self) {
        self.held = None;
        // Only the receipts hold the counter's ends from now on: the channel ends with the last of them.
        self.counter = mpsc::channel(1).0;
        self.stop = Some(Stop { until: Instant::now() + self.source.stop_timeout, all_back: false, said: false });
    }

    /// Says DISCONNECT once nothing is outstanding, or the time is up; the session stays.
    fn stop_when_done(&mut self) -> Result<(), End> {
        let Some(stop) = &mut self.stop else { return Ok(()) };
        let now = Instant::now();
        if stop.said {
            return if stop.until <= now { Err(End::Stopped) } else { Ok(()) };
        }
        if !self.outstanding.is_empty() && !stop.all_back && now < stop.until {
            return Ok(());
        }
        if !self.outstanding.is_empty() {
            let (source, waiting) = (&*self.source.name, self.outstanding.len());
            info!(source, waiting, "stopping before everything is acknowledged; the broker sends the rest again");
        }
        stop.said = self.client.try_disconnect().is_ok();
        stop.until = now + FAREWELL;
        Ok(())
    }

    fn note_qos0(&mut self, topic: &str) {
        self.source.metrics.qos0.one();
        if !self.memory.qos0_said {
            self.memory.qos0_said = true;
            let source = &*self.source.name;
            warn!(source, topic, "messages come with QoS 0: nobody sends a lost one again. Publish them with QoS 1");
        }
    }

    /// The broker's count of dropped messages; `old`: as it stood when we subscribed. It counts from the broker's start, and
    /// is only told once it is not 0.
    fn note_dropped(&mut self, payload: &[u8], old: bool) {
        let Some(count) = std::str::from_utf8(payload).ok().and_then(|text| text.trim().parse::<u64>().ok()) else {
            return;
        };
        let source = &*self.source.name;
        let rise = match self.memory.dropped.replace(count) {
            None if old && count == 0 => 0,
            None if old => {
                warn!(source, dropped = count, "the MQTT broker has dropped messages before we came");
                0
            }
            None => count,
            Some(before) if before <= count => count - before,
            // A broker that was restarted.
            Some(_) => count,
        };
        if rise == 0 {
            debug!(source, count, "the broker's dropped messages");
            return;
        }
        self.source.metrics.broker_dropped.add(rise);
        // A client that is gone for good lets its queue overflow every few seconds, for weeks.
        let Some(unsaid) = self.memory.drops.note(rise, Instant::now().into_std()) else {
            debug!(source, dropped = rise, "the MQTT broker dropped more messages");
            return;
        };
        error!(
            source,
            dropped = unsaid + rise,
            "the MQTT broker dropped messages for its clients because a queue was full: raise max_queued_messages there, \
             or keep the queue here from blocking; it does not say whose they were"
        );
    }
}

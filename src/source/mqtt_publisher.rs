//! One client of the listener, from its CONNACK to its end. It publishes; nothing else is served.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rumqttc::{Packet, PubAck, Publish, QoS, SubAck, SubscribeReasonCode, UnsubAck};
use tokio::select;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use crate::reading::Kind;
use crate::receipt::Ticket;
use crate::shutdown::Shutdown;
use crate::source::filter;
use crate::source::mqtt_listener::Hall;
use crate::source::mqtt_seats::Seat;
use crate::source::mqtt_wire::{FrameError, Wire};
use crate::source::outstanding::{Outstanding, Unawaited};
use crate::source::{Delivery, Raw};

/// How a client's connection ends, if not by an error.
#[derive(Debug)]
pub(super) enum Departure {
    /// It said DISCONNECT.
    Orderly,
    /// It closed the connection without DISCONNECT.
    Closed,
    /// Another client took its seat.
    TakenOver,
    /// It sent nothing for so long.
    Silent(Duration),
    /// It broke the rules, or its bytes did.
    Fault(Fault),
    /// A stop was asked for, or the agent takes no raws any more.
    Stopped,
}

/// What a client did wrong.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("it publishes with QoS 2 to {0:?}: set QoS 1 there")]
    QoS2(String),
    #[error("it publishes to {0:?}, which is no topic")]
    Topic(String),
    #[error("{0} is not for a client to send, or not now")]
    Unexpected(&'static str),
}

impl fmt::Display for Departure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Orderly => f.write_str("it said DISCONNECT"),
            Self::Closed => f.write_str("it closed the connection"),
            Self::TakenOver => f.write_str("another client with the same client id took over"),
            Self::Silent(limit) => write!(f, "it sent nothing for {limit:?}"),
            Self::Fault(fault) => fmt::Display::fmt(fault, f),
            Self::Stopped => f.write_str("the agent stops"),
        }
    }
}

/// Topic and payload: what a repetition on the same connection is recognised by.
type Content = (String, Bytes);

pub(super) struct Publisher<'a> {
    hall: &'a Hall,
    wire: &'a mut Wire,
    seat: &'a Seat,
    number: u64,
    /// What may pass without a byte from the client.
    patience: Duration,
    silent_until: Instant,
    counter: Sender<Ticket>,
    tickets: Receiver<Ticket>,
    outstanding: Outstanding<Content>,
    unawaited: Unawaited,
    held: Option<(Raw, Option<u16>)>,
    stop: Option<Instant>,
    /// Every receipt has come back or was dropped; only seen while stopping.
    all_back: bool,
    subscribe_said: bool,
}

impl<'a> Publisher<'a> {
    /// `number` counts the listener's connections; `keep_alive` is the client's, in seconds, 0 for none.
    pub(super) fn new(hall: &'a Hall, wire: &'a mut Wire, seat: &'a Seat, number: u64, keep_alive: u16) -> Self {
        let settings = &hall.settings;
        let (counter, tickets) = mpsc::channel(settings.max_unacknowledged.max(1));
        let patience = match keep_alive {
            0 => settings.idle_timeout,
            seconds => Duration::from_millis(u64::from(seconds) * 1500),
        };
        Self {
            hall,
            wire,
            seat,
            number,
            patience,
            silent_until: Instant::now() + patience,
            counter,
            tickets,
            outstanding: Outstanding::new(),
            unawaited: Unawaited::default(),
            held: None,
            stop: None,
            all_back: false,
            subscribe_said: false,
        }
    }

    /// Serves the client until it leaves. At the limit of unacknowledged messages it is not read, so that TCP holds it up.
    pub(super) async fn serve(&mut self, shutdown: &Shutdown) -> Departure {
        loop {
            if let Err(departure) = self.turn(shutdown).await {
                return departure;
            }
        }
    }

    async fn turn(&mut self, shutdown: &Shutdown) -> Result<(), Departure> {
        self.acknowledge().await?;
        let now = Instant::now();
        if self.stop.is_some_and(|until| self.outstanding.is_empty() || self.all_back || until <= now) {
            return Err(Departure::Stopped);
        }
        let hall = self.hall;
        let reads = self.stop.is_none() && self.has_room();
        if !reads {
            // It is we who do not listen.
            self.silent_until = now + self.patience;
        }
        let wake = if reads { self.silent_until } else { self.stop.unwrap_or(self.silent_until) };
        select! {
            biased;
            () = self.seat.wanted() => return Err(Departure::TakenOver),
            () = shutdown.asked(), if self.stop.is_none() => {
                self.held = None;
                // Only the receipts hold the counter's ends from now on: the channel ends with the last of them.
                self.counter = mpsc::channel(1).0;
                self.stop = Some(now + hall.stop_timeout);
            }
            ticket = self.tickets.recv() => match ticket {
                Some(ticket) => self.redeem(ticket),
                None => self.all_back = true,
            },
            place = hall.raws.reserve(), if self.held.is_some() => {
                let place = place.map_err(|_| Departure::Stopped)?;
                if let Some((raw, packet_id)) = self.held.take() {
                    self.remember(&raw, packet_id);
                    place.send(raw);
                }
            }
            all = hall.raws.reserve_many(hall.raws.max_capacity()), if self.held.is_none() && self.must_settle() => {
                let _ = all.map_err(|_| Departure::Stopped)?;
                self.unawaited.forget();
            }
            packet = self.wire.read(), if reads => {
                self.silent_until = now + self.patience;
                match packet.map_err(fault)? {
                    Some(packet) => self.handle(packet).await?,
                    None => return Err(Departure::Closed),
                }
            }
            () = sleep_until(wake) => if reads {
                return Err(Departure::Silent(self.patience));
            }
        }
        Ok(())
    }

    async fn handle(&mut self, packet: Packet) -> Result<(), Departure> {
        match packet {
            Packet::Publish(publish) => self.receive(publish),
            Packet::PingReq => self.wire.send(&Packet::PingResp).await.map_err(fault),
            Packet::Disconnect => Err(Departure::Orderly),
            Packet::Subscribe(subscribe) => {
                self.note_subscribe(&subscribe.filters[0].path);
                let refused = vec![SubscribeReasonCode::Failure; subscribe.filters.len()];
                self.wire.send(&Packet::SubAck(SubAck::new(subscribe.pkid, refused))).await.map_err(fault)
            }
            Packet::Unsubscribe(unsubscribe) => {
                self.wire.send(&Packet::UnsubAck(UnsubAck::new(unsubscribe.pkid))).await.map_err(fault)
            }
            Packet::Connect(_) => Err(unexpected("a second CONNECT")),
            Packet::ConnAck(_) => Err(unexpected("CONNACK")),
            Packet::PubAck(_) => Err(unexpected("PUBACK")),
            Packet::PubRec(_) => Err(unexpected("PUBREC")),
            Packet::PubRel(_) => Err(unexpected("PUBREL")),
            Packet::PubComp(_) => Err(unexpected("PUBCOMP")),
            Packet::SubAck(_) => Err(unexpected("SUBACK")),
            Packet::UnsubAck(_) => Err(unexpected("UNSUBACK")),
            Packet::PingResp => Err(unexpected("PINGRESP")),
        }
    }

    fn receive(&mut self, publish: Publish) -> Result<(), Departure> {
        let metrics = &self.hall.metrics;
        metrics.received.one();
        if publish.qos == QoS::ExactlyOnce {
            return Err(Departure::Fault(Fault::QoS2(shortened(&publish.topic))));
        }
        if !filter::is_topic(&publish.topic) {
            return Err(Departure::Fault(Fault::Topic(shortened(&publish.topic))));
        }
        let packet_id = (publish.qos == QoS::AtLeastOnce).then_some(publish.pkid);
        if publish.dup && self.is_outstanding(&publish) {
            // One acknowledgement, after the commit, answers both.
            metrics.redelivered.one();
            return Ok(());
        }
        if !filter::any_matches(&self.hall.settings.topics, &publish.topic) {
            self.hall.note_ignored(&self.seat.client_id, &publish.topic);
            if let Some(packet_id) = packet_id {
                let ordinal = self.outstanding.push(packet_id, 0, (String::new(), Bytes::new()));
                self.outstanding.redeem(ordinal);
            }
            return Ok(());
        }
        if packet_id.is_none() {
            self.hall.note_qos0(&self.seat.client_id, &publish.topic);
        }
        let raw = self.raw(publish, packet_id);
        self.hand_on(raw, packet_id)
    }

    /// A client may repeat a message on the same connection while it waits for the acknowledgement.
    fn is_outstanding(&self, publish: &Publish) -> bool {
        publish.qos == QoS::AtLeastOnce
            && self
                .outstanding
                .find(publish.pkid)
                .is_some_and(|(topic, payload)| *topic == publish.topic && *payload == publish.payload)
    }

    fn raw(&self, publish: Publish, packet_id: Option<u16>) -> Raw {
        Raw {
            kind: Kind::Measured,
            source: Arc::clone(&self.hall.name),
            topic: publish.topic,
            payload: publish.payload,
            received: self.hall.clock.now(),
            delivery: Delivery {
                sender: Arc::clone(&self.seat.client_id),
                packet_id,
                dup: publish.dup,
                // RETAIN from a publisher asks a broker to keep the message; it does not make it an old one.
                retain: false,
                session: 0,
            },
            receipt: self.outstanding.receipt(packet_id, self.number, &self.counter),
        }
    }

    fn hand_on(&mut self, raw: Raw, packet_id: Option<u16>) -> Result<(), Departure> {
        let raws = &self.hall.raws;
        if packet_id.is_none() {
            self.unawaited.add(raw.topic.len() + raw.payload.len(), raws);
        }
        match raws.try_reserve() {
            Ok(place) => {
                self.remember(&raw, packet_id);
                place.send(raw);
            }
            Err(TrySendError::Full(())) => self.held = Some((raw, packet_id)),
            Err(TrySendError::Closed(())) => return Err(Departure::Stopped),
        }
        Ok(())
    }

    fn remember(&mut self, raw: &Raw, packet_id: Option<u16>) {
        if let Some(packet_id) = packet_id {
            let bytes = raw.topic.len() + raw.payload.len();
            self.outstanding.push(packet_id, bytes, (raw.topic.clone(), raw.payload.clone()));
        }
    }

    /// Whether another message may be taken: at most `max_unacknowledged` of them, and at most `max_packet_size` bytes
    /// before the last.
    fn has_room(&self) -> bool {
        let settings = &self.hall.settings;
        self.held.is_none()
            && self.outstanding.len() < settings.max_unacknowledged
            && self.outstanding.bytes() < settings.max_packet_size
            && !self.must_settle()
    }

    fn must_settle(&self) -> bool {
        self.unawaited.bytes() >= self.hall.settings.max_packet_size
    }

    fn redeem(&mut self, ticket: Ticket) {
        if ticket.connection == self.number {
            self.outstanding.redeem(ticket.ordinal);
        }
    }

    /// Takes what tickets there are, and sends every acknowledgement whose turn has come.
    async fn acknowledge(&mut self) -> Result<(), Departure> {
        while let Ok(ticket) = self.tickets.try_recv() {
            self.redeem(ticket);
        }
        let mut count = 0;
        while let Some(packet_id) = self.outstanding.due() {
            self.wire.write(&Packet::PubAck(PubAck::new(packet_id))).map_err(fault)?;
            self.outstanding.acknowledged();
            count += 1;
        }
        if count > 0 {
            self.wire.flush().await.map_err(fault)?;
            self.hall.metrics.acknowledged.add(count);
        }
        Ok(())
    }

    fn note_subscribe(&mut self, filter: &str) {
        let (source, client_id) = (&*self.hall.name, &*self.seat.client_id);
        if self.subscribe_said {
            debug!(source, client_id, filter, "SUBSCRIBE refused");
        } else {
            self.subscribe_said = true;
            warn!(source, client_id, filter, "SUBSCRIBE refused: this is no broker, it only takes readings");
        }
    }
}

fn fault(error: FrameError) -> Departure {
    Departure::Fault(Fault::Frame(error))
}

/// For a line in the log.
fn shortened(topic: &str) -> String {
    topic.chars().take(100).collect()
}

fn unexpected(packet: &'static str) -> Departure {
    Departure::Fault(Fault::Unexpected(packet))
}

//! Mosquitto as far as one persistent session goes: QoS 1, a window, redelivery in order.

use std::collections::VecDeque;

use bytes::Bytes;

/// Messages that are on their way at most.
pub const WINDOW: usize = 8;

/// So few that each is soon used again.
const PACKET_IDS: u16 = 30;

#[derive(Debug, Clone)]
pub struct Delivered {
    pub payload: Bytes,
    pub packet_id: u16,
    pub dup: bool,
    pub connection: u64,
    pub ordinal: u64,
}

#[derive(Debug)]
struct Sent {
    payload: Bytes,
    packet_id: u16,
    /// On an earlier connection already.
    before: bool,
}

#[derive(Debug)]
pub struct Broker {
    waiting: VecDeque<Bytes>,
    sent: VecDeque<Sent>,
    /// Of `sent`, so many went over this connection.
    over: usize,
    connection: u64,
    delivered: u64,
    acknowledged: u64,
    last_id: u16,
}

impl Broker {
    pub fn new() -> Self {
        Self {
            waiting: VecDeque::new(),
            sent: VecDeque::new(),
            over: 0,
            connection: 1,
            delivered: 0,
            acknowledged: 0,
            last_id: 0,
        }
    }

    pub fn publish(&mut self, payload: Bytes) {
        self.waiting.push_back(payload);
    }

    /// Whether every message was acknowledged.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.sent.is_empty()
    }

    /// The connection is cut: what is not acknowledged comes again on the next one.
    pub fn cut(&mut self) {
        self.connection += 1;
        (self.over, self.delivered, self.acknowledged) = (0, 0, 0);
        self.sent.iter_mut().for_each(|sent| sent.before = true);
    }

    /// It is killed, and sends again from its store as if for the first time.
    pub fn kill(&mut self) {
        self.cut();
        for place in 0..self.sent.len() {
            let packet_id = self.packet_id();
            self.sent[place].packet_id = packet_id;
            self.sent[place].before = false;
        }
    }

    pub fn deliver(&mut self) -> Option<Delivered> {
        if self.over == self.sent.len() {
            if self.sent.len() == WINDOW {
                return None;
            }
            let payload = self.waiting.pop_front()?;
            let packet_id = self.packet_id();
            self.sent.push_back(Sent { payload, packet_id, before: false });
        }
        let sent = &self.sent[self.over];
        self.over += 1;
        self.delivered += 1;
        Some(Delivered {
            payload: sent.payload.clone(),
            packet_id: sent.packet_id,
            dup: sent.before,
            connection: self.connection,
            ordinal: self.delivered - 1,
        })
    }

    /// PUBACKs come in the order of the messages, and only on the connection that brought them.
    pub fn acknowledge(&mut self, connection: u64, ordinal: u64) {
        if connection != self.connection {
            return;
        }
        assert_eq!(ordinal, self.acknowledged, "acknowledged out of order");
        self.acknowledged += 1;
        self.over -= 1;
        self.sent.pop_front();
    }

    fn packet_id(&mut self) -> u16 {
        self.last_id = self.last_id % PACKET_IDS + 1;
        self.last_id
    }
}

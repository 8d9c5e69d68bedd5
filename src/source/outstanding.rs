//! What one connection brought and has not acknowledged yet, in order of arrival. Receipts may come back in any order;
//! acknowledgements leave in this one.

use std::collections::VecDeque;

use tokio::sync::mpsc::Sender;

use crate::receipt::{Receipt, Ticket};
use crate::source::Raw;

/// The unacknowledged messages of one connection, each with what the connection wants to remember of it.
#[derive(Debug)]
pub(super) struct Outstanding<T> {
    /// The front's ordinal.
    first: u64,
    messages: VecDeque<Message<T>>,
    bytes: usize,
}

#[derive(Debug)]
struct Message<T> {
    packet_id: u16,
    bytes: usize,
    /// Whether it may be acknowledged as soon as those before it are.
    redeemed: bool,
    memory: T,
}

impl<T> Outstanding<T> {
    pub(super) fn new() -> Self {
        Self { first: 0, messages: VecDeque::new(), bytes: 0 }
    }

    /// The ordinal that the next message gets.
    pub(super) fn next(&self) -> u64 {
        self.first + self.messages.len() as u64
    }

    /// The right to acknowledge the next message on `connection`, where its sender waits for that.
    pub(super) fn receipt(&self, packet_id: Option<u16>, connection: u64, counter: &Sender<Ticket>) -> Receipt {
        match packet_id {
            None => Receipt::unneeded(),
            Some(_) => Receipt::new(counter.clone(), Ticket { connection, ordinal: self.next() }),
        }
    }

    /// Takes a message of `bytes` in; returns its ordinal.
    pub(super) fn push(&mut self, packet_id: u16, bytes: usize, memory: T) -> u64 {
        let ordinal = self.next();
        self.messages.push_back(Message { packet_id, bytes, redeemed: false, memory });
        self.bytes += bytes;
        ordinal
    }

    /// The message may be acknowledged. An unknown ordinal is ignored.
    pub(super) fn redeem(&mut self, ordinal: u64) {
        let place = ordinal.checked_sub(self.first).and_then(|place| usize::try_from(place).ok());
        if let Some(message) = place.and_then(|place| self.messages.get_mut(place)) {
            message.redeemed = true;
        }
    }

    /// The packet identifier to acknowledge next, if its turn has come.
    pub(super) fn due(&self) -> Option<u16> {
        self.messages.front().filter(|message| message.redeemed).map(|message| message.packet_id)
    }

    /// The one that was due is acknowledged.
    pub(super) fn acknowledged(&mut self) {
        if let Some(message) = self.messages.pop_front() {
            self.first += 1;
            self.bytes -= message.bytes;
        }
    }

    /// Messages not yet acknowledged.
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Bytes of the messages not yet acknowledged.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What is remembered of the latest message with this packet identifier.
    pub(super) fn find(&self, packet_id: u16) -> Option<&T> {
        self.messages.iter().rev().find(|message| message.packet_id == packet_id).map(|message| &message.memory)
    }
}

/// Bytes of messages handed over without a receipt since the channel was last seen empty: QoS 0 messages never come
/// back, and would otherwise be bounded by their number alone.
#[derive(Debug, Default)]
pub(super) struct Unawaited(usize);

impl Unawaited {
    /// A message of `bytes` is about to be sent on `raws`.
    pub(super) fn add(&mut self, bytes: usize, raws: &Sender<Raw>) {
        if raws.capacity() == raws.max_capacity() {
            self.0 = 0;
        }
        self.0 += bytes;
    }

    pub(super) fn bytes(&self) -> usize {
        self.0
    }

    /// `raws` was empty.
    pub(super) fn forget(&mut self) {
        self.0 = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Promise 1: in whatever order receipts come back, acknowledgements leave in arrival order, each once, and none
        /// before its receipt.
        #[test]
        fn acknowledgements_leave_in_arrival_order(
            order in Just((0u64..40).collect::<Vec<_>>()).prop_shuffle(),
            unknown in 40u64..,
        ) {
            let mut outstanding = Outstanding::new();
            let mut sent = Vec::new();
            let mut redeemed = Vec::new();
            for n in 0..40 {
                prop_assert_eq!(outstanding.push(n as u16 + 1, 10, ()), n);
            }
            outstanding.redeem(unknown);
            for ordinal in order {
                outstanding.redeem(ordinal);
                redeemed.push(ordinal);
                while let Some(packet_id) = outstanding.due() {
                    prop_assert!(redeemed.contains(&(u64::from(packet_id) - 1)));
                    sent.push(packet_id);
                    outstanding.acknowledged();
                }
            }
            prop_assert_eq!(sent, (1..=40).collect::<Vec<u16>>());
            prop_assert!(outstanding.is_empty() && outstanding.bytes() == 0);
        }
    }
}

//! The right to tell a sender "you may forget this".
//!
//! A receipt travels with its message from the source to the queue. The queue's writer redeems it after the commit
//! that holds the message has returned; dropped unused, it acknowledges nothing, and the sender keeps the message.

use tokio::sync::mpsc;

/// What a redeemed receipt brings back to the source that gave it out.
///
/// `connection` names the connection on which the message came: a source ignores tickets of an earlier connection, so
/// that an acknowledgement never goes out on a connection that did not bring the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// Number of the connection, counted by the source from 1.
    pub connection: u64,
    /// Position of the message on that connection, counted by the source from 0.
    pub ordinal: u64,
}

/// The right to acknowledge one message.
///
/// Joined ones ([`Receipt::and`]) are redeemed together: several messages became one record.
#[derive(Debug)]
#[must_use = "a receipt that is dropped acknowledges nothing"]
pub struct Receipt {
    first: Option<(mpsc::Sender<Ticket>, Ticket)>,
    /// Empty unless receipts were joined.
    more: Vec<(mpsc::Sender<Ticket>, Ticket)>,
}

impl Receipt {
    /// A receipt that comes back through `counter`.
    ///
    /// The source gives out no more unredeemed receipts than `counter` has capacity, so that redeeming never waits.
    pub fn new(counter: mpsc::Sender<Ticket>, ticket: Ticket) -> Self {
        Self { first: Some((counter, ticket)), more: Vec::new() }
    }

    /// A receipt for a message whose sender expects none (QoS 0).
    pub fn unneeded() -> Self {
        Self { first: None, more: Vec::new() }
    }

    /// One receipt for the messages of both, `later` redeemed after this one.
    pub fn and(mut self, later: Self) -> Self {
        if self.first.is_none() {
            return later;
        }
        self.more.extend(later.first);
        self.more.extend(later.more);
        self
    }

    /// True where somebody waits for this receipt.
    pub fn is_awaited(&self) -> bool {
        self.first.is_some()
    }

    /// Tells the source that the message is on disk. Never blocks: a source that has gone, or whose counter is full
    /// because it broke its own limit, is told nothing, and its sender sends again.
    pub fn redeem(self) {
        for (counter, ticket) in self.first.into_iter().chain(self.more) {
            let _ = counter.try_send(ticket);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Promise 1: nothing is acknowledged by accident.
    #[test]
    fn dropped_receipt_acknowledges_nothing() {
        let (counter, mut tickets) = mpsc::channel(4);
        let ticket = Ticket { connection: 1, ordinal: 0 };
        drop(Receipt::new(counter.clone(), ticket));
        assert!(tickets.try_recv().is_err());
        Receipt::new(counter, ticket).redeem();
        assert_eq!(tickets.try_recv(), Ok(ticket));
    }

    /// Promise 1: a reading made of several messages acknowledges each of them, in the order in which they came.
    #[test]
    fn joined_receipts_are_redeemed_together() {
        let (counter, mut tickets) = mpsc::channel(4);
        let receipt = |ordinal| Receipt::new(counter.clone(), Ticket { connection: 1, ordinal });
        drop(receipt(0).and(receipt(1)));
        assert!(tickets.try_recv().is_err());
        let joined = Receipt::unneeded().and(receipt(2)).and(Receipt::unneeded()).and(receipt(3).and(receipt(4)));
        assert!(joined.is_awaited());
        joined.redeem();
        let redeemed: Vec<u64> = std::iter::from_fn(|| tickets.try_recv().ok()).map(|ticket| ticket.ordinal).collect();
        assert_eq!(redeemed, [2, 3, 4]);
    }
}

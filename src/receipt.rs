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
#[derive(Debug)]
#[must_use = "a receipt that is dropped acknowledges nothing"]
pub struct Receipt(Option<(mpsc::Sender<Ticket>, Ticket)>);

impl Receipt {
    /// A receipt that comes back through `counter`.
    ///
    /// The source gives out no more unredeemed receipts than `counter` has capacity, so that redeeming never waits.
    pub fn new(counter: mpsc::Sender<Ticket>, ticket: Ticket) -> Self {
        Self(Some((counter, ticket)))
    }

    /// A receipt for a message whose sender expects none (QoS 0).
    pub fn unneeded() -> Self {
        Self(None)
    }

    /// True where somebody waits for this receipt.
    pub fn is_awaited(&self) -> bool {
        self.0.is_some()
    }

    /// Tells the source that the message is on disk. Never blocks: a source that has gone, or whose counter is full
    /// because it broke its own limit, is told nothing, and its sender sends again.
    pub fn redeem(mut self) {
        if let Some((counter, ticket)) = self.0.take() {
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
}

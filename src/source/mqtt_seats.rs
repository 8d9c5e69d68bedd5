//! Who is connected to the listener: one seat for each client id. A second client with the same id takes the seat over
//! once the first has left it, so that the messages of the two do not mix.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// The seats of one listener.
#[derive(Debug)]
pub(super) struct Seats {
    max: usize,
    taken: Mutex<HashMap<Arc<str>, Place>>,
}

#[derive(Debug, Clone)]
struct Place {
    /// Asks who sits there to leave.
    leave: CancellationToken,
    /// Told when it has left.
    left: CancellationToken,
}

/// One client's seat; dropped, it is free.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) client_id: Arc<str>,
    place: Place,
    seats: Arc<Seats>,
}

/// Every seat is taken by another client.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Seats {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, taken: Mutex::default() })
    }

    /// Takes a seat, from an earlier client of the same id if there is one.
    ///
    /// # Cancel safety
    ///
    /// May be dropped: no seat is taken then, but an earlier client may have been asked to leave.
    pub(super) async fn take(self: &Arc<Self>, client_id: &Arc<str>) -> Result<Seat, Full> {
        loop {
            let earlier = match self.try_take(client_id)? {
                Ok(seat) => return Ok(seat),
                Err(earlier) => earlier,
            };
            earlier.leave.cancel();
            earlier.left.cancelled().await;
        }
    }

    fn try_take(self: &Arc<Self>, client_id: &Arc<str>) -> Result<Result<Seat, Place>, Full> {
        let mut taken = self.lock();
        if let Some(earlier) = taken.get(client_id) {
            return Ok(Err(earlier.clone()));
        }
        if taken.len() >= self.max {
            return Err(Full);
        }
        let place = Place { leave: CancellationToken::new(), left: CancellationToken::new() };
        taken.insert(Arc::clone(client_id), place.clone());
        Ok(Ok(Seat { client_id: Arc::clone(client_id), place, seats: Arc::clone(self) }))
    }

    /// Seats taken.
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Nothing panics while it holds the lock, and the map would be whole if it did.
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Place>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Returns once another client wants the seat.
    ///
    /// # Cancel safety
    ///
    /// May be dropped and called again.
    pub(super) async fn wanted(&self) {
        self.place.leave.cancelled().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.lock().remove(&self.client_id);
        self.place.left.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Promise 4: a client's second connection begins when the first has ended, never beside it.
    #[tokio::test]
    async fn second_client_waits_until_the_first_has_left() {
        let seats = Seats::new(1);
        let id: Arc<str> = "sma_1".into();
        let first = seats.take(&id).await.expect("a free seat");
        let second = tokio::spawn({
            let (seats, id) = (Arc::clone(&seats), Arc::clone(&id));
            async move { seats.take(&id).await }
        });
        first.wanted().await;
        assert!(!second.is_finished());
        drop(first);
        let second = second.await.expect("no panic").expect("the same seat");
        assert_eq!(seats.take(&"sma_2".into()).await.err(), Some(Full), "promise 6: no more clients than max_clients");
        drop(second);
        assert_eq!(seats.len(), 0);
    }
}

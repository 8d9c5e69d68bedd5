//! What was handed to the network and is not acknowledged yet, in order. Kept here and not in the client library, which
//! forgets it where the broker has lost the session.

use std::collections::VecDeque;

use bytes::Bytes;

/// One document on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Flight {
    /// None until it was written to the connection.
    pub(super) packet_id: Option<u16>,
    pub(super) topic: String,
    pub(super) payload: Bytes,
    /// How often it was written to a connection.
    pub(super) sends: u32,
}

#[derive(Debug, Default)]
pub(super) struct Flights(VecDeque<Flight>);

impl Flights {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn push(&mut self, topic: String, payload: Bytes) {
        self.0.push_back(Flight { packet_id: None, topic, payload, sends: 0 });
    }

    /// The next document was written with this packet id; 0: with QoS 0, and nobody will acknowledge it.
    pub(super) fn sent(&mut self, packet_id: u16) -> Option<Flight> {
        if packet_id == 0 {
            return self.0.pop_front();
        }
        let again = self.0.iter().position(|flight| flight.packet_id == Some(packet_id));
        let next = again.or_else(|| self.0.iter().position(|flight| flight.packet_id.is_none()))?;
        let flight = self.0.get_mut(next)?;
        flight.packet_id = Some(packet_id);
        flight.sends += 1;
        None
    }

    /// The broker has it.
    pub(super) fn acknowledged(&mut self, packet_id: u16) -> Option<Flight> {
        let position = self.0.iter().position(|flight| flight.packet_id == Some(packet_id))?;
        self.0.remove(position)
    }

    /// All that must be sent again on a new connection, in order: under their old packet ids where the broker still
    /// knows the session (MQTT 3.1.1, 4.4), as new messages where it does not.
    pub(super) fn again(&mut self, session_present: bool) -> impl Iterator<Item = &Flight> {
        if !session_present {
            self.0.iter_mut().for_each(|flight| flight.packet_id = None);
        }
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn payloads(flights: &mut Flights, session_present: bool) -> Vec<(Option<u16>, Bytes)> {
        flights.again(session_present).map(|flight| (flight.packet_id, flight.payload.clone())).collect()
    }

    /// Promise 3: "published" means acknowledged; what was not is sent again, in order.
    #[test]
    fn what_is_not_acknowledged_is_sent_again_in_order() {
        let mut flights = Flights::default();
        for payload in ["a", "b", "c"] {
            flights.push("sma".to_owned(), Bytes::from(payload));
        }
        assert!(flights.sent(1).is_none() && flights.sent(2).is_none());
        assert_eq!(flights.acknowledged(1).map(|flight| flight.payload), Some(Bytes::from("a")));
        assert_eq!(flights.acknowledged(1), None, "an acknowledgement counts once");
        assert_eq!(payloads(&mut flights, true), [(Some(2), Bytes::from("b")), (None, Bytes::from("c"))]);
        assert!(flights.sent(2).is_none() && flights.sent(3).is_none());
        let again = flights.acknowledged(2).expect("b");
        assert_eq!((again.payload, again.sends), (Bytes::from("b"), 2));
        assert_eq!(payloads(&mut flights, false), [(None, Bytes::from("c"))]);
    }

    proptest! {
        /// Promise 3: however often the connection breaks, each document is acknowledged once.
        #[test]
        fn each_document_is_acknowledged_once(steps in proptest::collection::vec(0u8..10, 1..300)) {
            let mut flights = Flights::default();
            let (mut pushed, mut acknowledged, mut next_id) = (0u32, Vec::new(), 1u16);
            let mut written = VecDeque::new();
            for step in steps {
                match step {
                    0..=4 => {
                        flights.push("sma".to_owned(), Bytes::from(pushed.to_string()));
                        pushed += 1;
                        flights.sent(next_id);
                        written.push_back(next_id);
                        next_id += 1;
                    }
                    5..=8 => {
                        let flight = written.pop_front().and_then(|id| flights.acknowledged(id));
                        acknowledged.extend(flight.map(|flight| flight.payload));
                    }
                    _ => {
                        let again: Vec<Option<u16>> = flights.again(step == 8).map(|flight| flight.packet_id).collect();
                        written.clear();
                        for id in again {
                            let id = id.unwrap_or_else(|| { next_id += 1; next_id - 1 });
                            flights.sent(id);
                            written.push_back(id);
                        }
                    }
                }
            }
            for id in written {
                acknowledged.extend(flights.acknowledged(id).map(|flight| flight.payload));
            }
            let expected: Vec<Bytes> = (0..pushed).map(|n| Bytes::from(n.to_string())).collect();
            prop_assert_eq!(acknowledged, expected);
            prop_assert!(flights.is_empty());
        }
    }
}

//! A redelivery is not a new reading: the window of messages by which a source's redeliveries are recognised.
//!
//! After a reconnect or a crash the sender sends again what was stored here but whose acknowledgement it has not seen.
//! Two things show a redelivery, and nothing else does:
//!
//! - the DUP flag, with topic and payload of the *latest* message under the same packet identifier of the same
//!   sender's session (MQTT 3.1.1, 4.4): a later message under that identifier shows that the earlier one was
//!   acknowledged, and so does a lost session;
//! - equal topic and payload where the document identifies itself, whatever the flags, because a broker that was
//!   killed may send again as if for the first time. The sender is not compared: the device is named by the content,
//!   and one without a client id of its own comes back under another name.
//!
//! The DUP flag alone never drops anything. Pure.

use std::collections::{HashMap, VecDeque};

use crate::reading::{Fingerprint, Mark};
use crate::source::Delivery;

/// What [`Window::judge`] finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// To be stored; the window remembers it.
    New,
    /// Stored already, or waiting for its commit: to be acknowledged once that commit has returned, not to be stored.
    Redelivery,
}

/// The last messages of one source, at most `capacity` of them.
#[derive(Debug)]
pub struct Window {
    capacity: usize,
    /// In order of arrival; the front has the number `first`.
    marks: VecDeque<Mark>,
    first: u64,
    /// How many of `marks` have this content.
    contents: HashMap<Fingerprint, usize>,
    /// Only senders that stand in `marks`.
    senders: HashMap<Fingerprint, Sender>,
}

#[derive(Debug, Default)]
struct Sender {
    session: u64,
    /// How many of `marks` are this sender's.
    marks: usize,
    /// Number of the latest message under each packet identifier of the session.
    latest: HashMap<u16, u64>,
}

impl Window {
    /// A window that remembers `marks`, the oldest first, as messages of every sender's session 0.
    pub fn new(capacity: usize, marks: impl IntoIterator<Item = Mark>) -> Self {
        let mut window =
            Self { capacity, marks: VecDeque::new(), first: 0, contents: HashMap::new(), senders: HashMap::new() };
        for mark in marks {
            window.remember(0, mark);
        }
        window
    }

    /// Whether a message was delivered before. Remembers it if not. `mark` must be that of `delivery`.
    pub fn judge(&mut self, delivery: &Delivery, mark: Mark) -> Verdict {
        self.enter_session(mark.sender, delivery.session);
        if delivery.dup && self.is_latest(&mark) {
            return Verdict::Redelivery;
        }
        if mark.self_identified && self.contents.contains_key(&mark.content) {
            self.forget_other_content(&mark);
            return Verdict::Redelivery;
        }
        self.remember(delivery.session, mark);
        Verdict::New
    }

    /// Messages remembered.
    pub fn len(&self) -> usize {
        self.marks.len()
    }

    /// True where none is remembered.
    pub fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// What is remembered, the oldest first: what the window is made of again after a restart.
    pub fn marks(&self) -> impl Iterator<Item = &Mark> {
        self.marks.iter()
    }

    fn enter_session(&mut self, sender: Fingerprint, session: u64) {
        if let Some(sender) = self.senders.get_mut(&sender)
            && sender.session != session
        {
            sender.session = session;
            sender.latest.clear();
        }
    }

    fn is_latest(&self, mark: &Mark) -> bool {
        self.latest(mark).is_some_and(|latest| latest.content == mark.content)
    }

    fn latest(&self, mark: &Mark) -> Option<&Mark> {
        let number = self.senders.get(&mark.sender)?.latest.get(&mark.packet_id?)?;
        self.marks.get(usize::try_from(number - self.first).ok()?)
    }

    /// A redelivery under a new packet identifier shows that the message before under that identifier was acknowledged.
    fn forget_other_content(&mut self, mark: &Mark) {
        if self.is_latest(mark) {
            return;
        }
        if let (Some(sender), Some(packet_id)) = (self.senders.get_mut(&mark.sender), mark.packet_id) {
            sender.latest.remove(&packet_id);
        }
    }

    fn remember(&mut self, session: u64, mark: Mark) {
        if self.capacity == 0 {
            return;
        }
        if self.marks.len() == self.capacity {
            self.forget_oldest();
        }
        let number = self.first + self.marks.len() as u64;
        *self.contents.entry(mark.content).or_default() += 1;
        let sender = self.senders.entry(mark.sender).or_insert_with(|| Sender { session, ..Sender::default() });
        sender.marks += 1;
        if let Some(packet_id) = mark.packet_id {
            sender.latest.insert(packet_id, number);
        }
        self.marks.push_back(mark);
    }

    fn forget_oldest(&mut self) {
        let Some(mark) = self.marks.pop_front() else { return };
        let number = self.first;
        self.first += 1;
        if let Some(count) = self.contents.get_mut(&mark.content) {
            *count -= 1;
            if *count == 0 {
                self.contents.remove(&mark.content);
            }
        }
        if let Some(sender) = self.senders.get_mut(&mark.sender) {
            sender.marks -= 1;
            if let Some(packet_id) = mark.packet_id
                && sender.latest.get(&packet_id) == Some(&number)
            {
                sender.latest.remove(&packet_id);
            }
            if sender.marks == 0 {
                self.senders.remove(&mark.sender);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    /// One message as the tests write it.
    #[derive(Debug, Clone, Copy)]
    struct Message {
        sender: u8,
        packet_id: Option<u16>,
        content: u8,
        dup: bool,
        session: u64,
        self_identified: bool,
    }

    fn message(packet_id: u16, content: u8) -> Message {
        Message { sender: 0, packet_id: Some(packet_id), content, dup: false, session: 0, self_identified: false }
    }

    impl Message {
        fn dup(self) -> Self {
            Self { dup: true, ..self }
        }

        fn parts(&self) -> (Delivery, Mark) {
            let sender: Arc<str> = format!("sender {}", self.sender).into();
            let mark = Mark {
                sender: Fingerprint::of(&[sender.as_bytes()]),
                packet_id: self.packet_id,
                content: Mark::content("sma", &[self.content]),
                self_identified: self.self_identified,
            };
            let (packet_id, dup, session) = (self.packet_id, self.dup, self.session);
            (Delivery { sender, packet_id, dup, retain: false, session }, mark)
        }

        fn judged(&self, window: &mut Window) -> Verdict {
            let (delivery, mark) = self.parts();
            window.judge(&delivery, mark)
        }
    }

    /// Promise 3: what the broker sends again because the PUBACK was lost is stored once.
    #[test]
    fn dup_with_latest_content_is_a_redelivery() {
        let mut window = Window::new(10, []);
        assert_eq!(message(1, 7).judged(&mut window), Verdict::New);
        assert_eq!(message(1, 7).dup().judged(&mut window), Verdict::Redelivery);
        assert_eq!(message(2, 7).dup().judged(&mut window), Verdict::New, "another packet id");
        assert_eq!(message(1, 8).dup().judged(&mut window), Verdict::New, "other content: DUP alone drops nothing");
        assert_eq!(message(1, 7).dup().judged(&mut window), Verdict::New, "replaced by a later message");
        assert_eq!(message(1, 7).judged(&mut window), Verdict::New, "equal content without DUP");
    }

    /// Promise 3: a lost session shows that nothing of it is sent again; what looks alike then is a new reading.
    #[test]
    fn lost_session_forgets_packet_ids() {
        let recovered = message(1, 7).parts().1;
        let mut window = Window::new(10, [recovered]);
        let again = message(1, 7).dup();
        assert_eq!(again.judged(&mut window), Verdict::Redelivery, "recovered marks belong to session 0");
        assert_eq!(Message { session: 1, ..again }.judged(&mut window), Verdict::New);
        assert_eq!(Message { session: 1, ..again }.judged(&mut window), Verdict::Redelivery);
    }

    /// Promise 3: a killed broker sends again with DUP 0; a document that identifies itself is still stored once.
    #[test]
    fn self_identified_content_is_a_redelivery_whatever_the_flags() {
        let mut window = Window::new(10, []);
        let first = Message { self_identified: true, ..message(1, 7) };
        assert_eq!(first.judged(&mut window), Verdict::New);
        for again in [
            first,
            Message { session: 3, ..first },
            Message { packet_id: None, ..first },
            Message { sender: 1, packet_id: Some(9), ..first },
        ] {
            assert_eq!(again.judged(&mut window), Verdict::Redelivery, "{again:?}");
        }
    }

    /// Promise 3: a redelivery under a reused packet id ends what was remembered there, so that a new reading which
    /// equals the one from before is not taken for it.
    #[test]
    fn redelivery_under_another_packet_id_replaces_the_entry() {
        let mut window = Window::new(10, []);
        let document = Message { self_identified: true, ..message(5, 1) };
        assert_eq!(document.judged(&mut window), Verdict::New);
        assert_eq!(message(1, 42).judged(&mut window), Verdict::New);
        assert_eq!(Message { packet_id: Some(1), ..document }.judged(&mut window), Verdict::Redelivery);
        assert_eq!(message(1, 42).dup().judged(&mut window), Verdict::New);
    }

    /// The rules, written down a second time and slowly.
    #[derive(Default)]
    struct Model {
        /// Message, and whether its packet id still counts.
        seen: Vec<(Message, bool)>,
        sessions: HashMap<u8, u64>,
    }

    impl Model {
        fn judge(&mut self, capacity: usize, new: &Message) -> Verdict {
            let start = self.seen.len().saturating_sub(capacity);
            if self.sessions.insert(new.sender, new.session).is_some_and(|known| known != new.session) {
                self.seen
                    .iter_mut()
                    .filter(|(old, _)| old.sender == new.sender)
                    .for_each(|(_, counts)| *counts = false);
            }
            let same_id =
                |old: &Message| new.packet_id.is_some() && old.packet_id == new.packet_id && old.sender == new.sender;
            let latest = self.seen[start..].iter().rev().find(|(old, _)| same_id(old)).filter(|(_, counts)| *counts);
            let by_id = latest.is_some_and(|(old, _)| old.content == new.content);
            if new.dup && by_id {
                return Verdict::Redelivery;
            }
            if new.self_identified && self.seen[start..].iter().any(|(old, _)| old.content == new.content) {
                if !by_id {
                    self.seen.iter_mut().filter(|(old, _)| same_id(old)).for_each(|(_, counts)| *counts = false);
                }
                return Verdict::Redelivery;
            }
            self.seen.push((*new, true));
            Verdict::New
        }
    }

    fn messages() -> impl Strategy<Value = Vec<Message>> {
        // Few values each, so that they meet; the packet ids stand on both sides of the wrap-around.
        let packet_id = prop::sample::select(vec![None, Some(1), Some(2), Some(65_534), Some(65_535)]);
        let message = (0u8..2, packet_id, 0u8..4, any::<bool>(), prop::bool::weighted(0.1), prop::bool::weighted(0.3));
        prop::collection::vec(message, 0..120).prop_map(|list| {
            let mut sessions = [0u64; 2];
            list.into_iter()
                .map(|(sender, packet_id, content, dup, lost, self_identified)| {
                    sessions[usize::from(sender)] += u64::from(lost);
                    Message { sender, packet_id, content, dup, session: sessions[usize::from(sender)], self_identified }
                })
                .collect()
        })
    }

    proptest! {
        /// Promise 3: the window follows its rules for any sequence of messages.
        #[test]
        fn window_agrees_with_the_model(capacity in 0usize..12, messages in messages()) {
            let mut window = Window::new(capacity, []);
            let mut model = Model::default();
            for message in &messages {
                prop_assert_eq!(message.judged(&mut window), model.judge(capacity, message), "{:?}", message);
            }
        }

        /// Promise 6: memory is bounded by the capacity, whatever comes.
        #[test]
        fn window_never_grows_past_its_capacity(capacity in 0usize..12, messages in messages()) {
            let mut window = Window::new(capacity, []);
            for message in &messages {
                let _ = message.judged(&mut window);
                prop_assert!(window.len() <= capacity);
                prop_assert!(window.contents.len() <= window.len());
                prop_assert!(window.senders.len() <= window.len());
                prop_assert!(window.senders.values().map(|sender| sender.latest.len()).sum::<usize>() <= window.len());
            }
        }

        /// Promise 3: a restart changes no verdict as long as the session lives.
        #[test]
        fn window_made_again_from_its_marks_judges_alike(capacity in 1usize..12, messages in messages(), probe in messages()) {
            let alive = |message: &Message| Message { session: 0, self_identified: false, ..*message };
            let mut window = Window::new(capacity, []);
            for message in &messages {
                let _ = alive(message).judged(&mut window);
            }
            let mut restarted = Window::new(capacity, window.marks().copied().collect::<Vec<_>>());
            for message in &probe {
                prop_assert_eq!(alive(message).judged(&mut window), alive(message).judged(&mut restarted));
            }
        }

        /// Promise 3: packet ids wrap around after 65,535 without one message lost or taken for another.
        #[test]
        fn packet_ids_wrap_around(start in 65_000u16..=65_535, count in 600usize..1500) {
            let mut window = Window::new(1_000, []);
            let mut packet_id = start;
            for n in 0..count {
                let new = message(packet_id, (n % 251) as u8);
                prop_assert_eq!(new.dup().judged(&mut window), Verdict::New);
                prop_assert_eq!(new.dup().judged(&mut window), Verdict::Redelivery);
                packet_id = packet_id.checked_add(1).unwrap_or(1);
            }
        }
    }
}

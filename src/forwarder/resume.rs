//! Where to go on: what this queue knows against what Kafka knows. Pure.
//!
//! The resume point is the release point as Kafka keeps it: the group's committed offset for the resume topic's
//! partition 0, with the metadata `<queue id>:<next>:<fingerprint of record next−1>`. A number alone releases nothing.

use std::fmt;
use std::str::FromStr;

use crate::reading::{Fingerprint, QueueId};

/// What is written with every transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResumePoint {
    pub queue_id: QueueId,
    /// The next sequence to be sent; also the offset.
    pub next: u64,
    /// Of the record `next` − 1.
    pub fingerprint: Fingerprint,
}

impl fmt::Display for ResumePoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.queue_id, self.next, self.fingerprint)
    }
}

/// The metadata is not a resume point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a resume point")]
pub struct NotAResumePoint;

impl FromStr for ResumePoint {
    type Err = NotAResumePoint;

    /// Takes only what `Display` writes, so that a foreign text is never taken for ours.
    fn from_str(text: &str) -> Result<Self, NotAResumePoint> {
        let mut parts = text.split(':');
        let (Some(id), Some(next), Some(print), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err(NotAResumePoint);
        };
        let point = Self {
            queue_id: id.parse().map_err(|_| NotAResumePoint)?,
            next: next.parse().map_err(|_| NotAResumePoint)?,
            fingerprint: print.parse().map_err(|_| NotAResumePoint)?,
        };
        if point.to_string() == text { Ok(point) } else { Err(NotAResumePoint) }
    }
}

/// The group's committed offset as Kafka returns it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    pub offset: u64,
    pub metadata: String,
}

impl Committed {
    /// As our point, if it is one of this queue.
    pub fn of_queue(&self, queue_id: QueueId) -> Option<ResumePoint> {
        let point = ResumePoint::from_str(&self.metadata).ok()?;
        (point.queue_id == queue_id && point.next == self.offset && point.next > 0).then_some(point)
    }
}

/// What to do at the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Go on at the local release point; Kafka knows the same, or nothing.
    Resume,
    /// Go on at the local release point; Kafka knows an older one.
    ResumeBehind { kafka: u64 },
    /// Kafka has everything below `next`, proven by the fingerprint: release it and go on there.
    Release { next: u64 },
    /// The numbers do not mean here what Kafka knows by them.
    Fork { why: &'static str },
}

/// The rule. `local` is the local release point; `here` the fingerprint of the record one below Kafka's point, if that
/// record is in the queue.
pub fn decide(queue_id: QueueId, local: u64, kafka: Option<&Committed>, here: Option<Fingerprint>) -> Decision {
    let Some(committed) = kafka else { return Decision::Resume };
    let Some(point) = committed.of_queue(queue_id) else {
        return Decision::Fork { why: "the resume point in Kafka was not written by this queue" };
    };
    match here {
        Some(print) if print != point.fingerprint => {
            Decision::Fork { why: "the record below the resume point in Kafka is another one here" }
        }
        None if point.next > local => Decision::Fork { why: "the record below the resume point in Kafka is not here" },
        _ if point.next > local => Decision::Release { next: point.next },
        _ if point.next < local => Decision::ResumeBehind { kafka: point.next },
        _ => Decision::Resume,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OURS: QueueId = QueueId(7);

    fn print(n: u8) -> Fingerprint {
        Fingerprint([n; 16])
    }

    fn committed(queue_id: QueueId, next: u64, fingerprint: Fingerprint) -> Committed {
        Committed { offset: next, metadata: ResumePoint { queue_id, next, fingerprint }.to_string() }
    }

    /// Promise 2: every case of the rule.
    #[test]
    fn the_rule_case_by_case() {
        let fork = |decision| matches!(decision, Decision::Fork { .. });
        let k = |next| committed(OURS, next, print(1));
        assert_eq!(decide(OURS, 5, None, None), Decision::Resume, "Kafka knows nothing");
        assert_eq!(decide(OURS, 5, Some(&k(5)), Some(print(1))), Decision::Resume);
        assert_eq!(decide(OURS, 5, Some(&k(5)), None), Decision::Resume, "released and gone");
        assert_eq!(decide(OURS, 5, Some(&k(3)), None), Decision::ResumeBehind { kafka: 3 });
        assert_eq!(decide(OURS, 5, Some(&k(9)), Some(print(1))), Decision::Release { next: 9 });
        assert!(fork(decide(OURS, 5, Some(&k(9)), Some(print(2)))), "another record under the same number");
        assert!(fork(decide(OURS, 5, Some(&k(9)), None)), "restored image: the record is not here");
        assert!(fork(decide(OURS, 5, Some(&k(5)), Some(print(2)))));
        assert!(fork(decide(OURS, 5, Some(&k(3)), Some(print(2)))));
        assert!(fork(decide(OURS, 5, Some(&committed(QueueId(8), 9, print(1))), Some(print(1)))));
        for metadata in ["", "7:9", "x:9:1", "reset"] {
            let reset = Committed { offset: 9, metadata: metadata.into() };
            assert!(fork(decide(OURS, 5, Some(&reset), Some(print(1)))), "offsets reset by a tool: {metadata:?}");
        }
        let moved = Committed { offset: 12, ..k(9) };
        assert!(fork(decide(OURS, 5, Some(&moved), Some(print(1)))), "offset and metadata disagree");
    }

    proptest! {
        /// Promise 2: whatever Kafka says, only an equal fingerprint under our queue id releases, and only what is ahead.
        #[test]
        fn nothing_is_released_on_a_number_alone(
            local in 0u64..40, offset in 0u64..40, next in 0u64..40, id in 6u128..9,
            theirs in 0u8..3, here in proptest::option::of(0u8..3), garbled in any::<bool>(), known in any::<bool>(),
        ) {
            let mut metadata = ResumePoint { queue_id: QueueId(id), next, fingerprint: print(theirs) }.to_string();
            if garbled { metadata.push('0'); }
            let kafka = Committed { offset, metadata };
            let decision = decide(OURS, local, known.then_some(&kafka), here.map(print));
            if let Decision::Release { next: released } = decision {
                prop_assert!(known && !garbled && QueueId(id) == OURS);
                prop_assert_eq!(here, Some(theirs));
                prop_assert_eq!(released, offset);
                prop_assert_eq!(released, next);
                prop_assert!(released > local);
            }
        }

        /// Promise 2: the metadata comes back as it was written, and no prefix or other text passes for it.
        #[test]
        fn metadata_round_trip(id: u128, next: u64, bytes: [u8; 16], cut in 1usize..20) {
            let point = ResumePoint { queue_id: QueueId(id), next, fingerprint: Fingerprint(bytes) };
            let text = point.to_string();
            prop_assert_eq!(text.parse::<ResumePoint>(), Ok(point));
            prop_assert!(text[..text.len() - cut].parse::<ResumePoint>().is_err());
        }
    }
}

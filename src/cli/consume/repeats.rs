//! Recognises a record that was seen before, in bounded memory.
//!
//! One queue's sequences rise within a partition, so it is enough to know the newest ones of each queue and partition:
//! whatever is older than all of them has been there before. A topic whose number of partitions changed, and a queue
//! that forked, can repeat a reading unrecognised; so can a restart of the consumer, which forgets all.

use std::collections::{BTreeSet, HashMap};

use super::record::{Event, Record};
use crate::reading::QueueId;

/// Sequences remembered of one queue in one partition: far more than a batch that is sent again out of order.
const REMEMBERED: usize = 1024;

/// Queues times partitions. The one that spoke least recently is forgotten for a new one.
const LINES: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Repeats {
    lines: HashMap<(QueueId, String, i32), Line>,
    /// Counts the records, to know which line spoke least recently.
    now: u64,
}

#[derive(Debug, Default)]
struct Line {
    /// All below counts as seen.
    floor: u64,
    seen: BTreeSet<u64>,
    last: u64,
}

impl Repeats {
    /// Whether `event` was there before in the record's partition; remembers it.
    pub(super) fn is_repeat(&mut self, record: &Record, event: &Event) -> bool {
        self.now += 1;
        let key = (event.queue, record.topic.clone(), record.partition);
        if self.lines.len() >= LINES && !self.lines.contains_key(&key) {
            let oldest = self.lines.iter().min_by_key(|(_, line)| line.last).map(|(key, _)| key.clone());
            oldest.and_then(|key| self.lines.remove(&key));
        }
        let line = self.lines.entry(key).or_default();
        line.last = self.now;
        line.is_repeat(event.sequence)
    }
}

impl Line {
    fn is_repeat(&mut self, sequence: u64) -> bool {
        if sequence < self.floor || !self.seen.insert(sequence) {
            return true;
        }
        if self.seen.len() > REMEMBERED
            && let Some(lowest) = self.seen.pop_first()
        {
            self.floor = lowest + 1;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::record::tests::record;
    use super::*;

    fn event(queue: u128, sequence: u64) -> Event {
        Event { queue: QueueId(queue), sequence }
    }

    proptest! {
        /// Promise 3: a batch sent again is dropped, a new reading never, whatever goes back and forth.
        #[test]
        fn each_sequence_passes_once(jumps in proptest::collection::vec((0u64..400, 1u64..500), 1..60)) {
            let mut repeats = Repeats::default();
            let record = record("k", "v", &[]);
            let mut passed = Vec::new();
            let mut next = 1;
            for (back, length) in jumps {
                let first = u64::max(1, next - u64::min(next, back));
                for sequence in first..next + length {
                    if !repeats.is_repeat(&record, &event(1, sequence)) {
                        passed.push(sequence);
                    }
                }
                next += length;
            }
            prop_assert_eq!(passed, (1..next).collect::<Vec<_>>());
        }
    }

    /// Promise 3: other queues and other partitions have sequences of their own.
    #[test]
    fn queues_and_partitions_are_kept_apart() {
        let mut repeats = Repeats::default();
        let here = record("k", "v", &[]);
        let there = Record { partition: 1, ..here.clone() };
        assert!(!repeats.is_repeat(&here, &event(1, 9)));
        assert!(!repeats.is_repeat(&here, &event(2, 9)));
        assert!(!repeats.is_repeat(&there, &event(1, 9)));
        assert!(!repeats.is_repeat(&there, &event(1, 8)), "a late one within what is remembered is new");
        assert!(repeats.is_repeat(&here, &event(1, 9)));
    }

    /// Promise 6: memory has a limit, whatever comes.
    #[test]
    fn memory_has_a_limit() {
        let mut repeats = Repeats::default();
        let record = record("k", "v", &[]);
        for sequence in 0..10_000 {
            assert!(!repeats.is_repeat(&record, &event(0, sequence)));
        }
        assert!(repeats.lines.values().all(|line| line.seen.len() <= REMEMBERED));
        assert!(repeats.is_repeat(&record, &event(0, 3)), "older than all that is remembered");
        for queue in 1..LINES as u128 + 10 {
            assert!(!repeats.is_repeat(&record, &event(queue, 1)));
        }
        assert!(repeats.lines.len() <= LINES);
    }
}

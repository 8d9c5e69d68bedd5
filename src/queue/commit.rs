//! When a batch is closed: pure, the writer brings the time.
//!
//! A long `commit_delay` spares flash, but a sender with a small window would stand still for as long. So a batch is
//! closed by the first of: the shortest delay that one of its messages allows; half a usual in-flight window waiting;
//! a sign that the sender waits for us: several messages in a row, each within moments of an acknowledgement.

use std::time::{Duration, Instant};

/// Half of Mosquitto's default `max_inflight_messages`.
const WAITING: usize = 10;
/// A message this soon after an acknowledgement was probably held back for it.
const SOON: Duration = Duration::from_millis(50);
/// So many in a row are no accident: at one reading a second and 5 s between commits, one in 8,000 commits.
const SEVERAL: u32 = 3;
/// How long a batch stays open for the rest of a burst, once the sender is known to wait.
const BURST: Duration = Duration::from_millis(5);

/// Decides for one batch after another.
#[derive(Debug, Default)]
pub(super) struct Rule {
    deadline: Option<Instant>,
    waiting: usize,
    soon: u32,
    acknowledged: Option<Instant>,
}

impl Rule {
    /// A message has joined the batch; `awaited`: its sender waits for the acknowledgement.
    pub fn joined(&mut self, now: Instant, awaited: bool, delay: Duration) {
        let mut deadline = now + delay;
        if awaited {
            self.waiting += 1;
            let soon = self.acknowledged.is_some_and(|at| now.saturating_duration_since(at) <= SOON);
            self.soon = if soon { self.soon.saturating_add(1) } else { 0 };
            if self.soon >= SEVERAL {
                deadline = deadline.min(now + BURST);
            }
        }
        self.deadline = Some(self.deadline.map_or(deadline, |earlier| earlier.min(deadline)));
    }

    /// When the batch is to be closed at the latest; none while it is empty.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Whether it is to be closed now.
    pub fn is_closed(&self, now: Instant) -> bool {
        self.waiting >= WAITING || self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// The batch was committed; `acknowledged`: somebody waited for it.
    pub fn committed(&mut self, now: Instant, acknowledged: bool) {
        self.deadline = None;
        self.waiting = 0;
        if acknowledged {
            self.acknowledged = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_secs(5);

    /// Rounds in which a sender with `window` messages in flight waits for all its acknowledgements.
    fn time_for(window: usize, messages: usize) -> Duration {
        let start = Instant::now();
        let (mut rule, mut now, mut sent) = (Rule::default(), start, 0);
        while sent < messages {
            for _ in 0..window.min(messages - sent) {
                now += Duration::from_millis(1);
                rule.joined(now, true, DELAY);
                sent += 1;
            }
            if !rule.is_closed(now) {
                now = rule.deadline().expect("the batch is not empty");
            }
            assert!(rule.is_closed(now));
            rule.committed(now, true);
        }
        now - start
    }

    /// Promise 6: a sender that waits is not held up, however small its window is.
    #[test]
    fn small_windows_are_not_capped_by_the_delay() {
        assert!(time_for(20, 1_000) < Duration::from_secs(6));
        assert!(time_for(5, 1_000) < Duration::from_secs(20));
        assert!(time_for(1, 1_000) < Duration::from_secs(30));
    }

    /// Promise 9: one reading a second costs one commit per delay, not one per reading.
    #[test]
    fn a_steady_meter_is_committed_once_per_delay() {
        let start = Instant::now();
        let mut rule = Rule::default();
        let mut commits = 0;
        for second in 0..1_000u64 {
            let now = start + Duration::from_secs(second);
            while let Some(deadline) = rule.deadline().filter(|deadline| *deadline <= now) {
                rule.committed(deadline, true);
                commits += 1;
            }
            rule.joined(now + Duration::from_millis(second % 7), true, DELAY);
        }
        assert!((160..=200).contains(&commits), "{commits} commits");
    }
}

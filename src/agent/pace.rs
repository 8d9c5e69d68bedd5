//! How many readings a second come in and go out, over the last minute. Pure: the caller brings the time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::metrics::Metrics;

/// What is looked back over. Commits come in steps of up to `queue.commit_delay`, a minute at most.
const SPAN: Duration = Duration::from_secs(60);

/// Counters now and then.
#[derive(Debug, Default)]
pub(super) struct Pace {
    samples: VecDeque<(Instant, u64, u64)>,
}

impl Pace {
    /// Takes the counters and puts the rates into the gauges; once a second.
    pub fn sample(&mut self, now: Instant, metrics: &Metrics) {
        let (stored, sent) = (metrics.queue.stored.get(), metrics.forwarder.sent.get());
        self.samples.push_back((now, stored, sent));
        while self.samples.len() > 2 && self.samples.get(1).is_some_and(|(at, ..)| now.duration_since(*at) >= SPAN) {
            self.samples.pop_front();
        }
        let Some((then, stored_then, sent_then)) = self.samples.front() else { return };
        let milliseconds = u64::try_from(now.duration_since(*then).as_millis()).unwrap_or(u64::MAX).max(1);
        let rate = |count: u64| count.saturating_mul(1_000_000) / milliseconds;
        metrics.queue.stored_rate.set(rate(stored.saturating_sub(*stored_then)));
        metrics.forwarder.sent_rate.set(rate(sent.saturating_sub(*sent_then)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Promise 9: a rate is over the last minute, not since the start, and a burst is not taken for one.
    #[test]
    fn rates_are_of_the_last_minute() {
        let (mut pace, metrics, start) = (Pace::default(), Metrics::default(), Instant::now());
        let rates = || (metrics.queue.stored_rate.get(), metrics.forwarder.sent_rate.get());
        for second in 0..600_u64 {
            metrics.queue.stored.add(if second % 5 == 0 { 10 } else { 0 });
            metrics.forwarder.sent.add(if second < 300 { 100 } else { 0 });
            pace.sample(start + Duration::from_secs(second), &metrics);
        }
        assert_eq!(rates(), (2_000, 0), "thousandths of a reading a second");
        assert!(pace.samples.len() <= 62);
    }
}

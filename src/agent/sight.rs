//! Since when, how long ago and how fast: what no counter tells. Pure: the caller looks once a second and brings the time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::metrics::Metrics;

/// What a rate is taken over.
const SPAN: Duration = Duration::from_secs(60);

/// All sources, and Kafka.
#[derive(Debug, Default)]
pub(super) struct Sight {
    sources: BTreeMap<Arc<str>, Stream>,
    kafka: Stream,
}

/// What is seen of one of them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Seen {
    /// Since it was connected; none while it is not.
    pub connected: Option<Duration>,
    /// Since its last message; none before the first.
    pub silent: Option<Duration>,
    /// Messages a second over the last minute.
    pub per_second: f64,
}

#[derive(Debug, Default)]
struct Stream {
    connected: Option<Instant>,
    connects: u64,
    last: Option<Instant>,
    samples: VecDeque<(Instant, u64)>,
}

impl Sight {
    pub fn look(&mut self, now: Instant, metrics: &Metrics) {
        for (name, source) in &metrics.sources {
            let stream = self.sources.entry(Arc::clone(name)).or_default();
            stream.look(now, source.connected.get(), source.connects.get(), source.received.get());
        }
        let kafka = &metrics.forwarder;
        self.kafka.look(now, kafka.connected.get(), kafka.connects.get(), kafka.sent.get());
    }

    pub fn of(&self, source: &str, now: Instant) -> Seen {
        self.sources.get(source).map_or_else(Seen::default, |stream| stream.seen(now))
    }

    pub fn of_kafka(&self, now: Instant) -> Seen {
        self.kafka.seen(now)
    }
}

impl Stream {
    fn look(&mut self, now: Instant, connected: bool, connects: u64, count: u64) {
        // A connection that was lost and made again between two looks is a new one.
        let anew = self.connects != connects || self.connected.is_none();
        self.connects = connects;
        self.connected = if connected && !anew { self.connected } else { connected.then_some(now) };
        let before = self.samples.back().map_or(0, |(_, count)| *count);
        if count > before {
            self.last = Some(now);
        }
        self.samples.push_back((now, count));
        while self.samples.len() > 2 && self.samples.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= SPAN) {
            self.samples.pop_front();
        }
    }

    fn seen(&self, now: Instant) -> Seen {
        let per_second = match (self.samples.front(), self.samples.back()) {
            (Some((from, low)), Some((to, high))) if to > from => {
                high.saturating_sub(*low) as f64 / to.duration_since(*from).as_secs_f64()
            }
            _ => 0.0,
        };
        Seen {
            connected: self.connected.map(|since| now.saturating_duration_since(since)),
            silent: self.last.map(|last| now.saturating_duration_since(last)),
            per_second,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Promise 9: since when it is connected, when the last message came, how many a second; a short cut is seen.
    #[test]
    fn what_is_seen() {
        let metrics = Metrics::new([&Arc::from("a")].into_iter());
        let (mut sight, start) = (Sight::default(), Instant::now());
        let at = |second| start + Duration::from_secs(second);
        let source = &metrics.sources["a"];
        assert_eq!(sight.of("a", start), Seen::default());
        for second in 0..200 {
            if second == 10 || second == 150 {
                source.connected.set(true);
                source.connects.one();
            }
            source.received.add(if (10..190).contains(&second) { 2 } else { 0 });
            sight.look(at(second), &metrics);
        }
        let seen = sight.of("a", at(200));
        assert_eq!((seen.connected, seen.silent), (Some(Duration::from_secs(50)), Some(Duration::from_secs(11))));
        assert!((1.6..1.7).contains(&seen.per_second), "{seen:?}");
        source.connected.set(false);
        sight.look(at(201), &metrics);
        assert_eq!(sight.of("a", at(201)).connected, None);
        assert!(sight.sources["a"].samples.len() <= 62);
    }
}

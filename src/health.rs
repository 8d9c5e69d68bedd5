//! Whether every stage still moves: the watchdog is fed by work done, not by a timer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// One stage's sign of life.
#[derive(Debug)]
pub struct Pulse {
    stage: String,
    /// The longest the stage may go without one.
    limit: Duration,
    start: Instant,
    /// Milliseconds after `start`.
    last: AtomicU64,
}

impl Pulse {
    /// The stage has come a step further, or has found that there is nothing to do.
    pub fn beat(&self) {
        self.last.store(millis(self.start.elapsed()), Ordering::Relaxed);
    }

    /// Since the last one.
    pub fn silence(&self, now: Instant) -> Duration {
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        now.saturating_duration_since(self.start).saturating_sub(last)
    }
}

/// All stages of the agent.
#[derive(Debug, Default)]
pub struct Health(Vec<Arc<Pulse>>);

impl Health {
    /// A new stage; it counts as alive now.
    pub fn watch(&mut self, stage: &str, limit: Duration) -> Arc<Pulse> {
        let pulse = Arc::new(Pulse { stage: stage.to_owned(), limit, start: Instant::now(), last: AtomicU64::new(0) });
        self.0.push(Arc::clone(&pulse));
        pulse
    }

    /// The stages that have been silent for longer than they may, and for how long.
    pub fn hung(&self, now: Instant) -> Vec<(&str, Duration)> {
        let silent = self.0.iter().map(|pulse| (pulse, pulse.silence(now)));
        silent
            .filter(|(pulse, silence)| *silence > pulse.limit)
            .map(|(pulse, silence)| (pulse.stage.as_str(), silence))
            .collect()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Promise 9: one silent stage is enough, and it is named.
    #[test]
    fn a_silent_stage_is_named() {
        let mut health = Health::default();
        let _queue = health.watch("queue", Duration::from_secs(10));
        let forwarder = health.watch("forwarder", Duration::from_secs(60));
        forwarder.beat();
        let now = Instant::now();
        assert_eq!(health.hung(now), []);
        let hung = health.hung(now + Duration::from_secs(30));
        assert_eq!(hung.iter().map(|(stage, _)| *stage).collect::<Vec<_>>(), ["queue"]);
        assert_eq!(health.hung(now + Duration::from_secs(90)).len(), 2);
    }
}

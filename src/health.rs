//! Whether every stage still moves: the watchdog is fed by work done, not by a timer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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
    /// Since the last sign it has a thread that others want, too.
    holds_thread: AtomicBool,
}

/// A thread that is held for so long is held by something that blocks.
const HELD: Duration = Duration::from_secs(1);

impl Pulse {
    /// The stage has come a step further, or has found that there is nothing to do.
    pub fn beat(&self) {
        self.last.store(millis(self.start.elapsed()), Ordering::Relaxed);
        self.holds_thread.store(false, Ordering::Relaxed);
    }

    /// The stage goes to work on a thread that it shares with others; its next sign gives it back.
    pub fn take_thread(&self) {
        self.beat();
        self.holds_thread.store(true, Ordering::Relaxed);
    }

    /// The longest the stage may go without one.
    pub fn limit(&self) -> Duration {
        self.limit
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
        let pulse = Arc::new(Pulse {
            stage: stage.to_owned(),
            limit,
            start: Instant::now(),
            last: AtomicU64::new(0),
            holds_thread: AtomicBool::new(false),
        });
        self.0.push(Arc::clone(&pulse));
        pulse
    }

    /// The stages because of which there is no sign of life, and for how long: none where every stage has given one in its
    /// time. A stage that holds a thread keeps others from giving theirs, and is named in their stead.
    pub fn hung(&self, now: Instant) -> Vec<(&str, Duration)> {
        let silent: Vec<_> = self.0.iter().map(|pulse| (pulse, pulse.silence(now))).collect();
        if silent.iter().all(|(pulse, silence)| *silence <= pulse.limit) {
            return Vec::new();
        }
        let holds = |pulse: &Pulse, silence| pulse.holds_thread.load(Ordering::Relaxed) && silence > HELD;
        let named = |culprit: &dyn Fn(&Pulse, Duration) -> bool| -> Vec<_> {
            let found = silent.iter().filter(|(pulse, silence)| culprit(pulse, *silence));
            found.map(|(pulse, silence)| (pulse.stage.as_str(), *silence)).collect()
        };
        let holding = named(&holds);
        if holding.is_empty() { named(&|pulse, silence| silence > pulse.limit) } else { holding }
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

    /// Promise 9: a task that blocks the thread on which others should run is named, not they.
    #[test]
    fn who_holds_the_thread_is_named() {
        let mut health = Health::default();
        let source = health.watch("source sma", Duration::from_secs(60));
        let _supervision = health.watch("the supervision", Duration::from_secs(30));
        source.take_thread();
        let now = Instant::now();
        let names = |seconds| {
            let hung = health.hung(now + Duration::from_secs(seconds));
            hung.iter().map(|(stage, _)| (*stage).to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(20), [""; 0]);
        assert_eq!(names(40), ["source sma"]);
        source.beat();
        assert_eq!(names(40), ["the supervision"]);
    }
}

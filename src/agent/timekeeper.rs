//! Sees when somebody sets the wall clock, and what becomes of the forwarder then.
//!
//! librdkafka waits until times of day: its conditions are timed by `CLOCK_REALTIME` (2.12, `tinycthread_extra.c`,
//! `cnd_timedwait_ms`), also where it was asked to wait for a millisecond. A clock that is set back meanwhile makes such a
//! wait as much longer, and nobody can end it from outside.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::info;

use crate::cli::units;
use crate::clock::{self, Clock};
use crate::health::Pulse;
use crate::reading::Received;

/// A wall clock that moves so much against the boot clock from one look to the next was set.
const CLOCK_STEP: Duration = Duration::from_secs(2);
/// Silence of the forwarder after which it is taken for stuck, once the clock was set back.
const STUCK: Duration = Duration::from_secs(10);

/// Looks at the clocks from time to time.
pub(super) struct Timekeeper {
    clock: Clock,
    seen: Received,
    forwarder: Arc<Pulse>,
    /// When it was set back, and by how much.
    back: Option<(Instant, Duration)>,
}

impl Timekeeper {
    pub fn new(clock: Clock, forwarder: Arc<Pulse>) -> Self {
        Self { clock, seen: clock.now(), forwarder, back: None }
    }

    /// Looks at the clocks.
    ///
    /// # Errors
    ///
    /// By how much it was set back, where the forwarder is stuck since.
    pub fn look(&mut self, now: Instant) -> Result<(), Duration> {
        let before = std::mem::replace(&mut self.seen, self.clock.now());
        let set_by_ms = clock::set_by_ms(&before, &self.seen);
        let by = Duration::from_millis(set_by_ms.unsigned_abs());
        if by >= CLOCK_STEP {
            let way = if set_by_ms < 0 { "back" } else { "ahead" };
            info!(way, by = units::duration(by), wall_ms = self.seen.wall_ms, "the clock was set");
        }
        if by >= CLOCK_STEP && set_by_ms < 0 {
            self.back = Some((now, by));
        }
        let Some((_, by)) = self.back.filter(|(since, _)| now.saturating_duration_since(*since) >= STUCK) else {
            return Ok(());
        };
        if self.forwarder.silence(now) >= STUCK {
            return Err(by);
        }
        // It has moved since: it is not stuck.
        self.back = None;
        Ok(())
    }
}

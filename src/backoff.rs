//! Exponential backoff with full jitter: the delay before the n-th retry is uniform between nothing and
//! `min(cap, base × 2^n)`. Pure: the caller brings the random number and does the waiting.

use std::time::Duration;

/// The state of one retry loop.
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    attempt: u32,
}

impl Backoff {
    /// A loop whose first delay is at most `base` and whose later ones are at most `cap`.
    pub fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap, attempt: 0 }
    }

    /// The next delay; `random` is uniform in 0..1. Counts one attempt.
    pub fn next(&mut self, random: f64) -> Duration {
        let ceiling = self.base.saturating_mul(1 << self.attempt.min(20)).min(self.cap);
        self.attempt = self.attempt.saturating_add(1);
        ceiling.mul_f64(random.clamp(0.0, 1.0))
    }

    /// Attempts since the last success.
    pub fn attempts(&self) -> u32 {
        self.attempt
    }

    /// After a success.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Promise 6: no delay passes its cap, however many attempts there were.
        #[test]
        fn delay_never_passes_the_cap(base in 1u64..10_000, cap in 1u64..600_000, attempts in 0usize..200, random in 0.0f64..1.0) {
            let mut backoff = Backoff::new(Duration::from_millis(base), Duration::from_millis(cap));
            for _ in 0..attempts {
                prop_assert!(backoff.next(random) <= Duration::from_millis(cap));
            }
        }
    }
}

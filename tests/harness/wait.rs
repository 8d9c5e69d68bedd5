//! Waiting for a state, never for a time to pass.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// For what a healthy machine does in a second or two: generous, since tests share two cores with two JVMs.
pub const SOON: Duration = Duration::from_secs(30);

/// For what includes an outage, a transaction's timeout or a broker's start.
pub const PATIENT: Duration = Duration::from_secs(120);

/// Asks `probe` until it has an answer; panics with `what` when `limit` has passed without one.
#[track_caller]
pub fn until<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = probe() {
            return answer;
        }
        assert!(start.elapsed() < limit, "waited {limit:?} in vain for: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// [`until`] for a condition.
#[track_caller]
pub fn until_true(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    until(what, limit, || condition().then_some(()));
}

/// Sets a flag when dropped: other threads are told of the end however it comes.
pub struct SetAtEnd<'a>(pub &'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

//! Named points at which a test makes the agent kill itself, so that a crash is an input of the test.
//!
//! `METERFERRY_FAILPOINT=<name>[:<nth>]` ends the process with SIGKILL when it comes by the point for the n-th time
//! (the first, if not said). Without the feature `failpoints` nothing of this is compiled in.
//!
//! | name | where |
//! |---|---|
//! | `received` | the queue has taken a message, nothing is written |
//! | `committed` | after the queue's commit, before the acknowledgement |
//! | `in-transaction` | records are produced, the offsets are not sent |
//! | `offsets-sent` | the offsets are in the transaction, it is not committed |
//! | `kafka-committed` | Kafka has committed, the queue does not know |
//! | `replayed` | a dead letter is in the queue again, and not deleted yet |
//! | `released` | the release is recorded, nothing is unlinked |

/// The points that an agent passes again and again while readings come in and go out.
pub const POINTS: [&str; 6] =
    ["received", "committed", "in-transaction", "offsets-sent", "kafka-committed", "released"];

/// Kills this process if the point is the one asked for.
#[cfg(feature = "failpoints")]
pub fn hit(name: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static WANTED: OnceLock<Option<(String, AtomicU64)>> = OnceLock::new();
    let wanted = WANTED.get_or_init(|| parse(&std::env::var("METERFERRY_FAILPOINT").ok()?));
    let Some((point, left)) = wanted else { return };
    // Once at 0 it wraps around, and the process is gone by then.
    if point != name || left.fetch_sub(1, Ordering::SeqCst) != 1 {
        return;
    }
    // SIGKILL cannot be refused; the loop only keeps this thread from going on until it is carried out.
    let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
    loop {
        std::thread::park();
    }
}

/// Does nothing: this build has no failpoints.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn hit(_name: &str) {}

#[cfg(feature = "failpoints")]
fn parse(text: &str) -> Option<(String, std::sync::atomic::AtomicU64)> {
    let (name, nth) = text.split_once(':').unwrap_or((text, "1"));
    let nth = nth.parse().expect("METERFERRY_FAILPOINT is <name>[:<nth>], nth a number from 1");
    (!name.is_empty()).then(|| (name.to_owned(), std::sync::atomic::AtomicU64::new(nth)))
}

#[cfg(all(test, feature = "failpoints"))]
mod tests {
    use super::*;

    /// Promise 3: a test that names a point and a count gets that one, not the first that comes by.
    #[test]
    fn name_and_count_are_read() {
        let (name, nth) = parse("committed:7").expect("a point");
        assert_eq!((name.as_str(), nth.into_inner()), ("committed", 7));
        let (name, nth) = parse("released").expect("a point");
        assert_eq!((name.as_str(), nth.into_inner()), ("released", 1));
        assert!(parse("").is_none());
    }
}

//! Named points at which a test makes the agent kill itself, so that a crash is an input of the test.
//!
//! `METERFERRY_FAILPOINT=<name>[:<nth>]` ends the process with SIGKILL when it comes by the point for the n-th time
//! (the first, if not said); `<name>:<nth>:hold` stops it there with SIGSTOP instead, until SIGCONT, and
//! `<name>:<nth>:hang` only the thread that comes by, for ever. `METERFERRY_SILENCE=<seconds>` shortens the silence after
//! which a stage counts as hung. Without the feature `failpoints` nothing of this is compiled in.
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
//! | `source`, `ingest` | the task of a source, or behind it, is run |

/// The points that an agent passes again and again while readings come in and go out.
pub const POINTS: [&str; 6] =
    ["received", "committed", "in-transaction", "offsets-sent", "kafka-committed", "released"];

/// Kills or holds this process if the point is the one asked for.
#[cfg(feature = "failpoints")]
pub fn hit(name: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::Ordering;

    use nix::sys::signal::{Signal, kill, raise};

    static WANTED: OnceLock<Option<Wanted>> = OnceLock::new();
    let wanted = WANTED.get_or_init(|| parse(&std::env::var("METERFERRY_FAILPOINT").ok()?));
    let Some(wanted) = wanted else { return };
    // Once at 0 it wraps around, and the point is not met again.
    if wanted.point != name || wanted.left.fetch_sub(1, Ordering::SeqCst) != 1 {
        return;
    }
    match wanted.fate {
        Fate::Hold => {
            // To this thread, so that it is held before it goes on.
            let _ = raise(Signal::SIGSTOP);
            return;
        }
        Fate::Hang => {}
        // SIGKILL cannot be refused; the loop only keeps this thread from going on until it is carried out.
        Fate::Kill => drop(kill(nix::unistd::Pid::this(), Signal::SIGKILL)),
    }
    loop {
        std::thread::park();
    }
}

/// Does nothing: this build has no failpoints.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn hit(_name: &str) {}

/// `limit`, or what a test wants instead.
pub fn silence(limit: std::time::Duration) -> std::time::Duration {
    #[cfg(feature = "failpoints")]
    if let Some(seconds) = std::env::var("METERFERRY_SILENCE").ok().and_then(|text| text.parse().ok()) {
        return std::time::Duration::from_secs(seconds);
    }
    limit
}

#[cfg(feature = "failpoints")]
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Kill,
    Hold,
    Hang,
}

#[cfg(feature = "failpoints")]
struct Wanted {
    point: String,
    left: std::sync::atomic::AtomicU64,
    fate: Fate,
}

#[cfg(feature = "failpoints")]
fn parse(text: &str) -> Option<Wanted> {
    let mut parts = text.split(':');
    let point = parts.next().filter(|point| !point.is_empty())?.to_owned();
    let nth = parts.next().unwrap_or("1").parse();
    let nth = nth.expect("METERFERRY_FAILPOINT is <name>[:<nth>[:hold|hang]], nth a number from 1");
    let fate = match parts.next() {
        Some("hold") => Fate::Hold,
        Some("hang") => Fate::Hang,
        _ => Fate::Kill,
    };
    Some(Wanted { point, left: std::sync::atomic::AtomicU64::new(nth), fate })
}

#[cfg(all(test, feature = "failpoints"))]
mod tests {
    use super::*;

    /// Promise 3: a test that names a point and a count gets that one, not the first that comes by.
    #[test]
    fn name_and_count_are_read() {
        for (text, point, nth, fate) in [
            ("committed:7", "committed", 7, Fate::Kill),
            ("released", "released", 1, Fate::Kill),
            ("received:2:hold", "received", 2, Fate::Hold),
            ("source:1:hang", "source", 1, Fate::Hang),
        ] {
            let wanted = parse(text).expect("a point");
            assert_eq!((wanted.point.as_str(), wanted.left.into_inner(), wanted.fate), (point, nth, fate));
        }
        assert!(parse("").is_none());
    }
}

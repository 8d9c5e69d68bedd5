//! SIGINT and SIGTERM ask for an orderly stop; a second one ends the process at once.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal, raise};

use crate::shutdown::Shutdown;

/// A signal this soon after the first is the same wish: `timeout` and some shells send it to the process and again to
/// its group.
const SAME: Duration = Duration::from_secs(1);

/// A shutdown that the first SIGINT or SIGTERM asks for.
///
/// To be called before other threads are started: they inherit that the signals are left to one thread.
///
/// # Errors
///
/// The thread cannot be started.
pub(super) fn stop_on_signals() -> io::Result<Shutdown> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    signals.thread_block()?;
    let shutdown = Shutdown::new();
    let asked = shutdown.clone();
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let Ok(_) = signals.wait() else { return };
        asked.ask();
        let first = Instant::now();
        let again = loop {
            match signals.wait() {
                Ok(_) if first.elapsed() < SAME => {}
                Ok(again) => break again,
                Err(_) => return,
            }
        };
        // The default action ends the process, and the shell learns by which signal.
        let _ = signals.thread_unblock();
        let _ = raise(again);
    })?;
    Ok(shutdown)
}

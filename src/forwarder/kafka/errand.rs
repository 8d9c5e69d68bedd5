//! A call into the library that may never come back, on a thread of its own.
//!
//! `send_offsets_to_transaction` waits for the group's coordinator without looking at its timeout, and where that broker has
//! left the cluster nothing wakes it (librdkafka 2.12, its issues 5456 and 5511). So it is given up when its time is over. The
//! thread, and the producer with it, ends when the library does come back: at the next change of any broker's
//! connection, when the producer is fenced long since.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use crate::forwarder::cluster::Failure;
use crate::forwarder::outcome::{Call, Code};

/// Calls that may be given up and not back yet. With so many out, one more is waited for without end and without feeding the
/// watchdog: then the process is of no use.
const OUT: usize = 4;

/// How often a wait looks around.
const SLICE: Duration = Duration::from_millis(250);

/// The calls that are out.
#[derive(Debug, Clone, Default)]
pub struct Errands(Arc<AtomicUsize>);

impl Errands {
    /// Does `act` on another thread and waits for it, as long as `patience`, asked again and again, is `Ok`.
    pub fn run<T: Send + 'static>(
        &self,
        call: Call,
        act: impl FnOnce() -> T + Send + 'static,
        mut patience: impl FnMut() -> Result<(), Failure>,
    ) -> Result<T, Failure> {
        let fail = |code, detail: String| Failure { call, code, topic: None, detail };
        let (done, answer) = mpsc::sync_channel(1);
        let out = Out::new(&self.0);
        let spawned = thread::Builder::new().name("kafka-call".into()).spawn(move || {
            let result = act();
            drop(out);
            // Nobody waits any more where it was given up.
            let _ = done.send(result);
        });
        spawned.map_err(|error| fail(Code::CriticalSystemResource, error.to_string()))?;
        let gone = || fail(Code::Application, "the call into the client library panicked".to_owned());
        loop {
            match answer.recv_timeout(SLICE) {
                Ok(result) => return Ok(result),
                Err(RecvTimeoutError::Disconnected) => return Err(gone()),
                Err(RecvTimeoutError::Timeout) if self.0.load(Ordering::SeqCst) > OUT => {
                    return answer.recv().map_err(|_| gone());
                }
                Err(RecvTimeoutError::Timeout) => patience()?,
            }
        }
    }
}

/// One call that is out, until it is dropped.
struct Out(Arc<AtomicUsize>);

impl Out {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Promise 5: what does not come back is given up in time, and only a few are out at once; what comes back is taken.
    #[test]
    fn a_call_that_hangs_is_given_up() {
        let errands = Errands::default();
        assert_eq!(errands.run(Call::WriteResumePoint, || 7, || Ok(())), Ok(7));
        let over = Failure { call: Call::Commit, code: Code::OperationTimedOut, topic: None, detail: String::new() };
        let hung: Vec<_> = (0..OUT)
            .map(|_| {
                let (release, released) = mpsc::sync_channel::<()>(0);
                let given_up = errands.run(Call::Commit, move || released.recv().is_ok(), || Err(over.clone()));
                assert_eq!(given_up, Err(over.clone()));
                release
            })
            .collect();
        assert_eq!(errands.0.load(Ordering::SeqCst), OUT);
        let patient = errands.run(Call::Commit, || thread::sleep(SLICE * 2), || Err(over.clone()));
        assert_eq!(patient, Ok(()), "one too many is waited for");
        drop(hung);
        while errands.0.load(Ordering::SeqCst) > 0 {
            thread::yield_now();
        }
        let panicked = errands.run(Call::Commit, || panic!("as a test"), || Ok(()));
        assert_eq!(panicked.map(|()| 0).map_err(|failure| failure.code), Err(Code::Application));
        assert_eq!(errands.0.load(Ordering::SeqCst), 0);
    }
}

//! Stops the queue's writer after each of its rounds, so that a history is the same each time it is played.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// No round takes as long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between the test, which opens and closes it, and the writer, which waits at it when its round is done.
#[derive(Debug, Default)]
pub struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    waiting: bool,
    /// One round may pass although it is closed.
    ticket: bool,
}

impl Gate {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The writer's end of a round.
    pub fn pass(&self) {
        let mut state = self.state();
        while state.closed && !std::mem::take(&mut state.ticket) {
            state.waiting = true;
            self.changed.notify_all();
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting = false;
    }

    pub fn open(&self) {
        let mut state = self.state();
        state.closed = false;
        state.waiting = false;
        self.changed.notify_all();
    }

    /// Lets the writer do one round more.
    pub fn step(&self) {
        let mut state = self.state();
        state.ticket = true;
        state.waiting = false;
        self.changed.notify_all();
    }

    /// From now on the writer stops after its round.
    pub fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.ticket = false;
    }

    /// Waits until the writer stands before the closed gate. False where it has ended, or takes too long.
    pub fn wait(&self, has_ended: impl Fn() -> bool) -> bool {
        let until = Instant::now() + PATIENCE;
        let mut state = self.state();
        while !state.waiting {
            if has_ended() || Instant::now() > until {
                return false;
            }
            state =
                self.changed.wait_timeout(state, Duration::from_millis(20)).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

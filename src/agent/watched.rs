//! A task of the agent that shows that it still moves.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::failpoint;
use crate::health::Pulse;

/// A task that waits is asked so often in the time in which it has to show itself, which also makes up for a wake-up that
/// was lost.
const ASKED: u32 = 6;

/// Runs a future and gives a sign of life each time it came back from a poll: with a result, or because it waits. One that
/// blocks, or is not run any more, gives none.
pub(super) struct Watched<F> {
    task: Pin<Box<F>>,
    pulse: Arc<Pulse>,
    again: Interval,
    /// Where a test may stop it.
    point: &'static str,
}

impl<F: Future> Watched<F> {
    /// To be called in a runtime.
    pub fn new(task: F, pulse: Arc<Pulse>, point: &'static str) -> Self {
        let mut again = interval(pulse.limit() / ASKED);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { task: Box::pin(task), pulse, again, point }
    }
}

impl<F: Future> Future for Watched<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        // Only to be woken in time.
        while self.again.poll_tick(context).is_ready() {}
        self.pulse.take_thread();
        failpoint::hit(self.point);
        let polled = self.task.as_mut().poll(context);
        self.pulse.beat();
        polled
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::health::Health;

    /// Promise 9: a task that waits for something that does not come is idle, not hung; one that nobody runs is.
    #[tokio::test(start_paused = true)]
    async fn waiting_is_no_hanging() {
        let mut health = Health::default();
        let pulse = health.watch("source sma", Duration::from_secs(60));
        let begin = Instant::now();
        let mut task = Box::pin(Watched::new(std::future::pending::<()>(), Arc::clone(&pulse), "source"));
        // The pulse's clock does not stand still: what counts is that the task was asked again and again.
        let mut asked = 0;
        let outcome = tokio::time::timeout(
            Duration::from_secs(3600),
            std::future::poll_fn(|context| {
                asked += 1;
                task.as_mut().poll(context)
            }),
        );
        assert!(outcome.await.is_err());
        assert!((359..=361).contains(&asked), "asked {asked} times in an hour");
        drop(task);
        assert_eq!(health.hung(begin + Duration::from_secs(3600)).len(), 1);
    }
}

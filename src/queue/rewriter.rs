//! A thread that rewrites one segment at a time, so that the writer goes on meanwhile.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use super::folder::Folder;
use super::pack::{self, Keep, Rewritten};
use super::segment::SegmentError;

/// What is to be rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Job {
    /// First sequence of the segment.
    pub first: u64,
    /// Of the one after it.
    pub until: u64,
    pub keep: Keep,
}

/// None: cancelled.
pub(super) type Outcome = Result<Option<Rewritten>, SegmentError>;

/// At most one job at a time.
#[derive(Default)]
pub(super) struct Rewriter {
    running: Option<Running>,
}

struct Running {
    job: Job,
    cancelled: Arc<AtomicBool>,
    done: oneshot::Receiver<Outcome>,
    thread: JoinHandle<()>,
}

impl Rewriter {
    pub fn is_busy(&self) -> bool {
        self.running.is_some()
    }

    pub fn start(&mut self, folder: &Folder, origin: u128, job: Job) -> io::Result<()> {
        let (folder, cancelled) = (folder.clone(), Arc::new(AtomicBool::new(false)));
        let (report, done) = oneshot::channel();
        let told = Arc::clone(&cancelled);
        let thread = std::thread::Builder::new().name("queue-pack".into()).spawn(move || {
            let outcome = pack::rewrite(&folder, job.first, origin, job.keep, &told);
            let _ = report.send(outcome);
        })?;
        self.running = Some(Running { job, cancelled, done, thread });
        Ok(())
    }

    /// Waits for the end of the job; for ever where there is none.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is done, nothing is lost: the next call waits on.
    pub async fn finished(&mut self) -> (Job, Outcome) {
        let Some(running) = &mut self.running else { return std::future::pending().await };
        let outcome = (&mut running.done).await.unwrap_or(Ok(None));
        let job = running.job;
        if let Some(running) = self.running.take() {
            // A panic shows as a job without an outcome.
            let _ = running.thread.join();
        }
        (job, outcome)
    }

    /// Ends a job before its time. What it has made so far is removed.
    pub fn stop(&mut self, folder: &Folder) {
        let Some(running) = self.running.take() else { return };
        running.cancelled.store(true, Ordering::Relaxed);
        if let Ok(Ok(Some(rewritten))) = running.done.blocking_recv() {
            // What cannot be removed now is removed at the next start.
            let _ = folder.remove_if_there(&rewritten.unfinished);
        }
        let _ = running.thread.join();
    }
}

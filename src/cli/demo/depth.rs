//! The queue's folder as it lies on disk, looked at from outside: beside the agent, or when it is dead.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval};

use super::board::{Board, Depth};
use crate::clock::{self, Clock};
use crate::queue::inspect::Inspector;
use crate::reading::{Body, Entry};

/// From one look to the next.
const EVERY: Duration = Duration::from_millis(250);

/// Looks at the folder until it is dropped.
#[derive(Debug)]
pub struct Gauge(JoinHandle<()>);

impl Gauge {
    pub fn start(folder: PathBuf, board: Arc<Board>) -> Self {
        Self(tokio::spawn(async move {
            let mut ticks = interval(EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let (folder, delivered) = (folder.clone(), board.figures().delivered);
                let found = spawn_blocking(move || look(&folder, delivered)).await.ok().flatten();
                // A folder that cannot be read this moment (being made, being opened) shows the figures it showed last.
                board.change(|figures| figures.sample(found.unwrap_or(figures.depth)));
            }
        }))
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What the folder holds; none where it cannot be read.
///
/// The release point on disk may be some readings behind: those that the auditor has read already, `delivered` of them,
/// do not count as waiting.
pub fn look(folder: &Path, delivered: u64) -> Option<Depth> {
    let inspector = Inspector::open(folder).ok()?;
    let status = inspector.status().ok()?;
    let next = status.release_point.max(delivered + 1).min(status.end);
    let waiting = status.end - next;
    let oldest = if waiting > 0 { inspector.peek(Some(next), 1).ok()?.first().and_then(age) } else { None };
    Some(Depth { end: status.end, waiting, oldest: oldest.unwrap_or_default(), bytes: status.disk_bytes })
}

fn age(entry: &Entry) -> Option<Duration> {
    let received = match &entry.body {
        Body::Reading(reading) => &reading.received,
        Body::Dead(dead) => &dead.received,
        Body::Gap(_) | Body::Daily(_) => return None,
    };
    Some(clock::age(received, &Clock::new().now()))
}

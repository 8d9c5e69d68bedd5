//! A device is forgotten: its readings that wait become gaps, its dead letters are deleted. For who moves out.
//!
//! Every segment that is still there is rewritten, those too whose readings are in Kafka already; the old files are
//! unlinked. What a flash card keeps of unlinked files is beyond a program.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::disk::LocalDisk;
use super::error::{OpenError, QueueError};
use super::inspect::Inspector;
use super::letters::LetterId;
use super::open::{self, Options};
use super::{pack, segment};
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::reading::{Body, Reading};

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Readings that became gaps.
    pub readings: u64,
    /// Dead letters that were deleted.
    pub dead_letters: u64,
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum ForgetError {
    #[error("the agent did not end in order: what of this queue is in Kafka already is known only to its next start")]
    NotClosed,
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Queue(#[from] QueueError),
}

/// Forgets the devices that `is_meant` points at, in the queue of `options.path`, which no agent may have. Doing it again
/// changes nothing more. `progress` is told how many of how many segments are done.
///
/// # Errors
///
/// [`ForgetError::NotClosed`] after a kill: Kafka knows the last record that it has by what stands in it.
pub fn forget(
    options: &Options,
    is_meant: &dyn Fn(&Reading) -> bool,
    mut progress: impl FnMut(usize, usize),
) -> Result<Forgotten, ForgetError> {
    let before = Inspector::open(&options.path)?;
    if before.status()?.not_closed {
        return Err(ForgetError::NotClosed);
    }
    let letters = letters(&before, is_meant)?;
    drop(before);
    let (mut store, _lock) = open::open(Arc::new(LocalDisk), options, Arc::new(Metrics::default()), Clock::new())?;
    store.ensure_format()?;
    // The newest is sealed, and is one of those that are rewritten; an empty one stays.
    let end = store.shared.state().end;
    if store.newest < end {
        store.roll()?;
    }
    let sealed: Vec<u64> =
        store.shared.state().segments.iter().copied().filter(|first| *first != store.newest).collect();
    let mut forgotten = Forgotten { dead_letters: letters.len() as u64, ..Forgotten::default() };
    for (done, first) in sealed.iter().copied().enumerate() {
        progress(done, sealed.len());
        let rewritten = pack::rewrite_without(&store.folder, first, store.identity.origin, is_meant);
        let Some(rewritten) = rewritten.map_err(QueueError::from)? else { continue };
        forgotten.readings += rewritten.dropped;
        if rewritten.dropped > 0 {
            segment::publish(&store.folder, &rewritten.unfinished, first).map_err(QueueError::from)?;
        } else {
            let path = rewritten.unfinished;
            store.folder.remove_if_there(&path).map_err(|source| QueueError::Write { path, source })?;
        }
    }
    store.delete_letters(&letters)?;
    store.close()?;
    Ok(forgotten)
}

fn letters(queue: &Inspector, is_meant: &dyn Fn(&Reading) -> bool) -> Result<Vec<LetterId>, QueueError> {
    let (mut meant, all) = (Vec::new(), queue.letter_ids()?);
    queue.visit_letters(&all, |letter| {
        if matches!(&letter.body, Body::Reading(reading) if is_meant(reading)) {
            meant.push((letter.queue_id, letter.sequence));
        }
        ControlFlow::Continue(())
    })?;
    Ok(meant)
}

//! What a start does for a damaged folder, without an agent: recovery, and every sealed segment looked at.
//!
//! The agent needs none of this: it recovers at its start, and salvages a segment when it comes to it.

use std::sync::Arc;

use super::disk::LocalDisk;
use super::error::{OpenError, QueueError};
use super::identity::{Identity, Lost};
use super::inspect::Inspector;
use super::open::{self, Options};
use super::verify::{self, Verified};
use crate::clock::Clock;
use crate::metrics::Metrics;

/// What was done.
#[derive(Debug, Clone, Default)]
pub struct Repaired {
    /// Whether the newest segment was closed by it: the agent had been killed.
    pub closed: bool,
    /// Segments that were salvaged, with what was wrong.
    pub salvaged: Vec<Verified>,
    /// Sequences that are lost by it, and will be explained to Kafka.
    pub lost: Vec<Lost>,
    /// Names of the damaged files that were kept.
    pub set_aside: Vec<String>,
    /// The queue took a new id, because its own could not be read or its files are gone.
    pub forked: bool,
    /// Records in all segments.
    pub records: u64,
}

impl Repaired {
    /// Whether there was nothing to do.
    pub fn is_nothing(&self) -> bool {
        !self.closed && self.salvaged.is_empty() && self.lost.is_empty() && !self.forked
    }
}

/// Why a repair ended early. What it had done is done.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Queue(#[from] QueueError),
}

/// Repairs the folder in `options.path`, which must hold a queue. Doing it again changes nothing more. `progress` is told
/// the bytes of segments looked at.
///
/// # Errors
///
/// [`OpenError::Locked`] where an agent has the folder: it does the same by itself.
pub fn repair(options: &Options, mut progress: impl FnMut(u64)) -> Result<Repaired, RepairError> {
    let before = Inspector::open(&options.path).ok();
    let known = before.as_ref().map(|inspector| inspector.identity().clone());
    let kept_before = set_aside(before.as_ref());
    let not_closed = before.as_ref().and_then(|inspector| inspector.status().ok()).is_some_and(|it| it.not_closed);
    let (mut store, _lock) = open::open(Arc::new(LocalDisk), options, Arc::new(Metrics::default()), Clock::new())?;
    let mut repaired = Repaired { closed: not_closed, ..Repaired::default() };

    let newest = store.newest;
    let segments: Vec<u64> = store.shared.state().segments.iter().copied().collect();
    let mut done = 0;
    for (at, first) in segments.iter().copied().enumerate() {
        let until = segments.get(at + 1).copied();
        let looked = verify::segment_of(&store.folder, &store.identity, first, until, store.release_point, |part| {
            progress(done + part);
        });
        let Some(verified) = looked else { continue };
        done += store.folder.disk.size(&super::segment::path(&store.folder, first)).unwrap_or(0);
        progress(done);
        if let Some((first, last)) = verified.gone {
            store.miss(Some(verified.first), first, last)?;
        }
        // The newest was recovered when the store was opened.
        if first != newest && !verified.wrong.is_empty() {
            store.salvage(first)?;
            let kept = verify::segment_of(&store.folder, &store.identity, first, until, store.release_point, |_| ());
            repaired.records += kept.map_or(0, |kept| kept.records);
            repaired.salvaged.push(verified);
        } else {
            repaired.records += verified.records;
        }
    }
    repaired.lost = news(known.as_ref(), &store.identity);
    repaired.forked = known.is_none_or(|known| known.queue_id != store.identity.queue_id);
    store.close()?;
    let kept = set_aside(Inspector::open(&options.path).ok().as_ref());
    repaired.set_aside = kept.into_iter().filter(|name| !kept_before.contains(name)).collect();
    Ok(repaired)
}

/// Ranges that were not known to be lost.
fn news(before: Option<&Identity>, after: &Identity) -> Vec<Lost> {
    let known = before.map_or(&[][..], |before| &before.lost[..]);
    after.lost.iter().filter(|lost| !known.contains(lost)).cloned().collect()
}

fn set_aside(inspector: Option<&Inspector>) -> Vec<String> {
    inspector.and_then(|inspector| inspector.set_aside().ok()).unwrap_or_default()
}

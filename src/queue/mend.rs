//! Makes the copy of a damaged queue fit to be opened and sent, and no more: nothing will be appended to it.
//!
//! Unlike a recovery it takes the last record that can be read for the end: the queue does not go on here, and the
//! original, which may yet come back, must find that its own next records come after what Kafka has.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::disk::LocalDisk;
use super::error::OpenError;
use super::folder::Folder;
use super::identity::Lost;
use super::loss::holes;
use super::open::{self, Options};
use super::release;
use super::salvage::Wreck;
use super::segment::{Active, SegmentError};
use super::tolerant;
use super::verify;

/// What was found in a copy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mended {
    /// Records that can be read, released ones included.
    pub records: u64,
    /// Sequences that cannot be, as far as they are not released.
    pub lost: Vec<Lost>,
    /// First sequences of the segments that were salvaged.
    pub salvaged: Vec<u64>,
    /// The newest segment was among them: how far it reached is not known.
    pub open_end: bool,
    /// `queue.toml` could not be read: the copy has a new queue id, and Kafka's resume point is not known by it.
    pub forked: bool,
}

/// Mends the folder in `options.path`. Doing it again changes nothing. `progress` is told the segments done, and how many
/// there are.
pub fn mend(options: &Options, mut progress: impl FnMut(u64, u64)) -> Result<Mended, OpenError> {
    let folder = &Folder::new(Arc::new(LocalDisk), &options.path);
    let unusable = |source| OpenError::Folder { path: options.path.clone(), source };
    let segments = open::segments(folder).map_err(unusable)?;
    let before = super::identity::Identity::read(folder).ok().flatten();
    let (mut identity, fresh) = open::identity(folder, options, &segments)?;
    let mut mended = Mended { forked: before.is_none() && !fresh, ..Mended::default() };
    let released = release::read(folder, identity.origin).unwrap_or(0);
    let segments: Vec<u64> = segments.into_iter().collect();
    for (at, first) in segments.iter().copied().enumerate() {
        let until = segments.get(at + 1).copied();
        progress(at as u64, segments.len() as u64);
        if until.is_none() {
            close(folder, first)?;
        }
        let looked = verify::segment_of(folder, &identity, first, until, released, |_| ());
        let looked = looked.filter(|verified| verified.wrong.is_empty());
        if let Some(verified) = looked {
            mended.records += verified.records;
            continue;
        }
        let wreck = Wreck::look_through(folder, first, until.unwrap_or(u64::MAX), identity.origin)?;
        let kept = wreck.sequences(u64::MAX);
        mended.open_end |= until.is_none();
        mended.records += kept.len() as u64;
        mended.salvaged.push(first);
        let end = until.unwrap_or_else(|| kept.last().map_or(first, |last| last + 1));
        for hole in holes(first, end, &kept) {
            if !identity.lost.contains(&hole) {
                identity.lost.push(hole);
            }
        }
        identity.write(folder).map_err(unusable)?;
        wreck.replace(Timestamp::now())?;
    }
    mended.lost = identity.lost.into_iter().filter(|lost| lost.last >= released).collect();
    Ok(mended)
}

/// Closes a segment that a kill left open. What is damaged in it is found when it is read.
fn close(folder: &Folder, first: u64) -> Result<(), SegmentError> {
    match Active::open(folder, first).and_then(Active::seal) {
        Err(error) if error.is_damage() => {
            tracing::debug!(reason = tolerant::reason(&error), first, "the newest segment is damaged");
            Ok(())
        }
        result => result,
    }
}

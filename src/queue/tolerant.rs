//! Reads a segment past what is damaged in it.
//!
//! A scan ends at a page or a block that cannot be taken apart. What comes behind it may be whole: the next sequence that
//! can be read is searched for, in steps that double, then halve.

use std::ops::ControlFlow;

use super::folder;
use super::segment::{Reader, SegmentError};

/// What a scan comes by.
pub(super) enum Seen<'b> {
    /// A record's bytes. Nothing about them is checked.
    Bytes(u64, &'b [u8]),
    /// Sequences that cannot be read, both ends inclusive; the last is `u64::MAX` where nothing behind them can be.
    Unreadable(u64, u64, &'b SegmentError),
}

/// Shows `visit` everything from `from` on, below `end`, until it breaks.
///
/// # Errors
///
/// Only what is not damage: reading on would not help.
pub(super) fn scan(
    reader: &Reader,
    mut from: u64,
    end: u64,
    mut visit: impl FnMut(Seen<'_>) -> ControlFlow<()>,
) -> Result<(), SegmentError> {
    while from < end {
        let (mut next, mut broken) = (from, false);
        let scanned = reader.scan(from, end, |sequence, bytes| {
            next = sequence.saturating_add(1);
            let flow = visit(Seen::Bytes(sequence, bytes));
            broken = flow.is_break();
            flow
        });
        let Err(error) = scanned else { return Ok(()) };
        if broken {
            return Ok(());
        }
        if !error.is_damage() && !is_medium(&error) {
            return Err(error);
        }
        from = readable_from(reader, next, end);
        let last = if from == u64::MAX { u64::MAX } else { from.saturating_sub(1).max(next) };
        if visit(Seen::Unreadable(next, last, &error)).is_break() {
            return Ok(());
        }
        from = from.max(next.saturating_add(1));
    }
    Ok(())
}

/// The first sequence above `bad` from which on something can be read; `end` where nothing can.
fn readable_from(reader: &Reader, bad: u64, end: u64) -> u64 {
    let readable = |at: u64| {
        let mut seen = false;
        let scanned = reader.scan(at, end, |_, _| {
            seen = true;
            ControlFlow::Break(())
        });
        scanned.is_ok() && seen
    };
    let (mut low, mut step) = (bad, 1_u64);
    let mut high = loop {
        let at = bad.saturating_add(step);
        if at >= end {
            return end;
        }
        if readable(at) {
            break at;
        }
        low = at;
        step = step.saturating_mul(2);
    };
    while low + 1 < high {
        let middle = low + (high - low) / 2;
        if readable(middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
    high
}

/// Whether the medium itself refuses to be read there.
pub(super) fn is_medium(error: &SegmentError) -> bool {
    matches!(error, SegmentError::Io { source, .. } if folder::is_medium(source))
}

/// What is wrong, without the file's name.
pub(super) fn reason(error: &SegmentError) -> String {
    match error {
        SegmentError::Damaged { reason, .. } => reason.clone(),
        SegmentError::Io { source, .. } => source.to_string(),
        SegmentError::NotClosed { .. } => "it was not closed, and is not the newest".to_owned(),
        SegmentError::Busy { .. } => error.to_string(),
    }
}

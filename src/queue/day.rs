//! When a day is over and its receipt is due. Pure; the writer brings the time.
//!
//! A day is open from the first record after the last receipt, or from the start; it is over when the clock, if it is
//! synchronised, shows a later one. Days in which the agent did not run have no receipt of their own. Order and
//! completeness never hang on the clock: a receipt covers sequences, whatever its day is called.

use crate::daily::day_of;
use crate::reading::Received;

/// What the clock says about the open day, counted from 1970-01-01.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing new.
    Stay,
    /// This is the open day from now on, without a receipt for the one before.
    Open(i32),
    /// This day is over, that one is open.
    Over { day: i32, open: i32 },
}

/// `open` is the open day as far as it is known.
pub(super) fn turn(open: Option<i32>, now: &Received) -> Turn {
    if !now.synchronised {
        return Turn::Stay;
    }
    let today = day_of(now.wall_ms);
    match open {
        None => Turn::Open(today),
        Some(day) if day < today => Turn::Over { day, open: today },
        // The clock was far ahead and is put right. Today may have had its receipt before it went wrong: what is left of it
        // goes into tomorrow's.
        Some(day) if day > today.saturating_add(1) => Turn::Open(today.saturating_add(1)),
        Some(_) => Turn::Stay,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY_MS: i64 = 24 * 60 * 60 * 1000;

    fn at(day: i32, synchronised: bool) -> Received {
        Received { wall_ms: i64::from(day) * DAY_MS + 5, boot_ms: 1, boot_id: 1, synchronised }
    }

    /// Promise 9: a receipt when the day is over, one only, and none by a clock that is not known to be right.
    #[test]
    fn a_day_is_over_once() {
        assert_eq!(turn(None, &at(100, true)), Turn::Open(100));
        assert_eq!(turn(Some(100), &at(100, true)), Turn::Stay);
        assert_eq!(turn(Some(100), &at(101, false)), Turn::Stay);
        assert_eq!(turn(Some(100), &at(101, true)), Turn::Over { day: 100, open: 101 });
        assert_eq!(turn(Some(100), &at(140, true)), Turn::Over { day: 100, open: 140 }, "forty days without power");
        assert_eq!(turn(Some(101), &at(100, true)), Turn::Stay, "midnight was a moment too early");
    }

    proptest! {
        /// Promise 9: whatever the clock does, it does not flood Kafka with receipts; a clock that was ahead for less than
        /// a day leads to no second receipt of a day.
        #[test]
        fn jumps_of_the_clock(steps in proptest::collection::vec((1i32..4, proptest::option::of(1i32..5_000)), 1..40)) {
            let (mut today, mut open, mut receipts) = (20_000, None, Vec::new());
            let mut see = |day: i32, open: &mut Option<i32>| match turn(*open, &at(day, true)) {
                Turn::Stay => {}
                Turn::Open(day) => *open = Some(day),
                Turn::Over { day, open: next } => {
                    receipts.push(day);
                    *open = Some(next);
                }
            };
            for (days, jump) in &steps {
                for _ in 0..*days {
                    today += 1;
                    see(today, &mut open);
                }
                if let Some(jump) = jump {
                    see(today + jump, &mut open);
                    see(today, &mut open);
                }
            }
            let count = receipts.len();
            receipts.sort_unstable();
            receipts.dedup();
            prop_assert_eq!(receipts.len(), count);
            prop_assert!(count as i32 <= today - 20_000 + steps.len() as i32);
        }
    }
}

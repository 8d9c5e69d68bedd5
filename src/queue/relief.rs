//! Which segment is packed, thinned or dropped next: pure.
//!
//! Packing loses nothing and comes first. After it, `queue.when_full` decides. The segment being sent, the newest sealed
//! one and the active one are never thinned. The newest sealed one goes last: Kafka's resume point may be compared with
//! what is in it.

use super::pack::Keep;
use super::rewriter::Job;
use super::thin::STEPS;
use crate::config::settings::WhenFull;

/// Unpacked segments that may wait while the line is down; short outages are not worth the writes.
const FEW: usize = 4;
/// Part of all that waits which may be whole, thinned to the first step, and so on, before the oldest of it is thinned
/// further: each step back in time gets half the room of the one before.
const SHARES: [u64; STEPS.len()] = [2, 4, 8];

/// A sealed segment that may be given up or rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sealed {
    pub first: u64,
    /// First sequence of the next one.
    pub until: u64,
    pub bytes: u64,
    /// Steps by which it was thinned.
    pub step: usize,
    /// Whether packing it is worth a try.
    pub loose: bool,
    /// Nothing has shown yet that it cannot be rewritten.
    pub readable: bool,
}

/// What to do about one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Measure {
    Rewrite(Job),
    Drop(Sealed),
}

/// The oldest segment to be packed while the line is down, none where only few wait.
pub(super) fn pack(waiting: &[Sealed]) -> Option<Job> {
    let enough = waiting.iter().filter(|sealed| sealed.loose && sealed.readable).count() > FEW;
    enough.then(|| pack_oldest(waiting)).flatten()
}

/// What is known where room is to be made.
#[derive(Debug, Clone)]
pub(super) struct Need {
    pub when_full: WhenFull,
    /// The sealed segments that hold unreleased records, oldest first, without the newest one.
    pub waiting: Vec<Sealed>,
    /// The newest sealed segment, released or not.
    pub newest: Option<Sealed>,
    /// One past the newest sequence that Kafka may have.
    pub sent: u64,
    pub line_down: bool,
    /// There may be room for a copy.
    pub rewriting: bool,
}

/// What makes room. While the line works, a blocked queue needs no packing: what leaves it makes room.
pub(super) fn relieve(need: &Need) -> Option<Measure> {
    if need.rewriting && (need.line_down || need.when_full != WhenFull::Block) {
        let newest = || pack_oldest(need.newest.as_slice());
        if let Some(job) = pack_oldest(&need.waiting).or_else(newest) {
            return Some(Measure::Rewrite(job));
        }
    }
    let oldest = need.waiting.first().copied().or(need.newest).map(Measure::Drop);
    match need.when_full {
        WhenFull::Block => None,
        WhenFull::DropOldest => oldest,
        WhenFull::Thin if need.rewriting => thin(&need.waiting, need.sent).map(Measure::Rewrite).or(oldest),
        WhenFull::Thin => oldest,
    }
}

fn pack_oldest(waiting: &[Sealed]) -> Option<Job> {
    let oldest = waiting.iter().find(|sealed| sealed.loose && sealed.readable)?;
    Some(Job { first: oldest.first, until: oldest.until, keep: Keep::All })
}

/// The oldest segment of the first step that has more than its share; none where it is time to drop.
fn thin(waiting: &[Sealed], sent: u64) -> Option<Job> {
    let total: u64 = waiting.iter().map(|sealed| sealed.bytes).sum();
    let job = |sealed: &Sealed| {
        let keep = Keep::OneIn { seconds: STEPS[sealed.step] };
        Job { first: sealed.first, until: sealed.until, keep }
    };
    for (step, share) in SHARES.iter().enumerate() {
        let of_step = || waiting.iter().filter(move |sealed| sealed.step == step);
        let bytes: u64 = of_step().map(|sealed| sealed.bytes).sum();
        if bytes > total / share
            && let Some(oldest) = of_step().find(|sealed| sealed.first >= sent && sealed.readable)
        {
            return Some(job(oldest));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sealed(number: u64, bytes: u64, step: usize, loose: bool) -> Sealed {
        Sealed { first: number * 100 + 1, until: number * 100 + 101, bytes, step, loose, readable: true }
    }

    fn need(waiting: Vec<Sealed>) -> Need {
        Need { when_full: WhenFull::Thin, waiting, newest: None, sent: 1, line_down: true, rewriting: true }
    }

    /// Promise 6: whatever can be packed is packed before anything is given up, but not for a short outage.
    #[test]
    fn packing_comes_first() {
        let waiting: Vec<Sealed> = (0..FEW as u64).map(|number| sealed(number, 16, 0, true)).collect();
        assert_eq!(pack(&waiting), None, "few");
        let oldest = waiting[0];
        for when_full in [WhenFull::Block, WhenFull::DropOldest, WhenFull::Thin] {
            let measure = relieve(&Need { when_full, ..need(waiting.clone()) });
            assert_eq!(measure, Some(Measure::Rewrite(Job { first: 1, until: 101, keep: Keep::All })));
        }
        let working = Need { when_full: WhenFull::Block, line_down: false, ..need(waiting.clone()) };
        assert_eq!(relieve(&working), None);
        let no_copy = Need { when_full: WhenFull::DropOldest, rewriting: false, ..need(waiting) };
        assert_eq!(relieve(&no_copy), Some(Measure::Drop(oldest)));
        let newest = sealed(9, 16, 0, false);
        let last = Need { newest: Some(newest), ..need(Vec::new()) };
        assert_eq!(relieve(&last), Some(Measure::Drop(newest)), "only where nothing else is left");
        assert_eq!(relieve(&Need { when_full: WhenFull::Block, ..last }), None);
        let more: Vec<Sealed> = (0..=FEW as u64).map(|number| sealed(number, 16, 0, true)).collect();
        assert_eq!(pack(&more).map(|job| job.first), Some(1));
    }

    proptest! {
        /// Promise 6: as a queue stays full for ever, the newest stays whole, older stretches are thinner than younger
        /// ones, and what is given up without a trace has been thinned to the last step.
        #[test]
        fn thinned_evenly_and_the_oldest_first(rounds in 50usize..400, room in 20u64..60) {
            const WHOLE: u64 = 600;
            let mut waiting: Vec<Sealed> = Vec::new();
            let mut number = 0;
            for _ in 0..rounds {
                waiting.push(sealed(number, WHOLE, 0, false));
                number += 1;
                while waiting.iter().map(|sealed| sealed.bytes).sum::<u64>() > room * WHOLE {
                    match relieve(&need(waiting.clone())).expect("there is something to give") {
                        Measure::Drop(oldest) => {
                            prop_assert_eq!(oldest, waiting[0]);
                            prop_assert_eq!(oldest.step, STEPS.len(), "only what was thinned to the end");
                            waiting.remove(0);
                        }
                        Measure::Rewrite(job) => {
                            let at = waiting.iter().position(|sealed| sealed.first == job.first).expect("there");
                            prop_assert_eq!(job.keep, Keep::OneIn { seconds: STEPS[waiting[at].step] });
                            waiting[at].step += 1;
                            waiting[at].bytes = WHOLE / [1, 10, 60, 600][waiting[at].step];
                        }
                    }
                }
                for pair in waiting.windows(2) {
                    prop_assert!(pair[0].step >= pair[1].step, "older is thinner");
                }
                let whole: u64 = waiting.iter().filter(|sealed| sealed.step == 0).map(|sealed| sealed.bytes).sum();
                if number > room {
                    prop_assert!(whole >= room * WHOLE / 2 - WHOLE, "half the room is for the newest");
                }
            }
        }

        /// Promise 3: what Kafka may have is not thinned, and where only that is left, it is dropped.
        #[test]
        fn what_may_be_in_kafka_is_not_thinned(count in 1u64..30, sent in 1u64..4_000) {
            let waiting: Vec<Sealed> = (0..count).map(|number| sealed(number, 600, 0, false)).collect();
            match relieve(&Need { sent, ..need(waiting.clone()) }) {
                Some(Measure::Rewrite(job)) => prop_assert!(job.first >= sent),
                Some(Measure::Drop(oldest)) => {
                    prop_assert!(sent > waiting[waiting.len() - 1].first);
                    prop_assert_eq!(oldest, waiting[0]);
                }
                None => prop_assert!(false, "there was something to give"),
            }
        }
    }
}

//! How the agent came up: what the last run left behind, and how long this start took.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::info;

use crate::cli::units::{duration, rfc3339};
use crate::clock;
use crate::queue::Recovered;
use crate::reading::Received;

/// A start, as it is told later.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// When the agent was ready, milliseconds since 1970, by the clock of that moment.
    pub at_ms: i64,
    /// From the start of the process to taking readings.
    pub took_ms: u64,
    /// The run before was not stopped in order.
    pub cut_short: bool,
    /// The machine was down in between: the power was lost, or it was restarted without the agent's orderly stop.
    pub power_lost: bool,
    /// The newest reading that was stored before, milliseconds since 1970.
    pub newest_ms: Option<i64>,
    /// When the machine was switched on again, milliseconds since 1970; none while the clock is not right.
    pub booted_ms: Option<i64>,
}

impl Start {
    pub fn of(recovered: &Recovered, now: &Received, took: Duration) -> Self {
        let newest = recovered.newest;
        let power_lost = recovered.cut_short && newest.is_some_and(|newest| newest.boot_id != now.boot_id);
        Self {
            at_ms: now.wall_ms,
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            cut_short: recovered.cut_short,
            power_lost,
            newest_ms: newest.map(|newest| clock::corrected_ms(&newest, now)),
            booted_ms: now.synchronised.then(|| now.wall_ms.saturating_sub_unsigned(now.boot_ms)),
        }
    }

    /// One line, where the last run ended in a way that somebody may wonder about.
    pub fn say(&self, lost: u64) {
        let time = |at: Option<i64>| at.map_or_else(|| "unknown".to_owned(), rfc3339);
        if self.power_lost {
            info!(
                after = time(self.newest_ms),
                before = time(self.booted_ms),
                start_took_ms = self.took_ms,
                lost,
                "the machine went down without an orderly stop of the agent: a power cut, most likely"
            );
        } else if self.cut_short {
            info!(after = time(self.newest_ms), start_took_ms = self.took_ms, lost, "the last run was killed");
        }
    }

    /// What happened before this start; none after an orderly stop.
    pub fn words(&self) -> Option<String> {
        let time = |at: Option<i64>| at.map(crate::cli::units::local_time);
        let took = match Duration::from_millis(self.took_ms) {
            short if short < Duration::from_secs(10) => format!("{:.1} s", short.as_secs_f64()),
            long => duration(long),
        };
        let tail = format!("the start took {took}");
        match (self.power_lost, time(self.newest_ms), time(self.booted_ms)) {
            (true, Some(after), Some(before)) => {
                Some(format!("the power was lost between {after} and {before}; {tail}"))
            }
            (true, Some(after), None) => Some(format!("the power was lost after {after}; {tail}")),
            (true, None, _) => Some(format!("the power was lost; {tail}")),
            (false, Some(after), _) if self.cut_short => Some(format!("the last run was killed after {after}; {tail}")),
            (false, ..) if self.cut_short => Some(format!("the last run was killed; {tail}")),
            (false, ..) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::wear::{Meter, Wear};

    /// Promise 9: a pulled plug is told from a kill and from an orderly stop, with the times between which it was.
    #[test]
    fn a_pulled_plug_is_told() {
        let now = Received { wall_ms: 1_800_000_060_000, boot_ms: 20_000, boot_id: 8, synchronised: true };
        let newest = Received { wall_ms: 1_800_000_000_000, boot_ms: 5_000_000, boot_id: 7, synchronised: true };
        let mut recovered = Recovered {
            agent_id: String::new(),
            marks: BTreeMap::new(),
            filters: BTreeMap::new(),
            release_point: 1,
            end: 2,
            cut_short: true,
            newest: Some(newest),
            meter: Meter::begin(Wear::default()),
        };
        let of = |recovered: &Recovered, now: &Received| Start::of(recovered, now, Duration::from_millis(340));
        let start = of(&recovered, &now);
        assert_eq!((start.power_lost, start.newest_ms), (true, Some(1_800_000_000_000)));
        assert_eq!(start.booted_ms, Some(1_800_000_040_000));
        let words = start.words().expect("a power cut");
        assert!(words.starts_with("the power was lost between ") && words.ends_with("the start took 0.3 s"), "{words}");
        assert_eq!(of(&recovered, &Received { synchronised: false, ..now }).booted_ms, None);
        assert!(!of(&recovered, &Received { boot_id: 7, ..now }).power_lost, "the same boot: it was killed");
        recovered.cut_short = false;
        assert_eq!(of(&recovered, &now).words(), None);
    }
}

//! The clock: right, or the agent waits. Pure but for [`look`].

use std::path::Path;
use std::time::Duration;

use super::check::Check;
use crate::clock::FLOOR_MS;
use crate::config::show_duration;
use crate::reading::Received;

/// There is one where systemd-timesyncd keeps the clock.
const TIMESYNC: &str = "/run/systemd/timesync";

/// What the clocks of this machine say.
pub fn look(now: &Received, clock_wait: Duration) -> Vec<Check> {
    vec![verdict(now, Path::new(TIMESYNC).is_dir(), clock_wait)]
}

fn verdict(now: &Received, timesyncd: bool, clock_wait: Duration) -> Check {
    const NAME: &str = "clock";
    let says = jiff::Timestamp::from_millisecond(now.wall_ms)
        .map_or_else(|_| "?".to_owned(), |at| at.strftime("%Y-%m-%d %H:%M UTC").to_string());
    let wait = show_duration(clock_wait);
    let hint =
        "timedatectl shows what keeps it; it needs a time server (UDP port 123), by name and through the firewall";
    if now.wall_ms < FLOOR_MS {
        let message = format!("it says {says}, which cannot be: nothing is sent for {wait} (agent.clock_wait)");
        return Check::wrong(NAME, message, hint);
    }
    match (now.synchronised, timesyncd) {
        (true, true) => Check::ok(NAME, format!("synchronised, {says}")),
        (true, false) => {
            let what = "believed, since systemd-timesyncd does not keep it";
            Check::ok(NAME, format!("{what}; it says {says}"))
        }
        (false, _) => {
            let message = format!(
                "not synchronised, it says {says}: after a start nothing is sent for {wait} (agent.clock_wait)"
            );
            Check::warning(NAME, message, hint)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::print::shown;
    use super::*;

    /// Promise 8: a clock that is wrong, or may be, is said before readings wait for it.
    #[test]
    fn verdicts() {
        let of = |wall_ms, synchronised, timesyncd| {
            let now = Received { wall_ms, boot_ms: 1, boot_id: 1, synchronised };
            verdict(&now, timesyncd, Duration::from_secs(600))
        };
        let now = 1_800_000_000_000;
        insta::assert_snapshot!(shown(vec![
            of(now, true, true),
            of(now, true, false),
            of(now, false, true),
            of(0, false, true)
        ]));
    }
}

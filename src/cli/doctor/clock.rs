//! The clock: right, or the agent waits. Pure but for [`look`].

use std::path::Path;
use std::time::Duration;

use super::check::Check;
use crate::clock::FLOOR_MS;
use crate::config::show_duration;
use crate::decode::Decoded;
use crate::reading::Received;

/// There is one where systemd-timesyncd keeps the clock.
const TIMESYNC: &str = "/run/systemd/timesync";

/// A device's clock that is so many seconds away is off.
const OFF_S: u64 = 24 * 60 * 60;

/// What the clocks of this machine say.
pub fn look(now: &Received, clock_wait: Duration) -> Vec<Check> {
    vec![verdict(now, Path::new(TIMESYNC).is_dir(), clock_wait)]
}

/// What is wrong with the clock of a device that says `decoded` now, and what helps; `now_s` in seconds since 1970.
pub fn of_device(decoded: &Decoded, now_s: i64) -> Option<(String, &'static str)> {
    let off = decoded.measured_ms.filter(|ms| (ms / 1000).abs_diff(now_s) >= OFF_S);
    if let Some(ms) = off {
        let says = jiff::Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |at| at.to_string());
        return Some((
            format!("its clock says {says}"),
            "its readings have the time of receipt; set its clock (NTP), unless it is this machine's that is wrong",
        ));
    }
    decoded.time_unread.then(|| {
        let hint = "its readings have the time of receipt; meterferry map FILE shows what it sends as the time";
        ("its time cannot be read".to_owned(), hint)
    })
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

    /// Promise 8: a device whose clock is off, or tells nothing, is named; one that is a little late is not.
    #[test]
    fn clocks_of_devices() {
        use crate::config::settings::Payload;
        let said = |time: &str| {
            let document = format!(r#"{{"1-0:1.8.0":{{"value":1,"time":{time}}}}}"#);
            let decoded = crate::decode::decode(&Payload::Sma, "s", "sma", document.as_bytes()).expect("a reading");
            of_device(&decoded, 1_800_000_000).map(|(what, _)| what)
        };
        assert_eq!(["1799990000", "1800080000", "0", "null"].map(said), [const { None }; 4]);
        assert_eq!(said("1104537600").as_deref(), Some("its clock says 2005-01-01T00:00:00Z"));
        assert_eq!(said("1900000000").as_deref(), Some("its clock says 2030-03-17T17:46:40Z"));
        assert_eq!(said("\"12:00\"").as_deref(), Some("its time cannot be read"));
    }

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

//! Promise 5 over midnight (UTC): each sequence is in one daily receipt, whatever else happens at that hour.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{Span, Timestamp};
use serde_json::Value;

use crate::harness::clock::Clock;
use crate::harness::kafka::Kafka;
use crate::harness::line::Line;
use crate::harness::wait::{PATIENT, SOON};

const DAY_S: i64 = 24 * 60 * 60;

/// Sets the clock so long before the midnight that ended the day so many days ago, and returns that day.
fn set_before_midnight(clock: &Clock, before: Duration, days_ago: i64) -> String {
    let now = Timestamp::now();
    let midnight_s = (now.as_second().div_euclid(DAY_S) - days_ago + 1) * DAY_S;
    let midnight = Timestamp::from_second(midnight_s).expect("a time");
    let back = Duration::try_from(now.duration_since(midnight)).expect("it is past") + before;
    clock.set(back, false);
    midnight.checked_sub(Span::new().hours(1)).expect("a time").strftime("%F").to_string()
}

/// Promises 3 and 5: one midnight without Kafka and with a kill behind it, one in the middle of the day's work: one receipt
/// for each of the two days, each in its place, and they agree with what is there.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn receipts_over_midnight() {
    let mut line = Line::new(Kafka::shared(), "midnight");
    let clock = Clock::new();
    line.agent.inside(clock.words());
    line.agent.reconfigure(|queue| line.config(queue).kafka("bootstrap_servers = [\"127.0.0.1:9\"]"));
    let first = set_before_midnight(&clock, Duration::from_secs(20), 3);
    line.start();
    line.publish(20);
    line.agent.wait_figures("the evening's readings", SOON, |live| live.end >= 21);
    let before = line.agent.figures().expect("the agent answers").end;
    assert_eq!(before, 21, "midnight came before the evening's readings were there");
    line.agent.wait_figures("the place for the receipt", PATIENT, |live| live.end == 22);
    line.publish(10);
    line.agent.wait_figures("the night's readings", SOON, |live| live.end == 32);
    line.agent.kill();
    line.agent.reconfigure(|queue| line.config(queue));
    line.agent.start();
    line.audit();

    let second = set_before_midnight(&clock, Duration::from_secs(10), 2);
    line.publish(5);
    line.agent.wait_figures("the second receipt to be sent", PATIENT, |live| live.release_point == 38);
    line.publish(5);
    let audit = line.finish();
    audit.assert_exact();
    let receipts: Vec<(u64, Value)> = audit
        .records
        .iter()
        .filter(|record| record.is_receipt())
        .map(|record| (record.id().1, serde_json::from_slice(&record.value).expect("JSON")))
        .collect();
    let figures = |value: &Value| ["first", "last", "count"].map(|figure| value[figure].as_u64().expect("a number"));
    assert_eq!(receipts.len(), 2, "{receipts:?}");
    let [(21, evening), (_, day)] = &receipts[..] else { panic!("the first is not in its place: {receipts:?}") };
    assert_eq!((&evening["day"], figures(evening)), (&first.into(), [1, 20, 20]));
    assert_eq!(day["day"], second);
    // A reading may come before or behind midnight; each is in one of the days.
    let [from, to, count] = figures(day);
    assert_eq!((from, count), (22, to - 21), "{receipts:?}");
    let ids: BTreeSet<u64> = audit.records.iter().map(|record| record.id().1).collect();
    assert_eq!(ids, (1..=42).collect(), "every sequence is there");
    let mut audit = line.agent.command(&["audit", "--json"]);
    let output = audit.output().expect("it runs");
    let value: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((output.status.code(), &value["queues"][0]["receipts"]["agree"]), (Some(0), &2.into()), "{value}");
}

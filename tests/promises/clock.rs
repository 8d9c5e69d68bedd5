//! Promises 3, 4 and 8, whatever the wall clock does: every reading once, in the order of arrival, and with the time at
//! which it came, as far as that can be known.

use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use meterferry::agent::live::Live;
use rand::RngExt;
use rand::rngs::StdRng;

use crate::harness::agent::Agent;
use crate::harness::auditor::Record;
use crate::harness::clock::Clock;
use crate::harness::document::{self, Message};
use crate::harness::kafka::Kafka;
use crate::harness::line::Line;
use crate::harness::namespace;
use crate::harness::scale::{choices, scale};
use crate::harness::wait::{self, PATIENT, SOON, SetAtEnd};

const DAY: Duration = Duration::from_secs(86_400);

/// When the reading was measured, as its document says (milliseconds since 1970).
fn measured_ms(value: &[u8]) -> i64 {
    let document: serde_json::Value = serde_json::from_slice(value).expect("the adapter's document");
    document["1-0:1.8.0"]["time"].as_i64().expect("a time") * 1000
}

/// How far the record's own times are from the truth: `ce_time`, and the timestamp that Kafka deletes by.
fn errors(record: &Record) -> [Duration; 2] {
    let truth = measured_ms(&record.value);
    let told: jiff::Timestamp = record.header("ce_time").parse().expect("a time");
    [told.as_millisecond(), record.timestamp_ms].map(|ms| Duration::from_millis(ms.abs_diff(truth)))
}

#[track_caller]
fn assert_times(records: &[Record], within: Duration) {
    // A day that the clock only passed through may have its receipt; nobody measured it.
    for record in records.iter().filter(|record| !record.is_receipt()) {
        let wrong = errors(record);
        assert!(
            wrong.iter().all(|wrong| *wrong <= within),
            "ce_time and timestamp are wrong by {wrong:?}: ce_time {}, timestamp {}, {}",
            record.header("ce_time"),
            record.timestamp_ms,
            String::from_utf8_lossy(&record.value)
        );
    }
}

/// Promises 4 and 8: a machine without a clock starts in 1970, the agent is killed and starts again, then NTP comes.
/// Nothing is sent before; everything has its true time then, by the boot clock.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn boot_in_1970() {
    let mut line = Line::new(Kafka::shared(), "in-1970");
    let clock = Clock::new();
    line.agent.inside(clock.words());
    clock.set_to_1970();
    line.start();
    line.publish(20);
    line.agent.wait_figures("the readings to be stored", SOON, |live| live.end == 21);
    line.agent.kill();
    line.agent.start();
    line.publish(20);
    line.agent.wait_figures("the readings to be stored", SOON, |live| live.end == 41 && live.kafka_connected);
    assert_eq!(line.agent.figures().expect("the agent answers").sent, 0, "sent with a wrong clock");
    clock.set_right();
    line.publish(20);
    let audit = line.finish();
    audit.assert_exact();
    assert_times(&audit.records, Duration::from_secs(2));
}

/// Promises 4 and 8: a machine starts with the time of its last shutdown, days ago, and systemd-timesyncd sets it right
/// later.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn boot_at_the_last_shutdown() {
    if !namespace::available("boot_at_the_last_shutdown") {
        return;
    }
    let mut line = Line::new(Kafka::shared(), "shutdown");
    let clock = Clock::new();
    line.agent.inside(clock.words_with_timesyncd());
    clock.set(20 * DAY, false);
    line.start();
    line.publish(20);
    line.agent.wait_figures("the readings to be stored", SOON, |live| live.end == 21 && live.kafka_connected);
    assert_eq!(line.agent.figures().expect("the agent answers").sent, 0, "sent with a wrong clock");
    clock.set_right();
    clock.synchronise();
    line.publish(20);
    let audit = line.finish();
    audit.assert_exact();
    assert_times(&audit.records, Duration::from_secs(2));
}

/// A step of the clock: an hour at least, twenty years at most, either way.
fn step(choices: &mut StdRng) -> (Duration, bool) {
    let (least, most) = (3_600.0_f64, 20.0 * 365.0 * 86_400.0);
    let seconds = least * (most / least).powf(choices.random::<f64>());
    (Duration::from_secs_f64(seconds), choices.random_bool(0.5))
}

/// Waits until the agent's figures are so. One that ends because the clock was set back is started again, as systemd
/// would.
#[track_caller]
fn wait_figures(agent: &mut Agent, what: &str, mut so: impl FnMut(&Live) -> bool) {
    wait::until_true(what, PATIENT, || {
        if agent.ended().is_some() {
            let log = agent.log();
            assert!(log.contains("the clock was set back by"), "the agent ended by itself:\n{log}");
            println!("started again");
            agent.wait(SOON);
            agent.start();
        }
        agent.figures().is_some_and(|live| so(&live))
    });
}

/// Sets the clock by `set`, and waits until the agent has seen it, or has ended of it.
#[track_caller]
fn set_and_seen(agent: &mut Agent, set: impl FnOnce()) {
    wait_figures(agent, "the agent to answer", |_| true);
    let times = |agent: &Agent| agent.log().matches(" the clock was set way=").count();
    let before = times(agent);
    set();
    wait::until_true("the agent to look at the clock", SOON, || agent.ended().is_some() || times(agent) > before);
}

/// Promises 3, 4 and 8: the clock is set back and ahead by hours and by years while readings come and go. What Kafka would
/// refuse or delete is not sent until the clock is right again.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn set_again_and_again() {
    let mut line = Line::new(Kafka::shared(), "steps");
    let clock = Clock::new();
    line.agent.inside(clock.words());
    line.start();
    line.publish(10);
    line.audit();
    let mut choices = choices("steps");
    let load = self::choices("steps, the load");
    let enough = AtomicBool::new(false);
    let Line { agent, publisher, .. } = &mut line;
    let make = |first, count| -> Vec<Message> { document::readings(&["a", "b"], first, count) };
    thread::scope(|scope| {
        scope.spawn(|| publisher.publish_on(load, &enough, make));
        let _end = SetAtEnd(&enough);
        for _ in 0..scale(3, 300) {
            let (by, ahead) = step(&mut choices);
            println!("the clock is set {} by {} h", if ahead { "ahead" } else { "back" }, by.as_secs() / 3_600);
            set_and_seen(agent, || clock.set(by, ahead));
            let mut wanted = choices.random_range(50..300);
            let mut from = None;
            wait_figures(agent, "readings to be stored", |live| live.end >= *from.get_or_insert(live.end) + wanted);
            if agent.ended().is_none() && choices.random_bool(0.2) {
                agent.kill();
                agent.start();
            }
            set_and_seen(agent, || clock.set_right());
            wanted = choices.random_range(1..100);
            let mut from = None;
            wait_figures(agent, "readings to be released", |live| {
                live.release_point >= *from.get_or_insert(live.release_point) + wanted
            });
        }
    });
    publisher.wait_acknowledged();
    let audit = line.finish();
    audit.assert_exact();
    // A clock that is an hour ahead cannot be told from one that is right, nor by Kafka.
    assert_times(&audit.records, Duration::from_secs(3_700));
}

//! Promises 3 to 5, as anybody can check them on the other side: `meterferry audit`.

use std::process::{Command, Stdio};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;

use crate::harness::by_hand::{ByHand, Hand};
use crate::harness::kafka::Kafka;
use crate::harness::line::Line;
use crate::harness::mosquitto::{Options, mosquitto_pub};
use crate::harness::process::{self, Running};
use crate::harness::scale::scale;
use crate::harness::wait::{self, PATIENT, SOON};

const GAP: &str = "io.meterferry.gap";
const DEVICES: [&str; 5] = ["alpha", "beta", "gamma", "delta", "epsilon"];

/// What the audit said: its exit code, and its JSON.
struct Outcome {
    code: Option<i32>,
    value: Value,
}

impl Outcome {
    /// A figure of the queue at that place.
    fn of(&self, at: usize, figure: &str) -> &Value {
        self.value["queues"][at]
            .pointer(&format!("/{}", figure.replace('.', "/")))
            .unwrap_or_else(|| panic!("{figure}: {}", self.value))
    }
}

fn command(kafka: &Kafka, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_meterferry"));
    command.args(["audit", "--brokers", &kafka.plain()]).args(arguments);
    command.env("XDG_CONFIG_HOME", "/nonexistent").env("TZ", "UTC");
    command
}

fn audit(kafka: &Kafka, arguments: &[&str]) -> Outcome {
    let output = command(kafka, arguments).arg("--json").stdin(Stdio::null()).output().expect("it runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    let value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {errors}"));
    Outcome { code: output.status.code(), value }
}

/// What a person sees.
fn table(kafka: &Kafka, topic: &str) -> String {
    let output = command(kafka, &["--topic", topic, "--color", "never"]).output().expect("it runs");
    String::from_utf8(output.stdout).expect("text")
}

/// Sends readings under these sequences, twenty to a transaction, each device in its turn.
fn send(hand: &Hand, topic: &str, sequences: &[u64]) {
    for some in sequences.chunks(20) {
        hand.begin();
        for sequence in some {
            hand.send(topic, &ByHand::reading(*sequence, DEVICES[(*sequence % 5) as usize], b"{}"));
        }
        hand.commit();
    }
}

fn gap(first: u64, last: u64) -> String {
    format!(r#"{{"first":{first},"last":{last},"count":{},"reason":"a damaged segment"}}"#, last - first + 1)
}

/// Promise 9: what is right is called right: two agents in one topic of several partitions, one of them forked.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn all_is_well() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("audit-well", 4);
    let hand = Hand::transactional(kafka, &topic);
    for some in (1..=300).collect::<Vec<u64>>().chunks(25) {
        hand.begin();
        for sequence in some {
            let device = DEVICES[(*sequence % 5) as usize];
            hand.send(&topic, &ByHand::reading(*sequence, device, b"{}"));
            let queue = if *sequence <= 150 { 8 } else { 9 };
            hand.send(&topic, &ByHand::reading(*sequence, &format!("other-{device}"), b"{}").of(queue, "another"));
        }
        hand.commit();
    }
    // What is aborted was never there.
    hand.begin();
    hand.send(&topic, &ByHand::reading(301, "alpha", b"{}"));
    hand.send(&topic, &ByHand::reading(400, "beta", b"{}"));
    hand.flush();
    hand.abort();
    let outcome = audit(kafka, &["--topic", &topic]);
    assert_eq!((outcome.code, &outcome.value["complete"]), (Some(0), &true.into()), "{}", outcome.value);
    assert_eq!(outcome.value["queues"].as_array().map(Vec::len), Some(3));
    let expected = [("another", 1, 150, 150), ("another", 151, 300, 150), ("bed", 1, 300, 300)];
    for (at, (agent, first, last, readings)) in expected.into_iter().enumerate() {
        assert_eq!(outcome.of(at, "agent"), agent);
        let figures = ["first", "last", "readings", "missing", "repeats", "out_of_order.within_the_queue"];
        assert_eq!(figures.map(|figure| outcome.of(at, figure).as_u64()), [first, last, readings, 0, 0, 0].map(Some));
        assert_eq!(outcome.of(at, "devices"), 5);
        assert_eq!(outcome.of(at, "longest_pause.seconds"), 5.0);
    }
    assert!(table(kafka, &topic).contains("complete: 600 readings"), "{}", table(kafka, &topic));
}

/// Promise 5: a hole that nothing explains is found, and one that a gap record explains is not held against the agent.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn holes() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("audit-holes", 3);
    let hand = Hand::transactional(kafka, &topic);
    let there: Vec<u64> = (1..=100).filter(|sequence| ![17, 40, 41, 42].contains(sequence)).collect();
    send(&hand, &topic, &there);
    let outcome = audit(kafka, &["--topic", &topic]);
    assert_eq!((outcome.code, outcome.of(0, "missing")), (Some(1), &4.into()));
    assert_eq!(outcome.of(0, "missing_ranges.1.first"), 40);
    assert!(table(kafka, &topic).contains("missing and not explained: 40 to 42 (3)"), "{}", table(kafka, &topic));

    hand.begin();
    hand.send(&topic, &ByHand::reading(42, "bed", gap(40, 42).as_bytes()).kind(GAP));
    hand.commit();
    let outcome = audit(kafka, &["--topic", &topic]);
    assert_eq!((outcome.code, outcome.of(0, "missing"), outcome.of(0, "explained")), (Some(1), &1.into(), &3.into()));

    hand.begin();
    hand.send(&topic, &ByHand::reading(17, "bed", gap(17, 17).as_bytes()).kind(GAP));
    hand.commit();
    let outcome = audit(kafka, &["--topic", &topic]);
    assert_eq!((outcome.code, outcome.of(0, "reasons.a damaged segment")), (Some(0), &4.into()));
}

/// Promises 3 and 4: what came twice and what came late is told; it is not missing.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn repeats_and_disorder() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("audit-repeats", 1);
    let hand = Hand::transactional(kafka, &topic);
    send(&hand, &topic, &[1, 2, 3, 4, 5, 6, 7, 3, 4, 5, 13, 8, 9, 10, 11, 12]);
    let outcome = audit(kafka, &["--topic", &topic]);
    assert_eq!((outcome.code, outcome.of(0, "repeats"), outcome.of(0, "readings")), (Some(0), &3.into(), &13.into()));
    assert_eq!(outcome.of(0, "out_of_order.within_a_device"), 1, "8 stands behind 13");
    assert_eq!(outcome.of(0, "out_of_order.within_the_queue"), 5);
}

/// Promise 3: what an agent in `at-least-once` repeats after a kill is counted, said, and not held against it.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn repeats_of_an_agent_at_least_once() {
    let kafka = Kafka::shared();
    let mut line =
        Line::with(kafka, "audit-again", &Options::default(), |config, _| config.kafka("delivery = \"at-least-once\""));
    line.agent.failpoint(Some("released"));
    line.start();
    line.publish_until_failpoint();
    line.agent.failpoint(None);
    line.agent.start();
    line.publish(20);
    line.audit();
    line.agent.stop();
    let outcome = audit(kafka, &["--topic", &line.topic]);
    let readings = line.publisher.published().len();
    assert_eq!((outcome.code, outcome.of(0, "readings")), (Some(0), &readings.into()), "{}", outcome.value);
    assert!(outcome.of(0, "repeats").as_u64() > Some(0), "{}", outcome.value);
    let text = table(kafka, &line.topic);
    assert!(text.contains("repeated, to be dropped by ce_id: at-least-once may"), "{text}");
}

/// Promise 9: readings that were lost with the queue's folder leave no trace in Kafka; that there may be such is said.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn a_folder_that_was_deleted() {
    let kafka = Kafka::shared();
    let mut line = Line::new(kafka, "audit-deleted-folder");
    line.start();
    line.publish(20);
    line.audit();
    line.agent.stop();
    line.agent.set_open_day(1);
    line.agent.start();
    // With its receipt, which knows of all that was there.
    line.agent.wait_figures("the day's receipt to be sent", SOON, |live| live.release_point == 22);
    line.agent.stop();
    line.agent.reconfigure(|queue| line.config(queue).kafka("bootstrap_servers = [\"127.0.0.1:9\"]"));
    line.agent.start();
    line.publish(30);
    line.agent.wait_figures("the readings to wait", SOON, |live| live.end == 52);
    line.agent.stop();
    std::fs::remove_dir_all(line.agent.queue()).expect("the queue's folder");
    line.agent.reconfigure(|queue| line.config(queue));
    line.agent.start();
    line.publish(10);
    line.agent.wait_figures("the new queue to be sent", SOON, |live| live.release_point == 11);
    line.agent.stop();
    let outcome = audit(kafka, &["--topic", &line.topic]);
    assert_eq!((outcome.code, outcome.of(0, "receipts.agree")), (Some(0), &1.into()), "{}", outcome.value);
    let queues = [(0, "new", 20), (1, "anew", 10)];
    for (at, beginning, readings) in queues {
        assert_eq!((outcome.of(at, "beginning"), outcome.of(at, "readings")), (&beginning.into(), &readings.into()));
    }
    assert_eq!(outcome.of(1, "after_queue"), outcome.of(0, "queue_id"));
    let text = table(kafka, &line.topic);
    assert!(text.contains("what still waited in that one was lost with its folder"), "{text}");
}

/// Promise 9: an agent that sends to two topics has one row of numbers; of one topic alone nothing follows.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn all_topics_together() {
    let kafka = Kafka::shared();
    let (one, two) = (kafka.topic("audit-one", 2), kafka.topic("audit-two", 1));
    let hand = Hand::new(kafka);
    for sequence in 1..=60 {
        let topic = if sequence % 3 == 0 { &two } else { &one };
        hand.send(topic, &ByHand::reading(sequence, DEVICES[(sequence % 5) as usize], b"{}"));
    }
    hand.flush();
    assert_eq!(audit(kafka, &["--topic", &one]).code, Some(1));
    let outcome = audit(kafka, &["--topic", &one, "--topic", &two]);
    assert_eq!((outcome.code, outcome.of(0, "readings")), (Some(0), &60.into()), "{}", outcome.value);
}

/// Promise 9: nothing is said before it is known: a transaction that is open is waited for, in every partition.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn open_transactions_are_waited_for() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("audit-open", 3);
    let hand = Hand::transactional(kafka, &topic);
    send(&hand, &topic, &(1..=50).collect::<Vec<_>>());
    hand.begin();
    for sequence in 51..=60 {
        hand.send(&topic, &ByHand::reading(sequence, DEVICES[(sequence % 5) as usize], b"{}"));
    }
    hand.flush();
    let audit = std::thread::scope(|scope| {
        let audit = scope.spawn(|| audit(kafka, &["--topic", &topic]));
        std::thread::sleep(Duration::from_secs(2));
        assert!(!audit.is_finished(), "the end is hidden");
        hand.commit();
        audit.join().expect("no panic")
    });
    assert_eq!((audit.code, audit.of(0, "readings")), (Some(0), &60.into()));
}

/// Promise 8: what retention has deleted is said, and not missing; so is what `--from` leaves out.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn a_deleted_beginning() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("audit-deleted", 3);
    let hand = Hand::transactional(kafka, &topic);
    send(&hand, &topic, &(1..=200).collect::<Vec<_>>());
    // Kafka dates records by the millisecond: this one is behind those above, and not behind those below.
    let next_ms = jiff::Timestamp::now().as_millisecond() + 1;
    let between = jiff::Timestamp::from_millisecond(next_ms).expect("a time");
    while jiff::Timestamp::now() < between {
        std::hint::spin_loop();
    }
    let between = between.to_string();
    send(&hand, &topic, &(201..=300).collect::<Vec<_>>());
    let from = audit(kafka, &["--topic", &topic, "--from", &between]);
    assert_eq!((from.code, from.of(0, "first"), from.of(0, "readings")), (Some(0), &201.into(), &100.into()));

    let mut offsets = TopicPartitionList::new();
    // Not as much of each: the first ones of the others become holes.
    for (partition, offset) in [(0, 30), (1, 10), (2, 55)] {
        offsets.add_partition_offset(&topic, partition, Offset::Offset(offset)).expect("an offset");
    }
    let admin: AdminClient<DefaultClientContext> = kafka.client().create().expect("a client");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let options = AdminOptions::new().operation_timeout(Some(PATIENT));
    runtime.block_on(admin.delete_records(&offsets, &options)).expect("Kafka deletes");
    let outcome = audit(kafka, &["--topic", &topic]);
    assert_eq!((outcome.code, outcome.of(0, "missing")), (Some(0), &0.into()), "{}", outcome.value);
    assert!(outcome.of(0, "not_kept").as_u64() > Some(0), "{}", outcome.value);
    assert!(table(kafka, &topic).contains("what was before is deleted"), "{}", table(kafka, &topic));

    // What is missing above that is missing.
    send(&hand, &topic, &[301, 303]);
    let outcome = audit(kafka, &["--topic", &topic]);
    assert_eq!((outcome.code, outcome.of(0, "missing")), (Some(1), &1.into()), "{}", outcome.value);
}

/// Promise 9: with `--from`, a reading that Kafka dates earlier than its neighbours is looked for before it is called
/// missing, and is in no figure; one that is lost is found.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn dates_that_do_not_rise() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("audit-dates", 4);
    let hand = Hand::new(kafka);
    let now = jiff::Timestamp::now().as_millisecond();
    for sequence in (1..=200).filter(|sequence| *sequence != 150) {
        // The clock of one device is an hour behind.
        let behind = if sequence % 5 == 2 { 3_600_000 } else { 0 };
        let timestamp_ms = now - i64::try_from(200 - sequence).expect("small") * 1000 - behind;
        let reading = ByHand::reading(sequence, DEVICES[(sequence % 5) as usize], b"{}");
        hand.send(&topic, &ByHand { timestamp_ms: Some(timestamp_ms), ..reading });
    }
    hand.flush();
    let from = jiff::Timestamp::from_millisecond(now - 100_500).expect("a time").to_string();
    let outcome = audit(kafka, &["--topic", &topic, "--from", &from]);
    assert_eq!((outcome.code, outcome.of(0, "missing")), (Some(1), &1.into()), "{}", outcome.value);
    assert_eq!(outcome.of(0, "missing_ranges.0.first"), 150);
    assert_eq!((outcome.of(0, "first"), outcome.of(0, "readings")), (&100.into(), &80.into()), "{}", outcome.value);
}

/// Promise 9: where a topic's head is lost, or a fork's old queue is in another topic, that is said.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn a_lost_head() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("audit-head", 2);
    let hand = Hand::transactional(kafka, &topic);
    send(&hand, &topic, &[18, 19]);
    let outcome = audit(kafka, &["--topic", &topic]);
    assert_eq!((outcome.code, outcome.of(0, "beginning")), (Some(0), &"unknown".into()), "{}", outcome.value);
    let text = table(kafka, &topic);
    assert!(text.contains("begins with 18: what was before is not in Kafka") && !text.contains("complete:"), "{text}");
}

/// Promise 9: nothing proves nothing, and a cluster that is not there is no loss.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn nothing_to_audit() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("audit-nothing", 2);
    assert_eq!(audit(kafka, &["--topic", &topic]).code, Some(1));
    let failed = |arguments: &[&str]| {
        let output = command(kafka, arguments).output().expect("it runs");
        assert_eq!((output.status.code(), output.stdout.len()), (Some(69), 0), "{output:?}");
        String::from_utf8(output.stderr).expect("text")
    };
    assert!(failed(&["--topic", "audit-no-such"]).contains("there is no such topic"));
    let nobody = format!("127.0.0.1:{}", process::free_port());
    let mut command = Command::new(env!("CARGO_BIN_EXE_meterferry"));
    let output = command.args(["audit", "--brokers", &nobody, "--topic", &topic]).output().expect("it runs");
    assert_eq!(output.status.code(), Some(69));
    let text = String::from_utf8(output.stderr).expect("text");
    assert!(text.contains("cannot reach Kafka at") && text.contains("refused"), "{text}");
    assert!(text.contains("advertised.listeners") && !text.contains("name it with"), "{text}");
}

/// Promise 6: the audit of many records takes little memory, also when a partition is far behind another.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn little_memory() {
    let kafka = Kafka::shared();
    let records = scale(60_000, 1_000_000);
    let topic = kafka.topic("audit-many", 6);
    let hand = Hand::new(kafka);
    let value = [b'x'; 450];
    let devices: Vec<String> = (0..40).map(|device| format!("device-{device}")).collect();
    let now = jiff::Timestamp::now().as_millisecond();
    let missing = records / 2;
    for sequence in (1..=records).filter(|sequence| *sequence != missing) {
        let timestamp_ms = now - i64::try_from(records - sequence).expect("small") * 100;
        let device = &devices[(sequence.wrapping_mul(0x9e37_79b9) >> 7) as usize % devices.len()];
        let record = ByHand { timestamp_ms: Some(timestamp_ms), ..ByHand::reading(sequence, device, &value) };
        hand.send(&topic, &record);
    }
    hand.flush();
    let log = process::scratch("audit").path().with_extension("log");
    let begin = std::time::Instant::now();
    let mut running = Running::start("the audit", &mut command(kafka, &["--topic", &topic, "--json"]), &log);
    let mut peak = 0;
    let status = wait::until("the audit to end", Duration::from_secs(600), || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", running.pid())).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_default();
        peak = line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or(0).max(peak);
        running.ended()
    });
    println!("{records} records in {:?}, {peak} KiB at most", begin.elapsed());
    let text = running.log();
    let value: Value = serde_json::from_str(text.lines().last().unwrap_or_default()).expect("JSON");
    assert_eq!((status.code(), &value["queues"][0]["missing"]), (Some(1), &1.into()), "{text}");
    assert_eq!(value["queues"][0]["readings"], records - 1);
    assert!(peak < 128 << 10, "{peak} KiB");
}

/// Promise 9: an audit beside an agent that sends finds nothing missing that is only on its way.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn beside_a_running_agent() {
    let kafka = Kafka::shared();
    let mut line = Line::new(kafka, "audit-live");
    line.start();
    line.publish(20);
    line.audit();
    for _ in 0..6 {
        let messages = line.next(&DEVICES, 60);
        messages.iter().for_each(|message| line.publisher.publish(message));
        let outcome = audit(kafka, &["--topic", &line.topic]);
        assert_eq!(outcome.code, Some(0), "{}", outcome.value);
    }
    line.publisher.wait_acknowledged();
    line.finish().assert_exact();
    let mut command = line.agent.command(&["audit", "--json"]);
    let output = command.output().expect("it runs");
    let value: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((output.status.code(), &value["queues"][0]["readings"]), (Some(0), &(20 + 6 * 300).into()), "{value}");
    assert_eq!(value["queues"][0]["devices"], 6);
}

/// Promises 3 and 5: the agent's daily receipt says what is there, whatever happened that day and wherever the agent was
/// killed when it sent it: one a day, and it agrees.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn daily_receipts_agree() {
    let kafka = Kafka::shared();
    let mut line = Line::new(kafka, "audit-daily");
    line.start();
    line.publish(20);
    mosquitto_pub(line.mosquitto.port(), "sma", b"not a document");
    line.publish(10);
    line.audit();
    line.agent.stop();
    for (day, point) in
        [(9, "committed"), (8, "in-transaction"), (7, "offsets-sent"), (6, "kafka-committed"), (5, "released")]
    {
        line.agent.set_open_day(day);
        line.agent.failpoint(Some(point));
        line.agent.start();
        line.agent.wait_failpoint();
        line.agent.failpoint(None);
        line.start();
        line.publish(5);
        line.audit();
        line.agent.stop();
    }
    let audit = line.auditor().audit(&line.publisher.published());
    assert_eq!((audit.repeated, audit.gaps().len()), (0, 1), "{audit}");
    audit.assert_exact();
    let receipts: Vec<Value> = audit
        .records
        .iter()
        .filter(|record| record.is_receipt())
        .map(|record| serde_json::from_slice(&record.value).expect("JSON"))
        .collect();
    let days: std::collections::BTreeSet<&str> =
        receipts.iter().map(|receipt| receipt["day"].as_str().expect("a day")).collect();
    assert_eq!((receipts.len(), days.len()), (5, 5), "{receipts:?}");
    assert_eq!(
        (&receipts[0]["first"], &receipts[0]["last"], &receipts[0]["count"]),
        (&1.into(), &31.into(), &30.into())
    );
    assert_eq!((&receipts[0]["gaps"][0]["first"], &receipts[0]["gaps"][0]["count"]), (&21.into(), &1.into()));
    let outcome = self::audit(kafka, &["--topic", &line.topic]);
    assert_eq!((outcome.code, outcome.of(0, "receipts.agree")), (Some(0), &5.into()), "{}", outcome.value);
    assert_eq!(outcome.of(0, "readings"), 30 + 5 * 5);
    // Nobody takes it for a reading.
    let mut consume = line.agent.command(&["consume", "--count", "61"]);
    let shown = String::from_utf8(consume.output().expect("it runs").stdout).expect("text");
    assert_eq!(shown.matches("receipt of 20").count(), 5, "{shown}");

    // A receipt proves a loss that leaves no hole: the topic's beginning was deleted with the topic.
    let topic = kafka.topic("audit-copy", 1);
    let hand = Hand::new(kafka);
    for record in audit.records.iter().filter(|record| record.id().1 > 4) {
        let (queue, sequence) = record.id();
        let queue = u128::from_str_radix(queue, 16).expect("a queue id");
        let record =
            ByHand::reading(sequence, &record.key, &record.value).kind(record.header("ce_type")).of(queue, "copy");
        hand.send(&topic, &record);
    }
    hand.flush();
    let outcome = self::audit(kafka, &["--topic", &topic]);
    assert_eq!((outcome.code, outcome.of(0, "missing_ranges.0.last")), (Some(1), &4.into()), "{}", outcome.value);
    assert!(table(kafka, &topic).contains("says 30 readings in 1 to 31, here are 26"), "{}", table(kafka, &topic));
}

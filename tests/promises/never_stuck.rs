//! Promise 5: never stuck, never silent. What cannot be sent is set aside and explained; what cannot be reached is
//! waited for.

use std::fs;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use rumqttc::QoS;

use crate::harness::adapter::Adapter;
use crate::harness::agent::Agent;
use crate::harness::auditor::Auditor;
use crate::harness::clock::Clock;
use crate::harness::config::Config;
use crate::harness::document::{self, Message};
use crate::harness::kafka::Kafka;
use crate::harness::line::Line;
use crate::harness::mosquitto::Options;
use crate::harness::process;
use crate::harness::proxy::Direction;
use crate::harness::wait::{self, PATIENT, SOON};

/// The dead letters, as the command lists them.
fn dead_letters(line: &Line<'_>) -> Vec<serde_json::Value> {
    let text = process::run(&mut line.agent.command(&["dead-letters", "list", "--json"]));
    text.lines().map(|line| serde_json::from_str(line).expect("one JSON object a line")).collect()
}

/// Promise 5: Kafka is killed, stays away while the agent is killed too, and comes back; then it is stopped and started.
/// Everything published is there once and in order.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn kafka_goes_away_and_comes_back() {
    let kafka = Kafka::start();
    let mut line = Line::new(&kafka, "outage");
    line.start();
    line.publish(30);
    line.audit().assert_exact();

    kafka.kill();
    for _ in 0..5 {
        line.publish(30);
        line.agent.kill();
        line.agent.start();
    }
    line.publish(30);
    kafka.restart();
    line.audit().assert_exact();

    let messages = line.next(&["90296857"], 200);
    messages.iter().for_each(|message| line.publisher.publish(message));
    kafka.stop();
    line.publisher.wait_acknowledged();
    line.publish(30);
    kafka.restart();
    line.finish().assert_exact();
}

/// Promise 5: what cannot be decoded or is too large becomes a dead letter with its reason; its neighbours arrive, and a
/// gap record stands in its place.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn broken_messages_are_set_aside() {
    let mut line = Line::new(Kafka::shared(), "broken");
    line.start();
    let huge = format!(r#"{{"name":"huge","x":"{}"}}"#, "y".repeat(10_000_000));
    let large = format!(r#"{{"name":"large","0-0:96.1.0":{{"value":"{}"}}}}"#, "1".repeat(300_000));
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let deep_object = format!(r#"{{"name":"deep","x":{}1{}}}"#, r#"{"x":"#.repeat(20_000), "}".repeat(20_000));
    // Each with a word of the reason that a person is given.
    let broken: [(&[u8], &str); 10] = [
        (b"", "not JSON"),
        (b"not JSON", "not JSON"),
        (br#"{"name":"cut","0-0:96.1.0":{"val"#, "not JSON"),
        (br#"{"name":"twice","name":"twice","sma_time":1.0}"#, "twice"),
        (br#"{"name":"nan","1-0:1.7.0":{"value":NaN}}"#, "not JSON"),
        (b"{\"name\":\"\xff\xfe\"}", "UTF-8"),
        (deep.as_bytes(), "array"),
        (deep_object.as_bytes(), "deep"),
        (large.as_bytes(), "max_reading_size"),
        (huge.as_bytes(), "max_reading_size"),
    ];
    for (payload, _) in broken {
        line.publish(2);
        line.publisher.publish_raw("sma", rumqttc::QoS::AtLeastOnce, false, payload);
    }
    line.publish(2);
    let audit = line.finish();
    audit.assert_exact();
    let gaps = audit.gaps();
    assert_eq!(gaps.iter().map(|gap| gap.count).sum::<u64>(), broken.len() as u64, "{gaps:#?}");
    assert!(gaps.iter().all(|gap| !gap.reason.is_empty()), "{gaps:#?}");

    let letters = dead_letters(&line);
    assert_eq!(letters.len(), broken.len());
    for (letter, (_, word)) in letters.iter().zip(broken) {
        let reason = letter["reason"].as_str().expect("a reason");
        assert!(reason.contains(word), "{word:?} is not in {reason:?}");
    }
    let explained: Vec<_> = gaps.iter().flat_map(|gap| gap.first..=gap.last).collect();
    let listed: Vec<_> = letters.iter().map(|letter| letter["sequence"].as_u64().expect("a number")).collect();
    assert_eq!(explained, listed, "each dead letter's sequence is explained in Kafka");
}

/// Promise 5: a reading that Kafka itself refuses is found among its neighbours, set aside, and explained.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn reading_that_kafka_refuses_is_set_aside() {
    let kafka = Kafka::shared();
    kafka.make_topic("narrow", 1, &[("max.message.bytes", "20000")]);
    let mut line = Line::with(kafka, "narrow", &Options::default(), |config, _| {
        config.kafka("topic = \"narrow\"").kafka("linger = \"1s\"").kafka("compression = \"none\"")
    });
    let client = line.client_id();
    line.topic = "narrow".to_owned();
    line.agent.start();
    line.mosquitto.wait_subscribed(&client);
    for n in 0..2 {
        line.publish(10);
        let large = format!(r#"{{"name":"large","1-0:1.7.0":{{"value":{n}}},"x":"{}"}}"#, "y".repeat(30_000));
        line.publisher.publish_raw("sma", rumqttc::QoS::AtLeastOnce, false, large.as_bytes());
    }
    line.publish(10);
    let audit = line.finish();
    audit.assert_exact();
    assert_eq!(audit.gaps().len(), 2, "{audit}");
    let letters = dead_letters(&line);
    assert_eq!(letters.len(), 2);
    for letter in letters {
        let reason = letter["reason"].as_str().expect("a reason");
        assert!(reason.contains("too large"), "{reason}");
    }
}

/// Promise 5: a missing topic is named with its cure and waited for; with `create_topics` it is made.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn missing_topics_are_named_or_made() {
    let kafka = Kafka::shared();
    let mut line = Line::with(kafka, "missing", &Options::default(), |config, _| config.kafka("topic = \"absent\""));
    let client = line.client_id();
    line.topic = "absent".to_owned();
    line.agent.start();
    line.mosquitto.wait_subscribed(&client);
    line.publish(5);
    line.agent.wait_log("--create --topic absent", SOON);
    kafka.make_topic("absent", 3, &[]);
    line.finish().assert_exact();

    let mut line = Line::with(kafka, "made", &Options::default(), |config, _| {
        config
            .kafka("topic = \"made-here\"")
            .kafka("resume_topic = \"made-here-resume\"")
            .kafka("create_topics = true")
            .kafka("partitions = 2")
    });
    let client = line.client_id();
    line.topic = "made-here".to_owned();
    line.agent.start();
    line.mosquitto.wait_subscribed(&client);
    line.publish(5);
    wait::until_true("the agent to make its topics", SOON, || line.agent.log().contains("made the topic"));
    line.finish().assert_exact();
}

/// Promise 3: a retained message is an old value, sent because we subscribed: not a new reading.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn retained_message_is_ignored() {
    let mut line = Line::new(Kafka::shared(), "retained");
    let old = document::reading("old", 1);
    line.publisher.publish_raw("sma", rumqttc::QoS::AtLeastOnce, true, &old.payload);
    wait::until_true("the broker to keep it", SOON, || line.publisher.acknowledged() == 1);
    line.start();
    let new = Message { topic: "sma".to_owned(), ..document::reading("new", 2) };
    line.publisher.publish(&new);
    line.finish().assert_exact();
}

/// Promise 5: QoS 0 readings are stored too, and it is said once that nobody would send them again.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn qos_0_is_stored_and_said() {
    let mut line = Line::new(Kafka::shared(), "qos0");
    line.start();
    let messages = document::readings(&["90296857"], 0, 20);
    for message in &messages {
        line.publisher.publish_raw("sma", rumqttc::QoS::AtMostOnce, false, &message.payload);
    }
    line.auditor().wait_for(&messages, PATIENT).assert_exact();
    assert_eq!(line.agent.log().matches("QoS 0").count(), 1);
    line.agent.stop();
}

/// Promise 5: a log that nobody can write any more (its file is on a full disk, its reader is gone) ends nothing.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn a_log_that_cannot_be_written() {
    let kafka = Kafka::shared();
    let (topic, port) = (kafka.topic("mute", 1), process::free_port());
    let agent = Agent::new(|queue| {
        Config::new(&topic, queue, &kafka.plain(), &topic).source(&format!(
            "name = \"adapter\"\ntype = \"mqtt-listener\"\nlisten = \"127.0.0.1:{port}\"\ntopics = [\"sma\"]\npayload = \"sma\""
        ))
    });
    let full = fs::File::options().write(true).open("/dev/full").expect("a full disk");
    let mut running = agent.command(&["run"]).stderr(full).spawn().expect("the agent");
    let mut adapter = Adapter::new(port);
    document::readings(&["90296857"], 0, 5).iter().for_each(|message| adapter.publish(message));
    Auditor::new(kafka, &topic).wait_for(&adapter.published, PATIENT).assert_exact();
    signal::kill(Pid::from_raw(i32::try_from(running.id()).expect("a process id")), Signal::SIGTERM).expect("it runs");
    let ended = running.wait().expect("it ends");
    assert!(ended.success(), "{ended}");
}

/// Promise 5: a stop during the start is an orderly one, whenever it comes.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn a_stop_during_the_start() {
    let line = Line::new(Kafka::shared(), "early-stop");
    for late_ms in (0..60).step_by(3) {
        let mut running = line.agent.command(&["run"]).stderr(Stdio::null()).spawn().expect("the agent");
        let pid = Pid::from_raw(i32::try_from(running.id()).expect("a process id"));
        // From the moment on that it has the signals in its hands, which the kernel shows.
        let status = format!("/proc/{pid}/status");
        wait::until_true("the agent to listen to signals", SOON, || {
            let status = fs::read_to_string(&status).unwrap_or_default();
            let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap_or_default();
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or_default();
            let has = |set: &str| u64::from_str_radix(set.trim(), 16).is_ok_and(|set| set & (1 << 14) != 0);
            has(blocked) || has(caught)
        });
        thread::sleep(Duration::from_millis(late_ms));
        signal::kill(pid, Signal::SIGTERM).expect("it runs");
        let ended = running.wait().expect("it ends");
        assert!(ended.success(), "stopped {late_ms} ms after it could hear of it: {ended}");
    }
}

/// Promise 5: a stop with Kafka away is orderly and within its limit.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn stops_in_order_while_kafka_is_away() {
    let kafka = Kafka::shared();
    let mut line = Line::with(kafka, "stop", &Options::default(), |config, _| {
        config
            .kafka(&format!("bootstrap_servers = [\"127.0.0.1:{}\"]", process::free_port()))
            .agent("stop_timeout = \"10s\"")
    });
    line.start();
    line.publish(20);
    line.agent.wait_log("Kafka", SOON);
    let start = std::time::Instant::now();
    line.agent.stop();
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    line.agent.reconfigure(|queue| line.config(queue));
    line.agent.start();
    line.finish().assert_exact();
}

/// Promise 5: a stop that waits for Kafka says for whom, and how long it still may; nothing is lost or repeated.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn a_slow_stop_says_who_still_runs() {
    let kafka = Kafka::shared();
    let proxy = kafka.proxy();
    let mut line = Line::with(kafka, "slow-stop", &Options::default(), |config, _| {
        config
            .kafka(&format!("bootstrap_servers = [\"127.0.0.1:{}\"]", proxy.port()))
            .kafka("request_timeout = \"10s\"")
            .agent("stop_timeout = \"2s\"")
    });
    line.start();
    line.publish(10);
    line.audit();
    proxy.hold(Direction::FromServer, true);
    let before = proxy.passed(Direction::ToServer);
    line.publish(10);
    wait::until_true("a transaction to begin", SOON, || proxy.passed(Direction::ToServer) > before);
    line.agent.stop();
    let log = line.agent.full_log();
    assert!(log.contains("still stopping running=\"the forwarder\" left_s="), "{log}");
    proxy.hold(Direction::FromServer, false);
    line.agent.start();
    line.finish().assert_exact();
}

/// Promise 6: dead letters go when they are older than `queue.dead_letters_max_age`; that is said and counted.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn old_dead_letters_go() {
    let mut line = Line::new(Kafka::shared(), "old-letters");
    let clock = Clock::new();
    line.agent.inside(clock.words());
    clock.set(Duration::from_secs(40 * 86_400), false);
    line.start();
    line.publisher.publish_raw("sma", QoS::AtLeastOnce, false, b"an old one");
    let set_aside = |line: &Line<'_>| {
        let letters = dead_letters(line);
        letters.iter().filter(|letter| letter["set_aside"].is_string()).count()
    };
    wait::until_true("the dead letter to be set aside", SOON, || set_aside(&line) == 1);
    line.agent.stop();
    clock.set_right();
    line.agent.reconfigure(|queue| line.config(queue).queue("dead_letters_max_age = \"30d\""));
    line.start();
    line.publisher.publish_raw("sma", QoS::AtLeastOnce, false, b"a new one");
    wait::until_true("both to be set aside", SOON, || set_aside(&line) == 2);
    line.agent.wait_log("dead letters older than queue.dead_letters_max_age were deleted", Duration::from_secs(150));
    let left = dead_letters(&line);
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(line.agent.figures().expect("the agent answers").letters_deleted, 1);
    line.agent.stop();
}

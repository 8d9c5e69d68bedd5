//! Promises 3 and 5 while Kafka itself is at fault, or is managed by people: nothing is lost, nothing comes twice, what
//! cannot go on waits and says why.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::{Offset, TopicPartitionList};

use crate::harness::agent::Agent;
use crate::harness::auditor::Auditor;
use crate::harness::config::Config;
use crate::harness::document;
use crate::harness::kafka::Kafka;
use crate::harness::line::Line;
use crate::harness::mosquitto::{Mosquitto, Options};
use crate::harness::on_disk;
use crate::harness::process;
use crate::harness::proxy::Proxy;
use crate::harness::publisher::Publisher;
use crate::harness::scale::scale;
use crate::harness::wait::{self, PATIENT, SOON};
use crate::security::login;

/// The agent's only consumer group, which is its transactional id too.
fn group(line: &Line<'_>) -> String {
    let groups = line.kafka.groups(&format!("meterferry.{}.", line.topic));
    let [group] = &groups[..] else { panic!("one group: {groups:?}") };
    group.clone()
}

/// A line whose way to Kafka leads through a proxy.
fn proxied<'k>(kafka: &'k Kafka, name: &str, change: impl FnOnce(Config) -> Config) -> (Line<'k>, Proxy) {
    let proxy = kafka.proxy();
    let line = Line::with(kafka, name, &Options::default(), |config, _| {
        change(config.kafka(&format!("bootstrap_servers = [\"127.0.0.1:{}\"]", proxy.port())))
    });
    (line, proxy)
}

/// Waits until the agent has acknowledged everything published.
fn wait_stored(line: &Line<'_>) {
    let count = line.publisher.published().len();
    wait::until_true("the agent to store everything", PATIENT, || {
        line.mosquitto.acknowledgements(&line.client_id()) >= count
    });
}

/// Promise 3: somebody else commits under the agent's transactional id, with an offset that is not the agent's: as a copy of
/// the card would. The agent goes on under a new queue id.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn fenced_by_a_stranger() {
    let kafka = Kafka::shared();
    let mut line = Line::new(kafka, "stranger");
    line.start();
    line.publish(20);
    line.audit().assert_exact();

    let group = group(&line);
    let stranger: BaseProducer = kafka.client().set("transactional.id", &group).create().expect("a producer");
    stranger.init_transactions(PATIENT).expect("Kafka answers");
    let reader: BaseConsumer = kafka.client().set("group.id", &group).create().expect("a client");
    let mut offsets = TopicPartitionList::new();
    let mut element = offsets.add_partition(&format!("{}-resume", line.topic), 0);
    element.set_offset(Offset::Offset(1_000_000)).expect("an offset");
    element.set_metadata("somebody else's");
    stranger.begin_transaction().expect("initialised");
    let member = reader.group_metadata().expect("a group");
    stranger.send_offsets_to_transaction(&offsets, &member, PATIENT).expect("Kafka takes it");
    stranger.commit_transaction(PATIENT).expect("Kafka takes it");

    line.publish(20);
    line.agent.wait_log("the queue takes a new id", PATIENT);
    line.publish(20);
    line.finish().assert_exact();
}

/// Promise 3: the agent is held up longer than its transaction may take, before and after the offsets are in it and after the
/// commit: Kafka has ended the transaction, which looks like a second producer. It is the same queue all the time.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn transaction_times_out() {
    let mut line = Line::with(Kafka::shared(), "timeout", &Options::default(), |config, _| {
        config.kafka("transaction_timeout = \"5s\"")
    });
    for point in ["in-transaction", "offsets-sent", "kafka-committed"] {
        line.agent.failpoint(Some(&format!("{point}:2:hold")));
        line.start();
        line.publish(15);
        line.audit().assert_exact();
        line.publish(15);
        line.agent.wait_held();
        let held = Instant::now();
        // Returns when no transaction is open any more.
        line.auditor().records();
        assert!(point == "kafka-committed" || held.elapsed() > Duration::from_secs(3), "not in a transaction");
        line.agent.hold(false);
        line.publish(15);
        line.audit().assert_exact();
        line.agent.stop();
    }
    let log = line.agent.full_log();
    assert!(!log.contains("the queue takes a new id"), "{log}");
    line.auditor().audit(&line.publisher.published()).assert_exact();
}

/// Promise 3: the broker is killed while the agent is at each point of a transaction, and at any moment under load; the
/// agent may be killed too.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn broker_dies_in_a_transaction() {
    fn dies_at_points(kafka: &Kafka, line: &mut Line<'_>) -> Option<()> {
        for point in ["in-transaction", "offsets-sent", "kafka-committed"] {
            line.agent.failpoint(Some(&format!("{point}:1:hold")));
            line.start();
            line.publish(15);
            line.agent.wait_held();
            if point == "kafka-committed" {
                // Its markers may still be on their way, with which Kafka itself is not to be trusted.
                wait_ended(kafka, line);
            }
            kafka.kill();
            line.agent.hold(false);
            line.publish(15);
            if point == "offsets-sent" {
                line.agent.kill();
            } else {
                line.agent.stop();
            }
            restart(kafka)?;
        }
        line.agent.failpoint(None);
        line.start();
        line.audit().assert_exact();
        Some(())
    }

    fn dies_at_any_moment(kafka: &Kafka, line: &mut Line<'_>, choices: &mut impl rand::Rng) -> Option<()> {
        let pause = rand::RngExt::random_range(choices, 0..1_500);
        println!("killed after {pause} ms");
        let messages = line.next(&["alpha", "beta"], 500);
        messages.iter().for_each(|message| line.publisher.publish(message));
        std::thread::sleep(Duration::from_millis(pause));
        kafka.kill();
        restart(kafka)
    }

    fn wait_ended(kafka: &Kafka, line: &Line<'_>) {
        line.auditor().records();
        let reader: BaseConsumer = kafka.client().set("group.id", group(line)).create().expect("a client");
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition(&format!("{}-resume", line.topic), 0);
        // The answer comes when no transaction has the group's offsets in it.
        reader.committed_offsets(offsets, PATIENT).expect("Kafka answers");
    }

    /// None when Kafka itself has lost a part of a transaction: nobody can be right then.
    fn restart(kafka: &Kafka) -> Option<()> {
        kafka.restart();
        (!kafka.lost_markers()).then_some(())
    }

    let mut choices = crate::harness::scale::choices("broker_dies_in_a_transaction");
    let (kills, mut killed, mut lost) = (scale(2, 100), 0_u64, 0_u64);
    while killed < kills {
        let kafka = Kafka::start();
        let mut line = Line::new(&kafka, "dies");
        let mut whole = dies_at_points(&kafka, &mut line);
        while whole.is_some() && killed < kills {
            whole = dies_at_any_moment(&kafka, &mut line, &mut choices);
            killed += u64::from(whole.is_some());
        }
        if whole.is_some() {
            line.publisher.wait_acknowledged();
            line.finish().assert_exact();
        } else {
            lost += 1;
            println!("Kafka itself lost the markers of a transaction: again with another one");
            assert!(lost < 5 + killed, "Kafka loses them always");
        }
    }
}

/// Promises 3 and 5: the data topic is deleted, missed by name, and made again while readings wait; then it is replaced by a new one of the
/// same name behind the agent's back. Everything that Kafka had not taken before is in the new one, once.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn topic_is_deleted_and_made_again() {
    let kafka = Kafka::shared();
    let mut line = Line::new(kafka, "deleted");
    let topic = line.topic.clone();
    line.start();
    line.publish(20);
    line.audit().assert_exact();
    let mut before = line.publisher.published().len();

    kafka.delete_topic(&topic);
    line.publish(30);
    line.agent.wait_log(&format!("--create --topic {topic}"), PATIENT);
    kafka.make_topic(&topic, 2, &[]);
    line.publish(30);
    line.auditor().wait_for(&line.publisher.published()[before..], PATIENT).assert_exact();

    line.agent.hold(true);
    kafka.delete_topic(&topic);
    kafka.make_topic(&topic, 1, &[]);
    before = line.publisher.published().len();
    line.publish(30);
    line.agent.hold(false);
    line.publish(30);
    line.auditor().wait_for(&line.publisher.published()[before..], PATIENT);
    line.agent.stop();
    line.auditor().audit(&line.publisher.published()[before..]).assert_exact();
}

/// Promises 3 and 5: rights are taken away while readings flow, and given back: each is named with the command that grants
/// it, nothing is lost, nothing comes twice, and no restart is needed.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn rights_are_lost_and_given_back() {
    let kafka = Kafka::shared();
    let folder = process::scratch("secrets");
    let [tls, sasl] = login(kafka, &folder, "household", "SCRAM-SHA-512");
    let mut line = Line::with(kafka, "revoked", &Options::default(), |config, _| {
        config.kafka(&format!("bootstrap_servers = [{:?}]", kafka.sasl())).table(&tls).table(&sasl)
    });
    let prefix = format!("meterferry.{}.", line.topic);
    let (topic, resume) = (line.topic.clone(), format!("{}-resume", line.topic));
    let prefixed = ["--resource-pattern-type", "prefixed"];
    let write_topic = ["--topic", &topic];
    let write_id = [&["--transactional-id", &prefix], &prefixed[..]].concat();
    let read_topic = ["--topic", &resume];
    let read_group = [&["--group", &prefix], &prefixed[..]].concat();
    let grants: [(&str, &[&str]); 4] =
        [("Write", &write_topic), ("Write", &write_id), ("Read", &read_group), ("Read", &read_topic)];
    for (operation, resource) in grants {
        kafka.allow("household", &[operation], resource);
    }
    line.start();
    line.publish(10);
    line.audit().assert_exact();
    // Losing the first and the third shows both a right that the records need and one that the resume point needs.
    let lost = if scale(0, 1) == 1 { vec![0, 1, 2, 3] } else { vec![0, 2] };
    for (operation, resource) in lost.into_iter().map(|number| grants[number]) {
        kafka.forbid("household", &[operation], resource);
        line.publish(10);
        let named = format!("User:household --operation {operation} {}", resource.join(" "));
        line.agent.wait_log(&named, PATIENT);
        line.publish(10);
        kafka.allow("household", &[operation], resource);
        line.audit().assert_exact();
    }
    line.finish().assert_exact();
}

/// Promise 5: `max.message.bytes` is lowered below a reading that waits: that one becomes a dead letter and a gap record, the
/// rest flows. The same while the agent is connected.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn largest_message_is_lowered() {
    let kafka = Kafka::shared();
    let (mut line, proxy) = proxied(kafka, "lowered", |config| config.kafka("compression = \"none\""));
    let large = |n: u32| format!(r#"{{"name":"large","1-0:1.7.0":{{"value":{n}}},"x":"{}"}}"#, "y".repeat(30_000));
    let raw = |line: &Line<'_>, n: u32| {
        line.publisher.publish_raw("sma", rumqttc::QoS::AtLeastOnce, false, large(n).as_bytes());
    };
    line.start();
    line.publish(10);
    raw(&line, 0);
    line.audit();
    proxy.refuse(true);
    line.publish(50);
    raw(&line, 1);
    line.publish(50);
    kafka.configure_topic(&line.topic, &[("max.message.bytes", "20000")]);
    proxy.refuse(false);
    line.audit();
    raw(&line, 2);
    line.publish(10);
    line.audit();
    kafka.configure_topic(&line.topic, &[("max.message.bytes", "100000")]);
    raw(&line, 3);
    line.publish(10);
    let audit = line.finish();
    audit.assert_nothing_lost();
    assert_eq!((audit.repeated, audit.foreign), (0, 2), "the two that fitted: {audit}");
    assert_eq!(audit.gaps().iter().map(|gap| gap.count).sum::<u64>(), 2, "{audit}");
    let letters = process::run(&mut line.agent.command(&["dead-letters", "list", "--json"]));
    assert_eq!(letters.lines().count(), 2, "{letters}");
    assert!(letters.lines().all(|letter| letter.contains("too large")), "{letters}");
}

/// Promises 5 and 8: the topic comes to refuse timestamps that the agent thought to be right. It looks at the topic's
/// configuration again and goes on; nothing is condemned.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn timestamps_come_to_be_refused() {
    let kafka = Kafka::shared();
    let (mut line, proxy) = proxied(kafka, "stamps", |config| config);
    line.start();
    line.publish(10);
    line.audit().assert_exact();
    // Not a millisecond ahead: what the agent promises is "never later than now".
    let narrow = [("message.timestamp.before.max.ms", "4000"), ("message.timestamp.after.max.ms", "0")];
    kafka.configure_topic(&line.topic, &narrow);
    proxy.refuse(true);
    line.publish(50);
    let waited = Instant::now();
    wait::until_true("the readings to be too old", SOON, || waited.elapsed() > Duration::from_secs(6));
    proxy.refuse(false);
    line.audit().assert_exact();
    line.agent.wait_log("imestamp", SOON);
    line.publish(10);
    let audit = line.finish();
    audit.assert_exact();
    assert!(audit.gaps().is_empty(), "{audit}");
}

/// Promises 5 and 8: where the agent may not read the topic's configuration, what is configured here is assumed: readings of three weeks
/// ago are not deleted on arrival. Where the topic refuses old timestamps it waits, discards nothing, and says what to set; then
/// everything is there.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn topic_limits_that_nobody_told() {
    const DAY_MS: i64 = 86_400_000;
    let kafka = Kafka::shared();
    let folder = process::scratch("secrets");
    let [tls, sasl] = login(kafka, &folder, "household", "SCRAM-SHA-512");
    let mosquitto = Mosquitto::start();
    let topic = kafka.topic("untold", 1);
    let prefix = format!("meterferry.{topic}.");
    let prefixed = ["--resource-pattern-type", "prefixed"];
    let write = [&["--topic", &topic, "--transactional-id", &prefix], &prefixed[..]].concat();
    kafka.allow("household", &["Write"], &write);
    let resume = format!("{topic}-resume");
    kafka.allow("household", &["Read"], &[&["--topic", &resume, "--group", &prefix], &prefixed[..]].concat());
    let config = |queue: &std::path::Path| {
        let config = Config::new(&topic, queue, &kafka.sasl(), &topic).mqtt(mosquitto.port());
        config.table(&tls).table(&sasl)
    };
    let mut agent = Agent::new(config);
    let now_ms = || meterferry::clock::Clock::new().now().wall_ms;
    let mut messages = document::readings(&["90296857"], 0, 30);
    on_disk::write(&agent, &topic, &messages, 21 * DAY_MS);
    agent.start();
    let audit = Auditor::new(kafka, &topic).wait_for(&messages, PATIENT);
    audit.assert_exact();
    let kept = audit.records.iter().all(|record| record.timestamp_ms > now_ms() - 4 * DAY_MS);
    assert!(kept, "would be deleted by the topic's retention of a week: {:?}", audit.records[0].timestamp_ms);
    agent.stop();

    kafka.configure_topic(&topic, &[("message.timestamp.before.max.ms", "3600000")]);
    let more = document::readings(&["90296857"], 100, 30);
    on_disk::write(&agent, &topic, &more, DAY_MS);
    messages.extend(more);
    agent.start();
    agent.wait_log("timestamp_before_max", SOON);
    assert_eq!(Auditor::new(kafka, &topic).records().len(), 30);
    agent.stop();
    let said = agent.full_log().matches("timestamp_before_max").count();
    assert_eq!(said, 1, "once, not at every attempt:\n{}", agent.full_log());
    agent.reconfigure(|queue| config(queue).kafka("timestamp_before_max = \"1h\""));
    agent.start();
    Auditor::new(kafka, &topic).wait_for(&messages, PATIENT).assert_exact();
    agent.stop();
}

/// Promises 3, 5 and 6: quotas slow the agent down to a crawl; readings arrive once, in order, and keep arriving.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn quotas_slow_the_line_down() {
    let kafka = Kafka::shared();
    let mut line = Line::with(kafka, "quota", &Options::default(), |config, _| {
        config.kafka("compression = \"none\"").kafka("transaction_timeout = \"5s\"")
    });
    let client = format!("meterferry-{}", line.topic);
    let quota = |change: &str, value: &str| {
        let arguments = ["--alter", change, value, "--entity-type", "clients", "--entity-name", &client];
        kafka.tool("kafka.admin.ConfigCommand", &arguments);
    };
    line.start();
    line.publish(10);
    line.audit().assert_exact();
    // A full first transaction of 12 KB takes longer than a transaction may.
    quota("--add-config", "producer_byte_rate=1000");
    line.publish(100);
    let auditor = line.auditor();
    auditor.wait_count(40, PATIENT);
    quota("--add-config", "producer_byte_rate=50000,request_percentage=1");
    line.publish(100);
    line.audit().assert_exact();
    quota("--delete-config", "producer_byte_rate,request_percentage");
    line.publish(200);
    line.finish().assert_exact();
}

/// Promise 3: Kafka forgets the group's offsets while the agent is idle, and while it is stopped; the queue's own release
/// point is enough. Only a batch whose outcome is not known here can then come twice, and nothing is lost.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn offsets_are_forgotten() {
    let kafka = Kafka::shared();
    let mut line = Line::new(kafka, "offsets");
    line.start();
    line.publish(30);
    line.audit().assert_exact();
    kafka.delete_group(&group(&line));
    line.publish(30);
    line.audit().assert_exact();
    line.agent.stop();
    kafka.delete_group(&group(&line));
    line.agent.start();
    line.publish(30);
    line.audit().assert_exact();

    line.agent.stop();
    line.agent.failpoint(Some("kafka-committed"));
    line.agent.start();
    line.publish(30);
    line.agent.wait_failpoint();
    line.agent.failpoint(None);
    kafka.delete_group(&group(&line));
    line.agent.start();
    line.publish(30);
    let audit = line.finish();
    audit.assert_nothing_lost();
    assert!((1..=30).contains(&audit.repeated) && audit.repeated_ids == 0 && audit.foreign == 0, "{audit}");
}

/// Promise 3: the same by Kafka's own clock (`offsets.retention.minutes`), which takes minutes.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn offsets_expire() {
    if scale(0, 1) == 0 {
        println!("takes minutes: with tests/run --long; offsets_are_forgotten does it by hand");
        return;
    }
    let kafka = Kafka::with(1, &[("offsets.retention.minutes", "1"), ("offsets.retention.check.interval.ms", "1000")]);
    let mut line = Line::new(&kafka, "expire");
    line.start();
    line.publish(30);
    line.audit().assert_exact();
    let wait_expired = |line: &Line<'_>| {
        let reader: BaseConsumer = kafka.client().set("group.id", group(line)).create().expect("a client");
        wait::until_true("Kafka to forget the offset", Duration::from_secs(300), || {
            let mut question = TopicPartitionList::new();
            question.add_partition(&format!("{}-resume", line.topic), 0);
            let answer = reader.committed_offsets(question, SOON).expect("Kafka answers");
            answer.elements()[0].offset() == Offset::Invalid
        });
    };
    wait_expired(&line);
    line.publish(30);
    line.audit().assert_exact();
    line.agent.stop();
    wait_expired(&line);
    line.agent.start();
    line.publish(30);
    line.finish().assert_exact();
}

/// Promise 3: the configuration names another data topic while a backlog waits: what waits goes there, what was sent stays
/// where it is, and nothing is in both.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn data_topic_is_renamed_with_a_backlog() {
    let kafka = Kafka::shared();
    let mut line = Line::new(kafka, "renamed");
    let new = kafka.topic("renamed-new", 3);
    line.start();
    line.publish(30);
    line.audit().assert_exact();
    line.agent.stop();
    let away = format!("bootstrap_servers = [\"127.0.0.1:{}\"]", process::free_port());
    line.agent.reconfigure(|queue| line.config(queue).kafka(&away));
    line.agent.start();
    line.publish(300);
    wait_stored(&line);
    line.agent.kill();

    line.agent.reconfigure(|queue| line.config(queue).kafka(&format!("topic = {new:?}")));
    line.agent.start();
    line.publish(30);
    let all = line.publisher.published();
    let (old, waiting) = all.split_at(30);
    Auditor::new(kafka, &new).wait_for(waiting, PATIENT);
    line.agent.stop();
    Auditor::new(kafka, &new).audit(waiting).assert_exact();
    line.auditor().audit(old).assert_exact();
}

/// Promises 3 and 4: two sources with topics of their own and several partitions share each transaction; it is all or nothing
/// over both, wherever the agent is killed.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn several_topics_in_one_transaction() {
    let kafka = Kafka::shared();
    let mosquitto = Mosquitto::start();
    let (one, two) = (kafka.topic("several-a", 3), kafka.topic("several-b", 5));
    let port = mosquitto.port();
    let mut agent = Agent::new(|queue| {
        Config::new(&one, queue, &kafka.plain(), &one).mqtt(port).source(&format!(
            "name = \"second\"\ntype = \"mqtt\"\nhost = \"127.0.0.1\"\nport = {port}\ntopics = [\"other\"]\n\
             payload = \"sma\"\nkafka_topic = {two:?}\nreconnect_max_delay = \"1s\""
        ))
    });
    let names: Vec<_> = (0..9).map(|n| format!("device-{n}")).collect();
    let devices: Vec<_> = names.iter().map(String::as_str).collect();
    let publishers = [Publisher::connect(port), Publisher::connect(port)];
    let mut serial = 0;
    let mut publish = |count: u64| {
        for (number, publisher) in publishers.iter().enumerate() {
            let first = serial + 1_000_000 * number as u64;
            for mut message in document::readings(&devices, first, count) {
                message.topic = ["sma", "other"][number].to_owned();
                publisher.publish(&message);
            }
        }
        serial += count;
        publishers.iter().for_each(Publisher::wait_acknowledged);
    };
    for point in ["in-transaction:2", "offsets-sent:2", "kafka-committed:2"] {
        agent.failpoint(Some(point));
        agent.start();
        for source in ["meter", "second"] {
            mosquitto.wait_subscribed(&format!("meterferry-{one}-{source}"));
        }
        while agent.ended().is_none() {
            publish(3);
            std::thread::sleep(Duration::from_millis(100));
        }
        agent.wait_failpoint();
    }
    agent.failpoint(None);
    agent.start();
    publish(10);
    let audits = |wait: bool| {
        for (topic, publisher) in [&one, &two].into_iter().zip(&publishers) {
            let auditor = Auditor::new(kafka, topic);
            let messages = publisher.published();
            // Sequences are shared by both topics: each alone has holes.
            let mut audit = if wait { auditor.wait_for(&messages, PATIENT) } else { auditor.audit(&messages) };
            audit.wrong.retain(|wrong| !wrong.contains("not explained"));
            audit.assert_exact();
        }
    };
    audits(true);
    agent.stop();
    audits(false);
    let mut both = [Auditor::new(kafka, &one).records(), Auditor::new(kafka, &two).records()].concat();
    both.sort_by_key(|record| record.id().1);
    let rising = both.windows(2).all(|pair| pair[0].id().1 + 1 == pair[1].id().1);
    assert!(rising, "each sequence is in one of the topics, once");
}

/// Promise 3: every kind of compression arrives, and is what the broker has on its disk.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn every_compression_arrives() {
    let kafka = Kafka::shared();
    for (name, code) in [("none", 0), ("gzip", 1), ("snappy", 2), ("lz4", 3), ("zstd", 4)] {
        let mut line =
            Line::with(kafka, name, &Options::default(), |config, _| config.kafka(&format!("compression = {name:?}")));
        line.start();
        line.publish(50);
        line.finish().assert_exact();
        assert_eq!(kafka.codecs(&line.topic).into_iter().collect::<Vec<_>>(), [code], "{name}");
    }
}

/// Promises 3 and 4: without transactions everything arrives in order, with an idempotent producer and with a plain one.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn at_least_once_keeps_the_order() {
    let kafka = Kafka::shared();
    for idempotence in [true, false] {
        let mut line = Line::with(kafka, "plain-order", &Options::default(), |config, _| {
            config.kafka("delivery = \"at-least-once\"").kafka(&format!("idempotence = {idempotence}"))
        });
        line.start();
        let messages = line.next(&["alpha", "beta", "gamma"], 700);
        line.publisher.publish_all(&messages);
        line.finish().assert_exact();
    }
}

/// Promises 5 and 6: whatever is wrong with the configuration or the cluster, the agent keeps what it has, says what to do, and
/// stops at once when it is asked to.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn whatever_is_wrong_is_waited_for() {
    let kafka = Kafka::shared();
    let cases: [(&str, &[&str], &str); 4] = [
        ("host", &["bootstrap_servers = [\"no-such-host.invalid:9092\"]"], "no-such-host.invalid"),
        // The library tells the cause in words that depend on how the broker hangs up.
        ("tls", &["[kafka.tls]"], "SSL_HANDSHAKE"),
        ("limit", &["transaction_timeout = \"15min\"", "request_timeout = \"3s\""], "transaction.max.timeout.ms"),
        ("replicas", &["create_topics = true", "replication = 3", "topic = \"never-made\""], "kafka.replication"),
    ];
    let mut agents: Vec<_> = cases
        .iter()
        .map(|(name, lines, _)| {
            let topic = kafka.topic(name, 1);
            let mut agent =
                Agent::new(|queue| {
                    let config = Config::new(&topic, queue, &kafka.plain(), &topic).source(&format!(
                        "name = \"meter\"\ntype = \"mqtt-listener\"\nlisten = \"127.0.0.1:{}\"",
                        process::free_port()
                    ));
                    lines.iter().fold(config, |config, line| {
                        if line.starts_with('[') { config.table(line) } else { config.kafka(line) }
                    })
                });
            on_disk::write(&agent, &topic, &document::readings(&["90296857"], 0, 3), 0);
            agent.start();
            agent
        })
        .collect();
    for (agent, (name, _, word)) in agents.iter_mut().zip(cases) {
        agent.wait_log(word, PATIENT);
        let asked = Instant::now();
        agent.stop();
        assert!(asked.elapsed() < Duration::from_secs(8), "{name}: stopped after {:?}", asked.elapsed());
        assert_eq!(on_disk::entries(agent).len(), 3, "{name}");
    }
}

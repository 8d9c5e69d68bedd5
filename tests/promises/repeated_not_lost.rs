//! Promise 3, where only one of the two can be had: readings are repeated, never lost. The queue's numbers do not mean
//! what Kafka knows by them, and the agent must notice.

use crate::harness::agent::Agent;
use crate::harness::auditor::Auditor;
use crate::harness::config::Config;
use crate::harness::document;
use crate::harness::kafka::Kafka;
use crate::harness::line::Line;
use crate::harness::mosquitto::Mosquitto;
use crate::harness::publisher::Publisher;
use crate::harness::wait::PATIENT;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};

/// Promise 3: the card's image of an earlier day is restored; sequences come a second time with other readings.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn queue_restored_from_an_older_copy() {
    let mut line = Line::new(Kafka::shared(), "restored");
    line.start();
    line.publish(20);
    line.audit();
    line.agent.stop();
    let copy = line.agent.copy_queue();

    line.agent.start();
    line.publish(50);
    line.audit();
    line.agent.stop();

    line.agent.restore_queue(&copy);
    line.agent.start();
    line.publish(50);
    line.audit();
    line.agent.stop();

    // A second time, now with fewer readings after the copy than Kafka knows of.
    line.agent.restore_queue(&copy);
    line.agent.start();
    line.publish(5);
    line.finish().assert_nothing_lost();
}

/// Promise 3: an image that was taken while readings waited: they are sent by both, and lost by none.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn queue_cloned_and_both_run() {
    let kafka = Kafka::shared();
    let mut line = Line::new(kafka, "cloned");
    line.start();
    line.publish(20);
    line.audit();
    line.agent.reconfigure(|queue| line.config(queue).kafka("bootstrap_servers = [\"127.0.0.1:9\"]"));
    line.agent.stop();
    line.agent.start();
    line.publish(30);
    line.agent.stop();

    let mosquitto = Mosquitto::start();
    let mut clone =
        Agent::new(|queue| Config::new(&line.topic, queue, &kafka.plain(), &line.topic).mqtt(mosquitto.port()));
    let copy = line.agent.copy_queue();
    std::fs::create_dir(clone.queue()).expect("the clone's folder");
    clone.restore_queue(&copy);
    line.agent.reconfigure(|queue| line.config(queue));
    line.agent.start();
    clone.start();
    mosquitto.wait_subscribed(&line.client_id());

    let publisher = Publisher::connect(mosquitto.port());
    for round in 0..5 {
        line.publish(20);
        publisher.publish_all(&document::readings(&["clone"], round * 20, 20));
        let all = [line.publisher.published(), publisher.published()].concat();
        Auditor::new(kafka, &line.topic).wait_for(&all, PATIENT);
    }
    line.agent.stop();
    clone.stop();
    let all = [line.publisher.published(), publisher.published()].concat();
    line.auditor().audit(&all).assert_nothing_lost();
}

/// Promise 3: Kafka has forgotten the group's offsets. The queue's own release point is enough for that.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn group_offsets_are_deleted() {
    let kafka = Kafka::shared();
    let mut line = Line::new(kafka, "forgotten");
    line.start();
    line.publish(30);
    line.audit();
    line.agent.stop();
    let [group] = &kafka.groups(&format!("meterferry.{}.", line.topic))[..] else { panic!("one group") };
    kafka.delete_group(group);
    line.agent.start();
    line.publish(30);
    line.finish().assert_exact();
}

/// Promise 3: a tool has set the group's offsets to a number that means nothing here: far ahead, and back to nothing.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn group_offsets_are_reset() {
    let kafka = Kafka::shared();
    let mut line = Line::new(kafka, "reset");
    line.start();
    line.publish(30);
    line.audit();
    for offset in [1_000_000, 0, 35] {
        line.agent.stop();
        reset_offsets(kafka, &line.topic, offset);
        line.agent.start();
        line.publish(30);
        line.audit().assert_nothing_lost();
    }
    line.finish().assert_nothing_lost();
}

/// Commits this offset for every group of the agent, as a tool would.
fn reset_offsets(kafka: &Kafka, topic: &str, offset: i64) {
    let names = kafka.groups(&format!("meterferry.{topic}."));
    assert!(!names.is_empty(), "no group of {topic}");
    for name in names {
        let consumer: BaseConsumer = kafka.client().set("group.id", name).create().expect("a client");
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&format!("{topic}-resume"), 0, Offset::Offset(offset)).expect("an offset");
        consumer.commit(&list, CommitMode::Sync).expect("Kafka takes it");
    }
}

/// Promise 3: the resume topic is deleted, with the offsets that belong to it, and made again.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn resume_topic_is_deleted_and_made_again() {
    let kafka = Kafka::shared();
    let mut line = Line::new(kafka, "no-resume");
    let resume = format!("{}-resume", line.topic);
    line.start();
    line.publish(30);
    line.audit();

    // While it runs.
    kafka.delete_topic(&resume);
    line.publish(30);
    line.agent.wait_log(&resume, PATIENT);
    kafka.make_topic(&resume, 1, &[]);
    line.audit().assert_nothing_lost();

    // While it does not, with readings that Kafka has and the queue does not know of.
    line.agent.stop();
    line.agent.failpoint(Some("kafka-committed"));
    line.agent.start();
    line.publish(30);
    line.agent.wait_failpoint();
    line.agent.failpoint(None);
    kafka.delete_topic(&resume);
    kafka.make_topic(&resume, 1, &[]);
    line.agent.start();
    line.publish(30);
    line.finish().assert_nothing_lost();
}

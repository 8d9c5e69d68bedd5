//! Promise 3 for cards that are copied, restored, moved and that lie: the queue's numbers do not mean what Kafka knows by
//! them, long backlogs wait, and nothing is lost.

use std::collections::HashSet;
use std::time::Duration;

use meterferry::reading::Body;
use rand::RngExt;
use rand::rngs::StdRng;
use tempfile::TempDir;

use crate::harness::agent::Agent;
use crate::harness::auditor::Auditor;
use crate::harness::config::Config;
use crate::harness::document;
use crate::harness::kafka::Kafka;
use crate::harness::line::Line;
use crate::harness::mosquitto::{Mosquitto, Options};
use crate::harness::namespace;
use crate::harness::on_disk;
use crate::harness::process;
use crate::harness::proxy::Proxy;
use crate::harness::publisher::Publisher;
use crate::harness::scale::{choices, scale};
use crate::harness::wait::{self, PATIENT};

/// Payloads of the readings that a queue's folder holds and that are not released.
fn waiting(agent: &Agent) -> HashSet<Vec<u8>> {
    let entries = on_disk::entries(agent).into_iter();
    entries
        .filter_map(|entry| if let Body::Reading(reading) = entry.body { Some(reading.payload.to_vec()) } else { None })
        .collect()
}

/// One card, what was done to it, and what it cannot be blamed for.
struct Card<'k> {
    line: Line<'k>,
    proxy: Proxy,
    up: bool,
    image: Option<(TempDir, HashSet<Vec<u8>>)>,
    /// Readings that nothing but the replaced content of the card held.
    excused: HashSet<Vec<u8>>,
    /// Whether repeats are to be expected.
    restored: bool,
    told: History,
}

impl<'k> Card<'k> {
    /// Behind a proxy of `kafka`, of which there are few.
    fn new(kafka: &'k Kafka, name: &str, proxy: Proxy) -> Self {
        proxy.refuse(false);
        let mut line = Line::with(kafka, name, &Options::default(), |config, _| {
            config.kafka(&format!("bootstrap_servers = [\"127.0.0.1:{}\"]", proxy.port()))
        });
        line.start();
        Self { line, proxy, up: true, image: None, excused: HashSet::new(), restored: false, told: History::default() }
    }

    fn tell(&mut self, what: String) {
        self.told.0.push(what);
    }

    fn publish(&mut self, count: u64) {
        self.tell(format!("publish {count}"));
        self.line.publish(count);
    }

    fn switch(&mut self, up: bool) {
        self.tell(format!("line up: {up}"));
        self.up = up;
        self.proxy.refuse(!up);
    }

    /// Everything published is on the card: from here on it answers for it.
    fn wait_stored(&self) {
        let (client, count) = (self.line.client_id(), self.line.publisher.published().len());
        wait::until_true("the agent to store everything", PATIENT, || {
            self.line.mosquitto.acknowledgements(&client) >= count
        });
    }

    /// Pulls the plug; `copy`: and makes an image of the card.
    fn cut(&mut self, copy: bool) {
        self.tell(format!("plug pulled, image: {copy}"));
        self.wait_stored();
        self.line.agent.kill();
        if copy {
            self.image = Some((self.line.agent.copy_queue(), waiting(&self.line.agent)));
        }
        self.line.agent.start();
    }

    /// Pulls the plug between Kafka's commit and the queue's knowing of it.
    fn cut_after_commit(&mut self) {
        if !self.up {
            return;
        }
        self.tell("plug pulled after Kafka's commit".to_owned());
        self.wait_stored();
        self.line.agent.kill();
        self.line.agent.failpoint(Some("kafka-committed"));
        self.line.agent.start();
        self.line.publish_until_failpoint();
        self.line.agent.failpoint(None);
        self.line.agent.start();
    }

    /// Puts the image back: somebody restores a backup, or the card has lied about every flush since.
    fn restore(&mut self) {
        self.wait_stored();
        let Some((copy, held)) = &self.image else { return };
        self.told.0.push("image restored".to_owned());
        self.line.agent.kill();
        self.excused.extend(waiting(&self.line.agent).difference(held).cloned());
        self.line.agent.restore_queue(copy);
        self.restored = true;
        self.line.agent.start();
    }

    /// The card goes into another machine.
    fn change_machine(&mut self, choices: &mut StdRng) {
        self.tell("another machine".to_owned());
        self.line.agent.kill();
        self.line.agent.inside(namespace::with_serial(&format!("{:016x}", choices.random::<u64>())));
        self.line.agent.start();
    }

    fn finish(mut self) -> Proxy {
        self.switch(true);
        self.publish(10);
        let published = self.line.publisher.published();
        let demanded: Vec<_> =
            published.iter().filter(|message| !self.excused.contains(&message.payload)).cloned().collect();
        self.line.auditor().wait_for(&demanded, PATIENT);
        self.line.agent.stop();
        let mut audit = self.line.auditor().audit(&published);
        audit.lost.retain(|message| !self.excused.contains(&message.payload));
        audit.assert_nothing_lost();
        assert!(audit.foreign == 0 && (self.restored || audit.repeated == 0), "{audit}");
        println!("{} excused, {audit}", self.excused.len());
        self.proxy
    }
}

/// Tells its history when the test has failed.
#[derive(Default)]
struct History(Vec<String>);

impl Drop for History {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the card's history: {:#?}", self.0);
        }
    }
}

/// Promise 3: histories of a card: outages with long backlogs, pulled plugs, images made, restored and restored again, other machines, in
/// any order. Only what an image replaced and nobody else had is missing, and only after a restored image anything repeats.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn histories_of_a_card() {
    let kafka = Kafka::shared();
    let mut choices = choices("histories_of_a_card");
    let machines = namespace::available("histories_of_a_card");
    let mut proxy = kafka.proxy();
    for number in 0..scale(2, 150) {
        let mut card = Card::new(kafka, &format!("card-{number}"), proxy);
        for _ in 0..8 {
            match choices.random_range(0..10) {
                0..=2 => {
                    let count = choices.random_range(1..scale(400, 4_000));
                    card.publish(count);
                }
                3 => card.cut(false),
                4 => card.cut_after_commit(),
                5 => card.cut(true),
                6 | 7 => card.restore(),
                8 => {
                    let up = !card.up;
                    card.switch(up);
                }
                _ if machines => card.change_machine(&mut choices),
                _ => {}
            }
        }
        println!("history {number}: {:?}", card.told.0);
        proxy = card.finish();
    }
}

/// Promise 3: a backlog of a long outage is on a card that lied about its flushes: after a pulled plug it is as it was before the
/// outage, while Kafka has most of what came since. New readings take numbers that Kafka knows already.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn card_that_lied_about_a_flush() {
    let kafka = Kafka::shared();
    let mut card = Card::new(kafka, "lied", kafka.proxy());
    card.publish(20);
    card.cut(true);
    card.switch(false);
    card.publish(scale(2_000, 50_000));
    card.switch(true);
    card.line.audit();
    // With the line down again it cannot know yet that its numbers are taken.
    card.switch(false);
    card.restore();
    card.publish(scale(3_000, 60_000));
    card.cut(false);
    card.finish();
}

/// Promise 3: an image with a backlog of a long outage goes into a second machine, and both go on at the same time: neither fences
/// the other, the copy takes a queue id of its own, and nothing of either is lost.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn cloned_card_goes_on_under_two_ids() {
    if !namespace::available("cloned_card_goes_on_under_two_ids") {
        return;
    }
    let kafka = Kafka::shared();
    let mut line = Line::new(kafka, "twins");
    line.agent.inside(namespace::with_serial("10000000aaaaaaaa"));
    line.start();
    line.publish(20);
    line.audit();
    line.agent.stop();
    let away = format!("bootstrap_servers = [\"127.0.0.1:{}\"]", process::free_port());
    line.agent.reconfigure(|queue| line.config(queue).kafka(&away));
    line.agent.start();
    line.publish(scale(1_000, 30_000));
    line.agent.stop();

    let mosquitto = Mosquitto::start();
    let mut clone =
        Agent::new(|queue| Config::new(&line.topic, queue, &kafka.plain(), &line.topic).mqtt(mosquitto.port()));
    clone.inside(namespace::with_serial("10000000bbbbbbbb"));
    let copy = line.agent.copy_queue();
    std::fs::create_dir(clone.queue()).expect("the clone's folder");
    clone.restore_queue(&copy);
    line.agent.reconfigure(|queue| line.config(queue));
    line.agent.start();
    clone.start();
    mosquitto.wait_subscribed(&line.client_id());
    let publisher = Publisher::connect(mosquitto.port());
    for round in 0..3 {
        line.publish(20);
        publisher.publish_all(&document::readings(&["clone"], round * 20, 20));
        std::thread::sleep(Duration::from_millis(300));
    }
    let all = || [line.publisher.published(), publisher.published()].concat();
    Auditor::new(kafka, &line.topic).wait_for(&all(), PATIENT);
    let (ours, theirs) = (line.agent.log(), clone.log());
    line.agent.stop();
    clone.stop();
    let audit = line.auditor().audit(&all());
    audit.assert_nothing_lost();
    assert!(theirs.contains("another machine") && !ours.contains("takes a new id"), "{ours}{theirs}");
    assert!(!ours.contains("outcome of a transaction is unknown"), "the original was fenced:\n{ours}");
    let queues = |clone: bool| -> HashSet<_> {
        let records = audit.records.iter().filter(|record| (record.key == "clone") == clone);
        records.map(|record| record.id().0.to_owned()).collect()
    };
    assert!(queues(true).len() == 1, "{:?}", queues(true));
    assert!(queues(false).len() <= 2, "{:?}", queues(false));
}

/// Promise 3: a card that is moved into another machine, with a backlog, and with a transaction of which only Kafka knows:
/// a new queue id, nothing lost, nothing twice.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn moved_card_repeats_nothing() {
    if !namespace::available("moved_card_repeats_nothing") {
        return;
    }
    let mut line = Line::new(Kafka::shared(), "moved");
    for machine in ["1", "2", "3"] {
        line.agent.inside(namespace::with_serial(machine));
        line.start();
        line.publish(50);
        line.audit().assert_exact();
        line.agent.stop();
        line.agent.failpoint(Some("kafka-committed"));
        line.agent.start();
        line.publish_until_failpoint();
        line.publish(50);
        line.agent.failpoint(None);
    }
    line.agent.inside(namespace::with_serial("4"));
    line.agent.start();
    let audit = line.finish();
    audit.assert_exact();
    let ids: HashSet<_> = audit.records.iter().map(|record| record.id().0).collect();
    assert_eq!(ids.len(), 4, "a queue id a machine");
}

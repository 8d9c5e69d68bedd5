//! Promises 1, 5 and 6 on a disk that is full, read-only, broken or not ours: nothing is acknowledged that is not stored, what is
//! stored is sent, and a person is told what to do.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use meterferry::reading::{Body, Entry};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use crate::harness::agent::Agent;
use crate::harness::config::Config;
use crate::harness::kafka::Kafka;
use crate::harness::line::Line;
use crate::harness::namespace;
use crate::harness::on_disk;
use crate::harness::process;
use crate::harness::proxy::Proxy;
use crate::harness::scale::scale;
use crate::harness::small_disk::SmallDisk;
use crate::harness::wait::{self, PATIENT, SOON};

/// A wrong configuration, by sysexits.h.
const EX_CONFIG: i32 = 78;

/// A line whose queue is on a small disk, with a proxy on its way to Kafka.
fn line_on<'k>(kafka: &'k Kafka, disk: &SmallDisk, name: &str, min_free: &str) -> (Line<'k>, Proxy) {
    let proxy = kafka.proxy();
    let mut line = Line::new(kafka, name);
    line.agent = disk.agent(|queue| {
        line.config(queue)
            .kafka(&format!("bootstrap_servers = [\"127.0.0.1:{}\"]", proxy.port()))
            .queue(&format!("min_free = \"{min_free}\""))
            .queue("segment_size = \"1 MiB\"")
    });
    (line, proxy)
}

fn payloads(entries: &[Entry]) -> HashSet<Vec<u8>> {
    let payload =
        |entry: &Entry| if let Body::Reading(reading) = &entry.body { Some(reading.payload.to_vec()) } else { None };
    entries.iter().filter_map(payload).collect()
}

fn acknowledged(line: &Line<'_>) -> usize {
    line.mosquitto.acknowledgements(&line.client_id())
}

fn wait_stored(line: &Line<'_>) {
    let count = line.publisher.published().len();
    wait::until_true("the agent to store everything", PATIENT, || acknowledged(line) >= count);
}

/// Publishes until the agent has no room and acknowledges nothing any more.
fn publish_until_full(line: &mut Line<'_>) {
    let mut stood_still = Instant::now();
    let mut before = acknowledged(line);
    // A single refusal may be over with the file system's next look at what is free.
    while !line.agent.log().contains("the queue has no room") || stood_still.elapsed() < Duration::from_secs(3) {
        if line.publisher.published().len() < acknowledged(line) + 300 {
            let messages = line.next(&["alpha", "beta"], 100);
            line.publisher.publish_all(&messages);
        }
        assert!(line.publisher.published().len() < 60_000 && line.agent.ended().is_none(), "{}", line.agent.log());
        let now = acknowledged(line);
        if now > before {
            (before, stood_still) = (now, Instant::now());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Promises 1 and 6: the disk is full because the line is down: nothing more is acknowledged, and what was acknowledged is there. When the
/// line is back the queue drains, and everything goes on by itself.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn full_disk_blocks_and_drains() {
    if !namespace::available("full_disk_blocks_and_drains") {
        return;
    }
    let disk = SmallDisk::new(32);
    let (mut line, proxy) = line_on(Kafka::shared(), &disk, "full-disk", "0 B");
    line.start();
    line.publish(20);
    line.audit().assert_exact();
    for _ in 0..scale(2, 20) {
        proxy.refuse(true);
        // Of one device after the other in turn: acknowledgements come in the order of publishing.
        let released = line.publisher.published().len();
        disk.fill(3 << 20);
        publish_until_full(&mut line);
        let (before, all) = (acknowledged(&line), line.publisher.published().len());
        assert!(before < all, "{before} of {all} acknowledged, without room");
        line.agent.kill();
        let stored: HashSet<_> = payloads(&on_disk::entries(&line.agent));
        let unreleased = &line.publisher.published()[released..before];
        let missing = unreleased.iter().filter(|message| !stored.contains(&message.payload)).count();
        assert_eq!(missing, 0, "acknowledged and not on the disk, of {}", unreleased.len());
        line.agent.start();
        proxy.refuse(false);
        line.audit().assert_exact();
        wait_stored(&line);
        disk.clean();
    }
    line.finish().assert_exact();
}

/// Promises 5 and 6: other programs fill the disk up to `queue.min_free`: nothing is acknowledged, what waits is sent, and when
/// the other files are gone the agent goes on by itself.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn disk_full_of_other_files() {
    if !namespace::available("disk_full_of_other_files") {
        return;
    }
    let disk = SmallDisk::new(40);
    let (mut line, proxy) = line_on(Kafka::shared(), &disk, "other-files", "8 MiB");
    line.start();
    line.publish(20);
    line.audit().assert_exact();
    proxy.refuse(true);
    line.publish(300);
    wait_stored(&line);
    let stored = line.publisher.published();
    disk.fill(6 << 20);
    line.publish(100);
    line.agent.wait_log("queue.min_free", SOON);
    assert_eq!(acknowledged(&line), stored.len());
    proxy.refuse(false);
    line.auditor().wait_for(&stored, PATIENT).assert_exact();
    assert_eq!(acknowledged(&line), stored.len(), "drained, and still nothing is acknowledged");
    disk.clean();
    line.agent.wait_log("the queue has room again", SOON);
    line.finish().assert_exact();
}

/// Commits an offset that is not the agent's, as a tool would: the queue must fork.
fn forget_who_wrote(line: &Line<'_>) {
    let [group] = &line.kafka.groups(&format!("meterferry.{}.", line.topic))[..] else { panic!("one group") };
    let consumer: BaseConsumer = line.kafka.client().set("group.id", group).create().expect("a client");
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&format!("{}-resume", line.topic), 0, Offset::Offset(7)).expect("an offset");
    consumer.commit(&list, CommitMode::Sync).expect("Kafka takes it");
}

/// Promise 5: not a byte is free, and the backlog begins with what needs room: a fork, and dead letters. It is drained all the
/// same, from the first start on, without a hand.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn fork_and_dead_letters_on_a_full_disk() {
    if !namespace::available("fork_and_dead_letters_on_a_full_disk") {
        return;
    }
    let disk = SmallDisk::new(32);
    let (mut line, proxy) = line_on(Kafka::shared(), &disk, "full-fork", "0 B");
    line.start();
    line.publish(20);
    line.audit().assert_exact();
    proxy.refuse(true);
    for n in 0..3 {
        line.publish(100);
        let broken = format!("not a document {n}");
        line.publisher.publish_raw("sma", rumqttc::QoS::AtLeastOnce, false, broken.as_bytes());
    }
    let count = line.publisher.published().len() + 3;
    wait::until_true("the agent to store everything", PATIENT, || acknowledged(&line) >= count);
    line.agent.kill();
    forget_who_wrote(&line);
    disk.fill_up();
    proxy.refuse(false);
    line.agent.start();
    let pid = line.agent.pid();
    let stored = line.publisher.published();
    line.auditor().wait_for(&stored, PATIENT);
    assert!(line.agent.ended().is_none() && line.agent.pid() == pid);
    line.agent.wait_log("the queue takes a new id", SOON);
    let letters = process::run(&mut line.agent.command(&["dead-letters", "list", "--json"]));
    assert_eq!(letters.lines().count(), 3, "{letters}");
    line.publish(50);
    disk.clean();
    let audit = line.finish();
    audit.assert_exact();
    assert_eq!(audit.gaps().len(), 3, "{audit}");
}

/// Promise 1: a dying card makes its file system read-only while the agent runs: the agent says so and ends, as does every start until it is
/// mended; nothing acknowledged is lost.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn disk_becomes_read_only() {
    if !namespace::available("disk_becomes_read_only") {
        return;
    }
    let disk = SmallDisk::new(32);
    let (mut line, proxy) = line_on(Kafka::shared(), &disk, "read-only", "0 B");
    line.start();
    line.publish(20);
    line.audit().assert_exact();
    proxy.refuse(true);
    line.publish(100);
    wait_stored(&line);
    disk.becomes_read_only();
    line.publish(50);
    let status = line.agent.wait(PATIENT);
    assert_eq!(status.code(), Some(1), "{}", line.agent.full_log());
    assert!(line.agent.full_log().contains("Read-only file system"), "{}", line.agent.full_log());
    let log = fails_to_start(&mut line.agent, Some(1));
    assert!(log.contains("mounted read-only") && log.contains("hint: "), "{log}");
    disk.repair();
    proxy.refuse(false);
    line.agent.start();
    line.audit().assert_exact();

    // Mounted read-only before the start: a person did it, and undoes it.
    line.agent.stop();
    disk.remount("ro");
    let log = fails_to_start(&mut line.agent, Some(1));
    assert!(log.contains("mounted read-only"), "{log}");
    disk.remount("rw");
    line.agent.start();
    line.publish(20);
    line.finish().assert_exact();
}

/// Promise 1: the medium has less room than it says, so that writes and flushes fail with an I/O error, or as on a full disk: the agent
/// ends, or takes nothing more, and nothing that it acknowledged is missing when the medium is mended.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn flush_fails() {
    if !namespace::available("flush_fails") {
        return;
    }
    let disk = SmallDisk::cheating(64, 8);
    let (mut line, proxy) = line_on(Kafka::shared(), &disk, "flush", "0 B");
    line.start();
    line.publish(20);
    line.audit().assert_exact();
    proxy.refuse(true);
    let start = Instant::now();
    let full = loop {
        if line.agent.ended().is_some() {
            break false;
        }
        if line.agent.full_log().contains("the queue has no room") {
            break true;
        }
        if line.publisher.published().len() < acknowledged(&line) + 300 {
            let messages = line.next(&["alpha", "beta"], 100);
            line.publisher.publish_all(&messages);
        }
        std::thread::sleep(Duration::from_millis(20));
        assert!(start.elapsed() < PATIENT, "no flush ever fails: {}", line.agent.full_log());
    };
    if full {
        line.agent.kill();
    } else {
        let (status, log) = (line.agent.wait(SOON), line.agent.full_log());
        // The I/O error itself, the read-only file system that ext4 has made of itself for it, or what it has left.
        let said = ["os error 5", "os error 30", "is damaged"].iter().any(|what| log.contains(what));
        assert!(status.code() == Some(1) && said, "{status}: {log}");
    }
    // A card of the promised size takes the broken one's content.
    disk.enlarge(64);
    proxy.refuse(false);
    line.agent.start();
    line.audit().assert_exact();
    line.finish().assert_exact();
}

/// Starts it, and returns what it said before it ended with this code.
fn fails_to_start(agent: &mut Agent, code: Option<i32>) -> String {
    let before = agent.full_log().len();
    agent.start();
    let status: ExitStatus = agent.wait(SOON);
    let log = agent.full_log().split_off(before);
    assert_eq!(status.code(), code, "{log}");
    log
}

/// An agent that needs no server.
fn agent_at(queue: &Path) -> Agent {
    Agent::new(|_| {
        Config::new("house", queue, "127.0.0.1:9", "sma-kafka").source(&format!(
            "name = \"meter\"\ntype = \"mqtt-listener\"\nlisten = \"127.0.0.1:{}\"",
            process::free_port()
        ))
    })
}

/// Promise 5: a folder for the queue that is not ours to use is refused with the cure and the exit code of a wrong configuration,
/// and nothing in it is touched.
#[test]
fn folder_that_is_not_ours() {
    let root = process::scratch("folders");
    let place = |name: &str| root.path().join(name);
    fs::write(place("file"), "a letter").expect("write");
    fs::create_dir(place("foreign")).expect("made");
    fs::write(place("foreign/draft.new"), "a letter").expect("write");
    for (name, word) in [("file", "no folder"), ("file/queue", "not a folder"), ("foreign", "draft.new")] {
        let log = fails_to_start(&mut agent_at(&place(name)), Some(EX_CONFIG));
        assert!(log.contains(word), "{name}: {log}");
    }
    let left: Vec<_> = fs::read_dir(place("foreign")).expect("there").collect();
    assert!(left.len() == 1 && fs::read(place("foreign/draft.new")).expect("untouched") == b"a letter");

    // Root may do everything; without that right it is like anybody.
    fs::create_dir(place("closed")).expect("made");
    fs::set_permissions(place("closed"), fs::Permissions::from_mode(0o500)).expect("ours");
    let mut agents = vec![("closed", agent_at(&place("closed"))), ("closed/queue", agent_at(&place("closed/queue")))];
    if nix::unistd::geteuid().is_root() {
        fs::create_dir(place("foreigner")).expect("made");
        fs::set_permissions(place("foreigner"), fs::Permissions::from_mode(0o700)).expect("ours");
        chown(place("foreigner"), Some(65_534), Some(65_534)).expect("root");
        agents.push(("foreigner", agent_at(&place("foreigner"))));
    }
    for (name, agent) in &mut agents {
        if nix::unistd::geteuid().is_root() {
            let words = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--"];
            agent.inside(words.map(str::to_owned).to_vec());
        }
        let log = fails_to_start(agent, Some(EX_CONFIG));
        assert!(log.contains("may not be used") && log.contains("belongs to user"), "{name}: {log}");
        assert!(log.contains("chown"), "{name}: {log}");
    }
    fs::set_permissions(place("closed"), fs::Permissions::from_mode(0o700)).expect("ours");
}

/// Promise 5: a second agent with the same folder is refused with the first one's process id; the first goes on.
#[test]
fn folder_of_a_running_agent() {
    let root = process::scratch("folders");
    let mut first = agent_at(&root.path().join("queue"));
    first.start();
    first.wait_log(" starts ", SOON);
    let log = fails_to_start(&mut agent_at(&root.path().join("queue")), Some(1));
    assert!(log.contains(&format!("process {}", first.pid())) && log.contains("hint: "), "{log}");
    assert!(first.ended().is_none());
    first.stop();
}

/// Promise 1: somebody removes the queue's files, or the whole folder, under a running agent: nothing is acknowledged into files that are
/// gone; the agent ends, says so, and its next start makes a queue that works.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn folder_is_removed_while_running() {
    let mut line = Line::new(Kafka::shared(), "removed");
    let remove: [&dyn Fn(&Path); 2] = [
        &|queue: &Path| {
            for entry in fs::read_dir(queue).expect("there") {
                let path = entry.expect("an entry").path();
                if path.extension().is_some_and(|extension| extension == "redb") {
                    fs::remove_file(path).expect("ours");
                }
            }
        },
        &|queue: &Path| fs::remove_dir_all(queue).expect("ours"),
    ];
    for remove in remove {
        line.start();
        line.publish(20);
        line.audit().assert_exact();
        wait_stored(&line);
        let before = acknowledged(&line);
        remove(&line.agent.queue());
        line.publish(20);
        let status = line.agent.wait(SOON);
        assert_eq!(status.code(), Some(1), "{}", line.agent.full_log());
        assert_eq!(acknowledged(&line), before, "acknowledged into files that are gone");
        line.agent.start();
        line.audit().assert_exact();
        line.agent.stop();
    }
    line.auditor().audit(&line.publisher.published()).assert_exact();
}

//! The test bed itself: a test that cannot fail proves nothing.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use crate::harness::auditor::{Auditor, murmur2};
use crate::harness::by_hand::{ByHand, Hand};
use crate::harness::document::{self, Message};
use crate::harness::kafka::Kafka;
use crate::harness::mosquitto::{Mosquitto, Options, mosquitto_pub};
use crate::harness::process::{self, Running};
use crate::harness::proxy::{Direction, Proxy};
use crate::harness::publisher::Publisher;
use crate::harness::wait::{self, SOON};

/// Sends what the agent would send, under these sequences.
fn produce(kafka: &Kafka, topic: &str, messages: &[(u64, Message)]) {
    let hand = Hand::new(kafka);
    for (sequence, message) in messages {
        hand.send(topic, &ByHand::reading(*sequence, &message.device, &message.payload));
    }
    hand.flush();
}

/// Promise 3: the auditor passes what is right, and finds a loss, a repeat, a wrong order and a stranger.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn auditor_finds_what_is_wrong() {
    let kafka = Kafka::shared();
    let messages = document::readings(&["alpha", "beta"], 0, 20);
    let numbered = |messages: &[Message]| (1..).zip(messages.iter().cloned()).collect::<Vec<_>>();

    let right = kafka.topic("bed-right", 3);
    produce(kafka, &right, &numbered(&messages));
    Auditor::new(kafka, &right).wait_for(&messages, SOON).assert_exact();

    let wrong = kafka.topic("bed-wrong", 3);
    let mut sent = numbered(&messages);
    sent.swap(10, 12);
    sent.remove(5);
    sent.push((41, messages[0].clone()));
    sent.push((42, document::reading("alpha", 1_000)));
    produce(kafka, &wrong, &sent);
    let auditor = Auditor::new(kafka, &wrong);
    auditor.wait_count(41, SOON);
    let audit = auditor.audit(&messages);
    assert_eq!((audit.lost.len(), audit.repeated, audit.repeated_ids, audit.foreign), (1, 1, 1, 1), "{audit}");
    assert_eq!(audit.out_of_order, 1, "{audit}");
    assert_eq!(audit.wrong, [format!("queue {:032x}: sequences 6 to 6 are not explained", 7)]);
}

/// Promise 4: the auditor's own idea of the partition is that of Kafka's Java client (its UtilsTest).
#[test]
fn murmur2_is_kafkas() {
    let cases: [(&[u8], i32); 6] = [
        (b"21", -973_932_308),
        (b"foobar", -790_332_482),
        (b"a-little-bit-long-string", -985_981_536),
        (b"a-little-bit-longer-string", -1_486_304_829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        (b"abc", 479_470_107),
    ];
    for (key, expected) in cases {
        assert_eq!(murmur2(key).cast_signed(), expected, "{}", String::from_utf8_lossy(key));
    }
}

/// Promise 3: a broker that is killed, and one that is stopped, comes back with what it had.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn kafka_survives_kill_and_stop() {
    let kafka = Kafka::start();
    let topic = kafka.topic("bed-kill", 1);
    let messages = document::readings(&["alpha"], 0, 30);
    let numbered: Vec<_> = (1..).zip(messages.iter().cloned()).collect();
    produce(&kafka, &topic, &numbered[..10]);
    kafka.kill();
    kafka.restart();
    produce(&kafka, &topic, &numbered[10..20]);
    kafka.stop();
    kafka.restart();
    produce(&kafka, &topic, &numbered[20..]);
    Auditor::new(&kafka, &topic).wait_for(&messages, SOON).assert_exact();
}

/// Promise 3: a broker keeps a persistent session's messages over a restart, with a password and TLS too.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn mosquitto_keeps_messages_over_a_restart() {
    let mut mosquitto = Mosquitto::with(&Options { persistence: true, ..Options::default() });
    let subscribe = |port: u16, count: &str| {
        let mut command = Command::new("mosquitto_sub");
        command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-i", "bed", "-c", "-q", "1", "-t", "sma"]);
        let limit: &[&str] = if count == "0" { &["-E"] } else { &["-C", count] };
        process::run(command.args(["-W", "30"]).args(limit))
    };
    subscribe(mosquitto.port(), "0");
    let publisher = Publisher::connect(mosquitto.port());
    publisher.publish_all(&document::readings(&["alpha"], 0, 5));
    mosquitto.stop();
    mosquitto.restart();
    publisher.publish_all(&document::readings(&["alpha"], 5, 5));
    mosquitto.save();
    mosquitto.kill();
    mosquitto.restart();
    mosquitto_pub(mosquitto.port(), "sma", document::SEEN.as_bytes());
    assert_eq!(publisher.acknowledged(), 10);
    let got = subscribe(mosquitto.port(), "11");
    let wanted: Vec<_> =
        publisher.published().into_iter().map(|m| String::from_utf8(m.payload).expect("text")).collect();
    assert_eq!(got.lines().collect::<Vec<_>>(), [&wanted[..], &[document::SEEN.to_owned()]].concat());
}

/// Promise 3: the proxy cuts at the byte it was told, holds and swallows.
#[test]
fn proxy_cuts_at_the_byte() {
    let server = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let proxy = Proxy::start(server.local_addr().expect("an address").port());
    let connect = || {
        let client = TcpStream::connect(("127.0.0.1", proxy.port())).expect("the proxy listens");
        client.set_read_timeout(Some(Duration::from_secs(10))).expect("an open socket");
        (client, server.accept().expect("passed on").0)
    };

    let (mut client, mut upstream) = connect();
    proxy.cut_after(Direction::ToServer, 5);
    client.write_all(b"1234567890").expect("the proxy reads");
    let mut got = Vec::new();
    upstream.read_to_end(&mut got).expect("closed in order");
    assert_eq!(got, b"12345");

    let (mut client, mut upstream) = connect();
    proxy.hold(Direction::ToServer, true);
    client.write_all(b"held").expect("room in the buffer");
    upstream.set_read_timeout(Some(Duration::from_millis(200))).expect("an open socket");
    assert!(upstream.read(&mut [0; 4]).is_err(), "held bytes came through");
    proxy.hold(Direction::ToServer, false);
    upstream.set_read_timeout(Some(Duration::from_secs(10))).expect("an open socket");
    let mut four = [0; 4];
    upstream.read_exact(&mut four).expect("let go");
    assert_eq!(&four, b"held");

    proxy.black_hole(true);
    client.write_all(b"lost").expect("the proxy reads");
    proxy.black_hole(false);
    assert_eq!(client.read(&mut four).unwrap_or(0), 0, "a connection that lost bytes must be cut");
    // Counted once they are written, which is a moment before they are read here.
    wait::until_true("five and four bytes to be counted", SOON, || proxy.passed(Direction::ToServer) == 9);

    proxy.refuse(true);
    let mut refused = TcpStream::connect(("127.0.0.1", proxy.port())).expect("accepted, then closed");
    assert_eq!(refused.read(&mut four).unwrap_or(0), 0);
    assert_eq!(proxy.accepted(), 3);
}

/// Promise 6: what a test process started ends with it, even if it is killed.
#[test]
fn children_end_with_the_test() {
    let folder = process::scratch("bed");
    let log = folder.path().join("log");
    let mut sleeper = Running::start("a sleeper", Command::new("sh").args(["-c", "echo up; exec sleep 600"]), &log);
    wait::until_true("the sleeper to say so", SOON, || sleeper.log() == "up\n");
    let pid = sleeper.pid();
    assert!(sleeper.ended().is_none());
    drop(sleeper);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}

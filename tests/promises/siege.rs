//! The listener among clients that mean it no good: each costs itself at most, and a bounded piece of memory.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::adapter::{Adapter, connect, packet, text};
use crate::harness::agent::Agent;
use crate::harness::auditor::Auditor;
use crate::harness::config::Config;
use crate::harness::document;
use crate::harness::kafka::Kafka;
use crate::harness::process;
use crate::harness::scale::scale;
use crate::harness::wait::{PATIENT, SOON, SetAtEnd};

/// Of each kind.
const BESIEGERS: usize = 12;

/// Seats of the listener, enough for all who say who they are: who has no seat left has no promise. Of the besiegers, two
/// kinds take a seat each, two share one each.
const CLIENTS: u64 = 2 * BESIEGERS as u64 + 2 + 2;

/// Places for those who shake hands, of at most 64 KiB.
const HANDSHAKES: u64 = 32;

/// The largest packet of a client (KiB).
const PACKET: u64 = 512;

/// What somebody does with a connection to the listener until he is asked to stop; an error ends only that connection.
type Besieger = fn(&mut TcpStream, &AtomicBool) -> std::io::Result<()>;

const KINDS: [(&str, Besieger); 6] = [
    ("says nothing", |stream, over| wait_for_the_end(stream, over)),
    ("says who it is, a byte at a time", |stream, over| {
        for byte in connect("dribbles", 60) {
            stream.write_all(&[byte])?;
            if over.load(Ordering::SeqCst) {
                return Ok(());
            }
            // As slowly as it may: the hand is never shaken.
            thread::sleep(Duration::from_millis(900));
        }
        wait_for_the_end(stream, over)
    }),
    ("is gone without a word", |stream, over| {
        stream.write_all(&connect("half-open", 1))?;
        wait_for_the_end(stream, over)
    }),
    ("promises more than it may send", |stream, over| {
        stream.write_all(&connect("large", 60))?;
        // PUBLISH, QoS 1, 256 MiB less one.
        stream.write_all(&[0x32, 0xff, 0xff, 0xff, 0x7f])?;
        send(stream, over, &[b'x'; 4096])
    }),
    (WASTES, |stream, over| {
        stream.write_all(&connect("", 60))?;
        send(stream, over, &packet(0x30, &[&text("else/where")[..], &[b'x'; 60_000]].concat()))
    }),
    ("never reads an acknowledgement", |stream, over| {
        stream.write_all(&connect("", 60))?;
        send(stream, over, &packet(0x32, &[&text("else/where")[..], &[0, 1], b"{}"].concat()))
    }),
];

const WASTES: &str = "publishes what nobody wants";

/// Until the agent hangs up.
fn wait_for_the_end(stream: &mut TcpStream, over: &AtomicBool) -> std::io::Result<()> {
    while !over.load(Ordering::SeqCst) {
        match stream.read(&mut [0; 64]) {
            Ok(0) => return Ok(()),
            Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The same again and again.
fn send(stream: &mut TcpStream, over: &AtomicBool, bytes: &[u8]) -> std::io::Result<()> {
    while !over.load(Ordering::SeqCst) {
        stream.write_all(bytes)?;
    }
    Ok(())
}

/// Peak memory of a process (KiB).
fn peak(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the agent runs");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("the kernel tells it");
    line.split_whitespace().nth(1).and_then(|figure| figure.parse().ok()).expect("a figure")
}

/// Promise 6: slow clients, half-open connections, floods, packets that are too large: none is served for ever, what they
/// cost is bounded, and those who mean it well are let in and served all the while.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn others_are_served() {
    let kafka = Kafka::shared();
    let (topic, port) = (kafka.topic("siege", 1), process::free_port());
    let mut agent = Agent::new(|queue| {
        Config::new(&topic, queue, &kafka.plain(), &topic).source(&format!(
            "name = \"adapter\"\ntype = \"mqtt-listener\"\nlisten = \"127.0.0.1:{port}\"\ntopics = [\"sma\"]\n\
             payload = \"sma\"\ncommit_delay = \"10ms\"\nmax_clients = {CLIENTS}\nmax_packet_size = \"{PACKET} KiB\"\n\
             idle_timeout = \"5s\""
        ))
    });
    agent.start();
    let mut early = Adapter::new(port);
    document::readings(&["early"], 0, 10).iter().for_each(|message| early.publish(message));
    let before = peak(agent.pid());

    let over = Arc::new(AtomicBool::new(false));
    let ended: Vec<_> = KINDS.iter().map(|(kind, _)| (*kind, AtomicU64::new(0))).collect();
    let mut published = Vec::new();
    thread::scope(|scope| {
        let _over = SetAtEnd(&over);
        for ((_, besieger), (_, ended)) in KINDS.iter().zip(&ended) {
            for _ in 0..BESIEGERS {
                let over = Arc::clone(&over);
                scope.spawn(move || besiege(port, *besieger, &over, ended));
            }
        }
        let start = Instant::now();
        let rounds = scale(1, 50);
        let mut serial = 10;
        // Until each kind has been shown the door, but for those who only waste everybody's time.
        while serial < 10 + 200 * rounds
            || ended.iter().any(|(kind, ended)| *kind != WASTES && ended.load(Ordering::SeqCst) < BESIEGERS as u64)
        {
            document::readings(&["early"], serial, 1).iter().for_each(|message| early.publish(message));
            serial += 1;
            let ended: Vec<_> = ended.iter().map(|(kind, ended)| (kind, ended.load(Ordering::SeqCst))).collect();
            assert!(start.elapsed() < PATIENT * u32::try_from(rounds).expect("few"), "not ended: {ended:?}");
        }
        let arrived = Instant::now();
        let mut late = Adapter::named(port, "sma_late");
        document::readings(&["late"], 0, 20).iter().for_each(|message| late.publish(message));
        assert!(arrived.elapsed() < SOON, "a new one was let in after {:?}", arrived.elapsed());
        published.append(&mut early.published);
        published.append(&mut late.published);
    });
    let cost = peak(agent.pid()) - before;
    let limit = CLIENTS * PACKET + HANDSHAKES * 64 + 16 * 1024;
    println!("{} readings, {cost} KiB for the siege of {limit}; ended: {ended:?}", published.len());
    assert!(cost < limit, "the siege has cost {cost} KiB");
    let auditor = Auditor::new(kafka, &topic);
    auditor.wait_for(&published, PATIENT).assert_exact();
    agent.stop();
    let lines = agent.full_log().lines().count();
    assert!(lines < 300, "{lines} lines in the log");
}

/// Comes back whenever it is shown the door, which it counts.
fn besiege(port: u16, besieger: Besieger, over: &AtomicBool, ended: &AtomicU64) {
    while !over.load(Ordering::SeqCst) {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { continue };
        stream.set_read_timeout(Some(Duration::from_millis(200))).expect("a socket");
        stream.set_write_timeout(Some(Duration::from_secs(2))).expect("a socket");
        let _ = besieger(&mut stream, over);
        if !over.load(Ordering::SeqCst) {
            ended.fetch_add(1, Ordering::SeqCst);
        }
    }
}

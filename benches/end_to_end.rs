//! The figures of the whole line, with a real Mosquitto and a real Kafka, each beside the bare client library doing the
//! same. Run by `benches/end-to-end`.

#[path = "../tests/harness/mod.rs"]
#[allow(dead_code, reason = "the benches use a part of the test bed")]
mod harness;

use std::collections::HashMap;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use rumqttc::{Client, Event, MqttOptions, Packet, QoS};

use harness::agent::Agent;
use harness::auditor::Auditor;
use harness::config::Config;
use harness::document::{self, Message};
use harness::kafka::Kafka;
use harness::mosquitto::{Mosquitto, Options};
use harness::on_disk;
use harness::proxy::{Direction, Proxy};
use harness::wait::{self, PATIENT, SOON};

/// For what takes minutes on a small machine.
const LONG: Duration = Duration::from_secs(1800);

/// Of what is measured in turns; the medians count.
const ROUNDS: usize = 3;

fn main() {
    if std::env::var_os("METERFERRY_END_TO_END").is_none() {
        println!("end_to_end needs Mosquitto and Kafka: run benches/end-to-end");
        return;
    }
    let wanted = std::env::args().nth(1).filter(|name| !name.starts_with('-'));
    let wants = |name: &str| wanted.as_deref().is_none_or(|wanted| wanted == name);
    let mut rows = Vec::new();
    if wants("mosquitto") {
        let readings = number("METERFERRY_BENCH_READINGS", 100_000);
        rows.push(through_mosquitto("default window and queue", readings, 20, Some(1_000)));
        rows.push(through_mosquitto("window of 1,000", readings, 1_000, None));
    }
    if wants("drain") {
        rows.extend(drain(number("METERFERRY_BENCH_BACKLOG", 1_000_000)));
    }
    // Only if asked for: it takes 10 GB of disk and a quarter of an hour.
    if wanted.as_deref() == Some("backlog") {
        rows.extend(backlog(number("METERFERRY_BENCH_BACKLOG", 10_000_000)));
    }
    if wants("transaction") {
        rows.push(one_transaction());
    }
    println!("\n{:<52} {:>16} {:>16} {:>7}", "", "meterferry", "bare library", "ratio");
    for row in rows {
        println!("{:<52} {:>16} {:>16} {:>7}", row.what, row.ours, row.bare, row.ratio);
    }
}

/// One line of the table.
struct Row {
    what: String,
    ours: String,
    bare: String,
    ratio: String,
}

impl Row {
    fn rates(what: String, ours: f64, bare: f64) -> Self {
        let rate = |rate: f64| format!("{rate:.0}/s");
        Self { what, ours: rate(ours), bare: rate(bare), ratio: format!("{:.2}", ours / bare) }
    }

    fn figure(what: &str, ours: String) -> Self {
        Self { what: what.to_owned(), ours, bare: String::new(), ratio: String::new() }
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.replace([',', '_'], "").parse().expect("a number of readings"))
}

fn broker(window: u64, queue: Option<u64>) -> Mosquitto {
    let window = format!("max_inflight_messages {window}");
    let queue = format!("max_queued_messages {}", queue.unwrap_or(0));
    // A line of log a packet would be what is measured.
    Mosquitto::with(&Options { lines: &[&window, &queue, "log_type none"], ..Options::default() })
}

/// Readings per second from the first publish until the broker has every acknowledgement, ours and those of a client that
/// acknowledges at once and keeps nothing.
fn through_mosquitto(name: &str, count: u64, window: u64, queue: Option<u64>) -> Row {
    let kafka = Kafka::shared();
    let topic = kafka.topic("bench", 1);
    let messages: Vec<Message> = document::readings(&["90296857"], 0, count);

    let mosquitto = broker(window, queue);
    let proxy = Proxy::start(mosquitto.port());
    let mut agent = Agent::new(|queue| {
        Config::new(&topic, queue, &kafka.plain(), &topic)
            // As it is shipped.
            .queue("commit_delay = \"5s\"")
            .kafka("linger = \"1s\"")
            .mqtt(mosquitto.port())
            .port(proxy.port())
    });
    agent.start();
    agent.wait_log("connected to the MQTT broker", SOON);
    let ours = publish(&messages, mosquitto.port(), &proxy, queue);
    let sent = Instant::now();
    let audit = Auditor::new(kafka, &topic).wait_for(&messages, LONG);
    audit.assert_exact();
    println!(
        "{name}: all {count} in Kafka, once and in order, {:.1} s after the last acknowledgement",
        sent.elapsed().as_secs_f64()
    );
    agent.stop();

    let mosquitto = broker(window, queue);
    let proxy = Proxy::start(mosquitto.port());
    let subscriber = subscribe(proxy.port(), count);
    let bare = publish(&messages, mosquitto.port(), &proxy, queue);
    subscriber.join().expect("the bare subscriber");
    Row::rates(format!("{count} through Mosquitto, {name}"), ours, bare)
}

/// The bare subscriber: rumqttc as it comes, which acknowledges what it has received.
fn subscribe(port: u16, count: u64) -> thread::JoinHandle<()> {
    let mut options = MqttOptions::new("bare", "127.0.0.1", port);
    options.set_clean_session(false).set_keep_alive(Duration::from_secs(30));
    let (client, mut connection) = Client::new(options, 100);
    client.subscribe("sma", QoS::AtLeastOnce).expect("a fresh channel");
    let (ready, wait) = std::sync::mpsc::sync_channel(1);
    let thread = thread::spawn(move || {
        let mut seen = 0;
        for event in connection.iter() {
            match event.expect("the broker stays") {
                Event::Incoming(Packet::SubAck(_)) => ready.send(()).expect("somebody waits"),
                Event::Incoming(Packet::Publish(_)) => seen += 1,
                Event::Incoming(_) | Event::Outgoing(_) => (),
            }
            // One poll more sends the last acknowledgement.
            if seen == count {
                client.try_disconnect().expect("room in the channel");
                seen += 1;
            } else if seen > count {
                return;
            }
        }
    });
    wait.recv_timeout(SOON).expect("subscribed");
    thread
}

/// Publishes as fast as the subscriber's acknowledgements allow: with a queue limit the broker never has more waiting, since
/// it would drop them. Acknowledgements are counted on the wire: a PUBACK is four bytes.
fn publish(messages: &[Message], port: u16, proxy: &Proxy, queue: Option<u64>) -> f64 {
    let mut options = MqttOptions::new("publisher", "127.0.0.1", port);
    options.set_keep_alive(Duration::from_secs(30)).set_inflight(500);
    let (client, mut connection) = Client::new(options, 100);
    let thread = thread::spawn(move || for _ in connection.iter().map_while(Result::ok) {});
    // CONNECT and SUBSCRIBE are over when nothing more passes.
    let before = settled(proxy);
    let acknowledged = || (proxy.passed(Direction::ToServer) - before) / 4;
    let limit = queue.map_or(u64::MAX, |queue| queue - 100);
    let start = Instant::now();
    for (sent, message) in (0_u64..).zip(messages) {
        while sent - acknowledged().min(sent) >= limit {
            thread::sleep(Duration::from_micros(100));
        }
        client.publish("sma", QoS::AtLeastOnce, false, message.payload.clone()).expect("the publisher runs");
    }
    wait::until_true("every acknowledgement", LONG, || acknowledged() >= messages.len() as u64);
    let took = start.elapsed();
    client.disconnect().expect("the publisher runs");
    thread.join().expect("the publisher");
    messages.len() as f64 / took.as_secs_f64()
}

/// Bytes to the broker once the greetings are over.
fn settled(proxy: &Proxy) -> u64 {
    let mut last = 0;
    wait::until("the connection to be quiet", SOON, || {
        thread::sleep(Duration::from_millis(300));
        let now = proxy.passed(Direction::ToServer);
        let quiet = now > 0 && now == last;
        last = now;
        quiet.then_some(now)
    })
}

/// A backlog to Kafka in transactions, and the same records with librdkafka alone, in turns. Kafka has warmed up before:
/// the JVM's compiler would slow down whoever comes first.
fn drain(count: u64) -> Vec<Row> {
    let kafka = Kafka::shared();
    bare_producer(kafka, count / 2);
    let (mut ours, mut bare, mut peak) = ([0.0; ROUNDS], [0.0; ROUNDS], 0);
    for round in 0..ROUNDS {
        let (rate, memory) = one_drain(kafka, count);
        ours[round] = rate;
        peak = peak.max(memory);
        bare[round] = bare_producer(kafka, count);
    }
    vec![
        Row::rates(format!("{count} drained to Kafka, in transactions"), median(ours), median(bare)),
        Row::figure("peak memory of the agent while draining", format!("{:.1} MiB", peak as f64 / 1024.0)),
    ]
}

fn median(mut rates: [f64; ROUNDS]) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[ROUNDS / 2]
}

/// The start after a kill with a backlog, from the start of the process until the service manager is told READY; and the
/// agent's peak memory, at once and when some segments were packed.
fn backlog(count: u64) -> Vec<Row> {
    let mosquitto = Mosquitto::start();
    // Nobody is there, for months.
    let mut agent = Agent::new(|queue| {
        Config::new("backlog", queue, "127.0.0.1:9", "backlog").queue("max_size = \"32 GiB\"").mqtt(mosquitto.port())
    });
    on_disk::fill(&agent.queue(), "backlog", (0..count).map(|serial| document::reading("90296857", serial)));
    let folder = harness::process::scratch("manager");
    let socket = folder.path().join("notify");
    let manager = std::os::unix::net::UnixDatagram::bind(&socket).expect("bound");
    manager.set_read_timeout(Some(PATIENT)).expect("an open socket");
    agent.log_filter("info,meterferry::queue=debug");
    agent.variable("NOTIFY_SOCKET", socket.to_string_lossy());
    let mut started = Vec::new();
    for life in 0..4 {
        let start = Instant::now();
        agent.start();
        let mut buffer = [0; 1024];
        while !buffer.starts_with(b"READY=1") {
            manager.recv(&mut buffer).expect("the agent tells that it is ready");
        }
        if life > 0 {
            started.push(start.elapsed().as_secs_f64() * 1e3);
        }
        agent.wait_log("connected to the MQTT broker", SOON);
        let publisher = harness::publisher::Publisher::connect(mosquitto.port());
        publisher.publish_all(&document::readings(&["90296857"], count + life * 100, 100));
        agent.wait_figures("readings to be stored", SOON, |live| {
            live.sources.iter().any(|source| source.acknowledged >= 100)
        });
        if life < 3 {
            agent.kill();
        }
    }
    let at_once = peak_memory(&agent);
    wait::until_true("segments to be packed", LONG, || agent.log().matches("a segment was packed").count() >= 20);
    let packing = peak_memory(&agent);
    agent.kill();
    let mib = |kib: u64| format!("{:.1} MiB", kib as f64 / 1024.0);
    vec![
        Row::figure(&format!("start after a kill with {count} waiting, slowest of three"), {
            format!("{:.0} ms", started.iter().copied().fold(0.0, f64::max))
        }),
        Row::figure("peak memory then", mib(at_once)),
        Row::figure("peak memory when segments were packed", mib(packing)),
    ]
}

/// Readings a second, from the connection to Kafka until it has all; and the agent's peak memory in KiB.
fn one_drain(kafka: &Kafka, count: u64) -> (f64, u64) {
    let topic = kafka.topic("drain", 1);
    let mosquitto = Mosquitto::start();
    let mut agent = Agent::new(|queue| Config::new(&topic, queue, &kafka.plain(), &topic).mqtt(mosquitto.port()));
    let queue_id = on_disk::fill(&agent.queue(), &topic, document::readings(&["90296857"], 0, count));
    let group = format!("meterferry.{topic}.{queue_id}");
    agent.start();
    agent.wait_log("connected to Kafka", PATIENT);
    let start = Instant::now();
    let mut config = kafka.client();
    let consumer: BaseConsumer = config.set("group.id", &group).create().expect("a client");
    wait::until_true("Kafka to have all", LONG, || resume_point(&consumer, &topic) > count);
    let rate = count as f64 / start.elapsed().as_secs_f64();
    let peak = peak_memory(&agent);
    agent.stop();
    (rate, peak)
}

fn resume_point(consumer: &BaseConsumer, topic: &str) -> u64 {
    let mut question = TopicPartitionList::new();
    question.add_partition(&format!("{topic}-resume"), 0);
    match consumer.committed_offsets(question, PATIENT).expect("Kafka answers").elements()[0].offset() {
        Offset::Offset(offset) => offset.unsigned_abs(),
        _ => 0,
    }
}

/// librdkafka without transactions: the same keys, values, headers and compression, its own batching.
fn bare_producer(kafka: &Kafka, count: u64) -> f64 {
    let topic = kafka.topic("bare", 1);
    let mut config = kafka.client();
    config.set("enable.idempotence", "true").set("compression.type", "zstd").set("partitioner", "murmur2_random");
    config.set("linger.ms", "5").set("queue.buffering.max.messages", "100000");
    let producer: BaseProducer = config.create().expect("a producer");
    let messages: Vec<_> = (0..count).map(|serial| document::reading("90296857", serial)).collect();
    let start = Instant::now();
    for (serial, message) in (0_u64..).zip(&messages) {
        let (id, sequence) = (format!("{:032x}-{serial}", 7), format!("{serial:020}"));
        let mut headers = OwnedHeaders::new_with_capacity(7);
        for (key, value) in [
            ("ce_specversion", "1.0"),
            ("ce_id", &*id),
            ("ce_source", "/bench/meter"),
            ("ce_type", "io.meterferry.reading"),
            ("ce_time", "2026-01-01T00:00:00Z"),
            ("ce_sequence", &*sequence),
            ("content-type", "application/json"),
        ] {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        let mut record = BaseRecord::to(&topic).key(&message.device).payload(&message.payload).headers(headers);
        while let Err((_, refused)) = producer.send(record) {
            producer.poll(Duration::from_millis(1));
            record = refused;
        }
        producer.poll(Duration::ZERO);
    }
    while producer.in_flight_count() > 0 {
        producer.poll(Duration::from_millis(1));
    }
    count as f64 / start.elapsed().as_secs_f64()
}

/// The agent's own measure of a transaction with one reading, from begin to committed.
fn one_transaction() -> Row {
    let kafka = Kafka::shared();
    let topic = kafka.topic("single", 1);
    let mosquitto = Mosquitto::start();
    let mut agent = Agent::new(|queue| {
        Config::new(&topic, queue, &kafka.plain(), &topic)
            .queue("commit_delay = \"1ms\"")
            .kafka("linger = \"0s\"")
            .mqtt(mosquitto.port())
    });
    agent.log_filter("info,meterferry::forwarder=debug");
    agent.start();
    mosquitto.wait_subscribed(&format!("meterferry-{topic}-meter"));
    let publisher = harness::publisher::Publisher::connect(mosquitto.port());
    let auditor = Auditor::new(kafka, &topic);
    for message in document::readings(&["90296857"], 0, 100) {
        publisher.publish_all(&[message]);
        let committed = publisher.published().len();
        wait::until_true("its transaction", SOON, || transactions(&agent).len() >= committed);
    }
    auditor.audit(&publisher.published()).assert_exact();
    let mut times = transactions(&agent);
    agent.stop();
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    Row::figure("one transaction of one reading, median (95 %)", format!("{:.1} ({:.1}) ms", at(0.5), at(0.95)))
}

/// Milliseconds of each transaction, as the agent logs them.
fn transactions(agent: &Agent) -> Vec<f64> {
    let units = HashMap::from([("ms", 1.0), ("µs", 1e-3), ("s", 1e3)]);
    let log = agent.log();
    let lines = log.lines().filter(|line| line.contains("committed") && line.contains(" open="));
    lines
        .map(|line| {
            let text = line.split(" open=").nth(1).and_then(|rest| rest.split(' ').next()).expect("a duration");
            let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
            digits.parse::<f64>().expect("a number") * units[&text[digits.len()..]]
        })
        .collect()
}

/// Peak memory of the running agent in KiB.
fn peak_memory(agent: &Agent) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).expect("the agent runs");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("the kernel tells it");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number of KiB")
}

//! Promise 3: every reading once and in order, whatever the network does: cut after any byte either way, with a reset or
//! an orderly end; held, swallowed, delayed, slow; on the broker's side, the adapters' and Kafka's, with TLS and without.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

use crate::harness::adapter::Adapter;
use crate::harness::agent::Agent;
use crate::harness::auditor::Auditor;
use crate::harness::certificates::Certificates;
use crate::harness::config::Config;
use crate::harness::document::{self, Message};
use crate::harness::kafka::Kafka;
use crate::harness::line::Line;
use crate::harness::mosquitto::{Mosquitto, Options};
use crate::harness::process;
use crate::harness::proxy::{Direction, Proxy};
use crate::harness::publisher::Publisher;
use crate::harness::scale::{choices, scale};
use crate::harness::wait::{self, PATIENT, SOON, SetAtEnd};

/// Bytes within which a connection is cut: about what some of its messages take, the handshake included.
#[derive(Debug, Clone, Copy)]
struct Reach {
    to_server: u32,
    from_server: u32,
}

/// Cuts every connection through `proxy` so often, while readings come: few bytes are as likely as many, so that most cuts
/// hit a connection that is being made.
fn cut_again_and_again(proxy: &Proxy, cuts: u64, reach: Reach, choices: &mut StdRng) {
    for cut in 0..cuts {
        let (direction, most) = match choices.random_bool(0.5) {
            true => (Direction::ToServer, reach.to_server),
            false => (Direction::FromServer, reach.from_server),
        };
        let bytes = f64::from(most).powf(choices.random()).round() as u32;
        proxy.resets(choices.random_bool(0.5));
        let before = proxy.cuts();
        proxy.cut_after(direction, bytes);
        wait::until_true(&format!("cut {cut}, {direction:?} after {bytes} bytes"), PATIENT, || proxy.cuts() > before);
    }
}

fn tls(header: &str, certificates: &Certificates) -> String {
    format!("{header}\nca_file = {:?}", certificates.ca())
}

/// Promise 3: many sources of one agent, each through a proxy of its own to one broker, half of them with TLS.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn to_the_broker_is_cut_at_any_byte() {
    const SOURCES: usize = 10;
    let (kafka, certificates) = (Kafka::shared(), Certificates::new());
    let plain = process::free_port();
    let second = format!("listener {plain} 127.0.0.1");
    let mosquitto = Mosquitto::with(&Options { tls: Some(&certificates), lines: &[&second], ..Options::default() });
    let proxies: Vec<_> =
        (0..SOURCES).map(|n| Proxy::start(if n % 2 == 0 { plain } else { mosquitto.port() })).collect();
    let topic = kafka.topic("mqtt-cut", 2);
    let mut agent = Agent::new(|queue| {
        let config = Config::new(&topic, queue, &kafka.plain(), &topic).queue("commit_delay = \"20ms\"");
        proxies.iter().enumerate().fold(config, |config, (n, proxy)| {
            let secure = if n % 2 == 0 { String::new() } else { tls("[source.tls]", &certificates) };
            config.source(&format!(
                "name = \"s{n}\"\ntype = \"mqtt\"\nhost = \"127.0.0.1\"\nport = {}\ntopics = [\"sma/d{n}\"]\n\
                 payload = \"sma\"\nreconnect_max_delay = \"1s\"\n{secure}",
                proxy.port()
            ))
        })
    });
    agent.start();
    (0..SOURCES).for_each(|n| mosquitto.wait_subscribed(&format!("meterferry-{topic}-s{n}")));

    let publisher = Publisher::connect(plain);
    let devices: Vec<_> = (0..SOURCES).map(|n| format!("d{n}")).collect();
    let make = |first, count: u64| -> Vec<Message> {
        let devices: Vec<&str> = devices.iter().map(String::as_str).collect();
        let on_its_topic = |message: Message| Message { topic: format!("sma/{}", message.device), ..message };
        document::readings(&devices, first, count.div_ceil(4)).into_iter().map(on_its_topic).collect()
    };
    let enough = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| publisher.publish_on(choices("mqtt cut, the load"), &enough, make));
        let _end = SetAtEnd(&enough);
        thread::scope(|scope| {
            for (n, proxy) in proxies.iter().enumerate() {
                let secure = if n % 2 == 0 { 0 } else { 2_500 };
                let reach = Reach { to_server: 300 + secure, from_server: 8_000 + secure };
                let mut choices = choices(&format!("mqtt cut {n}"));
                scope.spawn(move || cut_again_and_again(proxy, scale(9, 200), reach, &mut choices));
            }
        });
    });
    publisher.wait_acknowledged();
    let auditor = Auditor::new(kafka, &topic);
    auditor.wait_for(&publisher.published(), PATIENT).assert_exact();
    agent.stop();
    auditor.audit(&publisher.published()).assert_exact();
}

/// Promise 3: several agents, each through a proxy of its own to one cluster, half of them with TLS: in every phase of a
/// transaction, and of a connection.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn to_kafka_is_cut_at_any_byte() {
    let kafka = Kafka::shared();
    thread::scope(|scope| {
        for n in 0..4 {
            scope.spawn(move || cut_off_from_kafka(kafka, n));
        }
    });
}

fn cut_off_from_kafka(kafka: &Kafka, n: u32) {
    let secure = n % 2 == 1;
    let proxy = if secure { kafka.tls_proxy() } else { kafka.proxy() };
    let mut line = Line::with(kafka, &format!("kafka-cut-{n}"), &Options::default(), |config, _| {
        let config = config
            .queue("commit_delay = \"20ms\"")
            .kafka("linger = \"10ms\"")
            .kafka(&format!("bootstrap_servers = [\"127.0.0.1:{}\"]", proxy.port()));
        if secure { config.table(&tls("[kafka.tls]", kafka.certificates())) } else { config }
    });
    line.start();
    let (name, load) = (format!("kafka cut {n}"), choices(&format!("kafka cut {n}, the load")));
    let more = if secure { 3_000 } else { 0 };
    let reach = Reach { to_server: 8_000 + more, from_server: 3_000 + more };
    let enough = AtomicBool::new(false);
    let publisher = &line.publisher;
    thread::scope(|scope| {
        scope.spawn(|| {
            publisher.publish_on(load, &enough, |first, count| document::readings(&["a", "b"], first, count))
        });
        let _end = SetAtEnd(&enough);
        cut_again_and_again(&proxy, scale(16, 400), reach, &mut choices(&name));
    });
    publisher.wait_acknowledged();
    line.finish().assert_exact();
}

/// Promise 3: adapters that connect to the agent itself, one with TLS, one without.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn from_the_adapters_is_cut_at_any_byte() {
    let (kafka, certificates) = (Kafka::shared(), Certificates::new());
    let topic = kafka.topic("listener-cut", 1);
    let ports = [process::free_port(), process::free_port()];
    let server = certificates.server();
    let mut agent = Agent::new(|queue| {
        let config = Config::new(&topic, queue, &kafka.plain(), &topic);
        ports.iter().enumerate().fold(config, |config, (n, port)| {
            let secure = match n {
                0 => String::new(),
                _ => format!("[source.tls]\ncertificate_file = {:?}\nkey_file = {:?}", server.certificate, server.key),
            };
            config.source(&format!(
                "name = \"l{n}\"\ntype = \"mqtt-listener\"\nlisten = \"127.0.0.1:{port}\"\ntopics = [\"sma\"]\n\
                 payload = \"sma\"\ncommit_delay = \"10ms\"\n{secure}"
            ))
        })
    });
    agent.start();
    let proxies = ports.map(Proxy::start);
    let published = thread::scope(|scope| {
        let mut adapters = Vec::new();
        for (n, proxy) in proxies.iter().enumerate() {
            let adapter = Adapter::new(proxy.port());
            let adapter = if n == 0 { adapter } else { adapter.trusting(&certificates.ca()) };
            adapters.push(scope.spawn(move || publish_while_cut(adapter, proxy, n)));
        }
        adapters.into_iter().flat_map(|adapter| adapter.join().expect("heard in the end")).collect::<Vec<_>>()
    });
    let auditor = Auditor::new(kafka, &topic);
    auditor.wait_for(&published, PATIENT).assert_exact();
    agent.stop();
    auditor.audit(&published).assert_exact();
}

fn publish_while_cut(mut adapter: Adapter, proxy: &Proxy, n: usize) -> Vec<Message> {
    let (enough, repeats) = (AtomicBool::new(false), AtomicUsize::new(0));
    let device = format!("adapter-{n}");
    thread::scope(|scope| {
        let adapter = scope.spawn(|| {
            for serial in 0.. {
                adapter.publish(&document::reading(&device, serial));
                repeats.store(adapter.repeats, Ordering::SeqCst);
                if enough.load(Ordering::SeqCst) {
                    break;
                }
            }
            adapter
        });
        let _end = SetAtEnd(&enough);
        let reach = Reach { to_server: 2_000, from_server: if n == 0 { 40 } else { 2_000 } };
        let mut choices = choices(&format!("listener cut {n}"));
        cut_again_and_again(proxy, scale(25, 1_000), reach, &mut choices);
        // Most cuts hit a handshake; without one between a publish and its answer, nothing was tested.
        while repeats.load(Ordering::SeqCst) == 0 {
            cut_again_and_again(proxy, 1, reach, &mut choices);
        }
        drop(_end);
        adapter.join().expect("heard in the end").published
    })
}

/// What the network does for a while.
#[derive(Debug, Clone, Copy)]
enum Weather {
    Slow(u64),
    Far(Duration),
    Held(Direction),
    Swallowed,
    Refused,
}

impl Weather {
    fn choose(choices: &mut StdRng) -> Self {
        match choices.random_range(0..6) {
            0 => Self::Slow(choices.random_range(2_000..40_000)),
            1 => Self::Far(Duration::from_millis(choices.random_range(20..400))),
            2 => Self::Held(Direction::ToServer),
            3 => Self::Held(Direction::FromServer),
            4 => Self::Swallowed,
            _ => Self::Refused,
        }
    }

    fn set(self, proxy: &Proxy, on: bool) {
        match self {
            Self::Slow(rate) => proxy.throttle(if on { rate } else { 0 }),
            Self::Far(delay) => proxy.delay(if on { delay } else { Duration::ZERO }),
            Self::Held(direction) => proxy.hold(direction, on),
            Self::Swallowed => proxy.black_hole(on),
            Self::Refused => proxy.refuse(on),
        }
    }
}

/// Promise 3: both sides have weather of their own, each kind of it for as long as some hundred readings take to come.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn weather_on_both_sides() {
    let kafka = Kafka::shared();
    let cluster = kafka.proxy();
    let mut line = Line::new(kafka, "weather");
    let broker = Proxy::start(line.mosquitto.port());
    line.agent.reconfigure(|queue| {
        line.config(queue)
            .port(broker.port())
            .source_lines("keep_alive = \"5s\"\nconnect_timeout = \"2s\"")
            .kafka(&format!("bootstrap_servers = [\"127.0.0.1:{}\"]", cluster.port()))
            .kafka("request_timeout = \"3s\"")
            .kafka("transaction_timeout = \"5s\"")
    });
    line.start();
    let enough = AtomicBool::new(false);
    let publisher = &line.publisher;
    thread::scope(|scope| {
        let load = choices("weather, the load");
        scope.spawn(|| {
            publisher.publish_on(load, &enough, |first, count| document::readings(&["a", "b"], first, count))
        });
        let _end = SetAtEnd(&enough);
        let mut choices = choices("weather");
        for _ in 0..scale(8, 300) {
            let proxy = if choices.random_bool(0.5) { &broker } else { &cluster };
            let side = if std::ptr::eq(proxy, &broker) { "broker" } else { "cluster" };
            let (weather, readings) = (Weather::choose(&mut choices), choices.random_range(50..800));
            println!("{side}: {weather:?} for {readings} readings");
            let until = publisher.acknowledged() + readings;
            weather.set(proxy, true);
            wait::until_true("readings to come", PATIENT, || publisher.acknowledged() >= until);
            weather.set(proxy, false);
        }
    });
    publisher.wait_acknowledged();
    line.finish().assert_exact();
}

/// Promises 3 and 5: a broker's network that swallows everything without a word is noticed, said, and left.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn to_the_broker_swallows_everything() {
    let mut line = Line::new(Kafka::shared(), "mqtt-hole");
    let proxy = Proxy::start(line.mosquitto.port());
    line.agent.reconfigure(|queue| {
        line.config(queue).port(proxy.port()).source_lines("keep_alive = \"5s\"\nconnect_timeout = \"1s\"")
    });
    line.start();
    line.publish(10);
    line.audit();
    proxy.black_hole(true);
    line.publish(20);
    line.agent.wait_log("the MQTT broker does not answer in time", SOON);
    line.publish(20);
    proxy.black_hole(false);
    line.finish().assert_exact();
}

/// Promise 3: a network that swallows everything and then comes back.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn to_kafka_swallows_everything() {
    let kafka = Kafka::shared();
    let proxy = kafka.proxy();
    let mut line = Line::with(kafka, "black-hole", &Options::default(), |config, _| {
        config
            .kafka(&format!("bootstrap_servers = [\"127.0.0.1:{}\"]", proxy.port()))
            .kafka("request_timeout = \"3s\"")
            .kafka("transaction_timeout = \"5s\"")
    });
    line.start();
    line.publish(10);
    line.audit();
    for _ in 0..2 {
        let warned = line.agent.log().matches(" WARN ").count();
        proxy.black_hole(true);
        line.publish(20);
        wait::until_true("a warning", SOON, || line.agent.log().matches(" WARN ").count() > warned);
        line.publish(20);
        proxy.black_hole(false);
        line.audit();
    }
    line.finish().assert_exact();
}

/// Promise 6: where every round trip to Kafka takes long, a transaction carries what is worth the way, and a backlog does not
/// outlast the patience that a short way needs.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn long_way_to_kafka() {
    let kafka = Kafka::shared();
    let proxy = kafka.proxy();
    let mut line = Line::with(kafka, "long-way", &Options::default(), |config, _| {
        config.kafka(&format!("bootstrap_servers = [\"127.0.0.1:{}\"]", proxy.port()))
    });
    proxy.refuse(true);
    line.start();
    line.publish(2_000);
    line.publisher.wait_acknowledged();
    // A transaction has four or five round trips: a hundred readings in each would take minutes.
    proxy.delay(Duration::from_millis(300));
    proxy.refuse(false);
    line.finish().assert_exact();
}

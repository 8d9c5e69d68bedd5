//! The listener against clients that do what the test says.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use rumqttc::{Connect, ConnectReturnCode, Packet, PubAck, Publish, QoS, Subscribe, SubscribeReasonCode, Unsubscribe};
use tokio::sync::mpsc::{self, Receiver};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::clock::Clock;
use crate::config::settings::{self, Secret};
use crate::metrics::SourceMetrics;
use crate::shutdown::Shutdown;
use crate::source::Raw;
use crate::source::mqtt::MqttSource;
use crate::source::mqtt_listener::{BindError, ListenerSource, bind};
use crate::source::mqtt_peer::{Arrivals, LIMIT, Peer, publish, publish_of};

/// Long enough that something wrong would have shown itself, short enough to be waited for.
const MOMENT: Duration = Duration::from_millis(150);

/// A running listener, and the agent's side of it.
struct Running {
    address: SocketAddr,
    raws: Receiver<Raw>,
    metrics: Arc<SourceMetrics>,
    shutdown: Shutdown,
    task: JoinHandle<()>,
}

fn settings() -> settings::MqttListener {
    settings::MqttListener {
        listen: "127.0.0.1:0".parse().expect("an address"),
        topics: vec!["sma".to_owned()],
        logins: Vec::new(),
        allow_anonymous: true,
        tls: None,
        max_clients: 3,
        max_packet_size: 64 * 1024,
        max_unacknowledged: 10,
        idle_timeout: Duration::from_secs(60),
        commit_delay: Duration::from_millis(250),
    }
}

fn source(settings: settings::MqttListener) -> (ListenerSource, Receiver<Raw>, Arc<SourceMetrics>) {
    let (raws, raws_end) = mpsc::channel(settings.max_unacknowledged);
    let metrics = Arc::<SourceMetrics>::default();
    let source = ListenerSource {
        name: "meter".into(),
        settings,
        metrics: Arc::clone(&metrics),
        raws,
        clock: Clock::new(),
        stop_timeout: Duration::from_secs(10),
    };
    (source, raws_end, metrics)
}

impl Arrivals for Running {
    fn arrivals(&mut self) -> &mut Receiver<Raw> {
        &mut self.raws
    }
}

impl Running {
    async fn start(change: impl FnOnce(&mut settings::MqttListener)) -> Self {
        let mut settings = settings();
        change(&mut settings);
        let (source, raws, metrics) = source(settings);
        let listener = bind(source).await.expect("a listener");
        let (address, shutdown) = (listener.local_addr(), Shutdown::new());
        let task = tokio::spawn(listener.run(shutdown.clone()));
        Self { address, raws, metrics, shutdown, task }
    }

    /// A client after a good CONNACK.
    async fn client(&self, id: &str) -> Peer {
        let (peer, code) = self.greet(Connect::new(id)).await;
        assert_eq!(code, Some(ConnectReturnCode::Success));
        peer
    }

    /// The answer to a CONNECT.
    async fn greet(&self, connect: Connect) -> (Peer, Option<ConnectReturnCode>) {
        let mut peer = Peer::connect(self.address).await;
        peer.write(&[Packet::Connect(connect)]).await;
        match peer.read().await {
            Some(Packet::ConnAck(answer)) => {
                assert!(!answer.session_present);
                (peer, Some(answer.code))
            }
            None => (peer, None),
            other => panic!("{other:?} instead of CONNACK"),
        }
    }

    async fn stop(self) {
        self.shutdown.ask();
        timeout(LIMIT, self.task).await.expect("an end in time").expect("no panic");
    }
}

/// Promise 1: PUBACK leaves after the commit, in the order of arrival, whatever the order of the receipts.
#[tokio::test]
async fn acknowledgements_leave_in_arrival_order() {
    let mut running = Running::start(|_| {}).await;
    let mut peer = running.client("sma_1").await;
    peer.write(&[publish(5, "a"), publish(6, "b"), publish(7, "c")]).await;
    let mut raws = running.raws(3).await;
    let delivery = &raws[0].delivery;
    assert_eq!((&*delivery.sender, delivery.packet_id, delivery.session), ("sma_1", Some(5), 0));
    assert!(peer.hears_nothing_for(MOMENT).await, "nothing is stored yet");
    raws.pop().expect("c").receipt.redeem();
    raws.pop().expect("b").receipt.redeem();
    assert!(peer.hears_nothing_for(MOMENT).await, "the first is not stored yet");
    raws.pop().expect("a").receipt.redeem();
    assert_eq!(peer.acknowledgements(3).await, [5, 6, 7]);
    assert_eq!(running.metrics.acknowledged.get(), 3);
    running.stop().await;
}

/// Promise 1: a client that comes again gets no acknowledgement for what it sent on its earlier connection; its second
/// connection ends the first.
#[tokio::test]
async fn second_client_with_the_same_id_takes_over() {
    let mut running = Running::start(|settings| settings.max_clients = 1).await;
    let mut first = running.client("sma_1").await;
    first.write(&[publish(1, "a")]).await;
    let old = running.raw().await;
    let mut second = running.client("sma_1").await;
    assert!(first.read().await.is_none());
    old.receipt.redeem();
    second.write(&[publish(2, "b")]).await;
    running.raw().await.receipt.redeem();
    assert_eq!(second.acknowledgements(1).await, [2]);
    running.stop().await;
}

/// Promise 6: a client is not read past its limit of unacknowledged messages, and nothing is dropped.
#[tokio::test]
async fn blocked_queue_holds_a_client_up() {
    let mut running = Running::start(|settings| settings.max_unacknowledged = 3).await;
    let mut peer = running.client("sma_1").await;
    let packets: Vec<_> = (1..=20).map(|n| publish(n, "a")).collect();
    peer.write(&packets).await;
    let mut raws = running.raws(3).await;
    assert!(timeout(MOMENT, running.raws.recv()).await.is_err(), "the limit is 3");
    for n in 1..=20 {
        raws.remove(0).receipt.redeem();
        assert_eq!(peer.acknowledgements(1).await, [n]);
        if n <= 17 {
            raws.push(running.raw().await);
        }
    }
    running.stop().await;
}

/// Promise 3: a repetition on the same connection, before the acknowledgement, is not a new message; an acknowledgement
/// too many could be taken for that of a later one.
#[tokio::test]
async fn repetition_on_the_same_connection_is_answered_once() {
    let mut running = Running::start(|_| {}).await;
    let mut peer = running.client("sma_1").await;
    let again = |payload: &str| Packet::Publish(Publish { dup: true, ..publish_of(1, payload) });
    peer.write(&[publish(1, "a"), again("a"), again("a"), again("b")]).await;
    let raws = running.raws(2).await;
    assert_eq!(raws[1].payload, "b", "DUP alone drops nothing");
    assert!(raws[1].delivery.dup);
    raws.into_iter().for_each(|raw| raw.receipt.redeem());
    assert_eq!(peer.acknowledgements(2).await, [1, 1]);
    assert!(peer.hears_nothing_for(MOMENT).await);
    assert_eq!(running.metrics.redelivered.get(), 2);
    running.stop().await;
}

/// Promise 5: a topic that matches no filter is acknowledged in its turn and counted; RETAIN does not make a message old.
#[tokio::test]
async fn other_topics_are_ignored_and_acknowledged_in_order() {
    let mut running = Running::start(|settings| settings.topics = vec!["sma/#".to_owned()]).await;
    let mut peer = running.client("sma_1").await;
    let other = Packet::Publish(Publish { topic: "other".to_owned(), ..publish_of(2, "x") });
    let retained = Packet::Publish(Publish { retain: true, ..publish_of(3, "b") });
    peer.write(&[publish(1, "a"), other, retained]).await;
    let raws = running.raws(2).await;
    assert!(!raws[1].delivery.retain);
    assert!(peer.hears_nothing_for(MOMENT).await);
    raws.into_iter().for_each(|raw| raw.receipt.redeem());
    assert_eq!(peer.acknowledgements(3).await, [1, 2, 3]);
    assert_eq!(running.metrics.ignored.get(), 1);
    running.stop().await;
}

/// Promise 5: PINGREQ is answered, SUBSCRIBE refused, QoS 0 taken, DISCONNECT understood.
#[tokio::test]
async fn serves_a_publisher_and_nothing_else() {
    let mut running = Running::start(|_| {}).await;
    let mut peer = running.client("sma_1").await;
    let mut subscribe = Subscribe::new("sma", QoS::AtLeastOnce);
    subscribe.add("other".to_owned(), QoS::AtMostOnce);
    subscribe.pkid = 9;
    peer.write(&[Packet::PingReq, Packet::Subscribe(subscribe)]).await;
    peer.write(&[Packet::Unsubscribe(Unsubscribe { pkid: 10, ..Unsubscribe::new("sma") })]).await;
    peer.write(&[Packet::Publish(Publish::new("sma", QoS::AtMostOnce, "a"))]).await;
    assert_eq!(peer.read().await, Some(Packet::PingResp));
    match peer.read().await {
        Some(Packet::SubAck(answer)) => {
            assert_eq!((answer.pkid, &answer.return_codes[..]), (9, &[SubscribeReasonCode::Failure; 2][..]));
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(peer.read().await, Some(Packet::UnsubAck(answer)) if answer.pkid == 10));
    let raw = running.raw().await;
    assert!(!raw.receipt.is_awaited() && raw.delivery.packet_id.is_none());
    peer.write(&[Packet::Disconnect]).await;
    assert!(peer.read().await.is_none());
    running.stop().await;
}

/// Promise 5: what breaks the rules ends the client that sent it, and no other.
#[tokio::test]
async fn faults_end_one_client_only() {
    let mut running = Running::start(|_| {}).await;
    let mut neighbour = running.client("neighbour").await;
    let qos2 = Packet::Publish(Publish { qos: QoS::ExactlyOnce, ..publish_of(1, "a") });
    let wildcard = Packet::Publish(Publish { topic: "sma/#".to_owned(), ..publish_of(1, "a") });
    let nameless = Packet::Publish(Publish { topic: String::new(), ..publish_of(1, "a") });
    let acknowledgement = Packet::PubAck(PubAck::new(1));
    for packet in [qos2, wildcard, nameless, acknowledgement, Packet::Connect(Connect::new("again")), Packet::PingResp]
    {
        let mut peer = running.client("sma_1").await;
        peer.write(std::slice::from_ref(&packet)).await;
        assert!(peer.read().await.is_none(), "{packet:?}");
    }
    // A fixed header that announces more than max_packet_size; the body is not waited for.
    let mut peer = running.client("sma_1").await;
    peer.write_bytes(&[0x32, 0xff, 0xff, 0xff, 0x7f]).await;
    assert!(peer.read().await.is_none());
    // Half a packet.
    let mut peer = running.client("sma_1").await;
    peer.write_bytes(&[0x32, 0x20, 0x00, 0x03, b's']).await;
    drop(peer);
    neighbour.write(&[publish(1, "a")]).await;
    running.raw().await.receipt.redeem();
    assert_eq!(neighbour.acknowledgements(1).await, [1]);
    running.stop().await;
}

/// Promise 5: a message that comes a byte at a time is a message.
#[tokio::test]
async fn packets_may_come_in_pieces() {
    let mut running = Running::start(|_| {}).await;
    let mut peer = Peer::connect(running.address).await;
    let mut bytes = bytes::BytesMut::new();
    Packet::Connect(Connect::new("sma_1")).write(&mut bytes, usize::MAX).expect("CONNECT");
    publish(7, "piecemeal").write(&mut bytes, usize::MAX).expect("PUBLISH");
    for byte in bytes {
        peer.write_bytes(&[byte]).await;
        tokio::task::yield_now().await;
    }
    assert!(matches!(peer.read().await, Some(Packet::ConnAck(_))));
    running.raw().await.receipt.redeem();
    assert_eq!(peer.acknowledgements(1).await, [7]);
    running.stop().await;
}

/// Promise 6: no more clients than max_clients; a place that is left is free again.
#[tokio::test]
async fn max_clients_is_kept() {
    let running = Running::start(|settings| settings.max_clients = 2).await;
    let first = running.client("sma_1").await;
    let _second = running.client("sma_2").await;
    assert_eq!(running.greet(Connect::new("sma_3")).await.1, Some(ConnectReturnCode::ServiceUnavailable));
    drop(first);
    while running.greet(Connect::new("sma_3")).await.1 != Some(ConnectReturnCode::Success) {}
    running.stop().await;
}

/// Promise 6: those who say nothing, however many they are, do not keep others out: the oldest of them make room.
#[tokio::test]
async fn silent_connections_make_room() {
    let running = Running::start(|_| {}).await;
    // Each has ten seconds where nobody else wants in; one after the other they would outlast the test's patience.
    let mut silent = Vec::new();
    for _ in 0..120 {
        silent.push(Peer::connect(running.address).await);
    }
    let _client = running.client("sma_1").await;
    drop(silent);
    running.stop().await;
}

/// Only who may come in comes in, and is told why not in MQTT's own words.
#[tokio::test]
async fn logins_are_checked() {
    let running = Running::start(|settings| {
        settings.allow_anonymous = false;
        settings.logins = vec![settings::Login { username: "sma".into(), password: Secret("secret".into()) }];
    })
    .await;
    for (login, code) in [
        (None, ConnectReturnCode::NotAuthorized),
        (Some(("sma", "secret")), ConnectReturnCode::Success),
        (Some(("sma", "wrong")), ConnectReturnCode::BadUserNamePassword),
        (Some(("smas", "ecret")), ConnectReturnCode::BadUserNamePassword),
        (Some(("sma", "")), ConnectReturnCode::BadUserNamePassword),
        (Some(("", "secret")), ConnectReturnCode::BadUserNamePassword),
    ] {
        let mut connect = Connect::new("sma_1");
        if let Some((username, password)) = login {
            connect.set_login(username, password);
        }
        assert_eq!(running.greet(connect).await.1, Some(code), "{login:?}");
    }
    running.stop().await;
}

/// A client without an id gets one, if it keeps no session; an endless one is refused.
#[tokio::test]
async fn client_ids_are_checked() {
    let mut running = Running::start(|_| {}).await;
    let (mut first, code) = running.greet(Connect::new("")).await;
    assert_eq!(code, Some(ConnectReturnCode::Success));
    let (mut second, code) = running.greet(Connect::new("")).await;
    assert_eq!(code, Some(ConnectReturnCode::Success));
    first.write(&[publish(1, "a")]).await;
    second.write(&[publish(1, "a")]).await;
    let raws = running.raws(2).await;
    assert_ne!(raws[0].delivery.sender, raws[1].delivery.sender);
    drop(raws);
    let mut nameless = Connect::new("");
    nameless.clean_session = false;
    assert_eq!(running.greet(nameless).await.1, Some(ConnectReturnCode::BadClientId));
    assert_eq!(running.greet(Connect::new("x".repeat(257))).await.1, Some(ConnectReturnCode::BadClientId));
    assert_eq!(running.greet(Connect::new("\0replay of x")).await.1, Some(ConnectReturnCode::BadClientId));
    running.stop().await;
}

/// Promise 5: other versions of MQTT are told so; what is no MQTT is sent away.
#[tokio::test]
async fn other_protocols_are_refused() {
    let running = Running::start(|_| {}).await;
    let version_3 = b"\x10\x10\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x02id";
    let version_5 = b"\x10\x0f\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x02id";
    for bytes in [&version_3[..], version_5] {
        let mut peer = Peer::connect(running.address).await;
        peer.write_bytes(bytes).await;
        match peer.read().await {
            Some(Packet::ConnAck(answer)) => assert_eq!(answer.code, ConnectReturnCode::RefusedProtocolVersion),
            other => panic!("{other:?}"),
        }
        assert!(peer.read().await.is_none());
    }
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01\x02\x00", b"\x30\x03\x00\x01a"] {
        let mut peer = Peer::connect(running.address).await;
        peer.write_bytes(bytes).await;
        assert!(peer.read().await.is_none());
    }
    running.stop().await;
}

/// Promise 6: a silent client is left, after its own keep alive or the idle timeout.
#[tokio::test]
async fn silent_clients_are_disconnected() {
    let running = Running::start(|settings| settings.idle_timeout = Duration::from_millis(300)).await;
    let mut connect = Connect::new("idle");
    connect.keep_alive = 0;
    let (mut idle, _) = running.greet(connect.clone()).await;
    connect.keep_alive = 1;
    connect.client_id = "keep alive".to_owned();
    let (mut keeps_alive, _) = running.greet(connect).await;
    let begin = std::time::Instant::now();
    assert!(idle.read().await.is_none());
    assert!(begin.elapsed() < Duration::from_millis(1200));
    assert!(keeps_alive.read().await.is_none());
    assert!(begin.elapsed() >= Duration::from_millis(1300));
    running.stop().await;
}

/// Promise 1: a stop acknowledges what is stored within its limit, and takes nothing new.
#[tokio::test]
async fn stop_acknowledges_what_is_stored() {
    let mut running = Running::start(|_| {}).await;
    let mut peer = running.client("sma_1").await;
    peer.write(&[publish(1, "a")]).await;
    let raw = running.raw().await;
    running.shutdown.ask();
    assert!(peer.hears_nothing_for(MOMENT).await);
    peer.write(&[publish(2, "b")]).await;
    raw.receipt.redeem();
    assert_eq!(peer.acknowledgements(1).await, [1]);
    assert!(peer.read().await.is_none());
    assert!(timeout(LIMIT, running.raws.recv()).await.expect("in time").is_none(), "nothing new was taken");
    running.stop().await;
}

/// Promise 5: an address that cannot be had is named, with the cure.
#[tokio::test]
async fn taken_address_is_named() {
    let running = Running::start(|_| {}).await;
    let address = running.address;
    let error = bind(source(settings::MqttListener { listen: address, ..settings() }).0).await.expect_err("in use");
    assert!(matches!(error, BindError::InUse(taken) if taken == address), "{error}");
    let elsewhere = settings::MqttListener { listen: "192.0.2.1:1883".parse().expect("an address"), ..settings() };
    assert!(matches!(bind(source(elsewhere).0).await, Err(BindError::NotOurs(_))));
    running.stop().await;
}

/// TLS on both sides: a client that trusts the authority comes in, one that does not stays out.
#[tokio::test]
async fn tls_lets_in_who_trusts_the_authority() {
    let file = |name: &str| Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/source/testdata").join(name));
    let running = Running::start(|settings| {
        let (certificate_file, key_file) = (file("server.pem"), file("server-key.pem"));
        settings.tls = Some(settings::Tls { certificate_file, key_file, ..settings::Tls::default() });
    })
    .await;
    for (authority, connects) in [("server.pem", 0), ("authority.pem", 1)] {
        let metrics = Arc::<SourceMetrics>::default();
        let (raws, _raws) = mpsc::channel(1);
        let shutdown = Shutdown::new();
        let client = MqttSource {
            name: "client".into(),
            settings: settings::Mqtt {
                host: "127.0.0.1".to_owned(),
                port: running.address.port(),
                topics: vec!["sma".to_owned()],
                client_id: None,
                login: None,
                tls: Some(settings::Tls { ca_file: file(authority), ..settings::Tls::default() }),
                keep_alive: Duration::from_secs(60),
                connect_timeout: Duration::from_secs(5),
                reconnect_max_delay: Duration::from_millis(20),
                max_unacknowledged: 1,
                max_packet_size: 1024,
                retained: false,
            },
            client_id: "client".to_owned(),
            metrics: Arc::clone(&metrics),
            raws,
            clock: Clock::new(),
            previous_filters: Vec::new(),
            left: None,
            stop_timeout: Duration::from_secs(1),
        };
        let task = tokio::spawn(client.run(shutdown.clone()));
        let outcome = async {
            while metrics.connects.get() + metrics.disconnects.get() == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LIMIT, outcome).await.expect("an outcome in time");
        assert_eq!(metrics.connects.get(), connects, "{authority}");
        shutdown.ask();
        timeout(LIMIT, task).await.expect("in time").expect("no panic").expect("usable files");
    }
    running.stop().await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Promise 5: no bytes of one client disturb another, before CONNECT or after it.
    #[test]
    fn survives_any_bytes(bytes in prop::collection::vec(any::<u8>(), 1..200), greeted in any::<bool>(), first in 0u8..16) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut running = Running::start(|_| {}).await;
            let mut neighbour = running.client("neighbour").await;
            let mut peer = if greeted { running.client("sma_1").await } else { Peer::connect(running.address).await };
            // Each packet type as often as the others.
            let mut bytes = bytes;
            bytes[0] = first << 4 | bytes[0] & 0x0f;
            peer.write_bytes(&bytes).await;
            drop(peer);
            neighbour.write(&[publish(77, "after")]).await;
            loop {
                let raw = running.raw().await;
                let after = raw.payload == "after";
                raw.receipt.redeem();
                if after {
                    break;
                }
            }
            assert_eq!(neighbour.acknowledgements(1).await, [77]);
            drop(neighbour);
            running.stop().await;
        });
    }
}

//! The client of a broker against a broker that does what the test says.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use rumqttc::{ConnAck, ConnectReturnCode, Packet, Publish, QoS, SubAck, SubscribeReasonCode};
use tokio::sync::mpsc::{self, Receiver};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::clock::Clock;
use crate::config::settings;
use crate::metrics::SourceMetrics;
use crate::shutdown::Shutdown;
use crate::source::Raw;
use crate::source::mqtt::MqttSource;
use crate::source::mqtt_peer::{Arrivals, Broker, LIMIT, publish, publish_of};
use crate::source::tls::TlsError;

/// Long enough that something wrong would have shown itself, short enough to be waited for.
const MOMENT: Duration = Duration::from_millis(150);

/// A running source, and the agent's side of it.
struct Running {
    raws: Receiver<Raw>,
    left: Receiver<()>,
    metrics: Arc<SourceMetrics>,
    shutdown: Shutdown,
    task: JoinHandle<Result<(), TlsError>>,
}

impl Arrivals for Running {
    fn arrivals(&mut self) -> &mut Receiver<Raw> {
        &mut self.raws
    }
}

impl Running {
    fn start(broker: &Broker, change: impl FnOnce(&mut settings::Mqtt)) -> Self {
        Self::start_after(broker, &[], change)
    }

    fn start_after(broker: &Broker, previous: &[&str], change: impl FnOnce(&mut settings::Mqtt)) -> Self {
        let mut settings = settings::Mqtt {
            host: "127.0.0.1".to_owned(),
            port: broker.port(),
            topics: vec!["sma".to_owned()],
            client_id: None,
            login: None,
            tls: None,
            keep_alive: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(5),
            reconnect_max_delay: Duration::from_millis(20),
            max_unacknowledged: 100,
            max_packet_size: 64 * 1024,
            retained: false,
        };
        change(&mut settings);
        let (raws, raws_end) = mpsc::channel(settings.max_unacknowledged);
        let (left, left_end) = mpsc::channel(1);
        let (metrics, shutdown) = (Arc::<SourceMetrics>::default(), Shutdown::new());
        let source = MqttSource {
            name: "meter".into(),
            settings,
            client_id: "meterferry-test".to_owned(),
            metrics: Arc::clone(&metrics),
            raws,
            clock: Clock::new(),
            previous_filters: previous.iter().map(|filter| (*filter).to_owned()).collect(),
            left: Some(left),
            stop_timeout: Duration::from_secs(10),
        };
        let task = tokio::spawn(source.run(shutdown.clone()));
        Self { raws: raws_end, left: left_end, metrics, shutdown, task }
    }

    async fn stop(self) {
        self.shutdown.ask();
        timeout(LIMIT, self.task).await.expect("an end in time").expect("no panic").expect("no TLS");
    }
}

fn text(raw: &Raw) -> &str {
    std::str::from_utf8(&raw.payload).expect("text")
}

/// Promise 1: receipts redeemed in any order are acknowledged in the order of arrival, and only then.
#[tokio::test]
async fn acknowledgements_leave_in_arrival_order() {
    let broker = Broker::new().await;
    let mut running = Running::start(&broker, |_| {});
    let (mut peer, _) = broker.serve(false).await;
    peer.write(&[publish(5, "a"), publish(6, "b"), publish(7, "c")]).await;
    let mut raws = running.raws(3).await;
    assert!(peer.hears_nothing_for(MOMENT).await, "nothing is stored yet");
    raws.pop().expect("c").receipt.redeem();
    raws.pop().expect("b").receipt.redeem();
    assert!(peer.hears_nothing_for(MOMENT).await, "the first is not stored yet");
    raws.pop().expect("a").receipt.redeem();
    assert_eq!(peer.acknowledgements(3).await, [5, 6, 7]);
    running.stop().await;
}

/// Promise 1: an acknowledgement that belongs to an earlier connection is never sent on a new one.
#[tokio::test]
async fn acknowledgement_of_an_earlier_connection_is_not_sent() {
    let broker = Broker::new().await;
    let mut running = Running::start(&broker, |_| {});
    let (mut peer, _) = broker.serve(false).await;
    peer.write(&[publish(1, "a"), publish(2, "b")]).await;
    let old = running.raws(2).await;
    drop(peer);
    let (mut peer, _) = broker.serve(true).await;
    old.into_iter().for_each(|raw| raw.receipt.redeem());
    peer.write(&[publish(3, "c")]).await;
    running.raw().await.receipt.redeem();
    assert_eq!(peer.acknowledgements(1).await, [3]);
    assert!(peer.hears_nothing_for(MOMENT).await);
    running.stop().await;
}

/// Promise 1: what rumqttc has read of a connection that ended meanwhile is not handed out on the next one.
#[tokio::test]
async fn messages_of_a_lost_connection_are_not_handed_out_later() {
    let broker = Broker::new().await;
    let mut running = Running::start(&broker, |_| {});
    for round in 0..20u16 {
        let (mut peer, _) = broker.serve(true).await;
        // The end of the connection arrives together with the messages.
        let packets: Vec<_> = (1..=9).map(|n| publish(100 + n, "old")).collect();
        peer.write(&packets).await;
        drop(peer);
        let (mut peer, _) = broker.serve(true).await;
        peer.write(&[publish(round + 1, "new")]).await;
        loop {
            let raw = running.raw().await;
            let new = text(&raw) == "new";
            raw.receipt.redeem();
            if new {
                break;
            }
        }
        assert_eq!(peer.acknowledgements(1).await, [round + 1]);
        assert!(running.raws.try_recv().is_err(), "an old message came after a new one");
    }
    running.stop().await;
}

/// Promise 5: a source is subscribed after every CONNACK, whether the broker knows its session or not.
#[tokio::test]
async fn subscribes_on_every_connack() {
    let broker = Broker::new().await;
    let mut running = Running::start(&broker, |settings| settings.topics = vec!["sma".into(), "tele/+/SENSOR".into()]);
    for (session_present, session) in [(true, 0), (false, 1), (true, 1), (true, 1), (false, 2)] {
        let (mut peer, asked) = broker.serve(session_present).await;
        assert_eq!(asked[..2], ["sma", "tele/+/SENSOR"]);
        peer.write(&[publish(1, "a")]).await;
        let raw = running.raw().await;
        assert_eq!(raw.delivery.session, session, "promise 3: lost sessions are counted");
        assert_eq!((&*raw.delivery.sender, raw.delivery.packet_id, &*raw.source), ("", Some(1), "meter"));
    }
    assert_eq!(running.metrics.connects.get(), 5);
    running.stop().await;
}

/// Promise 5: a filter that left the configuration is unsubscribed on every connection until the broker confirms it.
#[tokio::test]
async fn unsubscribes_what_left_the_configuration() {
    let broker = Broker::new().await;
    let mut running = Running::start_after(&broker, &["old/#", "sma", "older"], |_| {});
    let mut peer = broker.accept(true).await;
    let Some(Packet::Subscribe(subscribe)) = peer.read().await else { panic!("no SUBSCRIBE") };
    peer.write(&[Packet::SubAck(SubAck::new(subscribe.pkid, vec![SubscribeReasonCode::Success(QoS::AtLeastOnce)]))])
        .await;
    assert!(matches!(peer.read().await, Some(Packet::Unsubscribe(_))));
    drop(peer);
    assert!(running.left.try_recv().is_err(), "nothing is confirmed");
    let (_peer, asked) = broker.serve(true).await;
    assert_eq!(asked[..3], ["sma", "-old/#", "-older"]);
    timeout(LIMIT, running.left.recv()).await.expect("in time").expect("told that they are gone");
    drop(_peer);
    let (_peer, asked) = broker.serve(true).await;
    assert!(!asked.iter().any(|filter| filter.starts_with('-')), "{asked:?}");
    running.stop().await;
}

/// Promise 5: a refused filter does not stop the others, and is asked for again.
#[tokio::test]
async fn refused_filter_is_asked_for_again() {
    let broker = Broker::new().await;
    let mut running = Running::start(&broker, |settings| settings.topics = vec!["sma".into(), "secret".into()]);
    let mut peer = broker.accept(false).await;
    let Some(Packet::Subscribe(subscribe)) = peer.read().await else { panic!("no SUBSCRIBE") };
    let codes = vec![SubscribeReasonCode::Success(QoS::AtLeastOnce), SubscribeReasonCode::Failure];
    peer.write(&[Packet::SubAck(SubAck::new(subscribe.pkid, codes)), publish(1, "a")]).await;
    assert_eq!(text(&running.raw().await), "a");
    loop {
        match peer.read().await {
            Some(Packet::Subscribe(again)) if again.filters.len() == 1 && again.filters[0].path == "secret" => break,
            Some(Packet::Subscribe(statistics)) => {
                assert!(statistics.filters[0].path.starts_with("$SYS"));
                let code = vec![SubscribeReasonCode::Failure];
                peer.write(&[Packet::SubAck(SubAck::new(statistics.pkid, code))]).await;
            }
            other => panic!("{other:?}"),
        }
    }
    running.stop().await;
}

/// Promise 6: a broker that answers CONNECT and then never again is left.
#[tokio::test]
async fn unanswered_subscribe_ends_the_connection() {
    let broker = Broker::new().await;
    let running = Running::start(&broker, |settings| settings.connect_timeout = Duration::from_millis(200));
    let mut peer = broker.accept(false).await;
    assert!(matches!(peer.read().await, Some(Packet::Subscribe(_))));
    assert!(peer.read().await.is_none());
    let _peer = broker.serve(false).await;
    running.stop().await;
}

/// Promise 5: a broker that ends the connection because it is asked for its statistics is not asked for ever.
#[tokio::test]
async fn refused_statistics_do_not_keep_a_source_from_working() {
    let broker = Broker::new().await;
    let mut running = Running::start(&broker, |_| {});
    for _ in 0..2 {
        let mut peer = broker.accept(true).await;
        let Some(Packet::Subscribe(subscribe)) = peer.read().await else { panic!("no SUBSCRIBE") };
        let code = vec![SubscribeReasonCode::Success(QoS::AtLeastOnce)];
        peer.write(&[Packet::SubAck(SubAck::new(subscribe.pkid, code))]).await;
        assert!(matches!(peer.read().await, Some(Packet::Subscribe(_))));
    }
    let mut peer = broker.accept(true).await;
    let Some(Packet::Subscribe(subscribe)) = peer.read().await else { panic!("no SUBSCRIBE") };
    let code = vec![SubscribeReasonCode::Success(QoS::AtLeastOnce)];
    peer.write(&[Packet::SubAck(SubAck::new(subscribe.pkid, code)), publish(1, "a")]).await;
    running.raw().await.receipt.redeem();
    assert_eq!(peer.acknowledgements(1).await, [1]);
    running.stop().await;
}

/// Promise 3: a retained message is an old value: ignored, counted, and acknowledged in its turn.
#[tokio::test]
async fn retained_messages_are_ignored_and_acknowledged_in_order() {
    let broker = Broker::new().await;
    let mut running = Running::start(&broker, |_| {});
    let (mut peer, _) = broker.serve(false).await;
    let retained = Packet::Publish(Publish { retain: true, ..publish_of(2, "old") });
    peer.write(&[publish(1, "a"), retained, publish(3, "b")]).await;
    let raws = running.raws(2).await;
    assert_eq!(raws.iter().map(text).collect::<Vec<_>>(), ["a", "b"]);
    assert!(peer.hears_nothing_for(MOMENT).await, "it does not overtake the message before");
    raws.into_iter().for_each(|raw| raw.receipt.redeem());
    assert_eq!(peer.acknowledgements(3).await, [1, 2, 3]);
    assert_eq!(running.metrics.retained.get(), 1);
    running.stop().await;
}

/// Promise 3: retained messages are readings where the configuration says so.
#[tokio::test]
async fn retained_messages_are_taken_on_request() {
    let broker = Broker::new().await;
    let mut running = Running::start(&broker, |settings| settings.retained = true);
    let (mut peer, _) = broker.serve(false).await;
    peer.write(&[Packet::Publish(Publish { retain: true, ..publish_of(2, "old") })]).await;
    assert!(running.raw().await.delivery.retain);
    running.stop().await;
}

/// Promise 5: QoS 0 messages are taken and counted; no acknowledgement is expected for them.
#[tokio::test]
async fn qos0_messages_need_no_receipt() {
    let broker = Broker::new().await;
    let mut running = Running::start(&broker, |_| {});
    let (mut peer, _) = broker.serve(false).await;
    peer.write(&[Packet::Publish(Publish::new("sma", QoS::AtMostOnce, "a")), publish(1, "")]).await;
    let raw = running.raw().await;
    assert!(!raw.receipt.is_awaited() && raw.delivery.packet_id.is_none());
    raw.receipt.redeem();
    let empty = running.raw().await;
    assert_eq!(text(&empty), "", "an empty message is handed on like any other");
    empty.receipt.redeem();
    assert_eq!(peer.acknowledgements(1).await, [1]);
    assert_eq!((running.metrics.qos0.get(), running.metrics.received.get()), (1, 2));
    running.stop().await;
}

/// Promise 5: what an overflowing broker drops is counted, also across its restart.
#[tokio::test]
async fn broker_statistics_are_counted_and_are_no_readings() {
    let broker = Broker::new().await;
    let mut running = Running::start(&broker, |_| {});
    let (mut peer, _) = broker.serve(false).await;
    let message = |n: &str| Publish::new("$SYS/broker/publish/messages/dropped", QoS::AtMostOnce, n);
    let count = |n: &str| Packet::Publish(message(n));
    let old = |n: &str| Packet::Publish(Publish { retain: true, ..message(n) });
    peer.write(&[old("5"), count("9"), count("x"), count("9"), count("2"), publish(1, "a")]).await;
    assert_eq!(text(&running.raw().await), "a");
    assert_eq!(running.metrics.broker_dropped.get(), 4 + 2);
    drop(peer);
    let (mut peer, _) = broker.serve(true).await;
    peer.write(&[old("7"), publish(1, "a")]).await;
    running.raw().await;
    assert_eq!(running.metrics.broker_dropped.get(), 4 + 2 + 5, "what was dropped while we were away counts");
    running.stop().await;
    let mut running = Running::start(&broker, |_| {});
    let (mut peer, _) = broker.serve(false).await;
    peer.write(&[count("3"), publish(1, "a")]).await;
    running.raw().await;
    assert_eq!(running.metrics.broker_dropped.get(), 3, "a count that was not there when we came rose from 0");
    running.stop().await;
}

/// Promises 1 and 6: a blocked queue takes as much as the limit, then the source leaves without an acknowledgement, and
/// comes back when there is room again.
#[tokio::test]
async fn blocked_queue_disconnects_and_comes_back() {
    let broker = Broker::new().await;
    let mut running = Running::start(&broker, |settings| {
        settings.max_unacknowledged = 3;
        settings.keep_alive = Duration::from_secs(1);
    });
    let (mut peer, _) = broker.serve(false).await;
    let packets: Vec<_> = (1..=10).map(|n| publish(n, "a")).collect();
    peer.write(&packets).await;
    let raws = running.raws(3).await;
    loop {
        match peer.read().await {
            None => break,
            Some(Packet::PingReq) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(running.raws.try_recv().is_err(), "the limit is 3");
    assert!(broker.is_left_alone_for(Duration::from_millis(600)).await, "still blocked");
    raws.into_iter().for_each(|raw| raw.receipt.redeem());
    let (mut peer, _) = broker.serve(true).await;
    peer.write(&[publish(1, "a")]).await;
    running.raw().await.receipt.redeem();
    assert_eq!(peer.acknowledgements(1).await, [1]);
    running.stop().await;
}

/// Promise 6: bytes are limited as well as messages.
#[tokio::test]
async fn large_messages_reach_the_limit_sooner() {
    let broker = Broker::new().await;
    let mut running = Running::start(&broker, |_| {});
    let (mut peer, _) = broker.serve(false).await;
    let large = "x".repeat(40_000);
    let packets: Vec<_> = (1..=5).map(|n| publish(n, &large)).collect();
    peer.write(&packets).await;
    let raws = running.raws(2).await;
    assert!(timeout(MOMENT, running.raws.recv()).await.is_err(), "two are more than max_packet_size");
    raws.into_iter().for_each(|raw| raw.receipt.redeem());
    for raw in running.raws(2).await {
        raw.receipt.redeem();
    }
    running.raw().await.receipt.redeem();
    assert_eq!(peer.acknowledgements(5).await, [1, 2, 3, 4, 5]);
    running.stop().await;
}

/// Promise 6: a stop does not wait for receipts that nobody holds any more.
#[tokio::test]
async fn stop_does_not_wait_for_dropped_receipts() {
    let broker = Broker::new().await;
    let mut running = Running::start(&broker, |_| {});
    let (mut peer, _) = broker.serve(false).await;
    peer.write(&[publish(1, "a"), publish(2, "b")]).await;
    let mut raws = running.raws(2).await;
    raws.pop().expect("b").receipt.redeem();
    running.shutdown.ask();
    drop(raws);
    let begin = std::time::Instant::now();
    assert!(matches!(peer.read().await, Some(Packet::Disconnect)), "nothing before the first may be acknowledged");
    assert!(begin.elapsed() < Duration::from_secs(5), "stop_timeout is 10 s");
    running.stop().await;
}

/// Promise 1: a stop waits for what is being stored, acknowledges it, and says DISCONNECT; what comes meanwhile stays
/// with the broker.
#[tokio::test]
async fn stop_acknowledges_what_is_stored_and_disconnects() {
    let broker = Broker::new().await;
    let mut running = Running::start(&broker, |_| {});
    let (mut peer, _) = broker.serve(false).await;
    peer.write(&[publish(1, "a"), publish(2, "b")]).await;
    let raws = running.raws(2).await;
    running.shutdown.ask();
    assert!(peer.hears_nothing_for(MOMENT).await);
    peer.write(&[publish(3, "c")]).await;
    raws.into_iter().for_each(|raw| raw.receipt.redeem());
    assert_eq!(peer.acknowledgements(2).await, [1, 2]);
    assert!(matches!(peer.read().await, Some(Packet::Disconnect)));
    drop(peer);
    assert!(timeout(LIMIT, running.raws.recv()).await.expect("in time").is_none(), "nothing new was taken");
    running.stop().await;
}

/// Promise 5: refusals, a wrong port, half a packet and an oversized one are outages like any other.
#[tokio::test]
async fn comes_back_after_every_kind_of_outage() {
    let broker = Broker::new().await;
    let mut running = Running::start(&broker, |_| {});
    for code in [
        ConnectReturnCode::RefusedProtocolVersion,
        ConnectReturnCode::BadClientId,
        ConnectReturnCode::ServiceUnavailable,
        ConnectReturnCode::BadUserNamePassword,
        ConnectReturnCode::NotAuthorized,
    ] {
        let mut peer = broker.next().await;
        peer.read().await;
        peer.write(&[Packet::ConnAck(ConnAck::new(code, false))]).await;
        assert!(peer.read().await.is_none());
    }
    drop(broker.next().await);
    for bytes in [
        // 2 MB are announced, and half a message.
        &[0x32, 0x80, 0x80, 0x80, 0x01, 0x00][..],
        &[0x32, 0x20, 0x00, 0x03, b's', b'm'],
        &[0x34, 0x08, 0x00, 0x03, b's', b'm', b'a', 0x00, 0x01, b'x'],
        &[0xf0, 0x00],
    ] {
        let (mut peer, _) = broker.serve(true).await;
        peer.write_bytes(bytes).await;
        if bytes.len() == 6 && bytes[1] == 0x20 {
            drop(peer);
        } else {
            assert!(peer.read().await.is_none(), "{bytes:02x?}");
        }
    }
    let (mut peer, _) = broker.serve(true).await;
    peer.write(&[publish(1, "a")]).await;
    assert_eq!(text(&running.raw().await), "a");
    running.stop().await;
}

/// Promise 5: connections that are closed right after CONNACK, again and again, slow the source down.
#[tokio::test]
async fn takeovers_make_no_storm() {
    let broker = Broker::new().await;
    let running = Running::start(&broker, |settings| settings.reconnect_max_delay = Duration::from_secs(3600));
    let begin = std::time::Instant::now();
    let mut connections = 0;
    while begin.elapsed() < Duration::from_secs(2) {
        let Ok(mut peer) = timeout(Duration::from_secs(2), broker.accept(true)).await else { break };
        peer.read().await;
        connections += 1;
    }
    assert!(connections < 15, "{connections} connections in two seconds");
    running.stop().await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Promise 5: no bytes of a broker end the source.
    #[test]
    fn survives_any_bytes(bytes in prop::collection::vec(any::<u8>(), 1..200)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let broker = Broker::new().await;
            let mut running = Running::start(&broker, |_| {});
            let (mut peer, _) = broker.serve(true).await;
            peer.write_bytes(&bytes).await;
            drop(peer);
            let (mut peer, _) = broker.serve(true).await;
            peer.write(&[publish(77, "after")]).await;
            while running.raw().await.payload != "after" {}
            drop(peer);
            running.stop().await;
        });
    }
}

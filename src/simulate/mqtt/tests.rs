//! The simulated adapter against a broker of a few lines.

use std::sync::Mutex;

use bytes::BytesMut;
use rumqttc::mqttbytes::v4::{self, ConnectReturnCode, PubAck};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// A broker that acknowledges `patience` publishes on each connection, takes one more without a word, and hangs up.
async fn broker(listener: TcpListener, patience: usize, keeps_session: bool) -> Vec<rumqttc::Publish> {
    let mut received = Vec::new();
    let mut connections = 0;
    loop {
        let (socket, _) = listener.accept().await.expect("a connection");
        connections += 1;
        if serve(socket, patience, keeps_session && connections > 1, &mut received).await {
            return received;
        }
    }
}

/// True where the client said farewell.
async fn serve(mut socket: TcpStream, patience: usize, known: bool, received: &mut Vec<rumqttc::Publish>) -> bool {
    let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
    let mut publishes = 0;
    loop {
        match Packet::read(&mut input, MAX_PACKET) {
            Ok(Packet::Connect(_)) => {
                v4::ConnAck::new(ConnectReturnCode::Success, known).write(&mut output).expect("written");
            }
            Ok(Packet::Publish(publish)) => {
                publishes += 1;
                let packet_id = publish.pkid;
                received.push(publish);
                if publishes > patience {
                    return false;
                }
                if packet_id > 0 {
                    PubAck::new(packet_id).write(&mut output).expect("written");
                }
            }
            Ok(Packet::Disconnect) => return true,
            Ok(_) => {}
            Err(_) => {
                socket.write_all(&output.split()).await.expect("sent");
                if socket.read_buf(&mut input).await.expect("received") == 0 {
                    return false;
                }
            }
        }
    }
}

fn options(port: u16, acknowledged: bool) -> Options {
    Options {
        host: "127.0.0.1".to_owned(),
        port,
        reader: None,
        topic: "sma".to_owned(),
        login: None,
        devices: 1,
        interval: Duration::ZERO,
        count: Some(40),
        acknowledged,
        seed: 7,
        start_ms: Some(1_782_000_000_000),
        window: 5,
    }
}

fn expected(count: usize) -> Vec<Bytes> {
    let options = adapter::Options { seed: 7, index: 0, name: None, start_ms: 1_782_000_000_000, step: FAST_STEP };
    let mut adapter = Adapter::new(&options);
    (0..count).map(|_| Bytes::from(adapter.document())).collect()
}

async fn trial(keeps_session: bool) -> (Vec<rumqttc::Publish>, Vec<(Bytes, bool)>, Report) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let broker = tokio::spawn(broker(listener, 7, keeps_session));
    let published = Arc::new(Mutex::new(Vec::new()));
    let observer: Observer = {
        let published = Arc::clone(&published);
        Arc::new(move |event| {
            if let Event::Published { payload, repeated, .. } = event {
                published.lock().expect("the list").push((payload.clone(), repeated));
            }
        })
    };
    let report = run(options(port, true), observer, &Shutdown::new()).await;
    let published = published.lock().expect("the list").clone();
    (broker.await.expect("the broker"), published, report)
}

/// Promise 3: however often the broker hangs up, each document is reported once, in order, and reaches the broker.
#[tokio::test]
async fn published_is_what_was_acknowledged() {
    for keeps_session in [true, false] {
        let (received, published, report) = trial(keeps_session).await;
        let payloads: Vec<Bytes> = published.iter().map(|(payload, _)| payload.clone()).collect();
        assert_eq!(payloads, expected(40), "session kept: {keeps_session}");
        assert_eq!((report.published, report.unacknowledged, report.missed), (40, 0, 0));
        assert!(report.connects > 3);

        // The broker has it twice where the report says it may.
        let mut first_seen = Vec::new();
        for publish in &received {
            if !first_seen.contains(&publish.payload) {
                assert!(!publish.dup || keeps_session, "what a broken connection swallowed is sent again");
                first_seen.push(publish.payload.clone());
            } else {
                assert_eq!(publish.dup, keeps_session, "DUP belongs to a session");
                assert!(published.contains(&(publish.payload.clone(), true)));
            }
        }
        assert_eq!(first_seen, expected(40));
    }
}

/// With QoS 0 nothing is acknowledged, and what was written counts.
#[tokio::test]
async fn qos_0_counts_what_was_written() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let broker = tokio::spawn(broker(listener, usize::MAX, false));
    let report = run(options(port, false), Arc::new(|_| ()), &Shutdown::new()).await;
    assert_eq!(report, Report { published: 40, connects: 1, ..Report::default() });
    let received: Vec<Bytes> = broker.await.expect("the broker").into_iter().map(|publish| publish.payload).collect();
    assert_eq!(received, expected(40));
}

/// Promise 6: a stop ends it, with no broker anywhere, and says what was not acknowledged.
#[tokio::test]
async fn a_stop_ends_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    drop(listener);
    let shutdown = Shutdown::new();
    let observer: Observer = {
        let shutdown = shutdown.clone();
        Arc::new(move |event| {
            assert!(matches!(event, Event::Disconnected { .. }));
            shutdown.ask();
        })
    };
    let report = run(options(port, true), observer, &shutdown).await;
    assert_eq!(report, Report::default());
}

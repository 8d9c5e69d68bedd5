//! The other side of an MQTT connection, for tests: a broker that does what the test says, or a client.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use rumqttc::mqttbytes::Error;
use rumqttc::{ConnAck, ConnectReturnCode, Packet, Publish, QoS, SubAck, SubscribeReasonCode, UnsubAck};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

use crate::source::Raw;

/// Far longer than anything here takes.
pub(super) const LIMIT: Duration = Duration::from_secs(20);

/// What a source hands on.
pub(super) trait Arrivals {
    fn arrivals(&mut self) -> &mut Receiver<Raw>;

    /// The next one.
    async fn raw(&mut self) -> Raw {
        timeout(LIMIT, self.arrivals().recv()).await.expect("a raw in time").expect("a running source")
    }

    /// The next `count`.
    async fn raws(&mut self, count: usize) -> Vec<Raw> {
        let mut raws = Vec::new();
        while raws.len() < count {
            raws.push(self.raw().await);
        }
        raws
    }
}

pub(super) struct Peer {
    stream: TcpStream,
    input: BytesMut,
}

impl Peer {
    pub(super) async fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.expect("a listener"))
    }

    pub(super) fn over(stream: TcpStream) -> Self {
        Self { stream, input: BytesMut::new() }
    }

    /// The next packet; none when the other side has closed.
    pub(super) async fn read(&mut self) -> Option<Packet> {
        timeout(LIMIT, self.read_on()).await.expect("a packet in time")
    }

    async fn read_on(&mut self) -> Option<Packet> {
        loop {
            match Packet::read(&mut self.input, usize::MAX) {
                Ok(packet) => return Some(packet),
                Err(Error::InsufficientBytes(_)) => {}
                Err(error) => panic!("{error}"),
            }
            // A reset is an end as well.
            if self.stream.read_buf(&mut self.input).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    /// Whether nothing arrives for `time`.
    pub(super) async fn hears_nothing_for(&mut self, time: Duration) -> bool {
        timeout(time, self.read_on()).await.is_err()
    }

    pub(super) async fn write(&mut self, packets: &[Packet]) {
        let mut output = BytesMut::new();
        for packet in packets {
            packet.write(&mut output, usize::MAX).expect("a packet that can be written");
        }
        self.write_bytes(&output).await;
    }

    /// The other side may have closed already.
    pub(super) async fn write_bytes(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    /// The packet identifiers of the next `count` packets, all of them PUBACK.
    pub(super) async fn acknowledgements(&mut self, count: usize) -> Vec<u16> {
        let mut packet_ids = Vec::new();
        while packet_ids.len() < count {
            match self.read().await {
                Some(Packet::PubAck(ack)) => packet_ids.push(ack.pkid),
                other => panic!("{other:?} after the acknowledgements {packet_ids:?}"),
            }
        }
        packet_ids
    }
}

/// A PUBLISH with QoS 1 to `sma`.
pub(super) fn publish(packet_id: u16, payload: &str) -> Packet {
    Packet::Publish(publish_of(packet_id, payload))
}

pub(super) fn publish_of(packet_id: u16, payload: &str) -> Publish {
    Publish { pkid: packet_id, ..Publish::new("sma", QoS::AtLeastOnce, payload) }
}

/// A broker with one client.
pub(super) struct Broker {
    socket: TcpListener,
}

impl Broker {
    pub(super) async fn new() -> Self {
        Self { socket: TcpListener::bind("127.0.0.1:0").await.expect("a free port") }
    }

    pub(super) fn port(&self) -> u16 {
        self.socket.local_addr().expect("an address").port()
    }

    /// The next TCP connection.
    pub(super) async fn next(&self) -> Peer {
        Peer::over(timeout(LIMIT, self.socket.accept()).await.expect("a connection in time").expect("a connection").0)
    }

    /// Whether nobody connects for `time`.
    pub(super) async fn is_left_alone_for(&self, time: Duration) -> bool {
        timeout(time, self.socket.accept()).await.is_err()
    }

    /// The next connection after CONNECT and CONNACK.
    pub(super) async fn accept(&self, session_present: bool) -> Peer {
        let mut peer = self.next().await;
        match peer.read().await {
            Some(Packet::Connect(connect)) => assert!(!connect.clean_session),
            other => panic!("{other:?} instead of CONNECT"),
        }
        peer.write(&[Packet::ConnAck(ConnAck::new(ConnectReturnCode::Success, session_present))]).await;
        peer
    }

    /// The next connection, with everything granted that is asked for. Returns the filters of all requests in order,
    /// those of UNSUBSCRIBE with a `-` before.
    pub(super) async fn serve(&self, session_present: bool) -> (Peer, Vec<String>) {
        let mut peer = self.accept(session_present).await;
        let mut asked = Vec::new();
        while !asked.last().is_some_and(|filter: &String| filter.starts_with("$SYS")) {
            match peer.read().await {
                Some(Packet::Subscribe(subscribe)) => {
                    let codes =
                        subscribe.filters.iter().map(|filter| SubscribeReasonCode::Success(filter.qos)).collect();
                    asked.extend(subscribe.filters.into_iter().map(|filter| filter.path));
                    peer.write(&[Packet::SubAck(SubAck::new(subscribe.pkid, codes))]).await;
                }
                Some(Packet::Unsubscribe(unsubscribe)) => {
                    asked.extend(unsubscribe.topics.iter().map(|filter| format!("-{filter}")));
                    peer.write(&[Packet::UnsubAck(UnsubAck::new(unsubscribe.pkid))]).await;
                }
                other => panic!("{other:?} after {asked:?}"),
            }
        }
        (peer, asked)
    }
}

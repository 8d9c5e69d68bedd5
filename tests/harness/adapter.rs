//! The adapter as an ESP32 speaks: one publish after the other on a plain connection, each sent again on the next
//! connection, with DUP, until it is acknowledged. rumqttc forgets its own on a new session, so it will not do here.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::document::Message;
use super::wait::PATIENT;

/// Plain, or with TLS.
trait Stream: Read + Write + Send {}

impl<T: Read + Write + Send> Stream for T {}

/// A client of the agent's own listener.
pub struct Adapter {
    port: u16,
    client_id: String,
    tls: Option<Arc<ClientConfig>>,
    stream: Option<Box<dyn Stream>>,
    packet_id: u16,
    /// Publishes sent a second time.
    pub repeats: usize,
    pub published: Vec<Message>,
}

impl Adapter {
    pub fn new(port: u16) -> Self {
        Self::named(port, "sma_0a1b2c")
    }

    /// With a client id of its own.
    pub fn named(port: u16, client_id: &str) -> Self {
        Self {
            port,
            client_id: client_id.to_owned(),
            tls: None,
            stream: None,
            packet_id: 0,
            repeats: 0,
            published: Vec::new(),
        }
    }

    /// With TLS, trusting this authority.
    pub fn trusting(mut self, authority: &Path) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(authority).expect("a certificate")).expect("an authority");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.expect("ring knows them").with_root_certificates(roots).with_no_client_auth();
        self.tls = Some(Arc::new(config));
        self
    }

    /// Publishes until it is acknowledged, over as many connections as that takes.
    #[track_caller]
    pub fn publish(&mut self, message: &Message) {
        self.packet_id = self.packet_id % 60_000 + 1;
        let start = Instant::now();
        let mut dup = false;
        while let Err(error) = self.attempt(message, dup) {
            assert!(start.elapsed() < PATIENT, "not acknowledged within {PATIENT:?}: {error}");
            // Refused without having been sent, while the agent is down.
            dup |= self.stream.take().is_some();
            std::thread::sleep(Duration::from_millis(20));
        }
        self.repeats += usize::from(dup);
        self.published.push(message.clone());
    }

    fn attempt(&mut self, message: &Message, dup: bool) -> io::Result<()> {
        if self.stream.is_none() {
            self.stream = Some(self.connect()?);
        }
        let stream = self.stream.as_mut().expect("just connected");
        let mut body = text(&message.topic);
        body.extend(self.packet_id.to_be_bytes());
        body.extend(&message.payload);
        stream.write_all(&packet(if dup { 0x3a } else { 0x32 }, &body))?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer)?;
        let [high, low] = self.packet_id.to_be_bytes();
        assert_eq!(answer, [0x40, 2, high, low], "PUBACK of what was published");
        Ok(())
    }

    fn connect(&self) -> io::Result<Box<dyn Stream>> {
        let socket = TcpStream::connect(("127.0.0.1", self.port))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut stream: Box<dyn Stream> = match &self.tls {
            None => Box::new(socket),
            Some(config) => {
                let name = "localhost".try_into().expect("a name");
                let connection = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
                Box::new(StreamOwned::new(connection, socket))
            }
        };
        // MQTT 3.1.1, clean session, 60 s keep alive, as the adapter's library does it.
        stream.write_all(&connect(&self.client_id, 60))?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer)?;
        // All seats are taken (MQTT 3.1.1, 3.2.2.3): to be tried again.
        if answer == [0x20, 2, 0, 3] {
            return Err(io::Error::other("CONNACK, server unavailable"));
        }
        assert_eq!(answer, [0x20, 2, 0, 0], "CONNACK, accepted");
        Ok(stream)
    }
}

/// CONNECT with a clean session; `keep_alive` in seconds.
pub fn connect(client_id: &str, keep_alive: u8) -> Vec<u8> {
    packet(0x10, &[&text("MQTT")[..], &[4, 0x02, 0, keep_alive], &text(client_id)].concat())
}

/// A text of MQTT: its length in two bytes, and itself.
pub fn text(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).expect("a short text");
    [&length.to_be_bytes()[..], text.as_bytes()].concat()
}

/// Fixed header, remaining length, the rest.
pub fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![kind];
    let mut length = body.len();
    loop {
        let digit = u8::try_from(length % 128).expect("seven bits");
        length /= 128;
        packet.push(digit | if length > 0 { 0x80 } else { 0 });
        if length == 0 {
            break;
        }
    }
    packet.extend(body);
    packet
}

//! The server's side of a connection as packets, on rumqttc's codec.
//!
//! The first packet must be a CONNECT of MQTT 3.1.1; the codec alone would not tell one of another version from garbage.

use std::io;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use rumqttc::Packet;
use rumqttc::mqttbytes::Error as PacketError;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// CONNECT may have this many bytes: enough for a will, and little for a stranger.
const MAX_CONNECT: usize = 64 * 1024;

/// How long a client may leave what we write unread.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client may take to close its side.
const FAREWELL: Duration = Duration::from_secs(1);

/// Bytes read at once.
const READ: usize = 8 * 1024;

/// TCP, or TLS over it.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// One client's connection.
pub(super) struct Wire {
    stream: Box<dyn Stream>,
    input: BytesMut,
    output: BytesMut,
    max_packet_size: usize,
    greeted: bool,
}

/// What ends a connection because of the client's bytes.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    #[error("it speaks TLS, this address does not: set tls here, or switch it off there")]
    Tls,
    #[error("it does not speak MQTT: its first byte is {0:#04x}, CONNECT begins with 0x10")]
    NotMqtt(u8),
    #[error("it speaks MQTT protocol {name:?} level {level}, only MQTT 3.1.1 (\"MQTT\", level 4) is spoken here")]
    Version { name: String, level: u8 },
    #[error("a packet of {0} bytes is larger than the limit (max_packet_size, or 64 KiB for CONNECT)")]
    TooLarge(usize),
    #[error("malformed packet: {0}")]
    Malformed(PacketError),
    #[error("it closed the connection within a packet")]
    HalfAPacket,
    #[error("it does not read what is sent to it")]
    WriteTimeout,
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl From<PacketError> for FrameError {
    fn from(error: PacketError) -> Self {
        match error {
            PacketError::PayloadSizeLimitExceeded(size) => Self::TooLarge(size),
            PacketError::Io(error) => Self::Io(error),
            other => Self::Malformed(other),
        }
    }
}

impl Wire {
    /// For a client that has not said CONNECT yet.
    pub(super) fn new(stream: impl Stream + 'static) -> Self {
        Self {
            stream: Box::new(stream),
            input: BytesMut::new(),
            output: BytesMut::new(),
            max_packet_size: MAX_CONNECT,
            greeted: false,
        }
    }

    /// The client was let in: from now on its packets may have `max_packet_size` bytes.
    pub(super) fn welcome(&mut self, max_packet_size: usize) {
        self.max_packet_size = max_packet_size;
    }

    /// The next packet; none when the client has closed the connection.
    ///
    /// # Cancel safety
    ///
    /// May be dropped and called again: what was read stays.
    pub(super) async fn read(&mut self) -> Result<Option<Packet>, FrameError> {
        loop {
            if let Some(packet) = self.decode()? {
                return Ok(Some(packet));
            }
            self.input.reserve(READ);
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return if self.input.is_empty() { Ok(None) } else { Err(FrameError::HalfAPacket) };
            }
        }
    }

    fn decode(&mut self) -> Result<Option<Packet>, FrameError> {
        if !self.greeted {
            if !speaks_mqtt(&self.input)? {
                return Ok(None);
            }
            self.greeted = true;
        }
        // The codec looks at the length in the fixed header before it waits for the body.
        match Packet::read(&mut self.input, self.max_packet_size) {
            Ok(packet) => Ok(Some(packet)),
            Err(PacketError::InsufficientBytes(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Puts a packet down to be sent with the next [`Self::flush`].
    pub(super) fn write(&mut self, packet: &Packet) -> Result<(), FrameError> {
        packet.write(&mut self.output, usize::MAX)?;
        Ok(())
    }

    /// Sends what was put down.
    ///
    /// # Cancel safety
    ///
    /// Not to be dropped: the client would get bytes twice.
    pub(super) async fn flush(&mut self) -> Result<(), FrameError> {
        let sent = async {
            self.stream.write_all(&self.output).await?;
            self.stream.flush().await
        };
        timeout(WRITE_TIMEOUT, sent).await.map_err(|_| FrameError::WriteTimeout)??;
        self.output.clear();
        Ok(())
    }

    /// Sends one packet.
    pub(super) async fn send(&mut self, packet: &Packet) -> Result<(), FrameError> {
        self.write(packet)?;
        self.flush().await
    }

    /// Closes the connection so that the client gets what was sent: to close a socket while bytes of the client are unread
    /// resets it, and throws away what is on its way. So they are read, for a moment, and dropped.
    pub(super) async fn close(&mut self) {
        let farewell = async {
            self.stream.shutdown().await?;
            loop {
                self.input.clear();
                self.input.reserve(READ);
                if self.stream.read_buf(&mut self.input).await? == 0 {
                    return io::Result::Ok(());
                }
            }
        };
        // A client that is gone, or does not read, is closed all the same.
        let _ = timeout(FAREWELL, farewell).await;
    }
}

/// Whether these bytes begin a CONNECT of MQTT 3.1.1; false where there are too few to tell.
fn speaks_mqtt(bytes: &[u8]) -> Result<bool, FrameError> {
    let mut bytes = bytes;
    match bytes.first() {
        None => return Ok(false),
        Some(0x10) => bytes.advance(1),
        // The record type and the version of a TLS handshake.
        Some(0x16) => return Err(FrameError::Tls),
        Some(other) => return Err(FrameError::NotMqtt(*other)),
    }
    let Some(length) = bytes.iter().take(4).position(|byte| byte & 0x80 == 0) else {
        return if bytes.len() < 4 { Ok(false) } else { Err(PacketError::MalformedRemainingLength.into()) };
    };
    bytes.advance(length + 1);
    if bytes.len() < 2 {
        return Ok(false);
    }
    // "MQTT" or, in MQTT 3.1, "MQIsdp".
    let name_length = usize::from(bytes.get_u16());
    if name_length > 6 {
        return Err(PacketError::InvalidProtocol.into());
    }
    if bytes.len() <= name_length {
        return Ok(false);
    }
    let (name, level) = (&bytes[..name_length], bytes[name_length]);
    if name == b"MQTT" && level == 4 {
        return match bytes.get(name_length + 1) {
            None => Ok(false),
            // The reserved flag (MQTT 3.1.1, 3.1.2.3).
            Some(flags) if flags & 1 != 0 => Err(PacketError::InvalidProtocol.into()),
            Some(_) => Ok(true),
        };
    }
    Err(FrameError::Version { name: String::from_utf8_lossy(name).into_owned(), level })
}

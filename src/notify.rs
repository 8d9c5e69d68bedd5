//! The service manager's notification socket; the only file that knows systemd.
//!
//! Protocol: sd_notify(3): a datagram of `KEY=value` lines to the socket named in `$NOTIFY_SOCKET`.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The way to the service manager; does nothing where there is none.
#[derive(Debug, Default)]
pub struct Notifier {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// A sign of life must come at least this often; none: no watchdog.
    pub watchdog: Option<Duration>,
}

impl Notifier {
    /// `socket` is `$NOTIFY_SOCKET`, `watchdog_usec` `$WATCHDOG_USEC`.
    pub fn new(socket: Option<&str>, watchdog_usec: Option<&str>) -> Self {
        let address = socket.and_then(|name| match name.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name).ok(),
            None => SocketAddr::from_pathname(name).ok(),
        });
        let socket = address.and_then(|address| UnixDatagram::unbound().ok().map(|socket| (socket, address)));
        let watchdog = watchdog_usec.and_then(|text| text.parse().ok()).map(Duration::from_micros);
        Self { watchdog: watchdog.filter(|_| socket.is_some()), socket }
    }

    /// The agent takes readings.
    pub fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={status}"));
    }

    /// One line that a person reads in `systemctl status`.
    pub fn status(&self, status: &str) {
        self.send(&format!("STATUS={status}"));
    }

    /// Every stage has moved since the last one.
    pub fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// A service manager that does not listen is no reason to stop.
    fn send(&self, message: &str) {
        if let Some((socket, address)) = &self.socket {
            let _ = socket.send_to_addr(message.as_bytes(), address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Promise 9: what is told arrives as sd_notify(3) says, and nothing is told where nobody listens.
    #[test]
    fn messages_arrive() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).expect("bound");
        let notifier = Notifier::new(path.to_str(), Some("30000000"));
        assert_eq!(notifier.watchdog, Some(Duration::from_secs(30)));
        notifier.ready("reads");
        let mut buffer = [0; 100];
        let length = manager.recv(&mut buffer).expect("received");
        assert_eq!(&buffer[..length], b"READY=1\nSTATUS=reads");
        let nobody = Notifier::new(None, Some("30000000"));
        assert_eq!(nobody.watchdog, None);
        nobody.alive();
    }
}

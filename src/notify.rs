//! The service manager's notification socket and, in [`journal`], its log; the only place that knows systemd.
//!
//! Protocol: sd_notify(3): a datagram of `KEY=value` lines to the socket named in `$NOTIFY_SOCKET`.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use crate::metrics::Flag;

pub mod journal;

/// The way to the service manager; does nothing where there is none.
#[derive(Debug, Default)]
pub struct Notifier {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// A sign of life must come at least this often; none: no watchdog.
    pub watchdog: Option<Duration>,
    /// The end that follows is the beginning of the next run.
    reloading: Flag,
}

impl Notifier {
    /// `socket` is `$NOTIFY_SOCKET`, `watchdog_usec` `$WATCHDOG_USEC`.
    pub fn new(socket: Option<&str>, watchdog_usec: Option<&str>) -> Self {
        let address = socket.and_then(|name| match name.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name).ok(),
            None => SocketAddr::from_pathname(name).ok(),
        });
        let unbound = || {
            let socket = UnixDatagram::unbound()?;
            // One that does not read must not hold up the agent.
            socket.set_nonblocking(true)?;
            Ok::<_, std::io::Error>(socket)
        };
        let socket = address.and_then(|address| Some((unbound().ok()?, address)));
        let watchdog = watchdog_usec.and_then(|text| text.parse().ok()).map(Duration::from_micros);
        Self { watchdog: watchdog.filter(|_| socket.is_some()), socket, reloading: Flag::default() }
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

    /// The start takes longer; it is waited for another `limit`.
    pub fn still_starting(&self, limit: Duration) {
        self.send(&format!("EXTEND_TIMEOUT_USEC={}", limit.as_micros()));
    }

    /// The configuration is read again. READY follows: from the next run, or after [`Self::refused`].
    pub fn reloading(&self) {
        self.reloading.set(true);
        // Since systemd 253 a service of Type=notify-reload is known to have reloaded by this time.
        let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
        let monotonic = now.map_or(0, |now| Duration::from(now).as_micros());
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={monotonic}"));
    }

    /// What was read is not taken; everything goes on as it was.
    pub fn refused(&self, status: &str) {
        self.reloading.set(false);
        self.ready(status);
    }

    /// The agent ends; says nothing where the next run takes its place.
    pub fn stopping(&self) {
        if !self.reloading.get() {
            self.send("STOPPING=1");
        }
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

    /// Promise 6: a service manager that does not read holds nobody up.
    #[test]
    fn nobody_waits_for_the_manager() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("notify");
        let _manager = UnixDatagram::bind(&path).expect("bound");
        let notifier = Notifier::new(path.to_str(), None);
        // More than any kernel keeps.
        (0..10_000).for_each(|_| notifier.alive());
    }

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
        let mut told = || {
            let length = manager.recv(&mut buffer).expect("received");
            String::from_utf8_lossy(&buffer[..length]).into_owned()
        };
        notifier.reloading();
        notifier.stopping();
        notifier.refused("as it was");
        notifier.stopping();
        assert!(told().starts_with("RELOADING=1\nMONOTONIC_USEC="));
        assert_eq!(told(), "READY=1\nSTATUS=as it was");
        assert_eq!(told(), "STOPPING=1");
        let nobody = Notifier::new(None, Some("30000000"));
        assert_eq!(nobody.watchdog, None);
        nobody.alive();
    }
}

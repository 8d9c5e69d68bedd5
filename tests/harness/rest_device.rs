//! A device that is asked over HTTP: Python's own server, which shares no code with the agent's client.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::certificates::Identity;
use super::document::Message;
use super::process::{self, Running};
use super::wait::{self, SOON};

const SCRIPT: &str = include_str!("rest_device.py");

/// The device's first key.
pub const KEY: &str = "abcdefghijklmnopqrstuvwxyz012345";

/// A device that can be killed and started again, with another certificate, another key, and faults.
pub struct RestDevice {
    // Before its folder, so that what it printed last can still be shown.
    running: Option<Running>,
    folder: TempDir,
    name: String,
    port: u16,
}

impl RestDevice {
    /// A device that calls itself `name`; plain HTTP without an identity.
    pub fn start(name: &str, identity: Option<&Identity>) -> Self {
        let folder = process::scratch("device");
        fs::write(folder.path().join("device.py"), SCRIPT).expect("write");
        let mut this = Self { running: None, folder, name: name.to_owned(), port: process::free_port() };
        this.key(KEY);
        this.mode("ok");
        this.identity(identity);
        this.restart();
        this
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on it wants this key.
    pub fn key(&self, key: &str) {
        self.replace("key", key.as_bytes());
    }

    /// From now on it answers so: `ok`, or with a status.
    pub fn mode(&self, mode: &str) {
        self.replace("mode", mode.as_bytes());
    }

    /// What it shows from its next start on.
    pub fn identity(&self, identity: Option<&Identity>) {
        let Some(identity) = identity else { return };
        let mut both = fs::read(&identity.certificate).expect("a certificate");
        both.extend(fs::read(&identity.key).expect("a key"));
        self.replace("tls.pem", &both);
    }

    /// SIGKILL, if it runs.
    pub fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.kill();
        }
    }

    /// Starts it again, on the same port.
    pub fn restart(&mut self) {
        self.kill();
        let mut command = Command::new("python3");
        command.arg(self.path("device.py")).arg(self.port.to_string()).arg(self.folder.path()).arg(&self.name);
        let mut running = Running::start("the device", &mut command, &self.path("device.log"));
        wait::until_true("the device to listen", SOON, || {
            assert!(running.ended().is_none(), "the device ended:\n{}", running.tail(20));
            running.log().contains("listens")
        });
        self.running = Some(running);
    }

    /// Every measurement that it gave, or tried to, in order.
    pub fn given(&self) -> Vec<Message> {
        let given = fs::read(self.path("given")).expect("the device writes it");
        let message = |line: &[u8]| Message {
            device: self.name.clone(),
            topic: "measurement".to_owned(),
            payload: line.to_vec(),
        };
        given.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(message).collect()
    }

    /// Waits until it has given so many more measurements.
    #[track_caller]
    pub fn wait_given(&self, more: usize) {
        let before = self.given().len();
        wait::until_true(&format!("{more} more measurements of {}", self.name), SOON, || {
            self.given().len() >= before + more
        });
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The device never reads a half.
    fn replace(&self, name: &str, content: &[u8]) {
        let new = self.path("new");
        fs::write(&new, content).expect("write");
        fs::rename(new, self.path(name)).expect("the same folder");
    }
}

//! A Mosquitto of the test's own.

use std::fmt::Write as _;
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::certificates::{Certificates, Identity};
use super::process::{self, Running};
use super::wait::{self, SOON};

/// How the broker is set up.
#[derive(Default)]
pub struct Options<'a> {
    /// Keep sessions and messages over a restart, saved at every change.
    pub persistence: bool,
    /// With TLS; clients must show a certificate of the same authority if `client_certificates`.
    pub tls: Option<&'a Certificates>,
    pub client_certificates: bool,
    /// What it shows; none: a good one of `tls`.
    pub identity: Option<Identity>,
    /// User and password; nobody else is let in.
    pub login: Option<(&'a str, &'a str)>,
    /// Further lines for its configuration file, or other values for those that it has.
    pub lines: &'a [&'a str],
}

/// A broker that can be stopped and started on the same port and store.
pub struct Mosquitto {
    // Before its folder, so that what it printed last can still be shown.
    running: Option<Running>,
    folder: TempDir,
    port: u16,
}

impl Mosquitto {
    /// Wide queues, no persistence: for tests in which the broker is not what fails.
    pub fn start() -> Self {
        Self::with(&Options::default())
    }

    pub fn with(options: &Options<'_>) -> Self {
        let folder = process::scratch("mosquitto");
        let port = process::free_port();
        fs::write(folder.path().join("mosquitto.conf"), configuration(folder.path(), port, options)).expect("write");
        let mut this = Self { folder, port, running: None };
        this.restart();
        this
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// SIGTERM: it saves its store if it has one.
    pub fn stop(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.terminate(SOON);
        }
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.kill();
        }
    }

    /// Starts it again, on the same port and store.
    pub fn restart(&mut self) {
        let mut command = Command::new("mosquitto");
        command.arg("-c").arg(self.folder.path().join("mosquitto.conf"));
        let mut running = Running::start("mosquitto", &mut command, &self.log_path());
        wait::until_true("Mosquitto to listen", SOON, || {
            if let Some(status) = running.ended() {
                panic!("Mosquitto ended with {status}:\n{}", running.tail(20));
            }
            TcpStream::connect(("127.0.0.1", self.port)).is_ok()
        });
        self.running = Some(running);
    }

    /// Writes its store now, and returns when it has.
    pub fn save(&self) {
        let running = self.running.as_ref().expect("Mosquitto runs");
        let store = self.folder.path().join("mosquitto.db");
        let before = fs::metadata(&store).and_then(|m| m.modified()).ok();
        // A file system's clock may tick in steps of 4 ms.
        std::thread::sleep(Duration::from_millis(10));
        running.signal(Signal::SIGUSR1);
        wait::until_true("Mosquitto to save its store", SOON, || {
            fs::metadata(&store).and_then(|m| m.modified()).is_ok_and(|now| Some(now) != before)
        });
    }

    /// Everything it logged, over all starts.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Waits until it has answered a SUBSCRIBE of this client: what is published from now on is kept for it.
    #[track_caller]
    pub fn wait_subscribed(&self, client: &str) {
        let answer = format!("Sending SUBACK to {client}\n");
        wait::until_true(&format!("{client} to subscribe"), SOON, || self.log().contains(&answer));
    }

    /// PUBACKs that it has received from this client, over all starts.
    pub fn acknowledgements(&self, client: &str) -> usize {
        let line = format!("Received PUBACK from {client} ");
        self.log().matches(&line).count()
    }

    /// Its log file.
    pub fn log_path(&self) -> PathBuf {
        self.folder.path().join("mosquitto.log")
    }
}

fn configuration(folder: &Path, port: u16, options: &Options<'_>) -> String {
    let mut text = format!("listener {port} 127.0.0.1\n");
    let wide = [
        "max_queued_messages 0",
        "max_inflight_messages 100",
        "log_type all",
        "set_tcp_nodelay true",
        "sys_interval 1",
    ];
    let name = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
    for line in wide.iter().filter(|line| options.lines.iter().all(|other| name(other) != name(line))) {
        writeln!(text, "{line}").expect("a string takes it");
    }
    if nix::unistd::geteuid().is_root() {
        text.push_str("user root\n");
    }
    if options.persistence {
        writeln!(
            text,
            "persistence true\npersistence_location {}/\nautosave_on_changes true\nautosave_interval 1",
            folder.display()
        )
        .expect("a string takes it");
    }
    if let Some(certificates) = options.tls {
        let server = options.identity.clone().unwrap_or_else(|| certificates.server());
        writeln!(
            text,
            "cafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate {}",
            certificates.ca().display(),
            server.certificate.display(),
            server.key.display(),
            options.client_certificates
        )
        .expect("a string takes it");
    }
    match options.login {
        None => text.push_str("allow_anonymous true\n"),
        Some((user, password)) => {
            let file = folder.join("passwords");
            process::run(Command::new("mosquitto_passwd").args(["-b", "-c"]).arg(&file).args([user, password]));
            writeln!(text, "allow_anonymous false\npassword_file {}", file.display()).expect("a string takes it");
        }
    }
    for line in options.lines {
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// `mosquitto_pub` of one message with QoS 1; returns when the broker has it.
pub fn mosquitto_pub(port: u16, topic: &str, payload: &[u8]) {
    let folder = process::scratch("mosquitto_pub");
    let file = folder.path().join("payload");
    fs::write(&file, payload).expect("write");
    let mut command = Command::new("mosquitto_pub");
    command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-q", "1", "-t", topic, "-f"]).arg(&file);
    process::run(&mut command);
}

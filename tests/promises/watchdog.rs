//! Promise 9: the watchdog is fed by work, and a stage that hangs is named.

use std::os::unix::net::UnixDatagram;
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::kafka::Kafka;
use crate::harness::line::Line;
use crate::harness::process;
use crate::harness::wait::PATIENT;

/// What the agent tells the service manager, one message after the other.
struct Manager(UnixDatagram);

impl Manager {
    /// None: nothing came for so long.
    fn next(&self, limit: Duration) -> Option<String> {
        self.0.set_read_timeout(Some(limit)).expect("an open socket");
        let mut buffer = [0; 4096];
        let length = self.0.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }

    #[track_caller]
    fn wait(&self, what: &str) {
        while !self.next(PATIENT).expect("the agent tells something").contains(what) {}
    }
}

/// Promise 9: a queue, a forwarder or a source that does not move any more is named, and the watchdog starves.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn what_hangs_is_named() {
    let kafka = Kafka::shared();
    thread::scope(|scope| {
        // An fsync that never returns, a call into the Kafka client, a task that blocks its thread.
        for (name, point, stage) in [
            ("hang-queue", "received:2:hang", "the queue"),
            ("hang-forwarder", "in-transaction:1:hang", "the forwarder"),
            ("hang-source", "source:20:hang", "source meter"),
        ] {
            scope.spawn(move || hangs(kafka, name, point, stage));
        }
    });
}

fn hangs(kafka: &Kafka, name: &str, point: &str, stage: &str) {
    let folder = process::scratch("manager");
    let socket = folder.path().join("notify");
    let manager = Manager(UnixDatagram::bind(&socket).expect("bound"));
    let mut line = Line::new(kafka, name);
    line.agent.variable("NOTIFY_SOCKET", socket.to_string_lossy());
    line.agent.variable("WATCHDOG_USEC", "1500000");
    line.agent.variable("METERFERRY_SILENCE", "3");
    line.agent.failpoint(Some(point));
    line.start();
    manager.wait("READY=1");
    manager.wait("WATCHDOG=1");
    line.publish(100);
    line.agent.wait_log("this stage hangs", PATIENT);
    // What it told before is still in the socket.
    while manager.next(Duration::from_millis(100)).is_some() {}
    let two_intervals = Instant::now() + Duration::from_secs(3);
    while let Some(limit) = two_intervals.checked_duration_since(Instant::now()).filter(|limit| !limit.is_zero()) {
        let told = manager.next(limit).unwrap_or_default();
        assert!(!told.contains("WATCHDOG"), "the watchdog is fed although {stage} hangs");
    }
    let log = line.agent.log();
    let named: Vec<_> = log.lines().filter(|line| line.contains("this stage hangs")).collect();
    assert!(named[0].contains(&format!("stage=\"{stage}\"")), "{stage} is not named first: {named:?}");
    line.agent.kill();
    line.agent.failpoint(None);
    line.start();
    line.finish().assert_exact();
}

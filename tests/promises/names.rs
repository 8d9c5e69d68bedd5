//! Promises 3 and 5: the names of the broker and of the cluster are not known at first, move to another address, and are
//! forgotten for a while. Takes root: the agent sees a file of hosts of its own.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::harness::kafka::{Kafka, NAME};
use crate::harness::line::Line;
use crate::harness::namespace;
use crate::harness::process;
use crate::harness::proxy::Proxy;
use crate::harness::wait::{PATIENT, SOON};

const BROKER: &str = "broker.meterferry.test";

/// Who knows which name, for one process.
struct Names(TempDir);

impl Names {
    fn new() -> Self {
        let this = Self(process::scratch("names"));
        // Nobody answers there, and says so at once.
        let resolver = "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n";
        fs::write(this.path("resolv.conf"), resolver).expect("write");
        fs::write(this.path("nsswitch.conf"), "hosts: files dns\n").expect("write");
        this.tell(None);
        this
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Both names mean this address from now on, or nothing.
    fn tell(&self, address: Option<&str>) {
        let known = address.map_or_else(String::new, |address| format!("{address} {BROKER} {NAME}\n"));
        // In place: a new file would not be seen through the mount.
        fs::write(self.path("hosts"), format!("127.0.0.1 localhost\n{known}")).expect("write");
    }

    /// What stands before the command of whoever is to know them.
    fn words(&self) -> Vec<String> {
        let script = "for file in hosts resolv.conf nsswitch.conf; do \
                      [ ! -e /etc/$file ] || mount --bind \"$0/$file\" /etc/$file || exit 1; done; exec \"$@\"";
        let folder = self.0.path().display().to_string();
        ["unshare", "--mount", "sh", "-c", script, &folder].map(str::to_owned).to_vec()
    }
}

/// The same port of another address of this machine.
fn also_there(listener: &TcpListener) -> TcpListener {
    let port = listener.local_addr().expect("an address").port();
    TcpListener::bind(("127.0.0.2", port)).expect("the same port is free there")
}

/// Promises 3 and 5: see above.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn are_unknown_and_move() {
    if !namespace::available("names::are_unknown_and_move") {
        return;
    }
    let kafka = Kafka::shared();
    let mut line = Line::new(kafka, "names");
    let names = Names::new();
    line.agent.inside(names.words());
    let (cluster, cluster_port) = kafka.named();
    let broker = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let (cluster_there, broker_there) = (also_there(&cluster), also_there(&broker));
    let port = |listener: &TcpListener| listener.local_addr().expect("an address").port();
    line.agent.reconfigure(|queue| {
        line.config(queue)
            .port(port(&broker))
            .source_line(&format!("host = {BROKER:?}"))
            .kafka(&format!("bootstrap_servers = [\"{NAME}:{}\"]", port(&cluster)))
    });
    let mosquitto_port = line.mosquitto.port();
    let here = [Proxy::on(broker, mosquitto_port), Proxy::on(cluster, cluster_port)];

    line.agent.start();
    line.agent.wait_log("WARN cannot reach the MQTT broker", SOON);
    line.agent.wait_log("WARN Kafka cannot be reached", SOON);
    names.tell(Some("127.0.0.1"));
    line.mosquitto.wait_subscribed(&line.client_id());
    line.publish(20);
    line.audit().assert_exact();

    names.tell(Some("127.0.0.2"));
    let there = [Proxy::on(broker_there, mosquitto_port), Proxy::on(cluster_there, cluster_port)];
    drop(here);
    line.publish(20);
    line.audit_within(PATIENT).assert_exact();

    names.tell(None);
    there.iter().for_each(Proxy::cut);
    line.publish(20);
    line.agent.wait_figures("the agent to be cut off", SOON, |live| !live.sources[0].connected);
    names.tell(Some("127.0.0.2"));
    line.finish().assert_exact();
}

//! Promise 9: `meterferry doctor` says what is, and the cure, without disturbing what it looks at.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use rumqttc::QoS;
use serde_json::Value;
use tempfile::TempDir;

use super::security::{login, tls_table};
use crate::harness::agent::Agent;
use crate::harness::certificates::Certificates;
use crate::harness::config::Config;
use crate::harness::document;
use crate::harness::kafka::Kafka;
use crate::harness::line::Line;
use crate::harness::mosquitto::{Mosquitto, Options};
use crate::harness::process;
use crate::harness::publisher::Publisher;
use crate::harness::scale::choices;
use crate::harness::wait::{self, SOON, SetAtEnd};

/// What the doctor said.
struct Report {
    code: Option<i32>,
    checks: Vec<Value>,
    text: String,
}

impl Report {
    #[track_caller]
    fn of(agent: &Agent, arguments: &[&str]) -> Self {
        let mut command = agent.command(&["doctor", "--json", "--wait", "5s"]);
        let output = command.args(arguments).stdin(Stdio::null()).output().expect("the agent's program");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        let report: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}{errors}"));
        let checks = report["checks"].as_array().expect("a list of checks").clone();
        for verdict in ["ok", "warning", "wrong", "skipped"] {
            let count = checks.iter().filter(|check| check["verdict"] == verdict).count();
            assert_eq!(report["summary"][verdict], count, "{text}");
        }
        Self { code: output.status.code(), checks, text }
    }

    /// The checks with this verdict, each as its name.
    fn with(&self, verdict: &str) -> Vec<&str> {
        let checks = self.checks.iter().filter(|check| check["verdict"] == verdict);
        checks.map(|check| check["name"].as_str().expect("a name")).collect()
    }

    /// The check with this name: its message, hint and commands.
    #[track_caller]
    fn says(&self, name: &str) -> String {
        let found = self.checks.iter().find(|check| check["name"] == name);
        let check = found.unwrap_or_else(|| panic!("no check {name:?}: {}", self.text));
        format!("{} {} {}", check["message"], check["hint"], check["commands"])
    }

    /// Exactly this is wrong, with this in its words.
    #[track_caller]
    fn assert_wrong(&self, name: &str, words: &[&str]) {
        assert_eq!(self.with("wrong"), [name], "{}", self.text);
        assert_eq!(self.code, Some(1), "{}", self.text);
        let said = self.says(name);
        words.iter().for_each(|word| assert!(said.contains(word), "{word:?} is not in {said}"));
    }
}

/// Publishes a reading every moment while it looks.
fn while_publishing(line: &mut Line<'_>, first: u64, arguments: &[&str]) -> Report {
    let over = AtomicBool::new(false);
    let (publisher, agent) = (&line.publisher, &line.agent);
    std::thread::scope(|scope| {
        let looking = scope.spawn(|| {
            let _end = SetAtEnd(&over);
            Report::of(agent, arguments)
        });
        let make = |serial, count| document::readings(&["90296857"], first + serial, count);
        publisher.publish_on(choices("doctor"), &over, make);
        looking.join().expect("a report")
    })
}

fn secret(folder: &TempDir, text: &str) -> PathBuf {
    let path = folder.path().join("secret");
    fs::write(&path, text).expect("write");
    path
}

/// Promises 3 and 9: where all is well nothing is wrong, and an agent that runs and delivers meanwhile does not notice: not
/// a reading is lost or repeated, no transaction of its is fenced, and nothing of the doctor's is in Kafka.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn all_well_beside_a_running_agent() {
    let mut line = Line::new(Kafka::shared(), "doctor-well");
    line.start();
    line.publish(20);
    for round in 1..=3 {
        let report = while_publishing(&mut line, round * 100_000, &[]);
        assert_eq!((report.code, report.with("wrong")), (Some(0), Vec::new()), "{}", report.text);
        assert!(report.says("topic sma").contains("with QoS 1"), "{}", report.text);
        assert!(report.says("version").contains("as this is"), "{}", report.text);
        for (right, seen) in [("WRITE on topic", "a record was taken"), ("READ on topic", "resume point was written")] {
            let topic = if right.starts_with('W') { line.topic.clone() } else { format!("{}-resume", line.topic) };
            assert!(report.says(&format!("right to {right} {topic}")).contains(seen), "{}", report.text);
        }
    }
    let log = line.agent.log();
    assert!(!log.to_lowercase().contains("fenced") && !log.contains("ERROR"), "{log}");
    assert_eq!(log.matches("connected to the MQTT broker").count(), 1, "{log}");
    line.finish().assert_exact();
    let mut client = line.kafka.client();
    let client: BaseConsumer =
        client.set("group.id", format!("meterferry.{}.doctor", line.topic)).create().expect("a client");
    let mut question = TopicPartitionList::new();
    question.add_partition(&format!("{}-resume", line.topic), 0);
    let answer = client.committed_offsets(question, SOON).expect("Kafka answers");
    assert_eq!(answer.elements()[0].offset(), Offset::Invalid, "the doctor's resume point is nowhere");
}

/// Promise 9: nothing is made in the queue's place, and a topic that is missing is named with the command that makes it.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn nothing_is_made() {
    let kafka = Kafka::shared();
    let line =
        Line::with(kafka, "doctor-topic", &Options::default(), |config, _| config.kafka("topic = \"doctor-none\""));
    let report = Report::of(&line.agent, &["--only", "queue,kafka,configuration"]);
    report.assert_wrong("topic doctor-none", &["does not exist", "kafka-topics.sh --bootstrap-server", "doctor-none"]);
    assert!(report.with("skipped").contains(&"right to WRITE on topic doctor-none"), "{}", report.text);
    assert!(!line.agent.queue().exists(), "the queue's folder was made");
}

/// Promise 9: a compacted topic, one that takes less than a reading may have, and one that forgets soon, are warned of.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn a_topic_that_does_not_keep_readings() {
    let kafka = Kafka::shared();
    let line = Line::new(kafka, "doctor-compact");
    let settings = [("cleanup.policy", "compact"), ("max.message.bytes", "10000"), ("retention.ms", "60000")];
    kafka.configure_topic(&line.topic, &settings);
    let report = Report::of(&line.agent, &["--only", "kafka"]);
    assert_eq!(report.code, Some(0), "{}", report.text);
    for what in ["cleanup", "largest record", "retention"] {
        assert!(report.with("warning").contains(&&*format!("{what} of {}", line.topic)), "{}", report.text);
    }
    assert!(report.says(&format!("cleanup of {}", line.topic)).contains("kafka-configs.sh"), "{}", report.text);
}

/// Promise 9: QoS 0 is warned of; nothing but an old value is nothing; a message that is no reading is named.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn what_arrives() {
    let mosquitto = Mosquitto::start();
    let agent = Agent::new(|queue| Config::new("doctor", queue, "127.0.0.1:9", "none").mqtt(mosquitto.port()));
    let publisher = Publisher::connect(mosquitto.port());
    let look = || Report::of(&agent, &["--only", "sources"]);
    look().assert_wrong("topic sma", &["no message within 5s", "--wait"]);
    publisher.publish_raw("sma", QoS::AtLeastOnce, true, document::SEEN.as_bytes());
    look().assert_wrong("topic sma", &["no message within 5s", "retained"]);
    let meanwhile = |qos: QoS, payload: &[u8]| {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let looking = scope.spawn(|| {
                let _end = SetAtEnd(&over);
                look()
            });
            while !over.load(Ordering::SeqCst) {
                publisher.publish_raw("sma", qos, false, payload);
                std::thread::sleep(Duration::from_millis(100));
            }
            looking.join().expect("a report")
        })
    };
    let report = meanwhile(QoS::AtMostOnce, document::SEEN.as_bytes());
    assert_eq!((report.code, report.with("warning")), (Some(0), vec!["topic sma"]), "{}", report.text);
    assert!(report.says("topic sma").contains("QoS 0"), "{}", report.text);
    meanwhile(QoS::AtLeastOnce, b"12.5").assert_wrong("topic sma", &["not a JSON object"]);
    assert!(!agent.queue().exists());
}

/// Promise 9: a broker that is down, one that refuses the password, and one that wants TLS, each in its own words.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn brokers_that_do_not_let_us_in() {
    let folder = process::scratch("secrets");
    let wrong = secret(&folder, "wrong\n");
    let mut mosquitto = Mosquitto::with(&Options { login: Some(("meter", "right")), ..Options::default() });
    let port = mosquitto.port();
    let agent = Agent::new(|queue| Config::new("doctor", queue, "127.0.0.1:9", "none").mqtt(port));
    let look = || Report::of(&agent, &["--only", "sources"]);
    look().assert_wrong("login", &["does not authorize", "source.username"]);
    let config = |queue: &std::path::Path| Config::new("doctor", queue, "127.0.0.1:9", "none").mqtt(port);
    agent.reconfigure(|queue| config(queue).source_lines(&format!("username = \"meter\"\npassword_file = {wrong:?}")));
    let report = look();
    report.assert_wrong("login", &["source.password_file"]);
    assert_eq!(report.with("skipped"), ["topic sma"], "{}", report.text);
    mosquitto.stop();
    let report = look();
    report.assert_wrong("broker", &["connection refused"]);
    assert_eq!(report.with("skipped"), ["login", "topic sma"], "{}", report.text);

    let certificates = Certificates::new();
    let mosquitto =
        Mosquitto::with(&Options { tls: Some(&certificates), client_certificates: true, ..Options::default() });
    let config = |queue: &std::path::Path| Config::new("doctor", queue, "127.0.0.1:9", "none").mqtt(mosquitto.port());
    agent.reconfigure(|queue| config(queue));
    look().assert_wrong("login", &["does it want TLS"]);
    agent.reconfigure(|queue| config(queue).source_lines(&tls_table("[source.tls]", &certificates, None)));
    look().assert_wrong("login", &["certificate_file"]);
}

/// Promise 9: a certificate that ended, ends soon, is for another name or of another authority, at a broker and in Kafka.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn certificates() {
    let (right, other) = (Certificates::new(), Certificates::new());
    let kafka = Kafka::shared();
    let look = |identity, ca: &Certificates, host: &str| {
        let mosquitto = Mosquitto::with(&Options { tls: Some(&right), identity, ..Options::default() });
        let agent = Agent::new(|queue| {
            let config = Config::new("doctor", queue, &kafka.tls(), "none").mqtt(mosquitto.port()).host(host);
            let config = config.source_lines(&tls_table("[source.tls]", ca, None));
            config.table(&tls_table("[kafka.tls]", &other, None))
        });
        let tls = format!("TLS {host}:{}", mosquitto.port());
        (Report::of(&agent, &["--only", "sources"]), Report::of(&agent, &["--only", "kafka"]), tls)
    };
    let (report, cluster, tls) = look(Some(right.ended()), &right, "127.0.0.1");
    report.assert_wrong(&tls, &["the certificate ended on", "renew it"]);
    assert_eq!(report.with("skipped"), ["login", "topic sma"], "{}", report.text);
    cluster.assert_wrong(&format!("TLS {}", kafka.tls()), &["authority", "kafka.tls.ca_file"]);
    assert_eq!(cluster.with("skipped"), ["login", "brokers", "topics", "rights"], "{}", cluster.text);
    let (report, _, tls) = look(Some(right.elsewhere()), &right, "127.0.0.1");
    report.assert_wrong(&tls, &["is for elsewhere.example, not for 127.0.0.1"]);
    let (report, _, tls) = look(None, &other, "localhost");
    report.assert_wrong(&tls, &["authority", "source.tls.ca_file"]);
    let (report, _, tls) = look(None, &right, "localhost");
    // The test bed's certificates are made for 20 days.
    assert!(report.with("warning").contains(&&*tls) && report.says(&tls).contains("ends on"), "{}", report.text);
}

/// Promise 9: a wrong password in Kafka is a matter of the login, and nothing behind it is asked.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn kafka_refuses_the_password() {
    let kafka = Kafka::shared();
    let folder = process::scratch("secrets");
    let wrong = secret(&folder, "wrong\n");
    let agent = Agent::new(|queue| {
        let sasl =
            format!("[kafka.sasl]\nmechanism = \"SCRAM-SHA-512\"\nusername = \"household\"\npassword_file = {wrong:?}");
        let config = Config::new("doctor", queue, &kafka.sasl(), "none");
        config.table(&tls_table("[kafka.tls]", kafka.certificates(), None)).table(&sasl).mqtt(1)
    });
    let report = Report::of(&agent, &["--only", "kafka"]);
    report.assert_wrong("login", &["kafka.sasl"]);
    assert_eq!(report.with("skipped"), ["brokers", "topics", "rights"], "{}", report.text);
    agent.reconfigure(|queue| Config::new("doctor", queue, &kafka.tls(), "none").mqtt(1));
    Report::of(&agent, &["--only", "kafka"]).assert_wrong("cluster", &["[kafka.tls]"]);
}

/// Promises 5 and 9: of the four rights each that is missing is named, it alone, with the commands that grant it; with all
/// of them nothing is wrong, though the topic's settings may not be read.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn each_missing_right_alone() {
    let kafka = Kafka::shared();
    let folder = process::scratch("secrets");
    let [tls, sasl] = login(kafka, &folder, "narrow", "SCRAM-SHA-256");
    let topic = kafka.topic("doctor-rights", 1);
    let agent = Agent::new(|queue| Config::new(&topic, queue, &kafka.sasl(), &topic).table(&tls).table(&sasl).mqtt(1));
    let (prefix, resume) = (format!("meterferry.{topic}."), format!("{topic}-resume"));
    let prefixed = |kind: &'static str| vec![kind, &*prefix, "--resource-pattern-type", "prefixed"];
    let grants = [
        ("Write", vec!["--topic", &*topic], format!("right to WRITE on topic {topic}")),
        ("Read", vec!["--topic", &*resume], format!("right to READ on topic {resume}")),
        ("Read", prefixed("--group"), format!("right to READ on groups with the prefix {prefix}")),
        (
            "Write",
            prefixed("--transactional-id"),
            format!("right to WRITE on transactional ids with the prefix {prefix}"),
        ),
    ];
    grants.iter().for_each(|(operation, resource, _)| kafka.allow("narrow", &[operation], resource));
    let look = || Report::of(&agent, &["--only", "kafka"]);
    let well = || wait::until("every right to be there", SOON, || Some(look()).filter(|report| report.code == Some(0)));
    let report = well();
    assert!(report.says(&format!("settings of {topic}")).contains("DescribeConfigs"), "{}", report.text);
    for (operation, resource, name) in &grants {
        kafka.forbid("narrow", &[operation], resource);
        let grant = format!("--allow-principal User:narrow --operation {operation} {}", resource.join(" "));
        let report = wait::until("the right to be gone", SOON, || Some(look()).filter(|report| report.code == Some(1)));
        report.assert_wrong(name, &[&grant, "rpk security acl create", "kafka_acl"]);
        kafka.allow("narrow", &[operation], resource);
        well();
    }
}

/// Promise 9: a broker that sends its clients to an address where nobody is, the commonest mistake, is named with what to
/// write there; one that is down is not reached.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn advertised_addresses() {
    let kafka = Kafka::shared();
    // Behind this port the broker names an address of which the test has let go.
    let (listener, port) = kafka.proxied_plain();
    let dead = listener.local_addr().expect("an address");
    drop(listener);
    let agent = Agent::new(|queue| Config::new("doctor", queue, &format!("127.0.0.1:{port}"), "none").mqtt(1));
    let report = Report::of(&agent, &["--only", "kafka"]);
    assert!(report.with("wrong").contains(&"broker 1"), "{}", report.text);
    let said = report.says("broker 1");
    for words in
        [&*dead.to_string(), "connection refused", &format!("advertised.listeners=PLAINTEXT://127.0.0.1:{port}")]
    {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(report.with("skipped").contains(&"rights"), "{}", report.text);
    agent.reconfigure(|queue| Config::new("doctor", queue, &dead.to_string(), "none").mqtt(1));
    let report = Report::of(&agent, &["--only", "kafka"]);
    report.assert_wrong("server", &["connection refused"]);
    assert_eq!(report.with("skipped"), ["login", "brokers", "topics", "rights"], "{}", report.text);
}

/// Promise 9: a wrong configuration is said as `check` says it, with its exit code, and nothing else is tried.
#[test]
fn wrong_configuration() {
    let agent = Agent::new(|queue| Config::new("pi.1", queue, "no-port", "none").mqtt(1));
    let report = Report::of(&agent, &[]);
    assert_eq!((report.code, report.with("wrong").len()), (Some(78), 2), "{}", report.text);
    assert_eq!(report.with("skipped").len(), 5, "{}", report.text);
    assert!(report.text.contains("pi.1") && report.text.contains("no-port"), "{}", report.text);
}

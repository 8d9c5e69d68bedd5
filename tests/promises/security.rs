//! TLS on both sides, passwords, SASL, and ACLs with exactly the rights that DESIGN.md names.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use rumqttc::{TlsConfiguration, Transport};
use tempfile::TempDir;

use crate::harness::certificates::{Certificates, Identity};
use crate::harness::kafka::{Kafka, SUPER_CERTIFICATE, USERS};
use crate::harness::line::Line;
use crate::harness::mosquitto::{Mosquitto, Options};
use crate::harness::process::{self, Running};
use crate::harness::publisher::Publisher;
use crate::harness::wait::SOON;

fn secret(folder: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, format!("{text}\n")).expect("write");
    path
}

/// A table of TLS that trusts these certificates' authority.
pub fn tls_table(header: &str, certificates: &Certificates, identity: Option<&Identity>) -> String {
    let mut text = format!("{header}\nca_file = {:?}", certificates.ca());
    if let Some(identity) = identity {
        text += &format!("\ncertificate_file = {:?}\nkey_file = {:?}", identity.certificate, identity.key);
    }
    text
}

/// `[kafka.tls]` and `[kafka.sasl]` for a user.
pub fn login(kafka: &Kafka, folder: &TempDir, user: &str, mechanism: &str) -> [String; 2] {
    let password = USERS.iter().find(|(name, _)| *name == user).expect("a user of the test bed").1;
    let file = secret(folder, user, password);
    [
        tls_table("[kafka.tls]", kafka.certificates(), None),
        format!("[kafka.sasl]\nmechanism = {mechanism:?}\nusername = {user:?}\npassword_file = {file:?}"),
    ]
}

fn brokers(address: &str) -> String {
    format!("bootstrap_servers = [{address:?}]")
}

/// Security: TLS with client certificates on both sides, and a password at the broker.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn tls_on_both_sides() {
    let kafka = Kafka::shared();
    let certificates = Certificates::new();
    let folder = process::scratch("secrets");
    let password = secret(&folder, "mqtt", "open sesame");
    let options = Options {
        tls: Some(&certificates),
        client_certificates: true,
        login: Some(("meter", "open sesame")),
        ..Options::default()
    };
    let client = certificates.client("agent");
    let trusted = kafka.certificates().client(SUPER_CERTIFICATE);
    let mut line = Line::with(kafka, "tls", &options, |config, _| {
        config
            .kafka(&brokers(&kafka.mutual_tls()))
            .table(&tls_table("[kafka.tls]", kafka.certificates(), Some(&trusted)))
            .source_lines(&format!("username = \"meter\"\npassword_file = {password:?}"))
            .source_lines(&tls_table("[source.tls]", &certificates, Some(&client)))
    });
    let read = |path: &PathBuf| fs::read(path).expect("a readable file");
    let transport = Transport::tls_with_config(TlsConfiguration::Simple {
        ca: read(&certificates.ca()),
        alpn: None,
        client_auth: Some((read(&client.certificate), read(&client.key))),
    });
    // The test's own client needs a provider of cryptography; another test may have set it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    line.publisher = Publisher::with(line.mosquitto.port(), |options| {
        options.set_transport(transport).set_credentials("meter", "open sesame");
    });
    line.start();
    line.publish(30);
    line.finish().assert_exact();
}

/// Security: a broker whose certificate another authority signed, or that bears another name, is not talked to: no
/// reading is taken from it, none is sent to it.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn wrong_certificates_are_refused() {
    let kafka = Kafka::shared();
    let (right, wrong) = (Certificates::new(), Certificates::new());
    let options = Options { tls: Some(&right), ..Options::default() };
    let mosquitto = Mosquitto::with(&options);
    let mut line = Line::with(kafka, "wrong-ca", &Options::default(), |config, _| {
        config
            .kafka(&brokers(&kafka.tls()))
            .table(&tls_table("[kafka.tls]", &wrong, None))
            .source(&format!(
                "name = \"tls\"\ntype = \"mqtt\"\nhost = \"127.0.0.1\"\nport = {}\ntopics = [\"sma\"]\npayload = \"sma\"",
                mosquitto.port()
            ))
            .source_lines(&tls_table("[source.tls]", &wrong, None))
    });
    line.start();
    line.publish(10);
    line.agent.wait_log("kafka.tls", SOON);
    line.agent.wait_log("source=\"tls\"", SOON);
    assert!(!mosquitto.log().contains("Sending CONNACK to meterferry"), "{}", mosquitto.log());
    assert!(line.auditor().records().is_empty());

    line.agent.stop();
    line.agent.reconfigure(|queue| {
        line.config(queue).kafka(&brokers(&kafka.tls())).table(&tls_table("[kafka.tls]", kafka.certificates(), None))
    });
    line.agent.start();
    // Without a certificate a client is anonymous, who may do everything here.
    line.finish().assert_exact();
}

/// Security: a wrong password is said, and nothing else happens.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn wrong_passwords_are_said() {
    let kafka = Kafka::shared();
    let folder = process::scratch("secrets");
    let wrong = secret(&folder, "wrong", "wrong");
    let options = Options { login: Some(("meter", "right")), ..Options::default() };
    let mut line = Line::with(kafka, "wrong-password", &options, |config, _| {
        config
            .kafka(&brokers(&kafka.sasl()))
            .table(&tls_table("[kafka.tls]", kafka.certificates(), None))
            .table(&format!(
                "[kafka.sasl]\nmechanism = \"SCRAM-SHA-512\"\nusername = \"household\"\npassword_file = {wrong:?}"
            ))
            .source_lines(&format!("username = \"meter\"\npassword_file = {wrong:?}"))
    });
    line.agent.start();
    line.agent.wait_log("kafka.sasl", SOON);
    line.agent.wait_log("source=\"meter\"", SOON);
    assert!(!line.agent.full_log().contains("subscrib"), "{}", line.agent.full_log());
    line.agent.stop();
}

/// Security: SASL/SCRAM with exactly the rights that DESIGN.md names: WRITE on the data topic, READ on the resume topic and
/// the group, WRITE on the transactional id. Not even DESCRIBE_CONFIGS.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn scram_with_exactly_the_rights_named() {
    let kafka = Kafka::shared();
    let folder = process::scratch("secrets");
    let [tls, sasl] = login(kafka, &folder, "household", "SCRAM-SHA-512");
    let mut line = Line::with(kafka, "scram", &Options::default(), |config, _| {
        config.kafka(&brokers(&kafka.sasl())).table(&tls).table(&sasl)
    });
    let prefix = format!("meterferry.{}.", line.topic);
    let resume = format!("{}-resume", line.topic);
    kafka.allow("household", &["Write"], &["--topic", &line.topic]);
    kafka.allow("household", &["Read"], &["--topic", &resume]);
    kafka.allow("household", &["Read"], &["--group", &prefix, "--resource-pattern-type", "prefixed"]);
    kafka.allow("household", &["Write"], &["--transactional-id", &prefix, "--resource-pattern-type", "prefixed"]);
    line.start();
    line.publish(20);
    line.audit().assert_exact();
    line.agent.kill();
    line.agent.start();
    line.publish(20);
    line.finish().assert_exact();
}

/// Security: each right that is missing is named with the ACL that grants it; when all are granted, readings flow.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn missing_rights_are_named_one_by_one() {
    let kafka = Kafka::shared();
    let folder = process::scratch("secrets");
    let [tls, sasl] = login(kafka, &folder, "narrow", "SCRAM-SHA-256");
    let mut line = Line::with(kafka, "rights", &Options::default(), |config, _| {
        config.kafka(&brokers(&kafka.sasl())).table(&tls).table(&sasl)
    });
    let prefix = format!("meterferry.{}.", line.topic);
    let (topic, resume) = (line.topic.clone(), format!("{}-resume", line.topic));
    let grants: [(&str, Vec<&str>); 4] = [
        ("Write", vec!["--topic", &topic]),
        ("Read", vec!["--topic", &resume]),
        ("Read", vec!["--group", &prefix, "--resource-pattern-type", "prefixed"]),
        ("Write", vec!["--transactional-id", &prefix, "--resource-pattern-type", "prefixed"]),
    ];
    line.start();
    line.publish(20);
    let mut left: Vec<_> = grants.iter().collect();
    while !left.is_empty() {
        // The order in which Kafka is asked is the agent's business.
        let named = crate::harness::wait::until("a missing right to be named", SOON, || {
            let log = line.agent.full_log();
            left.iter().position(|(operation, resource)| {
                log.contains(&format!(
                    "--add --allow-principal User:narrow --operation {operation} {}",
                    resource.join(" ")
                ))
            })
        });
        let (operation, resource) = left.remove(named);
        kafka.allow("narrow", &[operation], resource);
    }
    line.finish().assert_exact();
}

/// Security: SASL/PLAIN over TLS.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn sasl_plain() {
    let kafka = Kafka::shared();
    let folder = process::scratch("secrets");
    let [tls, sasl] = login(kafka, &folder, "stranger", "PLAIN");
    let mut line = Line::with(kafka, "plain", &Options::default(), |config, _| {
        config.kafka(&brokers(&kafka.sasl())).table(&tls).table(&sasl)
    });
    kafka.allow("stranger", &["Read", "Write"], &["--topic", "plain-", "--resource-pattern-type", "prefixed"]);
    let prefixed = ["meterferry.plain-", "--resource-pattern-type", "prefixed"];
    kafka.allow("stranger", &["Write"], &[&["--transactional-id"], &prefixed[..]].concat());
    kafka.allow("stranger", &["Read"], &[&["--group"], &prefixed[..]].concat());
    line.start();
    line.publish(20);
    line.finish().assert_exact();
}

/// Security: `consume` reads over TLS and SASL/SCRAM with what the configuration says, and with no right but its own.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn consume_logs_in_as_configured() {
    let kafka = Kafka::shared();
    let folder = process::scratch("secrets");
    let mut line = Line::new(kafka, "consume");
    line.start();
    line.publish(5);
    line.finish().assert_exact();
    kafka.allow("reader", &["Read"], &["--topic", &line.topic, "--group", "consume-readers"]);
    for (address, mechanism) in [
        (kafka.sasl(), Some("PLAIN")),
        (kafka.sasl(), Some("SCRAM-SHA-256")),
        (kafka.sasl(), Some("SCRAM-SHA-512")),
        (kafka.tls(), None),
    ] {
        line.agent.reconfigure(|queue| {
            let config = line.config(queue).kafka(&brokers(&address));
            match mechanism {
                None => config.table(&tls_table("[kafka.tls]", kafka.certificates(), None)),
                Some(mechanism) => {
                    let [tls, sasl] = login(kafka, &folder, "reader", mechanism);
                    config.table(&tls).table(&sasl)
                }
            }
        });
        let arguments = ["consume", "--group", "consume-readers", "--from", "beginning", "--count", "5", "--json"];
        let log = folder.path().join(format!("{mechanism:?}"));
        let mut consume = Running::start("consume", &mut line.agent.command(&arguments), &log);
        let status = consume.wait(SOON);
        assert!(status.success(), "{mechanism:?}: {status}");
        let printed = consume.log();
        let values: Vec<_> = printed
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .map(|record| record["value"].as_str().expect("text").as_bytes().to_vec())
            .collect();
        let published: Vec<_> = line.publisher.published().into_iter().map(|message| message.payload).collect();
        assert_eq!(values, published, "{mechanism:?}");
    }
}

/// Security: `audit` reads over TLS and SASL/SCRAM, as the configuration says and as `-X` says, with no right but READ on
/// the topic.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn audit_logs_in() {
    let kafka = Kafka::shared();
    let folder = process::scratch("secrets");
    let mut line = Line::new(kafka, "audit-login");
    line.start();
    line.publish(5);
    line.finish().assert_exact();
    kafka.allow("reader", &["Read"], &["--topic", &line.topic]);
    line.agent.reconfigure(|queue| {
        let [tls, sasl] = login(kafka, &folder, "reader", "SCRAM-SHA-512");
        line.config(queue).kafka(&brokers(&kafka.sasl())).table(&tls).table(&sasl)
    });
    let password = USERS.iter().find(|(name, _)| *name == "reader").expect("a user of the test bed").1;
    let properties = [
        "security.protocol=sasl_ssl".to_owned(),
        "sasl.mechanism=SCRAM-SHA-256".to_owned(),
        "sasl.username=reader".to_owned(),
        format!("sasl.password={password}"),
        format!("ssl.ca.location={}", kafka.certificates().ca().display()),
    ];
    let mut by_hand = Command::new(env!("CARGO_BIN_EXE_meterferry"));
    by_hand.args(["audit", "--json", "--brokers", &kafka.sasl(), "--topic", &line.topic]);
    by_hand.args(properties.iter().flat_map(|property| ["-X", property])).env("XDG_CONFIG_HOME", "/nonexistent");
    for mut audit in [line.agent.command(&["audit", "--json"]), by_hand] {
        let output = audit.output().expect("it runs");
        let value: serde_json::Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
        assert_eq!((output.status.code(), &value["queues"][0]["readings"]), (Some(0), &5.into()), "{value}");
    }
}

/// Security: a broker that wants a certificate of its clients is named as such, and IPv6 is as good as any address.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn missing_client_certificate_is_said() {
    let certificates = Certificates::new();
    let options = Options { tls: Some(&certificates), client_certificates: true, ..Options::default() };
    let mosquitto = Mosquitto::with(&options);
    let six = process::free_port();
    let lines = [&*format!("listener {six} ::1"), "allow_anonymous true"];
    let options = Options { lines: &lines, ..Options::default() };
    let kafka = Kafka::shared();
    let mut line = Line::with(kafka, "six", &options, |config, _| {
        let tls = tls_table("[source.tls]", &certificates, None);
        let shut_out =
            format!("name = \"shut-out\"\ntype = \"mqtt\"\nhost = \"127.0.0.1\"\nport = {}\n{tls}", mosquitto.port());
        config.port(six).host("::1").source(&shut_out)
    });
    line.start();
    line.agent.wait_log("the MQTT broker refuses our side of TLS", SOON);
    line.agent.wait_log(&format!("broker=\"[::1]:{six}\""), SOON);
    line.publish(10);
    line.finish().assert_exact();
}

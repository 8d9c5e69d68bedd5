//! Devices that are asked over HTTP: nothing that was given and taken is lost or repeated, whatever becomes of the device,
//! the cable, the key or the certificate; each fault is said with its cure, and a neighbour never notices.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use meterferry::agent::live::{Live, LiveSource};
use rand::RngExt;
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::agent::Agent;
use crate::harness::auditor::{Auditor, Record};
use crate::harness::certificates::{Certificates, Identity};
use crate::harness::config::Config;
use crate::harness::document::Message;
use crate::harness::kafka::Kafka;
use crate::harness::process::{self, Running};
use crate::harness::proxy::{Direction, Proxy};
use crate::harness::rest_device::{KEY, RestDevice};
use crate::harness::scale::{choices, scale};
use crate::harness::wait::{self, PATIENT, SOON};

fn key_file(folder: &TempDir, key: &str) -> PathBuf {
    let path = folder.path().join(format!("key-{key:.4}"));
    fs::write(&path, format!("{key}\n")).expect("write");
    path
}

/// SHA-256 of a certificate, as openssl tells it.
fn fingerprint(identity: &Identity) -> String {
    let mut command = Command::new("openssl");
    command.args(["x509", "-noout", "-fingerprint", "-sha256", "-in"]).arg(&identity.certificate);
    let told = process::run(&mut command);
    told.trim().split_once('=').expect("NAME=FINGERPRINT").1.to_owned()
}

/// A source that asks as often as it may.
fn source(name: &str, url: &str, key: &std::path::Path, rest: &str) -> String {
    format!(
        "name = {name:?}\ntype = \"rest\"\nurl = {url:?}\ntoken_file = {key:?}\ninterval = \"1s\"\n\
         status_interval = \"0s\"\ntimeout = \"2s\"\nretry_max_delay = \"1s\"\n{rest}"
    )
}

#[track_caller]
fn figures(agent: &Agent, name: &str) -> LiveSource {
    let live = agent.figures().expect("the agent answers");
    live.sources.into_iter().find(|source| source.name == name).expect("the source")
}

/// The readings of one device in Kafka, in order.
fn readings<'r>(records: &'r [Record], device: &str) -> Vec<&'r [u8]> {
    let of = |record: &&Record| record.key == device && record.header("ce_type") == "io.meterferry.reading";
    records.iter().filter(of).map(|record| &record.value[..]).collect()
}

/// Each was given, none came twice, and they stand in the order in which they were given. The given ones that are missing.
#[track_caller]
fn in_order<'g>(device: &str, kept: &[&[u8]], given: &'g [Message]) -> Vec<&'g Message> {
    let mut missing = Vec::new();
    let mut rest = kept.iter();
    let mut next = rest.next();
    for message in given {
        if next.is_some_and(|kept| **kept == message.payload[..]) {
            next = rest.next();
        } else {
            missing.push(message);
        }
    }
    assert!(
        next.is_none(),
        "{device}: not given, repeated or out of order: {}",
        String::from_utf8_lossy(next.expect("one"))
    );
    missing
}

/// Promises 1, 3, 4 and 5: five devices of one agent, four of which fail in their own way.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn devices_fail_and_come_back() {
    let (kafka, folder) = (Kafka::shared(), process::scratch("keys"));
    let (first, second) = (Certificates::new(), Certificates::new());
    let (key, wrong) = (key_file(&folder, KEY), "ZYXWVUTSRQPONMLKJIHGFEDCBA987654");
    let healthy = RestDevice::start("healthy", None);
    let cut = RestDevice::start("cut", None);
    let mut restarted = RestDevice::start("restarted", Some(&first.server()));
    let locked = RestDevice::start("locked", None);
    let mut changed = RestDevice::start("changed", Some(&first.server()));
    let proxy = Proxy::start(cut.port());
    let topic = kafka.topic("rest", 1);
    let pin = format!("[source.tls]\nfingerprint = {:?}", fingerprint(&first.server()));
    let first_use = "[source.tls]\ntrust_on_first_use = true";
    let plain = |port: u16| format!("http://127.0.0.1:{port}");
    let secure = |port: u16| format!("https://127.0.0.1:{port}");
    let mut agent = Agent::new(|queue| {
        Config::new(&topic, queue, &kafka.plain(), &topic)
            .source(&source("healthy", &plain(healthy.port()), &key, ""))
            .source(&source("cut", &plain(proxy.port()), &key, ""))
            .source(&source("restarted", &secure(restarted.port()), &key, &pin))
            .source(&source("locked", &plain(locked.port()), &key, ""))
            .source(&source("changed", &secure(changed.port()), &key, first_use))
    });
    agent.start();
    let all = |more| [&healthy, &cut, &locked].iter().for_each(|device| device.wait_given(more));
    all(1);
    restarted.wait_given(1);
    changed.wait_given(1);

    let mut choices = choices("rest devices");
    let rounds = scale(3, 100);
    for round in 0..rounds {
        proxy.resets(choices.random_bool(0.5));
        let direction = if choices.random_bool(0.3) { Direction::ToServer } else { Direction::FromServer };
        let cuts = proxy.cuts();
        let failing = ["restarted", "locked", "changed"];
        let before = failing.map(|name| figures(&agent, name).failed_polls);
        proxy.cut_after(direction, choices.random_range(1..600));
        restarted.kill();
        locked.key(wrong);
        changed.identity(Some(&second.server()));
        changed.restart();
        healthy.wait_given(2);
        for (name, before) in failing.iter().zip(before) {
            let so =
                |live: &Live| live.sources.iter().any(|source| source.name == *name && source.failed_polls > before);
            agent.wait_figures(&format!("{name} to fail"), SOON, so);
        }
        wait::until_true("a cut", PATIENT, || proxy.cuts() > cuts);
        if round == 0 {
            agent.wait_log("the device refuses the key (401)", SOON);
            agent.wait_log("the device shows another certificate than at first use", SOON);
            agent.wait_log("cannot reach the device", SOON);
            let log = agent.log();
            for shown in [&first, &second] {
                let shown = fingerprint(&shown.server());
                assert!(log.contains(&shown), "{shown} is not named:\n{log}");
            }
        }
        restarted.restart();
        locked.key(KEY);
        changed.identity(Some(&first.server()));
        changed.restart();
        all(1);
        restarted.wait_given(1);
        changed.wait_given(1);
    }
    let log = agent.log();
    assert_eq!(log.matches("the device refuses the key").count() as u64, rounds.min(6), "once an outage:\n{log}");
    assert!(!log.contains(wrong) && !log.contains(KEY), "a key is in the log");
    let told = ["healthy", "cut", "restarted", "locked", "changed"].map(|name| figures(&agent, name));
    agent.stop();
    let auditor = Auditor::new(kafka, &topic);
    auditor.wait_count(told.iter().map(|source| source.acknowledged as usize).sum(), PATIENT);
    let records = auditor.records();
    for (device, source) in [&healthy, &cut, &restarted, &locked, &changed].into_iter().zip(&told) {
        let (given, kept) = (device.given(), readings(&records, &source.name));
        let missing = in_order(&source.name, &kept, &given);
        println!("{}: {} given, {} kept; {source:?}", source.name, given.len(), kept.len());
        // What the figures were asked before may have come since.
        assert!(kept.len() as u64 >= source.acknowledged, "{}: acknowledged and lost", source.name);
        if source.name == "healthy" {
            assert_eq!((source.failed_polls, source.skipped, source.unchanged), (0, 0, 0), "{source:?}");
            // The one that was on its way when the agent was stopped.
            assert!(missing.len() <= 1, "{missing:?}");
        }
    }
    assert!(auditor.audit(&[]).gaps().is_empty(), "{:?}", auditor.audit(&[]).gaps());
}

/// Promise 1: killed at any point, the agent loses at most what it had not asked beyond: whatever was followed by another
/// request of the same life is in Kafka, once.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn killed_at_any_point() {
    let (kafka, folder) = (Kafka::shared(), process::scratch("keys"));
    let device = RestDevice::start("meter", None);
    let (topic, key) = (kafka.topic("rest-killed", 1), key_file(&folder, KEY));
    let mut agent = Agent::new(|queue| {
        Config::new(&topic, queue, &kafka.plain(), &topic).source(&source(
            "meter",
            &format!("http://127.0.0.1:{}", device.port()),
            &key,
            "",
        ))
    });
    let mut choices = choices("rest killed");
    let mut last_of_a_life = Vec::new();
    for point in ["received", "committed"].iter().cycle().take(usize::try_from(scale(4, 100)).expect("a number")) {
        assert!(meterferry::failpoint::POINTS.contains(point), "{point} is no point");
        agent.failpoint(Some(&format!("{point}:{}", choices.random_range(1..4))));
        agent.start();
        agent.wait_failpoint();
        last_of_a_life.extend(device.given().pop());
    }
    agent.failpoint(None);
    agent.start();
    device.wait_given(2);
    agent.stop();
    let given = device.given();
    last_of_a_life.extend(given.last().cloned());
    let wanted: Vec<_> = given.iter().filter(|message| !last_of_a_life.contains(message)).cloned().collect();
    assert!(wanted.len() >= 2, "nothing was asked for twice");
    let auditor = Auditor::new(kafka, &topic);
    auditor.wait_for(&wanted, PATIENT);
    let records = auditor.records();
    for missing in in_order("meter", &readings(&records, "meter"), &given) {
        assert!(last_of_a_life.contains(missing), "lost: {}", String::from_utf8_lossy(&missing.payload));
    }
}

/// A simulated device, as a process.
struct Simulated {
    running: Running,
    url: String,
    fingerprint: Option<String>,
    _folder: TempDir,
}

impl Simulated {
    fn start(arguments: &[&str]) -> Self {
        let folder = process::scratch("simulated");
        let mut command = Command::new(env!("CARGO_BIN_EXE_meterferry"));
        command.args(["simulate", "--interface", "rest", "--color", "never"]).args(arguments);
        let running = Running::start("the simulator", &mut command, &folder.path().join("log"));
        let log =
            wait::until("the simulator to listen", SOON, || Some(running.log()).filter(|log| log.contains(" and /")));
        let url = log.split("/api").next().expect("an address").to_owned();
        let of = |log: &str| log.lines().find_map(|line| line.strip_prefix("fingerprint = ")).map(str::to_owned);
        let fingerprint = match url.starts_with("https") {
            true => Some(wait::until("its fingerprint", SOON, || of(&running.log()))),
            false => None,
        };
        Self { running, url, fingerprint: fingerprint.map(|text| text.trim_matches('"').to_owned()), _folder: folder }
    }
}

/// curl's status and what it got.
fn curl(arguments: &[&str]) -> (String, String) {
    let mut command = Command::new("curl");
    command.args(["--silent", "--insecure", "--max-time", "20", "--write-out", "\n%{http_code}"]).args(arguments);
    let output = command.output().expect("curl runs; tests/run installs it");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n').expect("a status");
    (status.to_owned(), body.to_owned())
}

/// The simulator speaks HTTP and TLS as others understand them: curl reads each firmware's paths, with its header only, and
/// openssl sees the fingerprint that was printed.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn curl_reads_the_simulator() {
    let folder = process::scratch("keys");
    let key = key_file(&folder, KEY);
    let key = key.to_str().expect("text");
    for (firmware, measurement, status, header) in [
        ("v1", "/api/v1/measurement", "/api/v1/status", format!("Authorization: TOKEN {KEY}")),
        ("v1-json", "/api/v1/measurement.json", "/api/v1/status.json", format!("Authorization: TOKEN {KEY}")),
        ("old", "/api/data/measurement.json", "/api/sma/status.json", format!("AuthorizationToken: {KEY}")),
    ] {
        let device = Simulated::start(&["--firmware", firmware, "--token-file", key, "--interval", "1s"]);
        let at = |path: &str| format!("{}{path}", device.url);
        let (code, body) = curl(&["--header", &header, &at(measurement)]);
        assert_eq!(code, "200", "{body}");
        let document: Value = serde_json::from_str(&body).expect("JSON");
        assert!(document["1-0:1.8.0"]["value"].is_number(), "{body}");
        let (code, body) = curl(&["--header", &header, &at(status)]);
        assert_eq!(code, "200", "{body}");
        assert!(serde_json::from_str::<Value>(&body).expect("JSON")["sma_status_id"].is_number());
        assert_eq!(curl(&[&at(measurement)]).0, "401");
        assert_eq!(curl(&["--header", "Authorization: TOKEN abc", &at(measurement)]).0, "401");
        assert_eq!(curl(&["--header", &header, &at("/api/other")]).0, "404");
        let address = device.url.strip_prefix("https://").expect("TLS");
        let script = format!(
            "openssl s_client -connect {address} </dev/null 2>/dev/null | openssl x509 -noout -fingerprint -sha256"
        );
        let seen = process::run(Command::new("sh").args(["-c", &script]));
        assert!(seen.trim().ends_with(device.fingerprint.as_deref().expect("TLS")), "{seen} {:?}", device.fingerprint);
    }
}

/// Faults come as they were asked for, and the agent's doctor says what each of them is.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn the_doctor_asks_the_device() {
    let folder = process::scratch("keys");
    let key = key_file(&folder, KEY);
    let text = key.to_str().expect("text");
    let doctor = |arguments: &[&str], lines: &dyn Fn(&Simulated) -> String| {
        let device = Simulated::start(&[arguments, &["--token-file", text]].concat());
        let agent = Agent::new(|queue| {
            Config::new("doctor", queue, "127.0.0.1:1", "t").source(&source(
                "meter",
                &device.url,
                &key,
                &lines(&device),
            ))
        });
        let output = agent.command(&["doctor", "--only", "sources"]).output().expect("the agent's program");
        drop(device.running);
        String::from_utf8_lossy(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let pinned =
        |device: &Simulated| format!("[source.tls]\nfingerprint = {:?}", device.fingerprint.as_deref().expect("TLS"));
    let nothing = |_: &Simulated| String::new();
    for (arguments, lines, says) in [
        (&["--firmware", "old"][..], &pinned as &dyn Fn(&Simulated) -> String, "with AuthorizationToken"),
        (&["--http"], &nothing, "/api/v1/measurement with Authorization: TOKEN"),
        (&[], &nothing, "write fingerprint = "),
        (&["--http", "--fault", "401", "--fault-every", "1"], &nothing, "the device refuses the key (401)"),
        (&["--http", "--fault", "html", "--fault-every", "1"], &nothing, "a web page in place of a document"),
        (&["--http", "--fault", "truncated", "--fault-every", "1"], &nothing, "the device's answer breaks off"),
        (&["--http", "--fault", "endless", "--fault-every", "1"], &nothing, "has more than 65536 bytes"),
        (&["--http", "--fault", "huge", "--fault-every", "1"], &nothing, "has more than 65536 bytes"),
        (&["--http", "--fault", "reset", "--fault-every", "1"], &nothing, "closed the connection before it answered"),
        (&["--http", "--fault", "slow", "--fault-every", "1"], &nothing, "does not answer in time"),
        (&["--http", "--fault", "slow-body", "--fault-every", "1"], &nothing, "did not end in time"),
        (&["--http", "--fault", "gzip", "--fault-every", "1"], &nothing, "compressed (gzip)"),
        (&["--http", "--fault", "latin1", "--fault-every", "1"], &nothing, "no UTF-8 text"),
        (&["--http", "--fault", "broken-json", "--fault-every", "1"], &nothing, "is no JSON"),
        (&["--http", "--fault", "foreign-json", "--fault-every", "1"], &nothing, "holds no measurement"),
        (&["--http", "--fault", "301", "--fault-every", "1"], &nothing, "sends us elsewhere (301)"),
    ] {
        let said = doctor(arguments, lines);
        assert!(said.contains(says), "{arguments:?}: {says:?} is not in: {said}");
    }
}

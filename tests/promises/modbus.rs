//! Promises 3, 5 and 6 of a meter that is asked over Modbus TCP: what it gave is in Kafka once, each thing that goes wrong is
//! said and passes, and independent programs speak with both sides.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use meterferry::config::settings::Modbus;
use meterferry::simulate::meter::BASE;
use meterferry::simulate::modbus::Options;
use meterferry::simulate::modbus_fault::Fault;
use meterferry::source::modbus_device::Identity;
use meterferry::source::modbus_probe::{self, Found};
use meterferry::source::scaled::Scaled;
use meterferry::source::sunspec_meter::points;
use rand::RngExt;
use serde_json::Value;

use crate::harness::agent::Agent;
use crate::harness::auditor::{Auditor, Record};
use crate::harness::config::Config;
use crate::harness::kafka::Kafka;
use crate::harness::meters::{Meters, options};
use crate::harness::process::{self, Running};
use crate::harness::proxy::{Direction, Proxy};
use crate::harness::scale::{choices, scale};
use crate::harness::wait::{self, PATIENT};

/// A source as it stands below its `[[source]]`, asked every second.
fn source(name: &str, port: u16) -> String {
    format!(
        "name = {name:?}\ntype = \"modbus\"\nhost = \"127.0.0.1\"\nport = {port}\ninterval = \"1s\"\ntimeout = \"500ms\"\n\
         reconnect_max_delay = \"1s\"\ndevice = {name:?}"
    )
}

/// Readings of each source that the agent has, by its own figures.
fn received(agent: &Agent) -> BTreeMap<String, u64> {
    let figures = agent.figures().expect("the agent answers");
    figures.sources.iter().map(|source| (source.name.clone(), source.received)).collect()
}

/// Stops the agent once all that it received is in Kafka; each record once, in order, and none missing.
#[track_caller]
fn all_in_kafka(agent: &mut Agent, kafka: &Kafka, topic: &str) -> Vec<Record> {
    agent.stop();
    agent.start();
    agent.wait_figures("all readings to be sent", PATIENT, |live| live.kafka_connected && live.waiting == 0);
    let end = agent.figures().expect("the agent answers").end;
    agent.stop();
    let records = Auditor::new(kafka, topic).records();
    let sequences: Vec<u64> = records.iter().map(|record| record.id().1).collect();
    assert!(sequences.is_sorted(), "one partition, one order");
    assert_eq!(sequences, (1..=sequences.len() as u64).collect::<Vec<_>>(), "each once, and none is missing");
    assert!(sequences.len() as u64 >= end - 1, "{} of {}", sequences.len(), end - 1);
    records
}

fn documents(records: &[Record], key: &str) -> Vec<Value> {
    let own = records.iter().filter(|record| record.key == key);
    own.map(|record| serde_json::from_slice(&record.value).expect("a JSON document")).collect()
}

/// Promise 3: cables that are cut within any byte, and meters that are started anew, cost no reading that was given, and
/// none comes twice.
#[test]
#[ignore = "needs Kafka: run tests/run"]
fn cut_cables_and_restarts_lose_nothing() {
    const SOURCES: u16 = 4;
    let kafka = Kafka::shared();
    let topic = kafka.topic("modbus-cut", 1);
    let ports: Vec<u16> = (0..SOURCES).map(|_| process::free_port()).collect();
    let meter = |n: usize| {
        let model = [203, 213, 201, 214][n];
        Meters::start(Options { listen: ([127, 0, 0, 1], ports[n]).into(), ..options(model) })
    };
    let mut meters: Vec<Meters> = (0..ports.len()).map(meter).collect();
    let proxies: Vec<Proxy> = ports.iter().map(|port| Proxy::start(*port)).collect();
    let mut agent = Agent::new(|queue| {
        let config = Config::new(&topic, queue, &kafka.plain(), &topic);
        proxies
            .iter()
            .enumerate()
            .fold(config, |config, (n, proxy)| config.source(&source(&format!("m{n}"), proxy.port())))
    });
    agent.start();
    let mut random = choices("modbus cut");
    for cut in 0..scale(5, 100) {
        let before: Vec<u64> = proxies.iter().map(Proxy::cuts).collect();
        for proxy in &proxies {
            let direction = if random.random_bool(0.3) { Direction::ToServer } else { Direction::FromServer };
            proxy.resets(random.random_bool(0.5));
            proxy.cut_after(direction, random.random_range(0..300));
        }
        for (n, proxy) in proxies.iter().enumerate() {
            wait::until_true(&format!("cut {cut} of m{n}"), PATIENT, || proxy.cuts() > before[n]);
        }
        let n = random.random_range(0..meters.len());
        drop(meters.remove(n));
        meters.insert(n, meter(n));
        // Each gives again.
        let so_far = received(&agent);
        agent.wait_figures("readings after a cut", PATIENT, |live| {
            live.sources.iter().all(|source| source.received > so_far[&source.name])
        });
    }
    let received = received(&agent);
    let records = all_in_kafka(&mut agent, kafka, &topic);
    for (name, count) in received {
        let own = documents(&records, &name);
        assert!(own.len() as u64 >= count, "{name} gave {count}, Kafka has {}", own.len());
        assert!(own.iter().all(|document| document["1-0:1.8.0"]["value"].is_number()), "{name}");
    }
}

/// Promise 5: each fault has its word in the log, once; the source goes on, and the others never notice.
#[test]
#[ignore = "needs Kafka: run tests/run"]
fn faults_are_said_and_pass() {
    const SIZE: &str = "answer has the wrong size";
    let faults = [
        (Fault::Slow, "does not answer in time"),
        (Fault::Half, "stopped within an answer"),
        (Fault::Cut, "hung up within an answer"),
        (Fault::WrongUnit, "answered under another unit id"),
        (Fault::WrongTransaction, "answered another question"),
        (Fault::WrongFunction, "answered to another function"),
        (Fault::Short, SIZE),
        (Fault::Oversized, SIZE),
        (Fault::Garbage, "is not Modbus TCP"),
        (Fault::Exception(1), "illegal function"),
        (Fault::Exception(2), "illegal data address"),
        (Fault::Exception(3), "illegal data value"),
        (Fault::Exception(4), "device failure"),
        (Fault::Exception(5), "acknowledge"),
        (Fault::Exception(6), "device busy"),
        (Fault::Exception(11), "target device failed to respond"),
        (Fault::Exception(99), "exception 99"),
        (Fault::TurnOver, "a counter has turned over"),
        (Fault::WentBack, "a counter went back"),
        // A connection that is gone is made anew at once, and an answer behind the answer is met at one poll or the next.
        (Fault::Reset, ""),
        (Fault::Endless, ""),
    ];
    let name = |fault: Fault| fault.to_string().replace(':', "-");
    let kafka = Kafka::shared();
    let topic = kafka.topic("modbus-faults", 1);
    let meters: Vec<Meters> = faults.iter().map(|(fault, _)| Meters::faulty(*fault, 3)).collect();
    let well = Meters::start(options(203));
    let mut agent = Agent::new(|queue| {
        let config = Config::new(&topic, queue, &kafka.plain(), &topic).source(&source("well", well.port));
        faults
            .iter()
            .zip(&meters)
            .fold(config, |config, ((fault, _), meter)| config.source(&source(&name(*fault), meter.port)))
    });
    agent.start();
    agent.wait_figures("each source to go on after its faults", PATIENT, |live| {
        live.sources.iter().all(|source| source.received >= 5 && source.connected)
    });
    let log = agent.log();
    let figures = agent.figures().expect("the agent answers");
    let warned = |source: &str| {
        let own = format!("source=\"{source}\"");
        log.lines().filter(|line| line.contains(" WARN ") && line.contains(&own)).collect::<Vec<_>>()
    };
    for (fault, words) in faults {
        let said = warned(&name(fault));
        assert!(said.iter().any(|line| line.contains(words)) || words.is_empty(), "{fault}: {said:#?}");
        assert!(said.len() <= 7, "{fault}: {said:#?}");
    }
    assert_eq!(warned("well"), [""; 0]);
    let healthy = figures.sources.iter().find(|source| source.name == "well").expect("it is configured");
    assert_eq!((healthy.failed_polls, healthy.undecodable), (0, 0));
    let reset = figures.sources.iter().find(|source| source.name == "reset").expect("it is configured");
    assert_eq!(reset.failed_polls, 0, "asked again at once on a new connection");

    let records = all_in_kafka(&mut agent, kafka, &topic);
    let flags = |key: &str, flag: &str| {
        documents(&records, key).iter().filter(|document| document["1-0:1.8.0"]["flag"] == flag).count()
    };
    assert_eq!(flags("turn-over", "turned-over"), 1);
    assert!(flags("went-back", "went-back") >= 1);
    assert_eq!(flags("well", "went-back") + flags("well", "turned-over"), 0);
    assert!(documents(&records, "well").iter().all(|document| document["name"] == "well"));
}

/// Promise 9: `meterferry doctor` names the meter, and says what is wrong with one that is not there.
#[test]
fn doctor_asks_the_device() {
    let meters = Meters::start(options(213));
    let nobody = process::free_port();
    let agent = Agent::new(|queue| {
        Config::new("doctor", queue, "127.0.0.1:1", "sma")
            .source(&source("there", meters.port))
            .source(&source("gone", nobody))
    });
    let mut command = agent.command(&["doctor", "--only", "sources", "--json"]);
    let output = command.output().expect("the agent's program");
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let message = |area: &str, name: &str| {
        let checks = report["checks"].as_array().expect("checks").iter();
        let check = checks.clone().find(|check| check["area"] == area && check["name"] == name);
        check.unwrap_or_else(|| panic!("{area} {name} in {report:#}"))["message"].as_str().expect("a text").to_owned()
    };
    assert!(message("source there", "meter").contains("SunSpec model 213"), "{report:#}");
    assert!(message("source there", "reading").ends_with("74 values of there"), "{report:#}");
    assert!(message("source gone", "device").contains("cannot reach the Modbus device"), "{report:#}");
}

/// The python of `tests/run`, with pymodbus and pySunSpec2.
fn python() -> PathBuf {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python/bin/python");
    assert!(python.exists(), "{} is not there: tests/run makes it", python.display());
    python
}

fn peer(script: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(python());
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers").join(script)).args(arguments);
    command
}

fn visit(port: u16) -> Found {
    let settings = Modbus {
        host: "127.0.0.1".to_owned(),
        port,
        unit: 1,
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(10),
        reconnect_max_delay: Duration::from_secs(1),
        device: None,
        base: None,
        registers: Vec::new(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(modbus_probe::visit(&settings)).unwrap_or_else(|fault| panic!("{}: {fault}", fault.words()))
}

/// One name for a point in the spellings of the eight models.
fn plain(name: &str) -> String {
    name.to_lowercase().replace("ppvph", "phvph")
}

/// Promise 9: the tables of points are those of the SunSpec Alliance's definitions as pySunSpec2 ships them.
#[test]
#[ignore = "needs pySunSpec2: run tests/run"]
fn facts_are_those_of_pysunspec2() {
    let shipped = include_str!("../../src/source/testdata/sunspec-models.txt");
    let facts: String = shipped.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect();
    assert_eq!(process::run(&mut peer("sunspec_facts.py", &[])), facts);
}

/// Promise 9: a device by pymodbus, laid out by pySunSpec2's definitions, is read value by value, in each of the models and at
/// each place of the marker.
#[test]
#[ignore = "needs pymodbus and pySunSpec2: run tests/run"]
fn a_device_by_pymodbus_is_read() {
    let folder = process::scratch("pymodbus");
    for (model, base) in
        [(201, 0), (202, 40_000), (203, 50_000), (204, 40_000), (211, 0), (212, 50_000), (213, 40_000), (214, 0)]
    {
        let port = process::free_port();
        let arguments = [port.to_string(), model.to_string(), base.to_string()];
        let mut command = peer("sunspec_server.py", &arguments.each_ref().map(String::as_str));
        let log = folder.path().join(model.to_string());
        let server = Running::start("pymodbus", &mut command, &log);
        let line = wait::until("what pymodbus shows", PATIENT, || {
            let log = server.log();
            log.lines().find(|line| line.starts_with('{')).map(str::to_owned)
        });
        wait::until_true("pymodbus to listen", PATIENT, || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        let expected: BTreeMap<String, String> = serde_json::from_str(&line).expect("JSON");

        let found = visit(port);
        let Identity::SunSpec { base: at, meter, common, .. } = &found.identity else { panic!("no SunSpec") };
        assert_eq!((*at, meter.id, &*common.maker, &*common.serial), (base, model, "Peer", "PEER-1"));
        let picture = found.picture.expect("a reading");
        let floats = model > 204;
        let mut compared = 0;
        for point in points(floats) {
            let (_, text) =
                expected.iter().find(|(name, _)| plain(name) == plain(point.name)).expect("the same points");
            let mut value: Scaled = text.parse().expect("a number");
            if point.name.starts_with("PF") && !floats {
                // Percent: their scale factors in this device have fewer than three places.
                value = value.times(Scaled::new(1, -2)).expect("small");
            }
            let import = point.name.starts_with("VAR");
            let own = picture.measured.iter().find(|one| one.code == point.code).unwrap_or_else(|| panic!("{point:?}"));
            match import && value.is_negative() {
                true => assert_eq!(own.value, Scaled::ZERO, "{model} {}", point.name),
                false => assert_eq!(own.value, value, "{model} {}", point.name),
            }
            compared += 1;
        }
        assert_eq!(compared, points(floats).len(), "every point of the model");
    }
}

/// Promise 9: pySunSpec2 reads the simulated meters of all eight models as what they are.
#[test]
#[ignore = "needs pySunSpec2: run tests/run"]
fn pysunspec2_reads_the_simulator() {
    for model in [201, 202, 203, 204, 211, 212, 213, 214] {
        let meters = Meters::start(options(model));
        let value = |found: &Found, code: &str| -> f64 {
            let picture = found.picture.as_ref().expect("a reading");
            let one = picture.measured.iter().find(|one| one.code == code).unwrap_or_else(|| panic!("{model} {code}"));
            one.value.to_string().parse().expect("a number")
        };
        let before = visit(meters.port);
        let text = process::run(&mut peer("sunspec_client.py", &[&meters.port.to_string(), "1"]));
        let after = visit(meters.port);
        let read: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(read["base"], BASE, "{text}");
        assert_eq!(read["models"]["1"]["Mn"], "meterferry", "{text}");
        let meter = &read["models"][model.to_string()];
        for (name, code) in [("TotWhImp", "1-0:1.8.0"), ("TotWhExp", "1-0:2.8.0")] {
            let theirs = meter[name].as_f64().unwrap_or_else(|| panic!("{name} in {text}"));
            assert!((value(&before, code)..=value(&after, code)).contains(&theirs), "{model} {name}: {theirs}");
        }
        // Floats come as the nearest double there.
        assert!((meter["Hz"].as_f64().expect("a frequency") - 50.0).abs() < 1e-6);
        let phases = ["AphA", "AphB", "AphC"].iter().filter(|name| meter[**name].is_number()).count();
        assert_eq!(phases, [3, 1, 2, 3, 3][usize::from(model % 10)], "{text}");
    }
}

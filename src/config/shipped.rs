//! The shipped file is right, complete, and tells the truth about defaults and limits.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::settings::Interface;
use super::{Environment, Loaded, dump, load, schema};

fn shipped() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("edge-config/meterferry.toml");
    std::fs::read_to_string(path).expect("edge-config/meterferry.toml is shipped")
}

/// The shipped file with every key that stands behind a # set. A comment has a space behind its #.
fn uncommented() -> String {
    let shown = |line: &str| match line.strip_prefix('#') {
        Some(key) if !key.is_empty() && !key.starts_with(' ') => key.to_owned(),
        _ => line.to_owned(),
    };
    shipped().lines().map(shown).collect::<Vec<_>>().join("\n")
}

/// The same, with the one value that is not its default: without it, [privacy] could not hold.
fn all_set() -> String {
    uncommented().replace("\nformat = \"original\"\n", "\nformat = \"normalized\"\n")
}

const CERTIFICATE: &str = include_str!("../source/testdata/server.pem");
const KEY: &str = include_str!("../source/testdata/server-key.pem");

const MAPPING: &str = include_str!("../../edge-config/examples/mappings/heat-pump.toml");

/// What `text` loads to, in a folder with all files that the shipped file names.
fn loaded(text: &str) -> (tempfile::TempDir, Loaded) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for line in uncommented().lines().chain(text.lines()) {
        for name in line.split('"').filter(|part| !part.contains(['=', ' '])) {
            let content = match Path::new(name).extension().and_then(|ending| ending.to_str()) {
                Some("pem") => CERTIFICATE,
                Some("key") => KEY,
                Some("password" | "secret" | "token") => "correct horse battery staple\n",
                Some("toml") => MAPPING,
                _ => continue,
            };
            std::fs::write(folder.path().join(name), content).expect("write");
        }
    }
    let file = folder.path().join("meterferry.toml");
    std::fs::write(&file, text).expect("write");
    let environment = Environment::of(folder.path(), [("STATE_DIRECTORY", "/var/lib/meterferry")]);
    let loaded = load(Some(&file), &environment).unwrap_or_else(|problems| panic!("{problems}"));
    (folder, loaded)
}

/// As installed, the agent reads the broker on the same machine and is what an empty file would make it.
#[test]
fn as_shipped_it_is_the_default() {
    let (_folder, shipped) = loaded(&shipped());
    let (_folder, empty) = loaded("");
    assert_eq!(shipped.settings, empty.settings);
    let warnings: Vec<_> = shipped.warnings.iter().map(|warning| warning.message.as_str()).collect();
    assert_eq!(warnings, ["kafka.bootstrap_servers is not set: readings are kept and not sent"]);
    let source = &shipped.settings.sources[0];
    assert_eq!(&*source.name, "sma");
    let Interface::Mqtt(mqtt) = &source.interface else { panic!("not a broker") };
    assert_eq!((mqtt.host.as_str(), mqtt.port, &mqtt.topics[..]), ("localhost", 1883, &["sma".to_owned()][..]));
    assert_eq!(shipped.settings.queue.path, PathBuf::from("/var/lib/meterferry/queue"));
}

/// Every example is right as it stands: neither a problem nor a warning, once the files that it names are there.
#[test]
fn examples_are_right() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("edge-config/examples");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&folder).expect("edge-config/examples is shipped") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            continue;
        }
        let (_folder, loaded) = loaded(&std::fs::read_to_string(&path).expect("text"));
        assert!(loaded.warnings.is_empty(), "{}: {:?}", path.display(), loaded.warnings);
        names.push(path.file_name().expect("a file").to_string_lossy().into_owned());
    }
    names.sort();
    assert_eq!(
        names,
        [
            "confluent-cloud.toml",
            "event-hubs.toml",
            "listener.toml",
            "modbus-registers.toml",
            "modbus-sunspec.toml",
            "msk.toml",
            "other-readers.toml",
            "own-mapping.toml",
            "redpanda.toml",
            "rest.toml",
            "scram.toml",
            "two-adapters.toml"
        ]
    );
}

/// What the package writes to /etc is the default too, and with the line that it shows there is nothing to warn about.
#[test]
fn the_first_configuration_is_the_default() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/meterferry.toml");
    let text = std::fs::read_to_string(path).expect("systemd/meterferry.toml is packed");
    let (_folder, first) = loaded(&text);
    let (_folder, empty) = loaded("");
    assert_eq!(first.settings, empty.settings);
    assert_eq!(first.warnings.len(), 1, "{:?}", first.warnings);
    let (_folder, edited) = loaded(&text.replace("#bootstrap_servers", "bootstrap_servers"));
    assert_eq!(edited.warnings, []);
    assert_eq!(edited.settings.kafka.bootstrap_servers, ["kafka.example.org:9092"]);
}

/// The keys of each table, as `table.key`; sources by their type.
fn keys(table: &toml::Table) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for section in ["agent", "queue", "kafka", "privacy"] {
        let inner = table[section].as_table().expect("a table");
        found.extend(inner.keys().map(|key| format!("{section}.{key}")));
        for sub in ["tls", "sasl"] {
            let keys = inner.get(sub).and_then(|sub| sub.as_table()).into_iter().flat_map(toml::Table::keys);
            found.extend(keys.map(|key| format!("{section}.{sub}.{key}")));
        }
    }
    for source in table["source"].as_array().expect("sources") {
        let source = source.as_table().expect("a table");
        let kind = source["type"].as_str().expect("a type");
        found.extend(source.keys().map(|key| format!("{kind}.{key}")));
        let tls = source.get("tls").and_then(|tls| tls.as_table()).into_iter().flat_map(toml::Table::keys);
        found.extend(tls.map(|key| format!("{kind}.tls.{key}")));
        let users = source.get("users").and_then(|users| users.as_array()).into_iter().flatten();
        let users = users.filter_map(|user| user.as_table()).flat_map(toml::Table::keys);
        found.extend(users.map(|key| format!("{kind}.users.{key}")));
        let registers = source.get("registers").and_then(|registers| registers.as_array()).into_iter().flatten();
        let registers = registers.filter_map(|register| register.as_table()).flat_map(toml::Table::keys);
        found.extend(registers.map(|key| format!("{kind}.registers.{key}")));
    }
    found
}

fn known() -> BTreeSet<String> {
    let mut known = BTreeSet::new();
    for path in ["agent", "queue", "kafka", "privacy", "kafka.tls", "kafka.sasl"] {
        known.extend(schema::keys(path).iter().map(|key| format!("{path}.{key}")));
    }
    for (path, keys) in [
        ("mqtt", schema::MQTT),
        ("mqtt.tls", schema::MQTT_TLS),
        ("mqtt-listener", schema::MQTT_LISTENER),
        ("mqtt-listener.tls", schema::MQTT_LISTENER_TLS),
        ("mqtt-listener.users", schema::keys("source.users")),
        ("rest", schema::REST),
        ("rest.tls", schema::REST_TLS),
        ("modbus", schema::MODBUS),
        ("modbus.registers", schema::keys("source.registers")),
    ] {
        known.extend(keys.iter().map(|key| format!("{path}.{key}")));
    }
    known
}

/// Every key that the agent knows is explained, and with all of them set the file is right.
#[test]
fn every_key_is_in_it() {
    let table: toml::Table = uncommented().parse().expect("the shipped file is TOML with every key set");
    assert_eq!(keys(&table), known());
    let (_folder, loaded) = loaded(&all_set());
    assert_eq!(loaded.settings.sources.len(), 7);
}

/// Lines of a dump, with the table that they stand in; sources by their type.
fn lines(dump: &str) -> BTreeSet<(String, String)> {
    let mut section = String::new();
    let mut found = BTreeSet::new();
    for line in dump.lines().filter(|line| !line.is_empty()) {
        if line.starts_with('[') {
            section = line.to_owned();
        } else if let Some(kind) = line.strip_prefix("type = ") {
            section = kind.to_owned();
        } else {
            found.insert((section.clone(), line.to_owned()));
        }
    }
    found
}

/// What the file shows as a default is what the code does without the key.
#[test]
fn defaults_are_as_documented() {
    let sources = "[[source]]\nname = \"sma\"\ntype = \"mqtt\"\n[[source]]\nname = \"adapters\"\ntype = \"mqtt-listener\"\n\
                   [[source]]\nname = \"house\"\ntype = \"rest\"\nurl = \"https://192.168.1.50\"\n\
                   [[source]]\nname = \"inverter\"\ntype = \"modbus\"\n[[source.registers]]\naddress = 0\ntype = \"u32\"\n\
                   code = \"1-0:1.8.0\"\n";
    let (_folder, default) = loaded(sources);
    let (_folder, set) = loaded(&all_set());
    let (default, set) = (lines(&dump(&default.settings)), lines(&dump(&set.settings)));
    let differing: Vec<_> = default.difference(&set).collect();
    assert!(default.len() > 40, "{default:#?}");
    assert_eq!(differing, [&("[kafka]".to_owned(), "format = \"original\"".to_owned())]);
    assert!(shipped().contains("\n#format = \"original\"\n"));
}

/// The limits that the file names are those that the code keeps.
#[test]
fn limits_are_as_documented() {
    let mut checked = 0;
    let (mut header, mut kind, mut comment) = (String::new(), String::new(), String::new());
    for line in uncommented().lines() {
        if let Some(text) = line.strip_prefix('#') {
            comment += text;
        } else if line.starts_with('[') {
            header = line.to_owned();
            comment.clear();
        } else if let Some((key, value)) = line.split_once(" = ") {
            if key == "type" {
                kind = format!("type = {value}\n");
            }
            if let Some(limits) = limits(&header, &kind, key) {
                assert!(comment.contains(&limits), "{header} {key}: {limits} is not in: {comment}");
                checked += 1;
            }
            comment.clear();
        }
    }
    assert!(checked > 25, "only {checked} limits were looked at");
}

/// `1s to 7d`, from what is said to a value of a wrong type.
fn limits(header: &str, kind: &str, key: &str) -> Option<String> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("meterferry.toml");
    let kind = if header == "[[source]]" && key != "type" { kind } else { "" };
    std::fs::write(&file, format!("{header}\n{kind}{key} = 2026-01-01\n")).expect("write");
    let environment = Environment::of(folder.path(), [("STATE_DIRECTORY", folder.path())]);
    let problems = load(Some(&file), &environment).expect_err("a date is right nowhere");
    let name = format!(".{key} is 2026-01-01: ");
    let message = problems.errors.iter().find(|problem| problem.message.contains(&name))?.message.clone();
    let (_, limits) = message.split_once(" from ")?;
    Some(limits.to_owned())
}

/// A password is never shown.
#[test]
fn dump_masks_every_secret() {
    let (_folder, loaded) = loaded(&all_set());
    let shown = dump(&loaded.settings);
    assert!(!shown.contains("battery"), "{shown}");
    assert_eq!(shown.matches("password_file = \"***\"").count(), 4, "{shown}");
    assert!(!format!("{:?}", loaded.settings).contains("battery"));
}

/// What `check --dump` shows is read back as the same settings, but for the masks.
#[test]
fn dump_is_read_back() {
    let (folder, first) = loaded(&all_set());
    let shown = dump(&first.settings);
    std::fs::write(folder.path().join("***"), "correct horse battery staple").expect("write");
    let file = folder.path().join("meterferry.toml");
    std::fs::write(&file, &shown).expect("write");
    let environment = Environment::of(folder.path(), [("STATE_DIRECTORY", "/elsewhere")]);
    let second = load(Some(&file), &environment).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(second.settings, first.settings);
    assert_eq!(dump(&second.settings), shown);
}

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("edge-config").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Mosquitto's drop-in sets all that its defaults are too small for, within what the agent's own limits allow.
#[test]
fn mosquitto_keeps_what_waits() {
    let text = file("mosquitto/meterferry.conf");
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{key} is not set")).to_owned()
    };
    for (key, expected) in [("persistence", "true"), ("upgrade_outgoing_qos", "true"), ("queue_qos0_messages", "true")]
    {
        assert_eq!(value(key), expected, "{key}");
    }
    let number = |key: &str| value(key).parse::<usize>().expect("a number");
    assert!(number("autosave_interval") <= 60);
    assert!(number("max_queued_messages") > 1_000);
    let (_folder, default) = loaded("");
    let Interface::Mqtt(mqtt) = &default.settings.sources[0].interface else { panic!("not a broker") };
    assert!(number("max_inflight_messages") <= mqtt.max_unacknowledged.min(default.settings.queue.redelivery_window));
    value("persistent_client_expiration");
}

/// The rights that are explained are those that the agent needs, and no more; the names are the code's.
#[test]
fn kafka_rights_are_the_needed_ones() {
    let text = file("kafka/README.md").replace("\\\n", "");
    let granted: Vec<_> = text
        .lines()
        .filter(|line| line.contains("--allow-principal User:$U"))
        .filter_map(|line| line.split_once("--operation "))
        .map(|(_, rule)| rule.trim())
        .collect();
    assert_eq!(
        granted,
        [
            "Write --topic sma-kafka",
            "Read --topic meterferry-resume",
            "Read --group meterferry.$A. --resource-pattern-type prefixed",
            "Write --transactional-id meterferry.$A. --resource-pattern-type prefixed",
            "DescribeConfigs --topic sma-kafka",
        ]
    );
    let (_folder, default) = loaded("");
    assert_eq!(
        (&*default.settings.kafka.topic, &*default.settings.kafka.resume_topic),
        ("sma-kafka", "meterferry-resume")
    );
    assert!(file("kafka/server.properties").contains("\nauthorizer.class.name="));
}

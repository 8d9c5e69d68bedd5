//! What is handed bytes by strangers or by a broken disk, each as one function that takes any bytes and must come back:
//! no panic, no endless loop, and what it accepts makes sense.
//!
//! `tests/fuzz` feeds them with libFuzzer, `tests/promises/hostile.rs` with random bytes on a stable compiler.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jiff::tz::TimeZone;
use meterferry::clock::Clock;
use meterferry::config::settings::{MqttListener, Payload};
use meterferry::config::{self, Environment, Preset};
use meterferry::daily::DailyReceipt;
use meterferry::metrics::SourceMetrics;
use meterferry::obis::Obis;
use meterferry::queue;
use meterferry::reading::Body;
use meterferry::source::mqtt_listener::{self, ListenerSource};
use meterferry::{decode, shutdown};

/// Takes any bytes.
pub type Target = fn(&[u8]);

/// Each target, under the name of its folder of seeds.
pub const ALL: [(&str, Target); 9] = [
    ("document", document),
    ("fields", fields),
    ("codes", codes),
    ("topics", topics),
    ("mapping", mapping),
    ("obis", obis),
    ("record", record),
    ("configuration", configuration),
    ("listener", listener),
];

/// How long the listener may take for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// A payload as an adapter, or somebody who says to be one, sends it.
pub fn document(bytes: &[u8]) {
    for payload in [Payload::Sma, Payload::Any] {
        if let Ok(decoded) = decode::decode(&payload, "source", "topic", bytes) {
            assert!(!decoded.device.is_empty(), "a reading without a key");
            // What the forwarder makes a header of.
            assert!(decoded.measured_ms.is_none_or(|ms| ms > i64::MIN));
            assert_eq!(decode::decode(&payload, "source", "topic", bytes), Ok(decoded), "it depends on nothing else");
        }
    }
}

/// A message of a reader whose fields have names.
pub fn fields(bytes: &[u8]) {
    mapped(
        &["tasmota-sml", "tasmota-plug", "shelly-pro-3em", "ams-reader", "dsmr-reader", "zigbee2mqtt-plug"],
        "topic",
        bytes,
    );
}

/// A message of a reader whose keys are OBIS codes.
pub fn codes(bytes: &[u8]) {
    mapped(&["shrdzm", "amis-reader"], "SHRDZM/a/a/sensor", bytes);
}

/// A message with one value. The topic stands in the first line, the payload below.
pub fn topics(bytes: &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let payload = bytes.get(end + 1..).unwrap_or_default();
    let Ok(topic) = std::str::from_utf8(&bytes[..end]) else { return };
    mapped(&["vzlogger", "sml2mqtt", "esphome", "shelly-em"], topic, payload);
}

fn mapped(presets: &[&str], topic: &str, bytes: &[u8]) {
    static PRESETS: OnceLock<BTreeMap<&str, Payload>> = OnceLock::new();
    let vienna = || TimeZone::get("Europe/Vienna").unwrap_or(TimeZone::UTC);
    let read = |preset: &Preset| (preset.name, Payload::Mapped(preset.mapping(vienna()).into()));
    let known = PRESETS.get_or_init(|| config::PRESETS.iter().map(read).collect());
    for name in presets {
        let payload = &known[name];
        if let Ok(decoded) = decode::decode(payload, "source", topic, bytes) {
            assert!(!decoded.device.is_empty(), "a reading without a key");
            assert!(
                decoded.again_ms.is_none_or(|again| Some(again) > decoded.measured_ms),
                "an hour that comes again is later"
            );
            assert_eq!(decode::decode(payload, "source", topic, bytes), Ok(decoded), "it depends on nothing else");
        }
    }
}

/// A mapping of a person's own: refused with words, or a table that reads any message.
pub fn mapping(bytes: &[u8]) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("mine.toml");
    std::fs::write(&path, bytes).expect("written");
    match config::mapping_file(&path, TimeZone::UTC) {
        Err(problems) => assert!(!problems.to_string().is_empty(), "refused without a word"),
        Ok(mapping) => {
            let payload = Payload::Mapped(mapping.into());
            for (topic, message) in [("a/b", &b"{\"power\":{\"electric\":1.5},\"1.8.0\":2}"[..]), ("a", b"1")] {
                let _ = decode::decode(&payload, "source", topic, message);
            }
        }
    }
}

/// An OBIS code in any of its spellings: what is read is written so that it is read again as the same.
pub fn obis(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(code) = text.parse::<Obis>() {
        assert_eq!(code.to_string().parse(), Ok(code), "{text:?}");
    }
}

/// A record of the queue, as a damaged card may give it back. The first 24 bytes are the queue and the sequence that it is
/// asked for under.
pub fn record(bytes: &[u8]) {
    if let Some((asked, bytes)) = bytes.split_at_checked(24) {
        let mut origin = [0; 16];
        let mut sequence = [0; 8];
        origin.copy_from_slice(&asked[..16]);
        sequence.copy_from_slice(&asked[16..]);
        let (origin, sequence) = (u128::from_le_bytes(origin), u64::from_le_bytes(sequence));
        let whole = queue::is_record(origin, sequence, bytes);
        assert!(!whole || !queue::is_record(origin, sequence ^ 1, bytes), "served under another sequence");
        assert!(!whole || !queue::is_record(origin ^ 1, sequence, bytes), "served to another queue");
    }
    // Behind the checksum, as an older or newer release may have written it.
    if let Ok(body) = postcard::from_bytes::<Body>(bytes) {
        let again = postcard::to_stdvec(&body).expect("what was read can be written");
        assert_eq!(postcard::from_bytes::<Body>(&again), Ok(body));
    }
    if let Ok(receipt) = serde_json::from_slice::<DailyReceipt>(bytes) {
        drop(receipt.without_list());
    }
}

/// A configuration file.
pub fn configuration(bytes: &[u8]) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("meterferry.toml");
    std::fs::write(&path, bytes).expect("written");
    let nothing: [(String, String); 0] = [];
    let environment = Environment::of(folder.path().join("none"), nothing);
    match config::load(Some(&path), &environment) {
        Ok(loaded) => drop(config::dump(&loaded.settings)),
        Err(problems) => assert!(!problems.to_string().is_empty(), "refused without a word"),
    }
}

/// What a client sends to the listener. Whatever it is, the connection ends with it, and the next client is served.
pub fn listener(bytes: &[u8]) {
    let address = listening();
    let connect = || {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("the listener listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("an open socket");
        stream.set_write_timeout(Some(PATIENCE)).expect("an open socket");
        stream
    };
    let mut stranger = connect();
    // It may hang up before it has heard all of it.
    let _ = stranger.write_all(bytes);
    let _ = stranger.shutdown(Shutdown::Write);
    let mut answers = Vec::new();
    if let Err(error) = stranger.read_to_end(&mut answers) {
        let waits = [std::io::ErrorKind::WouldBlock, std::io::ErrorKind::TimedOut];
        assert!(!waits.contains(&error.kind()), "the connection outlives its client");
    }
    let mut next = connect();
    next.write_all(CONNECT).expect("the listener reads");
    let mut answer = [0; 4];
    next.read_exact(&mut answer).expect("the listener answers");
    assert_eq!(answer, [0x20, 2, 0, 0], "CONNACK, accepted");
}

/// MQTT 3.1.1, clean session, client id `next`.
const CONNECT: &[u8] = b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04next";

/// Where the listener listens; one for the whole process.
fn listening() -> SocketAddr {
    static ADDRESS: OnceLock<SocketAddr> = OnceLock::new();
    *ADDRESS.get_or_init(|| {
        let (told, address) = std::sync::mpsc::sync_channel(1);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(serve(told));
        });
        address.recv().expect("it listens")
    })
}

async fn serve(told: std::sync::mpsc::SyncSender<SocketAddr>) {
    let (raws, mut received) = tokio::sync::mpsc::channel(10);
    let settings = MqttListener {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        topics: vec!["sma".to_owned(), "house/+/#".to_owned()],
        logins: Vec::new(),
        allow_anonymous: true,
        tls: None,
        max_clients: 20,
        max_packet_size: 64 << 10,
        max_unacknowledged: 10,
        idle_timeout: Duration::from_secs(10),
        commit_delay: Duration::ZERO,
    };
    let source = ListenerSource {
        name: "fuzz".into(),
        settings,
        metrics: Arc::new(SourceMetrics::default()),
        raws,
        clock: Clock::new(),
        stop_timeout: Duration::from_secs(1),
    };
    let listener = mqtt_listener::bind(source).await.expect("a free port");
    told.send(listener.local_addr()).expect("somebody waits for it");
    let stored = async {
        while let Some(raw) = received.recv().await {
            raw.receipt.redeem();
        }
    };
    tokio::join!(listener.run(shutdown::Shutdown::new()), stored);
}

/// The seeds of a target: small files that are right, or nearly.
#[allow(dead_code, reason = "libFuzzer reads them itself")]
pub fn seeds(target: &str) -> BTreeMap<String, Vec<u8>> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let mut seeds = BTreeMap::new();
    for entry in std::fs::read_dir(folder).expect("a folder of seeds") {
        let entry = entry.expect("an entry");
        let name = entry.file_name().to_string_lossy().into_owned();
        seeds.insert(name, std::fs::read(entry.path()).expect("readable"));
    }
    seeds
}

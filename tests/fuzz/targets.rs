//! What is handed bytes by strangers or by a broken disk, each as one function that takes any bytes and must come back:
//! no panic, no endless loop, and what it accepts makes sense.
//!
//! `tests/fuzz` feeds them with libFuzzer, `tests/promises/hostile.rs` with random bytes on a stable compiler.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use jiff::tz::TimeZone;
use meterferry::clock::Clock;
use meterferry::config::settings::{Function, Modbus, MqttListener, Payload, Register, RegisterType, Rest, WordOrder};
use meterferry::config::{self, Environment, Preset};
use meterferry::daily::DailyReceipt;
use meterferry::metrics::SourceMetrics;
use meterferry::obis::Obis;
use meterferry::queue;
use meterferry::reading::Body;
use meterferry::source::measured::{self, Counters};
use meterferry::source::modbus_device::{Device, Search};
use meterferry::source::mqtt_listener::{self, ListenerSource};
use meterferry::source::rest_answer::Wanted;
use meterferry::source::rest_probe;
use meterferry::{decode, shutdown};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Takes any bytes.
pub type Target = fn(&[u8]);

/// Each target, under the name of its folder of seeds.
pub const ALL: [(&str, Target); 11] = [
    ("document", document),
    ("fields", fields),
    ("codes", codes),
    ("topics", topics),
    ("mapping", mapping),
    ("obis", obis),
    ("record", record),
    ("configuration", configuration),
    ("listener", listener),
    ("modbus", modbus),
    ("rest", rest),
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

/// What a Modbus device answers, to the search for its meter and to three polls: the first byte says whether the rest are
/// registers in right answers, or the answers themselves, and whether it is asked as SunSpec or for a table of registers.
/// Whatever it is, it ends in a document of the adapter's kind or in a fault that has words.
pub fn modbus(bytes: &[u8]) {
    let Some((mode, answers)) = bytes.split_first() else { return };
    let (raw, table) = (mode & 1 != 0, mode & 2 != 0);
    let clock = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    clock.expect("a runtime").block_on(async {
        let (ours, theirs) = tokio::io::duplex(4096);
        tokio::join!(answer(theirs, raw, answers), ask(ours, table));
    });
}

async fn ask(stream: tokio::io::DuplexStream, table: bool) {
    let register = |address, kind, code: &str| Register {
        address,
        function: Function::Holding,
        kind,
        order: WordOrder::LowFirst,
        factor: "0.1".parse().expect("a factor"),
        code: code.parse().expect("a code"),
    };
    let registers =
        [(3, RegisterType::U32, "1-0:1.8.0"), (8, RegisterType::F64, "1-0:16.7.0"), (90, RegisterType::I16, "14.7.0")];
    let settings = Modbus {
        host: String::new(),
        port: 502,
        unit: 1,
        interval: PATIENCE,
        timeout: Duration::from_secs(1),
        reconnect_max_delay: PATIENCE,
        device: None,
        base: None,
        registers: registers.into_iter().filter(|_| table).map(|(at, kind, code)| register(at, kind, code)).collect(),
    };
    let mut counters = Counters::default();
    let mut device = match Device::over(stream, &settings, &mut Search::default()).await {
        Ok(device) => device,
        Err(fault) => return assert!(!fault.words().is_empty() && !fault.cure().is_empty()),
    };
    for _ in 0..3 {
        match device.read().await {
            Ok(mut picture) => {
                counters.judge(&mut picture);
                let document = measured::document(device.identity.serial(), Some("meter"), &picture);
                if !picture.measured.is_empty() {
                    decode::decode(&Payload::Sma, "source", "", &document).expect("the adapter's document");
                }
            }
            Err(fault) if fault.keeps_connection() => {}
            Err(fault) => return assert!(!fault.words().is_empty() && !fault.cure().is_empty()),
        }
    }
}

async fn answer(mut stream: tokio::io::DuplexStream, raw: bool, answers: &[u8]) {
    let mut left = answers;
    let mut question = [0; 12];
    while !left.is_empty() && stream.read_exact(&mut question).await.is_ok() {
        let wanted = usize::from(u16::from_be_bytes([question[10], question[11]])) * 2;
        let (mut values, rest) = left.split_at(if raw { wanted + 9 } else { wanted }.min(left.len()));
        left = rest;
        let mut answer = Vec::new();
        if !raw {
            answer.extend([question[0], question[1], 0, 0]);
            answer.extend(u16::try_from(wanted + 3).expect("at most 125 registers").to_be_bytes());
            answer.extend([question[6], question[7], u8::try_from(wanted).expect("at most 125 registers")]);
        }
        answer.extend(std::mem::take(&mut values));
        if !raw {
            answer.resize(wanted + 9, 0);
        }
        if stream.write_all(&answer).await.is_err() {
            return;
        }
    }
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

/// What a device answers, from the first byte of the head on. Whatever it is, it ends in a document or in words.
pub fn rest(bytes: &[u8]) {
    const MOST: usize = 4096;
    let device = answering();
    *device.says.lock().expect("not poisoned") = bytes.to_vec();
    let rest = Rest {
        host: "127.0.0.1".to_owned(),
        port: device.port,
        trust: None,
        token: None,
        path: None,
        status_path: None,
        interval: Duration::from_secs(1),
        status_interval: None,
        timeout: PATIENCE,
        max_body_size: MOST,
        retry_max_delay: Duration::from_secs(1),
        store_unchanged: false,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let visited = runtime.block_on(rest_probe::visit(&rest, Wanted::Document, None)).expect("no files");
    match visited {
        Ok(found) => {
            assert!(found.measurement.len() <= MOST, "more than is read");
            let value: serde_json::Value = serde_json::from_slice(&found.measurement).expect("a document is JSON");
            assert!(value.is_object());
        }
        Err(trouble) => {
            assert!(!trouble.what().chars().any(char::is_control), "{trouble:?}");
            assert!(trouble.what().len() < 1000 && !trouble.cure().is_empty());
        }
    }
}

/// A device that says what it was told to, and hangs up.
struct Answering {
    port: u16,
    says: Mutex<Vec<u8>>,
}

/// One for the whole process.
fn answering() -> &'static Answering {
    static DEVICE: OnceLock<Answering> = OnceLock::new();
    DEVICE.get_or_init(|| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                answer_over_http(stream.expect("a visitor"), answering());
            }
        });
        Answering { port, says: Mutex::new(Vec::new()) }
    })
}

fn answer_over_http(mut stream: TcpStream, device: &Answering) {
    stream.set_read_timeout(Some(PATIENCE)).expect("an open socket");
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
        head.push(byte[0]);
    }
    let says = device.says.lock().expect("not poisoned").clone();
    // The visitor may have hung up.
    let _ = stream.write_all(&says);
    let _ = stream.shutdown(Shutdown::Write);
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

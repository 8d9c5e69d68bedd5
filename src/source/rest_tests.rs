//! A source of type `rest` against servers that answer as devices do, and as they should not. Most of them are a script of
//! bytes on a plain socket, so that they share no code with the client.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::Raw;
use super::rest::RestSource;
use super::rest_answer::Wanted;
use crate::clock::Clock;
use crate::config::settings::{Rest, Secret, Trust};
use crate::metrics::SourceMetrics;
use crate::reading::Kind;
use crate::shutdown::Shutdown;
use crate::simulate::rest::{self as simulated, Firmware, Identity};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A script: the request's head and its number to the answer's bytes, and whether the connection stays.
type Script = Arc<dyn Fn(&str, usize) -> (Vec<u8>, bool) + Send + Sync>;

/// A device that answers by a script.
struct Scripted {
    port: u16,
    connections: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<String>>>,
    serving: JoinHandle<()>,
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Scripted {
    async fn start(script: impl Fn(&str, usize) -> (Vec<u8>, bool) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let (connections, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
        let (script, counted, kept): (Script, _, _) =
            (Arc::new(script), Arc::clone(&connections), Arc::clone(&requests));
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, Arc::clone(&script), Arc::clone(&kept)));
            }
        });
        Self { port, connections, requests, serving }
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("not poisoned").clone()
    }
}

async fn serve(mut stream: TcpStream, script: Script, requests: Arc<Mutex<Vec<String>>>) {
    let mut head = String::new();
    while let Ok(byte) = stream.read_u8().await {
        head.push(char::from(byte));
        if head.ends_with("\r\n\r\n") {
            let number = {
                let mut requests = requests.lock().expect("not poisoned");
                requests.push(std::mem::take(&mut head));
                requests.len()
            };
            let (answer, stays) = script(&requests.lock().expect("not poisoned")[number - 1].clone(), number);
            if stream.write_all(&answer).await.is_err() || !stays {
                return;
            }
        }
    }
}

fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
}

fn status(line: &str) -> Vec<u8> {
    format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n").into_bytes()
}

/// The `serial`-th measurement, under the `asked`-th uptime.
fn document(serial: usize, asked: usize) -> String {
    format!(
        r#"{{"0-0:96.1.0":{{"value":"90296857"}},"1-0:1.8.0":{{"value":{serial},"time":{}}},"name":"","sma_time":{asked}.5}}"#,
        1_700_000_000 + serial
    )
}

fn settings(port: u16) -> Rest {
    Rest {
        host: "127.0.0.1".to_owned(),
        port,
        trust: None,
        token: Some(Secret("abcdefghijklmnopqrstuvwxyz012345".to_owned())),
        path: None,
        status_path: None,
        interval: Duration::from_millis(20),
        status_interval: None,
        timeout: Duration::from_secs(5),
        max_body_size: 4096,
        retry_max_delay: Duration::from_millis(50),
        store_unchanged: false,
    }
}

/// A source that runs.
struct Running {
    raws: mpsc::Receiver<Raw>,
    metrics: Arc<SourceMetrics>,
    shutdown: Shutdown,
    task: JoinHandle<()>,
}

impl Running {
    fn start(settings: Rest, folder: &Path) -> Self {
        let (raws, received) = mpsc::channel(1);
        let (metrics, shutdown) = (Arc::new(SourceMetrics::default()), Shutdown::new());
        let source = RestSource {
            name: "meter".into(),
            settings,
            wanted: Wanted::Document,
            metrics: Arc::clone(&metrics),
            raws,
            clock: Clock::new(),
            folder: folder.to_owned(),
        };
        let asked = shutdown.clone();
        let task = tokio::spawn(async move { source.run(asked).await.expect("usable files") });
        Self { raws: received, metrics, shutdown, task }
    }

    async fn next(&mut self) -> Raw {
        timeout(PATIENCE, self.raws.recv()).await.expect("a document in time").expect("the source runs")
    }

    /// Takes the next and stores it.
    async fn stored(&mut self) -> String {
        let raw = self.next().await;
        raw.receipt.redeem();
        String::from_utf8(raw.payload.to_vec()).expect("text")
    }

    async fn until(&self, what: &str, so: impl Fn(&SourceMetrics) -> bool) {
        until(&self.metrics, what, so).await;
    }

    async fn stop(self) {
        self.shutdown.ask();
        timeout(PATIENCE, self.task).await.expect("it stops").expect("no panic");
    }
}

async fn until(metrics: &SourceMetrics, what: &str, so: impl Fn(&SourceMetrics) -> bool) {
    let wait = async {
        while !so(metrics) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("waited in vain for {what}: {metrics:?}"));
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// Promise 1: the next document is not asked for before the one before is stored; the times that pass are counted. A
/// receipt that is dropped stores nothing, and the same measurement is handed on again.
#[tokio::test]
async fn nothing_is_asked_for_before_the_last_is_stored() {
    let device = Scripted::start(|_, number| (ok(&document(7, number)), true)).await;
    let folder = folder();
    let mut running = Running::start(settings(device.port), folder.path());
    let first = running.next().await;
    assert!(first.receipt.is_awaited() && first.topic == "measurement");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(device.requests().len(), 1, "asked again before the receipt came back");
    drop(first);
    assert_eq!(running.stored().await, document(7, 2));
    assert!(running.metrics.skipped.get() >= 5, "{:?}", running.metrics);
    running.until("unchanged documents to be counted", |metrics| metrics.unchanged.get() > 2).await;
    assert_eq!(running.metrics.acknowledged.get(), 1);
    assert_eq!(device.connections.load(Ordering::SeqCst), 1, "one connection, kept alive");
    running.stop().await;
}

/// Promise 3: each measurement is handed on once, however often it is read; with `store_unchanged` each answer is.
#[tokio::test]
async fn a_document_that_says_the_same_is_counted() {
    let device = Scripted::start(|_, number| (ok(&document(number / 3, number)), true)).await;
    let folder = folder();
    let mut running = Running::start(settings(device.port), folder.path());
    for serial in 0..4 {
        let stored = running.stored().await;
        assert!(stored.contains(&format!(r#""value":{serial},"#)), "{serial}: {stored}");
    }
    running.stop().await;
    let mut running = Running::start(Rest { store_unchanged: true, ..settings(device.port) }, folder.path());
    let (first, second, third) = (running.stored().await, running.stored().await, running.stored().await);
    assert!(first != second && second != third);
    assert_eq!(running.metrics.unchanged.get(), 0);
    running.stop().await;
}

/// Promise 5: every way a firmware may speak is found, with the key in its header and nowhere else, and remembered over a
/// restart.
#[tokio::test]
async fn every_firmware_is_understood() {
    for (path, header) in [
        ("/api/v1/measurement ", "authorization: TOKEN abc"),
        ("/api/v1/measurement.json ", "authorization: TOKEN abc"),
        ("/api/data/measurement.json ", "authorizationtoken: abc"),
        ("/api/v1/measurement.json ", "authorizationtoken: abc"),
    ] {
        let device = Scripted::start(move |head, number| {
            let fits = head.contains(path);
            let key = head.to_ascii_lowercase().contains(&header.to_ascii_lowercase());
            let answer = match (fits, key) {
                (true, true) => ok(&document(number, number)),
                (true, false) => status("401 Unauthorized"),
                (false, _) => status("404 Not Found"),
            };
            (answer, true)
        })
        .await;
        let folder = folder();
        let mut running = Running::start(settings(device.port), folder.path());
        running.stored().await;
        running.stored().await;
        running.stop().await;
        let asked = device.requests().len();
        let mut again = Running::start(settings(device.port), folder.path());
        again.stored().await;
        assert!(device.requests()[asked].contains(path), "not remembered: {}", device.requests()[asked]);
        assert_eq!(again.metrics.failed_polls.get(), 0);
        again.stop().await;
    }
}

/// Promise 5: a device that closes each connection after its answer, in HTTP/1.0 too, and one that closes an idle one, are
/// asked again without a failure.
#[tokio::test]
async fn a_device_may_close_its_connections() {
    let device = Scripted::start(|_, number| {
        let body = document(number, number);
        match number % 3 {
            0 => (ok(&body), false),
            1 => (format!("HTTP/1.0 200 OK\r\n\r\n{body}").into_bytes(), false),
            _ => (ok(&body), true),
        }
    })
    .await;
    let folder = folder();
    let mut running = Running::start(settings(device.port), folder.path());
    for serial in 1..20 {
        let stored = running.stored().await;
        assert!(stored.contains(&format!(r#""value":{serial},"#)), "{serial}: {stored}");
    }
    assert_eq!(running.metrics.failed_polls.get(), 0, "{:?}", running.metrics);
    running.stop().await;
}

/// Promises 5 and 6: whatever a device says in place of a document, the source counts it and goes on. Only what may help a
/// person is handed on, and once.
#[tokio::test]
async fn what_is_no_document_is_survived() {
    let wrong: Vec<(&str, Vec<u8>, bool)> = vec![
        ("nothing", Vec::new(), false),
        ("no HTTP", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), false),
        (
            "redirect",
            b"HTTP/1.1 302 Found\r\nLocation: https://elsewhere.example/\r\nContent-Length: 0\r\n\r\n".to_vec(),
            true,
        ),
        ("failing", status("500 Internal Server Error"), true),
        ("busy", status("503 Service Unavailable"), true),
        ("page", ok("<html>login</html>"), true),
        ("empty", ok(""), true),
        ("too large", ok(&"x".repeat(5000)), true),
        ("longer than it has", b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n{".to_vec(), true),
        ("broken off", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{\"a\":".to_vec(), false),
        ("Latin-1", b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{\"n\":\"K\xfcche\"}".to_vec(), true),
        ("gzip", b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\x1f\x8b".to_vec(), true),
        ("long head", format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "y".repeat(40_000)).into_bytes(), false),
        (
            "endless chunks",
            [
                &b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"[..],
                &[&b"400\r\n"[..], &[b' '; 1024], b"\r\n"].concat().repeat(8),
            ]
            .concat(),
            true,
        ),
        ("bad JSON", ok(r#"{"1-0:1.8.0":{"value":nan}}"#), true),
        ("foreign", ok(r#"{"error":"no meter"}"#), true),
    ];
    let count = wrong.len();
    let answers = wrong.clone();
    let turn = Arc::new(AtomicUsize::new(0));
    let turns = Arc::clone(&turn);
    let device = Scripted::start(move |_, number| match answers.get(turns.load(Ordering::SeqCst)) {
        Some((_, answer, stays)) => (answer.clone(), *stays),
        None => (ok(&document(number, number)), true),
    })
    .await;
    let folder = folder();
    let mut running = Running::start(settings(device.port), folder.path());
    let mut handed_on = Vec::new();
    for (at, (name, ..)) in wrong.iter().enumerate() {
        let metrics = Arc::clone(&running.metrics);
        let before = metrics.failed_polls.get();
        loop {
            tokio::select! {
                raw = running.raws.recv() => {
                    let raw = raw.expect("the source runs");
                    handed_on.push(*name);
                    raw.receipt.redeem();
                }
                () = until(&metrics, name, |metrics| metrics.failed_polls.get() >= before + 2) => break,
            }
        }
        turn.store(at + 1, Ordering::SeqCst);
    }
    let last = loop {
        let stored = running.stored().await;
        if stored.contains("90296857") {
            break stored;
        }
    };
    assert!(last.contains("\"value\""));
    assert!(running.metrics.failed_polls.get() >= 2 * count as u64);
    // Not more than six outages of one device are said in an hour, and what is not said is not kept.
    assert!(handed_on.len() <= 2, "{handed_on:?}");
    running.stop().await;
}

/// Promise 5: bad JSON is kept once an outage, as a dead letter, and a web page never.
#[tokio::test]
async fn bad_json_is_kept_once() {
    let device = Scripted::start(|_, number| match number {
        1..4 => (ok("<html>"), true),
        4..9 => (ok(&format!(r#"{{"1-0:1.8.0":{{"value":nan{number}}}}}"#)), true),
        _ => (ok(&document(number, number)), true),
    })
    .await;
    let folder = folder();
    // Each page is asked for on three paths.
    let mut running =
        Running::start(Rest { path: Some("/m".to_owned()), token: None, ..settings(device.port) }, folder.path());
    assert!(running.stored().await.contains("nan4"));
    assert!(running.stored().await.contains("\"value\":9,"));
    assert_eq!(running.metrics.failed_polls.get(), 8);
    running.stop().await;
}

/// Promise 6: a device that hangs, in its head or in its body, costs the timeout and no more; a stop does not wait for it.
#[tokio::test]
async fn a_device_that_hangs_is_given_up() {
    for (name, begin) in [("head", ""), ("body", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{")] {
        let device = Scripted::start(move |_, number| match number {
            1 => (begin.as_bytes().to_vec(), true),
            _ => (ok(&document(number, number)), true),
        })
        .await;
        let folder = folder();
        let impatient = Rest { timeout: Duration::from_millis(200), ..settings(device.port) };
        let mut running = Running::start(impatient, folder.path());
        assert!(running.stored().await.contains("\"value\":2,"), "{name}");
        assert_eq!(running.metrics.failed_polls.get(), 1, "{name}");
        running.stop().await;
    }
    let device = Scripted::start(|_, _| (Vec::new(), true)).await;
    let folder = folder();
    let running = Running::start(settings(device.port), folder.path());
    timeout(PATIENCE, async {
        while device.requests().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("asked");
    let begin = std::time::Instant::now();
    running.stop().await;
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
}

/// The status is handed on as its own kind, unchanged, once there was a measurement; a device without one is asked on.
#[tokio::test]
async fn the_status_comes_behind_a_measurement() {
    const STATUS: &str = "{ \"sma_status_id\" : 2 }\n";
    let device = Scripted::start(|head, number| match head.contains("status") {
        true => (ok(STATUS), true),
        false => (ok(&document(number, number)), true),
    })
    .await;
    let folder = folder();
    let often = Rest { status_interval: Some(Duration::from_millis(60)), ..settings(device.port) };
    let mut running = Running::start(often.clone(), folder.path());
    let mut topics = Vec::new();
    while topics.iter().filter(|topic| *topic == "status").count() < 2 {
        let raw = running.next().await;
        if raw.topic == "status" {
            assert_eq!((&raw.payload[..], raw.kind), (STATUS.as_bytes(), Kind::Status));
        }
        topics.push(raw.topic);
        raw.receipt.redeem();
    }
    assert_eq!(topics[..2], ["measurement", "status"]);
    running.stop().await;
    let without = Scripted::start(|head, number| match head.contains("status") {
        true => (status("404 Not Found"), true),
        false => (ok(&document(number, number)), true),
    })
    .await;
    let mut running = Running::start(Rest { port: without.port, ..often }, folder.path());
    for _ in 0..10 {
        assert!(running.stored().await.contains("90296857"));
    }
    assert!(running.metrics.failed_polls.get() >= 2 && running.metrics.connected.get());
    running.stop().await;
}

/// A simulated device on TLS.
struct Simulated {
    port: u16,
    fingerprint: [u8; 32],
    shutdown: Shutdown,
}

impl Drop for Simulated {
    fn drop(&mut self) {
        self.shutdown.ask();
    }
}

impl Simulated {
    async fn start(port: u16) -> Self {
        let identity = Identity::new().expect("a certificate");
        let fingerprint = identity.fingerprint().expect("one");
        let options = simulated::Options {
            listen: ([127, 0, 0, 1], port).into(),
            token: Some("abcdefghijklmnopqrstuvwxyz012345".to_owned()),
            identity: Some(identity),
            firmware: Firmware::Old,
            interval: Duration::from_millis(30),
            seed: 1,
            index: 0,
            start_ms: 1_782_000_000_000,
            fault: None,
        };
        let server = simulated::bind(options, Arc::new(|_| {})).await.expect("a free port");
        let (port, shutdown) = (server.local_addr().expect("an address").port(), Shutdown::new());
        tokio::spawn(server.run(shutdown.clone()));
        Self { port, fingerprint, shutdown }
    }
}

/// Promise 9: a pinned device is read; with another certificate nothing is believed, and a device that is trusted at first
/// use is known again after a restart, and another in its place is refused.
#[tokio::test]
async fn another_certificate_is_refused() {
    let device = Simulated::start(0).await;
    let folder = folder();
    let with = |trust| Rest { trust: Some(trust), interval: Duration::from_millis(30), ..settings(device.port) };
    let mut pinned = Running::start(with(Trust::Fingerprint(device.fingerprint)), folder.path());
    pinned.stored().await;
    pinned.stored().await;
    assert_eq!(pinned.metrics.connects.get(), 1, "kept alive over TLS");
    pinned.stop().await;
    for wrong in [Trust::Fingerprint([7; 32]), Trust::Authorities(None)] {
        let running = Running::start(with(wrong), folder.path());
        running.until("refusals", |metrics| metrics.failed_polls.get() >= 2).await;
        assert_eq!(running.metrics.received.get(), 0);
        running.stop().await;
    }
    let mut first = Running::start(with(Trust::FirstUse), folder.path());
    first.stored().await;
    first.stop().await;
    let kept = std::fs::read_to_string(super::rest::memory_of(folder.path(), "meter")).expect("remembered");
    assert!(kept.contains(&crate::config::show_fingerprint(&device.fingerprint)), "{kept}");
    let again = Rest { trust: Some(Trust::FirstUse), ..settings(device.port) };
    drop(device);
    let port = again.port;
    let impostor = loop {
        // The port is free once the first has ended.
        match std::net::TcpListener::bind(("127.0.0.1", port)) {
            Ok(listener) => {
                drop(listener);
                break Simulated::start(port).await;
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    assert_eq!(impostor.port, port);
    let refused = Running::start(again, folder.path());
    refused.until("refusals", |metrics| metrics.failed_polls.get() >= 2).await;
    assert_eq!(refused.metrics.received.get(), 0);
    refused.stop().await;
}

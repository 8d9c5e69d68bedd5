//! The queue's cost: an append at 1, 20 and 1,000 readings a commit against a bare write + fdatasync loop in the same
//! folder, with bytes written and flushes; opening after a kill with nothing and with 1 GB waiting; decoding.
//!
//! `cargo bench --bench queue`; `METERFERRY_BENCH_FOLDER` names the folder to write in (an SD card, say).

use std::cell::OnceCell;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use meterferry::clock::Clock;
use meterferry::config::settings::{Payload, WhenFull};
use meterferry::decode;
use meterferry::metrics::Metrics;
use meterferry::queue::{self, Intake, Queue};
use meterferry::reading::{Body, Kind, Mark, Reading};
use meterferry::receipt::{Receipt, Ticket};
use meterferry::simulate::adapter;
use tempfile::TempDir;

/// Bytes of the adapter's document, as it is on average.
const SIZE: usize = 450;
/// Of a backlog's records.
const BACKLOG: u64 = 1 << 30;

/// The writer waits here after each of its rounds, so that a batch is complete before it looks.
#[derive(Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    parked: bool,
    open: bool,
    /// Never parks.
    free: bool,
}

impl Gate {
    fn park(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.free {
            return;
        }
        state.parked = true;
        self.changed.notify_all();
        while !state.open && !state.free {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.parked = false;
        state.open = false;
    }

    fn wait_parked(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !state.parked {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn open(&self, free: bool) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.open = true;
        state.free = free;
        // The next wait is for the next round's end.
        state.parked = false;
        self.changed.notify_all();
    }
}

fn folder() -> TempDir {
    let root = std::env::var_os("METERFERRY_BENCH_FOLDER")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    fs::create_dir_all(&root).expect("a folder to write in");
    tempfile::Builder::new().prefix("bench-").tempdir_in(root).expect("a folder to write in")
}

fn options(path: &Path) -> queue::Options {
    queue::Options {
        path: path.to_owned(),
        max_size: 64 << 30,
        min_free: 0,
        when_full: WhenFull::Block,
        segment_size: 16 << 20,
        pack_after: queue::PACK_AFTER,
        redelivery_window: 1_000,
        windows: std::collections::BTreeMap::new(),
        max_dead_letters: 16 << 20,
        dead_letters_max_age: None,
        keeps_wear: false,
        agent_id: None,
        default_agent_id: "bench".to_owned(),
        hardware_serial: None,
    }
}

fn open(path: &Path, gate: &Arc<Gate>) -> Queue {
    let metrics = Metrics::new([&"meter".into()].into_iter());
    let gate = Arc::clone(gate);
    queue::open(&options(path), metrics, Clock::new(), Arc::new(move || gate.park())).expect("the queue opens")
}

fn message(number: u64) -> (Body, Mark) {
    let mut payload = format!("{{\"name\":\"90296857\",\"sma_time\":{number}.0,\"x\":\"");
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while payload.len() < SIZE - 2 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        payload.push(char::from(b'a' + (state >> 59) as u8 % 26));
    }
    payload.push_str("\"}");
    let mark = Mark::of("", Some(1), "sma", payload.as_bytes(), true);
    let reading = Reading {
        source: "meter".into(),
        device: "90296857".to_owned(),
        topic: "sma".to_owned(),
        sender: String::new(),
        packet_id: Some(1),
        received: Clock::new().now(),
        measured_ms: None,
        self_identified: true,
        json: true,
        kind: Kind::default(),
        marks: Vec::new(),
        payload: Bytes::from(payload),
    };
    (Body::Reading(reading), mark)
}

/// A queue whose writer commits exactly what it is given at a time.
struct Appender {
    gate: Arc<Gate>,
    queue: Option<Queue>,
    intake: Option<Intake>,
    runtime: tokio::runtime::Runtime,
    number: u64,
    counter: tokio::sync::mpsc::Sender<Ticket>,
    tickets: tokio::sync::mpsc::Receiver<Ticket>,
}

impl Appender {
    fn new(path: &Path) -> Self {
        let gate = Arc::new(Gate::default());
        let queue = open(path, &gate);
        let intake = queue.intake.clone();
        let (counter, tickets) = tokio::sync::mpsc::channel(1_000);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        Self { gate, queue: Some(queue), intake: Some(intake), runtime, number: 0, counter, tickets }
    }

    /// Commits `count` readings at once, and returns how long the writer took.
    fn commit(&mut self, count: usize) -> Duration {
        let before = self.number;
        self.number += count as u64;
        self.commit_of(count, |number| message(before + number + 1))
    }

    /// The same with messages of another kind, which are numbered from 0.
    fn commit_of(&mut self, count: usize, mut message: impl FnMut(u64) -> (Body, Mark)) -> Duration {
        self.gate.wait_parked();
        let intake = self.intake.as_ref().expect("open");
        for ordinal in 0..count {
            let (body, mark) = message(ordinal as u64);
            let receipt = Receipt::new(self.counter.clone(), Ticket { connection: 1, ordinal: ordinal as u64 });
            self.runtime.block_on(intake.append(body, mark, receipt, Duration::ZERO)).expect("the queue takes it");
        }
        let start = Instant::now();
        self.gate.open(false);
        self.gate.wait_parked();
        let took = start.elapsed();
        for _ in 0..count {
            self.tickets.try_recv().expect("committed, so acknowledged");
        }
        took
    }

    fn close(mut self) {
        self.gate.open(true);
        drop(self.intake.take());
        let Queue { intake, outlet, writer, .. } = self.queue.take().expect("open");
        drop((intake, outlet));
        writer.join().expect("an orderly end");
    }
}

/// The bare loop: as many bytes of records, one write and one fdatasync a commit.
struct Raw {
    file: File,
    block: Vec<u8>,
}

impl Raw {
    fn new(folder: &Path, count: usize) -> Self {
        let file = File::create(folder.join("raw")).expect("a file");
        Self { file, block: vec![b'x'; count * SIZE] }
    }

    fn commit(&mut self) -> Duration {
        let start = Instant::now();
        self.file.write_all(&self.block).expect("room");
        self.file.sync_data().expect("a disk");
        start.elapsed()
    }
}

/// Bytes this process has had written, and flushes that the disk below `folder` has done for everybody.
fn disk(folder: &Path) -> (u64, Option<u64>) {
    let io = fs::read_to_string("/proc/self/io").unwrap_or_default();
    let written = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.parse().ok()).unwrap_or(0);
    let flushes = fs::metadata(folder).ok().and_then(|metadata| {
        let device = metadata.dev();
        let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
        let stat = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).ok()?;
        stat.split_whitespace().nth(15)?.parse().ok()
    });
    (written, flushes)
}

type Group<'c> = criterion::BenchmarkGroup<'c, criterion::measurement::WallTime>;

fn append(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append");
    for count in [1, 20, 1_000] {
        group.throughput(Throughput::Elements(count as u64));
        let place = folder();
        let queue = append_to_queue(&mut group, &format!("queue/{count}"), count, place.path(), 0);
        let mut raw = Raw::new(place.path(), count);
        let raw = measure(&mut group, &format!("raw/{count}"), count, place.path(), || raw.commit());
        if queue.is_some() && raw.is_some() {
            paired(count);
        }
    }
    // Must cost what it costs with nothing waiting.
    let place = folder();
    group.throughput(Throughput::Elements(20));
    append_to_queue(&mut group, "queue/20 with 1 GB waiting", 20, place.path(), BACKLOG);
    group.finish();
}

/// The queue and the bare loop in turns, so that both meet the same disk: what the one reaches of the other's rate.
fn paired(count: usize) {
    const ROUNDS: usize = 200;
    let place = folder();
    let (mut queue, mut raw) = (filled(&place.path().join("queue"), 0), Raw::new(place.path(), count));
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        times[0].push(queue.commit(count));
        times[1].push(raw.commit());
    }
    queue.close();
    let [queue, raw] = times.map(|mut times| {
        times.sort_unstable();
        (times.iter().sum::<Duration>().as_secs_f64(), times[ROUNDS / 2].as_secs_f64())
    });
    println!(
        "append/{count}: {:.2} of the bare loop's rate, {:.2} by the medians ({:.3} and {:.3} ms)",
        raw.0 / queue.0,
        raw.1 / queue.1,
        queue.1 * 1e3,
        raw.1 * 1e3
    );
}

/// Seconds a commit of `count` readings to a queue in which `backlog` bytes wait; none where this was not asked for.
fn append_to_queue(group: &mut Group<'_>, name: &str, count: usize, place: &Path, backlog: u64) -> Option<f64> {
    let mut appender = None;
    let seconds = measure(group, name, count, place, || {
        let appender = appender.get_or_insert_with(|| filled(&place.join("queue"), backlog));
        appender.commit(count)
    });
    if let Some(appender) = appender {
        appender.close();
    }
    seconds
}

/// Times `commit`, and reports what it has the disk do. The first call, which sets up, is in none of the figures.
fn measure(
    group: &mut Group<'_>,
    name: &str,
    count: usize,
    place: &Path,
    mut commit: impl FnMut() -> Duration,
) -> Option<f64> {
    let (mut spent, mut commits, mut before) = (Duration::ZERO, 0, None);
    group.bench_function(name, |bencher| {
        before.get_or_insert_with(|| {
            commit();
            disk(place)
        });
        bencher.iter_custom(|rounds| {
            let took = (0..rounds).map(|_| commit()).sum();
            (spent, commits) = (spent + took, commits + rounds);
            took
        });
    });
    report(name, count, commits, spent, before?, disk(place));
    Some(spent.as_secs_f64() / commits as f64)
}

/// A queue in which about `bytes` of records wait.
fn filled(path: &Path, bytes: u64) -> Appender {
    let mut appender = Appender::new(path);
    let mut left = (bytes / SIZE as u64).max(10);
    while left > 0 {
        let count = left.min(1_000);
        appender.commit(usize::try_from(count).expect("small"));
        left -= count;
    }
    appender
}

fn report(
    name: &str,
    count: usize,
    commits: u64,
    spent: Duration,
    before: (u64, Option<u64>),
    after: (u64, Option<u64>),
) {
    let commits = commits.max(1) as f64;
    let bytes = (after.0 - before.0) as f64;
    let flushes = match (before.1, after.1) {
        (Some(before), Some(after)) => {
            format!("{:.2} flushes a commit (all of the disk)", (after - before) as f64 / commits)
        }
        _ => "flushes unknown".to_owned(),
    };
    println!(
        "append/{name}: {:.3} ms and {:.0} bytes written a commit, {:.0} bytes a reading of {SIZE}, {flushes}",
        spent.as_secs_f64() * 1e3 / commits,
        bytes / commits,
        bytes / commits / count as f64,
    );
}

/// A folder as a kill leaves it, with about `bytes` of records waiting: copied while the queue is open.
fn killed(bytes: u64) -> TempDir {
    let place = folder();
    let live = place.path().join("live");
    let appender = filled(&live, bytes);
    appender.gate.wait_parked();
    copy(&live, &place.path().join("killed"));
    appender.close();
    fs::remove_dir_all(live).expect("our own");
    place
}

/// Sealed segments are linked, since nothing writes to them; the rest is copied.
fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a new folder");
    let mut names: Vec<_> =
        fs::read_dir(from).expect("a folder").map(|entry| entry.expect("an entry").file_name()).collect();
    names.sort();
    let segment = |name: &&std::ffi::OsString| {
        let name = name.to_string_lossy();
        name.starts_with('0') && name.ends_with(".redb")
    };
    let active = names.iter().rfind(segment);
    for name in &names {
        let (source, target) = (from.join(name), to.join(name));
        if segment(&name) && Some(name) != active {
            fs::hard_link(source, target).expect("one file system");
        } else {
            fs::copy(source, target).expect("room");
        }
    }
}

fn opening(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("open after a kill");
    group.sample_size(10);
    for (name, bytes) in [("empty", 0), ("1 GB waiting", BACKLOG)] {
        let place = OnceCell::new();
        group.bench_function(name, |bencher| {
            let place: &TempDir = place.get_or_init(|| killed(bytes));
            bencher.iter_custom(|rounds| {
                (0..rounds)
                    .map(|_| {
                        let trial = place.path().join("trial");
                        copy(&place.path().join("killed"), &trial);
                        let gate = Arc::new(Gate::default());
                        gate.open(true);
                        let start = Instant::now();
                        let queue = open(&trial, &gate);
                        let took = start.elapsed();
                        assert!(queue.recovered.end > bytes / SIZE as u64, "all of it is there");
                        let Queue { intake, outlet, writer, .. } = queue;
                        drop((intake, outlet));
                        writer.join().expect("an orderly end");
                        fs::remove_dir_all(trial).expect("our own");
                        took
                    })
                    .sum()
            });
        });
    }
    group.finish();
}

fn decoding(criterion: &mut Criterion) {
    let document = include_bytes!("sma.json");
    let mut group = criterion.benchmark_group("decode");
    group.throughput(Throughput::Bytes(document.len() as u64));
    group.bench_function("sma", |bencher| {
        bencher
            .iter(|| decode::decode(&Payload::Sma, "meter", "sma", std::hint::black_box(document)).expect("decodes"));
    });
    group.finish();
}

/// Of a meter's documents, one a second: how fast they pack, how small they become, and how fast they are read again.
fn packing(criterion: &mut Criterion) {
    const READINGS: u64 = 100_000;
    let mut group = criterion.benchmark_group("pack");
    group.sample_size(10);
    group.throughput(Throughput::Elements(READINGS));
    let place = OnceCell::new();
    group.bench_function("100,000 readings", |bencher| {
        let place: &TempDir = place.get_or_init(|| backlog_of_documents(READINGS));
        bencher.iter_custom(|rounds| {
            (0..rounds)
                .map(|_| {
                    let trial = place.path().join("trial");
                    copy(&place.path().join("queue"), &trial);
                    let before = disk(place.path()).0;
                    let start = Instant::now();
                    let done = queue::pack(&trial, &mut |_| true).expect("packed");
                    let took = start.elapsed();
                    let written = disk(place.path()).0 - before;
                    let readings = sealed_readings(&trial);
                    println!(
                        "pack: {:.1} bytes a reading, before {:.1}, {:.1} written for it; {:.1} MB/s",
                        done.after as f64 / readings,
                        done.before as f64 / readings,
                        written as f64 / readings,
                        done.before as f64 / 1e6 / took.as_secs_f64()
                    );
                    fs::remove_dir_all(trial).expect("our own");
                    took
                })
                .sum()
        });
    });
    group.finish();
}

/// Readings in the sealed segments of a folder.
fn sealed_readings(path: &Path) -> f64 {
    let names = fs::read_dir(path).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    let firsts = names.filter_map(|name| name.to_str()?.strip_suffix(".redb")?.parse::<u64>().ok());
    let (oldest, newest) = firsts.fold((u64::MAX, 0), |(oldest, newest), first| (oldest.min(first), newest.max(first)));
    (newest - oldest) as f64
}

fn backlog_of_documents(readings: u64) -> TempDir {
    let place = folder();
    let mut appender = Appender::new(&place.path().join("queue"));
    let options =
        adapter::Options { seed: 11, index: 0, name: None, start_ms: 1_782_000_000_000, step: Duration::from_secs(1) };
    let mut meter = adapter::Adapter::new(&options);
    for first in (0..readings).step_by(1_000) {
        appender.commit_of(1_000, |number| {
            let (Body::Reading(mut reading), mark) = message(first + number) else { unreachable!("it is a reading") };
            reading.payload = Bytes::from(meter.document());
            let second = first + number;
            reading.packet_id = Some((second % 65_535 + 1) as u16);
            reading.measured_ms = Some(options.start_ms + second as i64 * 1000);
            // Received within 40 ms after it was measured.
            let late = (second.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) % 40;
            reading.received.wall_ms = options.start_ms + (second * 1000 + late) as i64;
            reading.received.boot_ms = 90_000 + second * 1000 + late;
            (Body::Reading(reading), mark)
        });
    }
    appender.close();
    place
}

criterion_group!(benches, append, opening, packing, decoding);
criterion_main!(benches);

//! Promises 1 to 4 over the whole line in one process: a broker's session, decoding, redelivery, the queue on a simulated
//! disk, the forwarder, and a Kafka whose every call may fail; with lost connections, kills and power cuts at any write.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use meterferry::agent::backlog::QueueBacklog;
use meterferry::agent::ingest::{self, Ingest};
use meterferry::clock::Clock;
use meterferry::config::settings::{Format, Payload, Privacy, WhenFull};
use meterferry::forwarder::advice::Names;
use meterferry::forwarder::batch::Allowance;
use meterferry::forwarder::timestamp::TopicLimits;
use meterferry::forwarder::transfer::{Parts, Transfer};
use meterferry::metrics::Metrics;
use meterferry::queue::{self, Intake, Queue, WriterThread};
use meterferry::reading::{Kind, Received};
use meterferry::receipt::{Receipt, Ticket};
use meterferry::shutdown::Shutdown;
use meterferry::source::redelivery::Window;
use meterferry::source::{Delivery, Raw};
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::sync::mpsc;

use crate::broker::{self, Broker};
use crate::disk::SimulatedDisk;
use crate::gate::Gate;
use crate::life::FOLDER;
use crate::medium::Medium;
use crate::message::SOURCE;
use crate::model_kafka::{FakeCluster, cluster, explained, values};
use crate::scale::scale;
use crate::strands;
use crate::tree::Tree;

const NOW: Received = Received { wall_ms: 1_800_000_000_000, boot_ms: 5_000, boot_id: 1, synchronised: true };
const LIMITS: TopicLimits = TopicLimits { retention_ms: Some(604_800_000), before_max_ms: None, compact: false };
const DEVICES: [&str; 2] = ["90296857", "90296858"];

/// Steps of one history.
const STEPS: usize = 60;

/// Rounds within which everything is in Kafka once nothing fails any more.
const PATIENCE: usize = 5_000;

/// Receipts as the broker's connection sees them, and when.
#[derive(Default)]
struct Receipts {
    back: Vec<Ticket>,
    tickets: Option<mpsc::Receiver<Ticket>>,
}

impl Receipts {
    fn count(&mut self) -> usize {
        while let Some(Ok(ticket)) = self.tickets.as_mut().map(mpsc::Receiver::try_recv) {
            self.back.push(ticket);
        }
        self.back.len()
    }
}

/// The agent between two starts.
struct Agent {
    disk: SimulatedDisk,
    gate: Arc<Gate>,
    intake: Intake,
    ingest: Ingest,
    transfer: Transfer,
    metrics: Arc<Metrics>,
    writer: WriterThread,
    receipts: Arc<Mutex<Receipts>>,
    counter: mpsc::Sender<Ticket>,
    /// Of `receipts`, so many have reached the broker.
    told: usize,
    /// For a receipt that only shows that everything before it was dealt with.
    barrier: (mpsc::Sender<Ticket>, mpsc::Receiver<Ticket>),
    runtime: tokio::runtime::Runtime,
}

impl Agent {
    fn start(image: Tree, kafka: &FakeCluster, segment_size: u64, machine: u64) -> Self {
        let (disk, gate) = (SimulatedDisk::new(image), Arc::new(Gate::default()));
        let (counter, tickets) = mpsc::channel(4 * broker::WINDOW);
        let receipts = Arc::new(Mutex::new(Receipts { back: Vec::new(), tickets: Some(tickets) }));
        let witness = Arc::clone(&receipts);
        disk.set_witness(Box::new(move || witness.lock().unwrap_or_else(PoisonError::into_inner).count()));
        let (metrics, passing) = (Metrics::new([&SOURCE.into()].into_iter()), Arc::clone(&gate));
        let opened = queue::open_on(
            Arc::new(disk.clone()),
            &options(segment_size, machine),
            Arc::clone(&metrics),
            Clock::new(),
            Arc::new(move || passing.pass()),
        );
        let Queue { intake, outlet, writer, recovered } = opened.expect("the queue opens by itself");
        let ingest = Ingest::new(ingest::Parts {
            source: SOURCE.into(),
            payload: Payload::Sma,
            format: Format::Original,
            privacy: Privacy::default(),
            max_reading_size: 1 << 20,
            max_dead_size: 1 << 20,
            commit_delay: Duration::ZERO,
            window: Window::new(2 * broker::WINDOW, recovered.marks.get(SOURCE).cloned().unwrap_or_default()),
            intake: intake.clone(),
            metrics: Arc::clone(&metrics.sources[SOURCE]),
            clock: Clock::new(),
        });
        let transfer = Transfer::new(Parts {
            agent_id: "pi".into(),
            topics: [(SOURCE.into(), "t".into())].into(),
            names: Names { topic: "t".into(), ..Names::default() },
            assumed: LIMITS,
            most: Allowance { records: 30, bytes: 1 << 20 },
            linger: Duration::ZERO,
            retry_max_delay: Duration::from_secs(1),
            clock_wait: Duration::ZERO,
            backlog: Box::new(QueueBacklog { outlet, shutdown: Shutdown::new() }),
            cluster: Box::new(kafka.clone()),
            metrics: Arc::clone(&metrics),
            shutdown: Shutdown::new(),
            heartbeat: Arc::new(|| {}),
            now: Box::new(|| NOW),
            random: Box::new(|| 0.5),
        });
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let barrier = mpsc::channel(1);
        Self { disk, gate, intake, ingest, transfer, metrics, writer, receipts, counter, told: 0, barrier, runtime }
    }

    /// Hands in what the broker delivers, up to so many messages, as one group.
    fn receive(&mut self, broker: &mut Broker, count: usize) {
        for _ in 0..count {
            let Some(message) = broker.deliver() else { break };
            let ticket = Ticket { connection: message.connection, ordinal: message.ordinal };
            let raw = Raw {
                kind: Kind::Measured,
                source: SOURCE.into(),
                topic: "sma".into(),
                payload: message.payload,
                received: NOW,
                delivery: Delivery {
                    sender: "".into(),
                    packet_id: Some(message.packet_id),
                    dup: message.dup,
                    retain: false,
                    session: 0,
                },
                receipt: Receipt::new(self.counter.clone(), ticket),
            };
            self.runtime.block_on(self.ingest.take(raw)).expect("the queue takes it");
        }
        self.settle();
    }

    /// One round of the forwarder.
    fn forward(&mut self) {
        self.gate.open();
        self.transfer.round().expect("the queue is there");
        self.settle();
    }

    /// Waits until the writer has done everything, and stands still.
    fn settle(&mut self) {
        self.gate.close();
        let receipt = Receipt::new(self.barrier.0.clone(), Ticket { connection: 0, ordinal: 0 });
        self.runtime.block_on(self.intake.acknowledge(receipt)).expect("the queue is there");
        loop {
            assert!(self.gate.wait(|| self.writer.is_finished()), "the writer has ended");
            if self.barrier.1.try_recv().is_ok() {
                return;
            }
            self.gate.step();
        }
    }

    /// Tells the broker of the receipts that are back, of `limit` at most.
    fn acknowledge(&mut self, broker: &mut Broker, limit: usize) {
        let mut receipts = self.receipts.lock().unwrap_or_else(PoisonError::into_inner);
        let until = receipts.count().min(limit);
        for ticket in receipts.back.get(self.told..until).unwrap_or_default() {
            broker.acknowledge(ticket.connection, ticket.ordinal);
        }
        self.told = self.told.max(until);
    }

    fn is_drained(&self) -> bool {
        self.metrics.queue.release_point.get() >= self.metrics.queue.next_sequence.get()
    }

    /// Kills the process or cuts the power at any change of the medium from `since` on. What the disk holds then.
    fn crash(mut self, since: usize, broker: &mut Broker, random: &mut StdRng) -> Tree {
        let log = self.disk.log();
        let position = random.random_range(since.min(log.ops.len())..=log.ops.len());
        let redeemed = log.acknowledged.get(position).copied().unwrap_or(usize::MAX);
        let mut medium = Medium::new(log.start);
        log.ops[..position].iter().for_each(|op| medium.apply(op));
        let image = if random.random_bool(0.3) { medium.kill() } else { medium.cut(random) };
        // An acknowledgement may be lost on its way.
        let all = self.receipts.lock().unwrap_or_else(PoisonError::into_inner).count().min(redeemed);
        let heard = random.random_range(self.told..=all.max(self.told));
        self.acknowledge(broker, heard);
        broker.cut();
        self.end();
        image
    }

    fn end(self) {
        self.gate.open();
        let Self { intake, ingest, transfer, writer, .. } = self;
        drop((intake, ingest, transfer));
        let _ = writer.join();
    }
}

fn options(segment_size: u64, machine: u64) -> queue::Options {
    queue::Options {
        path: PathBuf::from(FOLDER),
        max_size: 1 << 30,
        min_free: 0,
        when_full: WhenFull::Block,
        segment_size,
        pack_after: queue::PACK_AFTER,
        redelivery_window: 2 * broker::WINDOW,
        windows: BTreeMap::new(),
        max_dead_letters: 1 << 30,
        dead_letters_max_age: None,
        keeps_wear: true,
        agent_id: None,
        default_agent_id: "model-0a1b2c".into(),
        hardware_serial: Some(format!("machine {machine}")),
    }
}

/// What the adapters publish.
struct Adapters {
    serial: u64,
    /// Documents say which one they are.
    identified: bool,
    /// In the order of publishing; those that cannot be decoded are not among them.
    readings: Vec<String>,
}

impl Adapters {
    fn publish(&mut self, broker: &mut Broker, random: &mut StdRng) {
        self.serial += 1;
        let serial = self.serial;
        if random.random_bool(0.05) {
            broker.publish(Bytes::from(format!("no document {serial}")));
            return;
        }
        let device = DEVICES[random.random_range(0..DEVICES.len())];
        let time = if self.identified { format!(r#","sma_time":{serial}.5"#) } else { String::new() };
        let filling = "x".repeat(if random.random_bool(0.02) { 5_000 } else { random.random_range(0..300) });
        let text = format!(
            r#"{{"1-0:1.8.0":{{"value":{serial},"time":1795418932}},"api_version":"{filling}","name":"{device}"{time}}}"#
        );
        broker.publish(Bytes::from(text.clone()));
        self.readings.push(text);
    }
}

/// Promises 1, 2, 3, 4: whatever is cut, killed or refused, wherever and however often: every reading that the broker ever
/// had is in Kafka exactly once and in order, and every sequence is there or explained; also when the card goes into another
/// machine.
#[test]
fn every_reading_is_in_kafka_once() {
    let (histories, crashes) = (scale(600, 60_000), AtomicU64::new(0));
    strands::run(histories, |strand, random| {
        crashes.fetch_add(play(strand, random), Ordering::Relaxed);
    });
    let crashes = crashes.into_inner();
    eprintln!("{histories} histories, {crashes} crashes");
    assert!(crashes > histories);
}

/// One history; how often the agent was killed or lost its power.
fn play(strand: u64, random: &mut StdRng) -> u64 {
    let segment_size = [16 << 10, 32 << 10, 128 << 10][random.random_range(0..3)];
    let mut adapters = Adapters { serial: 0, identified: random.random(), readings: Vec::new() };
    let (mut broker, kafka) = (Broker::new(), cluster(random.random(), random.random_range(8..80)));
    // Where the disk was when Kafka last took something: a cut cannot come before that.
    let (disk, committed_at) = (Arc::new(Mutex::new(None::<SimulatedDisk>)), Arc::new(AtomicUsize::new(0)));
    let (seen, at) = (Arc::clone(&disk), Arc::clone(&committed_at));
    lock(&kafka.0).on_commit = Some(Box::new(move || {
        at.store(lock(&seen).as_ref().map_or(0, SimulatedDisk::position), Ordering::SeqCst);
    }));
    let start = |image, machine| {
        let agent = Agent::start(image, &kafka, segment_size, machine);
        *lock(&disk) = Some(agent.disk.clone());
        agent
    };
    let (mut machine, mut crashes) = (0, 0);
    let mut agent = start(Tree::root("/data"), machine);
    for _ in 0..STEPS {
        let since = agent.disk.position();
        committed_at.store(since, Ordering::SeqCst);
        let mut crash = false;
        match random.random_range(0..100) {
            0..25 => (0..random.random_range(1..6)).for_each(|_| adapters.publish(&mut broker, random)),
            25..55 => {
                agent.receive(&mut broker, random.random_range(1..=broker::WINDOW));
                crash = random.random_bool(0.08);
            }
            55..90 => {
                agent.forward();
                crash = std::mem::take(&mut lock(&kafka.0).crashed) || random.random_bool(0.05);
            }
            90..96 => broker.cut(),
            _ if adapters.identified => broker.kill(),
            _ => crash = true,
        }
        if crash {
            crashes += 1;
            // Now and then the card goes into another machine, where the queue takes a new id.
            machine += u64::from(random.random_bool(0.1));
            agent = start(agent.crash(committed_at.load(Ordering::SeqCst), &mut broker, random), machine);
        } else if random.random_bool(0.8) {
            agent.acknowledge(&mut broker, usize::MAX);
        }
    }
    heal(&mut agent, &mut broker, &kafka, strand);
    judge(&agent, &kafka, &adapters, strand);
    agent.end();
    crashes
}

/// Nothing fails any more: everything arrives.
fn heal(agent: &mut Agent, broker: &mut Broker, kafka: &FakeCluster, strand: u64) {
    lock(&kafka.0).faults = 0;
    for _ in 0..PATIENCE {
        if broker.is_empty() && agent.is_drained() {
            return;
        }
        agent.receive(broker, broker::WINDOW);
        agent.acknowledge(broker, usize::MAX);
        agent.forward();
    }
    panic!("strand {strand}: not everything arrives");
}

fn judge(agent: &Agent, kafka: &FakeCluster, adapters: &Adapters, strand: u64) {
    let world = lock(&kafka.0);
    let arrived = values(&world.log);
    let missing = adapters.readings.iter().filter(|reading| !arrived.contains(reading)).count();
    assert_eq!((missing, arrived.len()), (0, adapters.readings.len()), "strand {strand}: lost, or repeated");
    for device in DEVICES {
        let of = |all: &[String]| all.iter().filter(|text| text.contains(device)).cloned().collect::<Vec<_>>();
        assert_eq!(of(&arrived), of(&adapters.readings), "strand {strand}: out of order");
    }
    let ids: BTreeSet<_> = world.log.iter().map(|(record, _)| &record.headers.id).collect();
    assert_eq!(ids.len(), world.log.len(), "strand {strand}: an id came twice");
    let sequences: Vec<_> = world.log.iter().map(|(record, _)| &record.headers.sequence).collect();
    assert!(sequences.is_sorted(), "strand {strand}: sequences go back");
    let (there, end) = (explained(&world.log), agent.metrics.queue.next_sequence.get());
    assert!((1..end).all(|sequence| there.contains(&sequence)), "strand {strand}: a sequence is not explained");
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! A Kafka of one broker whose every call may fail before or after it took effect: for tests that drive the forwarder's loop.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use meterferry::forwarder::cluster::{Cluster, Failure, Session};
use meterferry::forwarder::outcome::{Call, Code};
use meterferry::forwarder::record::Record;
use meterferry::forwarder::resume::{Committed, ResumePoint};
use meterferry::forwarder::timestamp::TopicLimits;
use meterferry::reading::{CE_TYPE_GAP, CE_TYPE_READING, CE_TYPE_RECEIPT};

/// Larger receipts are refused, as by a topic that takes only small records.
const LARGEST_RECEIPT: usize = 600;

/// SplitMix64: the same seed gives the same run on every machine.
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

#[derive(Debug, Default)]
pub struct Transaction {
    epoch: u64,
    open: bool,
    pending: Vec<(Record, i64)>,
}

/// What Kafka holds.
pub struct World {
    pub dice: Dice,
    /// One call in so many fails; 0: none.
    pub faults: u64,
    pub crashed: bool,
    /// Every gap record is refused.
    pub no_gaps: bool,
    pub log: Vec<(Record, i64)>,
    transactions: BTreeMap<String, Transaction>,
    pub groups: BTreeMap<String, Committed>,
    /// Called when a transaction takes effect.
    pub on_commit: Option<Box<dyn FnMut() + Send>>,
}

#[derive(Clone)]
pub struct FakeCluster(pub Arc<Mutex<World>>);

struct FakeSession {
    world: Arc<Mutex<World>>,
    id: String,
    epoch: u64,
}

/// Before or after the call took effect.
#[derive(PartialEq)]
enum Fault {
    None,
    Before,
    After,
}

fn failure(call: Call, code: Code) -> Failure {
    Failure { call, code, topic: None, detail: "injected".into() }
}

impl World {
    fn fault(&mut self) -> Fault {
        if self.faults == 0 || self.dice.below(self.faults) != 0 {
            return Fault::None;
        }
        self.crashed = self.dice.below(3) == 0;
        if self.dice.below(2) == 0 { Fault::Before } else { Fault::After }
    }
}

impl FakeSession {
    /// Does `act` under the fault that the dice choose; a producer of an older epoch is fenced.
    fn call<T>(
        &mut self,
        call: Call,
        act: impl FnOnce(&mut Transaction, &mut Vec<(Record, i64)>) -> T,
    ) -> Result<T, Failure> {
        let mut world = self.world.lock().expect("nobody has panicked with it");
        let fault = world.fault();
        let codes = [Code::OperationTimedOut, Code::NetworkException, Code::AllBrokersDown, Code::UnknownProducerId];
        let code = codes[world.dice.below(4) as usize];
        if fault == Fault::Before {
            return Err(failure(call, code));
        }
        let World { transactions, log, .. } = &mut *world;
        let transaction =
            transactions.get_mut(&self.id).ok_or_else(|| failure(call, Code::InvalidProducerIdMapping))?;
        if transaction.epoch != self.epoch {
            return Err(failure(call, Code::ProducerFenced));
        }
        let done = act(transaction, log);
        if fault == Fault::After { Err(failure(call, code)) } else { Ok(done) }
    }
}

impl Cluster for FakeCluster {
    fn learn(&mut self, _: &BTreeSet<Arc<str>>) {}

    fn connect(&mut self, group: &str) -> Result<Box<dyn Session>, Failure> {
        if self.0.lock().expect("nobody has panicked with it").fault() != Fault::None {
            return Err(failure(Call::Topics, Code::BrokerTransportFailure));
        }
        Ok(Box::new(FakeSession { world: Arc::clone(&self.0), id: group.into(), epoch: 0 }))
    }
}

impl Session for FakeSession {
    fn init(&mut self) -> Result<(), Failure> {
        let mut world = self.world.lock().expect("nobody has panicked with it");
        let transaction = world.transactions.entry(self.id.clone()).or_default();
        transaction.epoch += 1;
        transaction.open = false;
        transaction.pending.clear();
        self.epoch = transaction.epoch;
        drop(world);
        self.call(Call::Init, |_, _| ())
    }

    fn resume_point(&mut self) -> Result<Option<Committed>, Failure> {
        let mut world = self.world.lock().expect("nobody has panicked with it");
        if world.fault() != Fault::None {
            return Err(failure(Call::ReadResumePoint, Code::CoordinatorNotAvailable));
        }
        Ok(world.groups.get(&self.id).cloned())
    }

    fn limits(&mut self) -> BTreeMap<Arc<str>, Result<TopicLimits, Failure>> {
        BTreeMap::new()
    }

    fn begin(&mut self) -> Result<(), Failure> {
        self.call(Call::Begin, |transaction, _| {
            assert!(!transaction.open, "a transaction was left open and used again");
            transaction.open = true;
        })
    }

    fn produce(&mut self, record: &Record, timestamp_ms: i64) -> Result<(), Failure> {
        self.call(Call::Produce, |transaction, _| {
            assert!(transaction.open);
            transaction.pending.push((record.clone(), timestamp_ms));
        })
    }

    fn settle(&mut self) -> Result<(), Failure> {
        let no_gaps = self.world.lock().expect("nobody has panicked with it").no_gaps;
        let refused = |record: &Record| match record.headers.kind {
            CE_TYPE_GAP => no_gaps,
            CE_TYPE_RECEIPT => record.value.len() > LARGEST_RECEIPT,
            _ => record.value.starts_with(b"BAD"),
        };
        let bad = self.call(Call::Produce, |open, _| open.pending.iter().any(|(record, _)| refused(record)))?;
        // As Kafka does: the error is the whole batch's.
        if bad { Err(failure(Call::Produce, Code::MessageSizeTooLarge)) } else { Ok(()) }
    }

    fn commit(&mut self, point: &ResumePoint) -> Result<(), Failure> {
        let committed = Committed { offset: point.next, metadata: point.to_string() };
        let (world, id) = (Arc::clone(&self.world), self.id.clone());
        let done = self.call(Call::Commit, |transaction, log| {
            assert!(transaction.open);
            transaction.open = false;
            log.append(&mut transaction.pending);
            true
        });
        // The same transaction: it took effect if the records did.
        let mut world = world.lock().expect("nobody has panicked with it");
        let took_effect = world.transactions.get(&id).is_some_and(|t| t.epoch == self.epoch && !t.open);
        if took_effect {
            if let Some(hook) = &mut world.on_commit {
                hook();
            }
            world.groups.insert(id, committed);
        }
        done.map(|_| ())
    }

    fn idle(&mut self) -> Result<(), Failure> {
        Ok(())
    }
}

/// One call in `faults` fails.
pub fn cluster(seed: u64, faults: u64) -> FakeCluster {
    FakeCluster(Arc::new(Mutex::new(World {
        dice: Dice(seed),
        faults,
        crashed: false,
        no_gaps: false,
        log: vec![],
        transactions: BTreeMap::new(),
        groups: BTreeMap::new(),
        on_commit: None,
    })))
}

/// The sequences that `log` has a record for, or explains.
pub fn explained(log: &[(Record, i64)]) -> BTreeSet<u64> {
    let mut all = BTreeSet::new();
    for (record, _) in log {
        all.insert(record.headers.sequence.parse::<u64>().expect("a sequence is a number"));
        if record.headers.kind == CE_TYPE_GAP {
            let gap: serde_json::Value = serde_json::from_slice(&record.value).expect("a gap is JSON");
            all.extend(gap["first"].as_u64().expect("a number")..=gap["last"].as_u64().expect("a number"));
        }
    }
    all
}

pub fn values(log: &[(Record, i64)]) -> Vec<String> {
    let readings = log.iter().filter(|(record, _)| record.headers.kind == CE_TYPE_READING);
    readings.map(|(record, _)| String::from_utf8(record.value.to_vec()).expect("text")).collect()
}

//! One life of a queue on a simulated disk: opened, used, ended; and what it did, in the ledger.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use meterferry::clock::Clock;
use meterferry::config::settings::WhenFull;
use meterferry::metrics::Metrics;
use meterferry::queue::{self, Intake, OpenError, Outlet, Queue, QueueError, Recovered, WriterThread};
use meterferry::reading::{Body, DeadLetter, Entry};
use meterferry::receipt::{Receipt, Ticket};
use tokio::sync::mpsc;

use crate::disk::SimulatedDisk;
use crate::gate::Gate;
use crate::history::TIGHT;
use crate::ledger::{Ledger, Register, WINDOW, Written};
use crate::message;
use crate::tree::Inode;

/// Where the queue lies on every simulated disk.
pub const FOLDER: &str = "/data/queue";
/// Messages in one group at most.
pub const GROUP: u64 = 300;

/// Receipts that may stand before a queue without room.
const BARRIERS: usize = 1_000;

/// What a queue is opened with.
#[derive(Debug, Clone)]
pub struct Setting {
    pub segment_size: u64,
    pub max_size: u64,
    pub when_full: WhenFull,
    /// Sealed segments are packed as soon as more than a few wait, by a thread that is not driven step by step.
    pub packs: bool,
}

impl Setting {
    /// Whether there is hardly room for anything.
    pub fn is_tight(&self) -> bool {
        self.max_size == TIGHT
    }

    /// Whether it is full after a few groups.
    pub fn is_small(&self) -> bool {
        self.max_size < 1 << 30
    }

    fn options(&self) -> queue::Options {
        queue::Options {
            path: PathBuf::from(FOLDER),
            max_size: self.max_size,
            min_free: 0,
            when_full: self.when_full,
            segment_size: self.segment_size,
            pack_after: if self.packs { Duration::ZERO } else { queue::PACK_AFTER },
            redelivery_window: WINDOW,
            windows: BTreeMap::new(),
            max_dead_letters: 1 << 30,
            dead_letters_max_age: None,
            keeps_wear: true,
            agent_id: None,
            default_agent_id: "model-0a1b2c".into(),
            hardware_serial: Some("serial".into()),
        }
    }
}

/// Acknowledgements as the sender sees them.
struct Acknowledgements {
    tickets: mpsc::Receiver<Ticket>,
    count: usize,
    in_order: bool,
}

impl Acknowledgements {
    fn count(&mut self) -> usize {
        while let Ok(ticket) = self.tickets.try_recv() {
            self.in_order &= ticket.ordinal == self.count as u64;
            self.count += 1;
        }
        self.count
    }
}

pub struct Life {
    pub disk: SimulatedDisk,
    pub ledger: Ledger,
    pub metrics: Arc<Metrics>,
    pub recovered: Recovered,
    pub outlet: Option<Outlet>,
    intake: Option<Intake>,
    writer: Option<WriterThread>,
    gate: Arc<Gate>,
    acknowledgements: Arc<Mutex<Acknowledgements>>,
    counter: mpsc::Sender<Ticket>,
    /// For a receipt that only shows that everything handed in before it was dealt with.
    barrier: (mpsc::Sender<Ticket>, mpsc::Receiver<Ticket>),
    /// Those that did not come back yet.
    barriers: usize,
    runtime: tokio::runtime::Runtime,
    handed_in: u64,
    /// Files that the start had to remove.
    unfinished: Vec<(PathBuf, Inode)>,
    /// What the queue is asked for may fail without a word.
    pub doubtful: bool,
}

impl Life {
    /// Opens the queue. The ledger knows of nothing that was written before.
    pub fn open(disk: SimulatedDisk, setting: &Setting) -> Result<Self, OpenError> {
        disk.forget_reads();
        let unfinished = disk.unfinished();
        let (counter, tickets) = mpsc::channel(2 * GROUP as usize);
        let acknowledgements = Arc::new(Mutex::new(Acknowledgements { tickets, count: 0, in_order: true }));
        let witness = Arc::clone(&acknowledgements);
        disk.set_witness(Box::new(move || witness.lock().unwrap_or_else(PoisonError::into_inner).count()));
        let gate = Arc::new(Gate::default());
        let passing = Arc::clone(&gate);
        let metrics = Metrics::new([&message::SOURCE.into()].into_iter());
        let Queue { intake, outlet, writer, recovered } = queue::open_on(
            Arc::new(disk.clone()),
            &setting.options(),
            Arc::clone(&metrics),
            Clock::new(),
            Arc::new(move || passing.pass()),
        )?;
        let ledger = Ledger {
            written: Vec::new(),
            before: 0,
            released: vec![(0, recovered.release_point)],
            told: recovered.release_point,
            id: Register::new(outlet.queue_id()),
            fork_failed: None,
            known: false,
            next_number: 1,
            filters: Register::new(recovered.filters.get(message::SOURCE).cloned().unwrap_or_default()),
            letters: Vec::new(),
            given_up: Vec::new(),
            looked: 0,
            opened: disk.position(),
            closed: None,
        };
        Ok(Self {
            disk,
            ledger,
            metrics,
            recovered,
            outlet: Some(outlet),
            intake: Some(intake),
            writer: Some(writer),
            gate,
            acknowledgements,
            counter,
            barrier: mpsc::channel(BARRIERS),
            barriers: 0,
            runtime: tokio::runtime::Builder::new_current_thread().build().expect("a runtime"),
            handed_in: 0,
            unfinished,
            doubtful: false,
        })
    }

    pub fn outlet(&mut self) -> &mut Outlet {
        self.outlet.as_mut().expect("the queue is open")
    }

    /// Files that the start should have removed, and has not.
    pub fn unfinished(&self) -> Vec<PathBuf> {
        let now = self.disk.unfinished();
        let left = self.unfinished.iter().filter(|file| now.contains(file));
        left.map(|(path, _)| path.clone()).collect()
    }

    fn has_ended(&self) -> bool {
        self.writer.as_ref().is_none_or(WriterThread::is_finished)
    }

    /// Whether the writer ends: waits until it stands still otherwise.
    pub fn ends(&mut self) -> bool {
        self.settle().is_err()
    }

    /// Messages of this life that were acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.acknowledgements.lock().unwrap_or_else(PoisonError::into_inner).count()
    }

    pub fn acknowledged_in_order(&self) -> bool {
        self.acknowledgements.lock().unwrap_or_else(PoisonError::into_inner).in_order
    }

    /// Waits until everything asked so far is done, and the writer stands still. An error where it has ended.
    pub fn settle(&mut self) -> Result<(), QueueError> {
        self.gate.close();
        let receipt = Receipt::new(self.barrier.0.clone(), Ticket { connection: 0, ordinal: 0 });
        let intake = self.intake.as_ref().ok_or(QueueError::Stopped)?;
        self.runtime.block_on(intake.acknowledge(receipt))?;
        self.barriers += 1;
        // Without room nothing comes back; a command is dealt with in the second round at the latest.
        let mut rounds_without_room = 0;
        loop {
            if !self.gate.wait(|| self.has_ended()) {
                return Err(QueueError::Stopped);
            }
            while self.barrier.1.try_recv().is_ok() {
                self.barriers -= 1;
            }
            if self.barriers == 0 || rounds_without_room == 2 {
                self.ledger.look(&self.disk.live(), self.disk.position());
                return Ok(());
            }
            if self.is_blocked() {
                rounds_without_room += 1;
            }
            self.gate.step();
        }
    }

    /// Whether the queue has said that it has no room.
    pub fn is_blocked(&self) -> bool {
        self.metrics.queue.blocked.get()
    }

    /// Lets the writer run, as it has to when it is waited for.
    pub fn run_freely(&self) {
        self.gate.open();
    }

    /// Hands in messages, which the standing writer will find all at once.
    pub fn hand_in(&mut self, count: u64) -> Result<(), QueueError> {
        let intake = self.intake.as_ref().ok_or(QueueError::Stopped)?;
        for _ in 0..count {
            // Rising over all lives, so that no two messages are the same.
            let number = self.ledger.next_number;
            self.ledger.next_number += 1;
            let receipt = Receipt::new(self.counter.clone(), Ticket { connection: 1, ordinal: self.handed_in });
            let (body, mark) = (message::body(number), message::mark(number));
            self.runtime.block_on(intake.append(body, mark, receipt, Duration::ZERO))?;
            self.handed_in += 1;
            self.ledger.written.push(Written { number, carried: self.ledger.release_point() });
        }
        Ok(())
    }

    /// Appends messages as one group.
    pub fn append(&mut self, count: u64) -> Result<(), QueueError> {
        self.hand_in(count)?;
        self.settle()
    }

    pub fn release(&mut self, next: u64) -> Result<(), QueueError> {
        let position = self.disk.position();
        self.ledger.released.push((position, next.max(self.ledger.release_point())));
        self.outlet().release(next)?;
        self.settle()
    }

    pub fn set_aside(&mut self, entries: &[Entry]) -> Result<(), QueueError> {
        let queue_id = self.outlet().queue_id();
        let letter = |entry: &Entry| DeadLetter {
            queue_id,
            sequence: entry.sequence,
            reason: "refused".into(),
            set_aside: message::received(entry.sequence),
            body: entry.body.clone(),
        };
        let letters: Vec<DeadLetter> = entries.iter().map(letter).collect();
        self.run_freely();
        self.outlet().set_aside(letters.clone())?;
        self.settle()?;
        let position = self.disk.position();
        self.ledger.letters.extend(letters.into_iter().map(|letter| (position, letter)));
        Ok(())
    }

    pub fn fork(&mut self) -> Result<(), QueueError> {
        let begun = self.disk.position();
        self.run_freely();
        let id = self.outlet().fork("the model says so").inspect_err(|_| {
            self.ledger.fork_failed.get_or_insert(begun);
        })?;
        // It is told, whatever comes next.
        let settled = self.settle();
        self.ledger.id.change(begun, self.disk.position(), id);
        settled
    }

    pub fn remember_filters(&mut self, filters: Vec<String>) -> Result<(), QueueError> {
        let begun = self.disk.position();
        let intake = self.intake.as_ref().ok_or(QueueError::Stopped)?;
        self.runtime.block_on(intake.remember_filters(message::SOURCE, filters.clone()))?;
        let settled = self.settle();
        let done = if self.doubtful { usize::MAX } else { self.disk.position() };
        self.ledger.filters.change(begun, done, filters);
        settled?;
        Ok(())
    }

    /// Everything from a sequence on.
    pub fn read(&mut self, from: u64) -> Result<Vec<Entry>, QueueError> {
        self.run_freely();
        let outlet = self.outlet.as_mut().ok_or(QueueError::Stopped)?;
        let mut entries: Vec<Entry> = Vec::new();
        let mut next = from;
        while next < outlet.end() {
            let some = outlet.read(next, 500, 1 << 20)?;
            let Some(last) = some.last() else { break };
            next = last.sequence + 1;
            entries.extend(some);
        }
        self.settle()?;
        Ok(entries)
    }

    /// The orderly end.
    pub fn end(&mut self) -> Result<(), QueueError> {
        self.run_freely();
        drop((self.intake.take(), self.outlet.take()));
        let ended = self.writer.take().map_or(Ok(()), WriterThread::join);
        if ended.is_ok() {
            self.ledger.closed = Some(self.disk.position());
        }
        ended
    }
}

impl Drop for Life {
    /// The writer's thread ends too when a test fails.
    fn drop(&mut self) {
        self.gate.open();
    }
}

/// Whether an entry is a gap: something that is missing.
pub fn is_gap(entry: &Entry) -> bool {
    matches!(entry.body, Body::Gap(_))
}

//! The write-ahead queue: every reading is here, on disk, before anybody is told that it was received.
//!
//! # Constraints
//!
//! A cheap SD card, pulled plugs, months offline. So: a commit costs the same few pages whatever waits; opening looks at
//! one file, however long the backlog; space comes back without writing; damage stays where it is; what was once
//! acknowledged is there after a power cut at any write.
//!
//! # The folder
//!
//! ```text
//! queue.toml                  format, queue id, agent id, hardware serial, filters, lost ranges,
//!                             the open day and its ledger                                         (identity)
//! 00000000000000000001.redb   sealed segment: nothing is added to it any more, it may be packed    (segment, pack)
//! 00000000000000031245.redb   active segment: named by its first sequence
//! released                    the release point                                                   (release)
//! dead-letters.redb           made with the first dead letter                                     (dead_letter)
//! rest-<source>               what a source of type rest remembers of its device                   (its own)
//! wear                        what was written to the card over all runs                           (diary)
//! reserve                     room for what must be written even on a full disk                   (reserve)
//! lock                        one agent a folder                                                  (lock)
//! *.redb.damaged-<date>       what a salvage replaced                                             (salvage)
//! *.new                       a creation that a power cut ended; removed at the next start
//! ```
//!
//! # Life cycle
//!
//! A message enters through [`Intake`], waits in the writer's batch, and is committed with everything else that waits;
//! then its receipt is redeemed. At `segment_size` the active segment is closed cleanly and the next begins. An
//! [`Outlet`] reads committed records in order; the release point follows what Kafka has, and a segment whose records
//! are all released is unlinked, after `released` is on disk. Sequences rise for ever: a restart goes on after the newest record;
//! where the newest segment is damaged they jump further than a segment can hold.
//!
//! When the line is down for long, sealed segments are packed: a thread beside the writer makes the packed file, the writer
//! renames it. Where there is no room although all is packed, `queue.when_full` decides ([`relief`]): nothing more is
//! taken, or the oldest segments are thinned or dropped. `queue.toml` says what was given up, so that readers explain the
//! holes.
//!
//! One thread ([`writer`]) renames and unlinks. Readers, in this process or another, open the files read-only
//! beside it. A write that fails for lack of room is tried again; any other ends the writer, and with it the agent:
//! what is true is read back at the next start. All of them reach the file system through [`disk`], so that a test can
//! pull the plug below them.

mod block;
mod carve;
mod claim;
mod commit;
mod cursor;
#[cfg(test)]
mod damage_tests;
mod day;
mod dead_letter;
mod diary;
pub mod disk;
mod error;
mod folder;
pub mod forget;
mod frame;
mod identity;
pub mod inspect;
mod letter_salvage;
pub mod letters;
mod limit;
mod lock;
mod loss;
pub mod mend;
mod open;
mod outlet;
mod overlay;
mod pack;
mod record;
mod release;
mod relief;
pub mod repair;
mod reserve;
mod rewriter;
mod room;
mod salvage;
mod segment;
mod shared;
mod store;
#[cfg(test)]
mod tests;
mod thin;
mod tolerant;
pub mod verify;
mod view;
pub mod waiting;
pub mod walk;
mod writer;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc;

pub use error::{OpenError, QueueError};
pub use identity::{FORMAT, Identity, Lost};
pub use open::Options;
pub use outlet::Outlet;
pub use pack::{PackError, Progress, pack, pack_on};
pub use segment::SegmentError;

use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::reading::{Body, Mark, Received};
use crate::receipt::Receipt;
use crate::wear::Meter;
use disk::{Disk, LocalDisk};
use folder::Folder;
use writer::{Append, Command, Writer};

/// Messages on their way to the writer.
const APPENDS: usize = 1024;
/// Commands on their way to the writer.
const COMMANDS: usize = 64;
/// When nothing was released for so long, the line is taken for down, and what waits is packed.
pub const PACK_AFTER: Duration = Duration::from_secs(300);

/// Whether `folder` holds anything of a queue.
pub fn is_there(folder: &Path) -> bool {
    let folder = local(folder);
    folder.has(&folder.file(identity::FILE)).unwrap_or(true)
        || open::segments(&folder).is_ok_and(|segments| !segments.is_empty())
}

/// The file of the segment that begins with this sequence.
pub fn segment_file(first: u64) -> String {
    format!("{first:020}.{}", segment::SUFFIX)
}

/// Whether a file of this name holds records or dead letters.
pub fn holds_records(name: &str) -> bool {
    segment::first_of(name).is_some() || name == dead_letter::FILE
}

/// Whether a file of this name is needed to go on with a queue elsewhere.
pub fn is_needed(name: &str) -> bool {
    holds_records(name) || name == identity::FILE || name == release::FILE
}

/// Whether an agent has `folder`.
pub fn is_running(folder: &Path) -> bool {
    lock::is_held(&local(folder))
}

/// Bytes that may still be written on the file system of `folder`.
pub fn bytes_free(folder: &Path) -> std::io::Result<u64> {
    local(folder).free()
}

/// Bytes of the files in `folder`; 0 where it cannot be read.
pub fn bytes_there(folder: &Path) -> u64 {
    local(folder).used().unwrap_or(0)
}

fn local(path: &Path) -> Folder {
    Folder::new(Arc::new(LocalDisk), path)
}

/// An opened queue: its two ends, and the thread between them.
pub struct Queue {
    pub intake: Intake,
    pub outlet: Outlet,
    pub writer: WriterThread,
    pub recovered: Recovered,
}

/// What the folder told at the start.
#[derive(Debug, Clone)]
pub struct Recovered {
    pub agent_id: String,
    /// Of each source, oldest first.
    pub marks: BTreeMap<String, Vec<Mark>>,
    /// MQTT filters that each source is subscribed to as far as is known.
    pub filters: BTreeMap<String, Vec<String>>,
    pub release_point: u64,
    /// The next sequence.
    pub end: u64,
    /// The run before did not end in order: it was killed, or the machine went down.
    pub cut_short: bool,
    /// When the newest record was received.
    pub newest: Option<Received>,
    /// What this run and those before have written.
    pub meter: Meter,
}

/// The writer's thread.
pub struct WriterThread(JoinHandle<Result<(), QueueError>>);

impl WriterThread {
    /// Whether it has ended.
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }

    /// Waits for its end, which comes when every [`Intake`] and [`Outlet`] is dropped, or a write fails.
    pub fn join(self) -> Result<(), QueueError> {
        self.0.join().unwrap_or(Err(QueueError::Stopped))
    }
}

/// Opens the queue in `options.path`, or makes one there, and starts its writer. `progress` is called whenever the
/// writer has done what there was to do, at least once a second.
pub fn open(
    options: &Options,
    metrics: Arc<Metrics>,
    clock: Clock,
    progress: Arc<dyn Fn() + Send + Sync>,
) -> Result<Queue, OpenError> {
    open_on(Arc::new(LocalDisk), options, metrics, clock, progress)
}

/// [`open`] on another disk than the machine's own.
pub fn open_on(
    disk: Arc<dyn Disk>,
    options: &Options,
    metrics: Arc<Metrics>,
    clock: Clock,
    progress: Arc<dyn Fn() + Send + Sync>,
) -> Result<Queue, OpenError> {
    let (store, lock) = open::open(disk, options, metrics, clock)?;
    let shared = Arc::clone(&store.shared);
    let recovered = {
        let state = shared.state();
        Recovered {
            agent_id: store.identity.agent_id.clone(),
            marks: store
                .marks
                .iter()
                .map(|(source, marks)| (source.clone(), marks.iter().copied().collect()))
                .collect(),
            filters: store.identity.filters.clone(),
            release_point: state.release_point,
            end: state.end,
            cut_short: store.cut_short,
            newest: store.newest_received,
            meter: store.wear.meter,
        }
    };
    let (append, appends) = mpsc::channel(APPENDS);
    let (command, commands) = mpsc::channel(COMMANDS);
    let mut outlet =
        Outlet::new(&store.folder, store.identity.origin, shared, command.clone(), Arc::clone(&store.metrics), clock);
    outlet.ledger = store.ledger();
    let writer = Writer::new(store, lock, appends, commands, progress);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(OpenError::Thread)?;
    let thread = std::thread::Builder::new()
        .name("queue".into())
        .spawn(move || writer.run(&runtime))
        .map_err(OpenError::Thread)?;
    let intake = Intake { append, command: command.downgrade() };
    Ok(Queue { intake, outlet, writer: WriterThread(thread), recovered })
}

/// Whether `bytes` are a whole record that a queue made as `origin` has stored under `sequence`. Takes any bytes.
pub fn is_record(origin: u128, sequence: u64, bytes: &[u8]) -> bool {
    record::decode(origin, sequence, bytes).is_ok()
}

/// Where messages enter the queue. Clones feed the same queue.
#[derive(Debug, Clone)]
pub struct Intake {
    append: mpsc::Sender<Append>,
    command: mpsc::WeakSender<Command>,
}

impl Intake {
    /// Hands one message to the writer; `delay` is the longest it may wait for its commit. Its receipt is redeemed
    /// when it is on disk. `mark` is that of a body that brings no marks of its own.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is done, the message is dropped with its receipt: it is not stored and not acknowledged.
    pub async fn append(&self, body: Body, mark: Mark, receipt: Receipt, delay: Duration) -> Result<(), QueueError> {
        self.send(Append { message: Some((body, mark)), receipt, delay }).await
    }

    /// Has a receipt redeemed that stands for nothing new, but not before those handed in earlier.
    pub async fn acknowledge(&self, receipt: Receipt) -> Result<(), QueueError> {
        self.send(Append { message: None, receipt, delay: Duration::ZERO }).await
    }

    /// Remembers the filters that `source` is subscribed to.
    pub async fn remember_filters(&self, source: &str, filters: Vec<String>) -> Result<(), QueueError> {
        let command = self.command.upgrade().ok_or(QueueError::Stopped)?;
        command.send(Command::Filters(source.to_owned(), filters)).await.map_err(|_| QueueError::Stopped)
    }

    /// A stop is near: what waits is committed now, and what comes still is not held back.
    pub async fn hurry(&self) -> Result<(), QueueError> {
        let command = self.command.upgrade().ok_or(QueueError::Stopped)?;
        command.send(Command::Hurry).await.map_err(|_| QueueError::Stopped)
    }

    async fn send(&self, append: Append) -> Result<(), QueueError> {
        self.append.send(append).await.map_err(|_| QueueError::Stopped)
    }
}

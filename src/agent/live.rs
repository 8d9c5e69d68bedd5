//! What a running agent tells about itself: one JSON object to everybody who may ask.
//!
//! Two sockets. An abstract one, named after the queue's folder (device and inode), leaves nothing on the card and nothing
//! behind; the agent's own user and root are answered there. Under systemd `agent.sock` in `$RUNTIME_DIRECTORY` (mode 0660)
//! answers everybody who can open it: the members of the agent's group.

use std::fs::{self, Permissions};
use std::io::{self, Read};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use tracing::{debug, warn};

use super::sight::{Seen, Sight};
use super::start::Start;
use super::summary;
use crate::card::{Card, Outlook};
use crate::clock::Clock;
use crate::config::settings::Settings;
use crate::metrics::Metrics;
use crate::queue::{self, Recovered};
use crate::recent::{self, Words};
use crate::shutdown::Shutdown;
use crate::wear::{Meter, Wear};

/// How long either side waits for the other.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes of an answer that are read.
const LARGEST: u64 = 1 << 20;
/// The socket's name in the runtime folder.
pub const SOCKET: &str = "agent.sock";

/// The files that the running configuration was read from.
static CONFIGURATION: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Remembers the files that the configuration in force was read from, to be told to who asks.
pub fn configured_by(files: &[PathBuf]) {
    *CONFIGURATION.lock().unwrap_or_else(PoisonError::into_inner) = files.to_vec();
}

/// A running agent's figures.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Live {
    pub process: u32,
    pub version: String,
    pub agent_id: String,
    /// The files of its configuration, in the order of reading.
    pub configuration: Vec<PathBuf>,
    /// The queue's folder.
    pub queue: PathBuf,
    /// Since its start.
    pub uptime_s: u64,
    /// The line that systemd shows.
    pub status: String,
    pub release_point: u64,
    pub end: u64,
    pub waiting: u64,
    /// When the oldest that waits was received, milliseconds since 1970.
    pub oldest_ms: Option<i64>,
    /// The queue has no room.
    pub blocked: bool,
    /// Bytes that may still come in until it is full.
    pub room_bytes: u64,
    /// Bytes that a record takes on the disk.
    pub bytes_per_record: f64,
    pub dead_letters: u64,
    /// `kafka.bootstrap_servers` is set.
    pub kafka_configured: bool,
    pub kafka_connected: bool,
    /// Seconds since it was connected.
    pub kafka_connected_s: Option<u64>,
    pub sent: u64,
    pub retries: u64,
    /// The last error or warning about Kafka.
    pub kafka_words: Option<Words>,
    /// Records committed and sent a second, over the last minute.
    pub stored_per_second: f64,
    pub sent_per_second: f64,
    /// Sequences lost to damage since its start.
    pub lost: u64,
    /// Dead letters deleted since its start, for lack of room or for their age.
    pub letters_deleted: u64,
    pub sources: Vec<LiveSource>,
    /// The last warnings and errors, the oldest first.
    pub words: Vec<Words>,
    /// Over all runs that are remembered.
    pub wear: Option<Wear>,
    pub card: Option<Card>,
    pub outlook: Option<Outlook>,
    pub start: Start,
}

/// One source of a running agent.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LiveSource {
    pub name: String,
    pub connected: bool,
    /// Seconds since it was connected, and since its last message.
    pub connected_s: Option<u64>,
    pub silent_s: Option<u64>,
    /// Messages a second over the last minute.
    pub per_second: f64,
    pub received: u64,
    pub acknowledged: u64,
    pub redelivered: u64,
    pub undecodable: u64,
    pub qos0: u64,
    pub retained: u64,
    /// Without a measurement, as the configuration says, or of which nothing may be stored.
    pub ignored: u64,
    pub broker_dropped: u64,
    /// Of a device that is asked: polls without a reading, polls that were due and not made, documents that said the same
    /// as the last, counters that fell, values that cannot be right.
    pub failed_polls: u64,
    pub skipped: u64,
    pub unchanged: u64,
    pub fallen: u64,
    pub absurd: u64,
    /// Readings of a device whose clock is off.
    pub clock_off: u64,
}

/// What the figures are taken from.
pub(super) struct Told {
    pub metrics: Arc<Metrics>,
    settings: Settings,
    agent_id: String,
    meter: Meter,
    clock: Clock,
    began: Instant,
    sight: Mutex<Sight>,
    start: Mutex<Start>,
}

impl Told {
    pub fn new(
        settings: &Settings,
        recovered: &Recovered,
        metrics: &Arc<Metrics>,
        clock: Clock,
        began: Instant,
    ) -> Self {
        Self {
            metrics: Arc::clone(metrics),
            settings: settings.clone(),
            agent_id: recovered.agent_id.clone(),
            meter: recovered.meter,
            clock,
            began,
            sight: Mutex::default(),
            start: Mutex::default(),
        }
    }

    /// The agent takes readings.
    pub fn started(&self, recovered: &Recovered) {
        let start = Start::of(recovered, &self.clock.now(), self.began.elapsed());
        start.say(self.metrics.queue.lost.get());
        *self.start.lock().unwrap_or_else(PoisonError::into_inner) = start;
    }

    /// Looks at what no counter tells; once a second.
    pub fn look(&self, now: Instant) {
        self.sight.lock().unwrap_or_else(PoisonError::into_inner).look(now, &self.metrics);
    }

    /// Asks the disk and the kernel too: it may block for a moment.
    fn live(&self) -> Live {
        let (now, wall) = (Instant::now(), self.clock.now());
        let (metrics, kafka) = (&self.metrics, &self.metrics.forwarder);
        let queue = &metrics.queue;
        let (sources, kafka_seen) = self.seen(now);
        let oldest_ms = queue.oldest_ms.load(std::sync::atomic::Ordering::Relaxed);
        let path = &self.settings.queue.path;
        let held =
            queue.next_sequence.get().saturating_sub(queue.first_sequence.get()).saturating_sub(queue.missing.get());
        let free = queue::bytes_free(path).unwrap_or(0).saturating_sub(self.settings.queue.min_free);
        let words = recent::words();
        let wear = self.meter.read(queue.stored.get(), wall.synchronised.then_some(wall.wall_ms));
        let card = Card::under(path);
        let up = Duration::from_millis(wall.boot_ms);
        let endurance = self.settings.queue.card_endurance;
        Live {
            process: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            agent_id: self.agent_id.clone(),
            configuration: CONFIGURATION.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            queue: path.clone(),
            uptime_s: self.began.elapsed().as_secs(),
            status: summary::status(metrics),
            release_point: queue.release_point.get(),
            end: queue.next_sequence.get(),
            waiting: queue.waiting(),
            oldest_ms: (oldest_ms > 0).then_some(oldest_ms),
            blocked: queue.blocked.get(),
            room_bytes: free.min(self.settings.queue.max_size.saturating_sub(queue.disk_bytes.get())),
            bytes_per_record: (queue.disk_bytes.get() as f64 / held.max(1) as f64).min(self.most_a_record()),
            dead_letters: queue.dead_letters.get(),
            kafka_configured: !self.settings.kafka.bootstrap_servers.is_empty(),
            kafka_connected: kafka.connected.get(),
            kafka_connected_s: kafka_seen.connected.map(|time| time.as_secs()),
            sent: kafka.sent.get(),
            retries: kafka.retries.get(),
            kafka_words: words.iter().rev().find(|words| words.is_of("meterferry::forwarder")).cloned(),
            stored_per_second: queue.stored_rate.get() as f64 / 1000.0,
            sent_per_second: kafka.sent_rate.get() as f64 / 1000.0,
            lost: queue.lost.get(),
            letters_deleted: queue.dead_letters_deleted.get(),
            sources,
            words,
            outlook: card.as_ref().and_then(|card| Outlook::of(card, endurance, &wear, up, wall.wall_ms)),
            wear: Some(wear),
            card,
            start: self.start.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// A new file holds little for its size: it says nothing about what a record takes. The database takes less than as
    /// much again.
    fn most_a_record(&self) -> f64 {
        let queue = &self.metrics.queue;
        match queue.stored.get() {
            0 => f64::INFINITY,
            stored => 2.0 * queue.stored_bytes.get() as f64 / stored as f64,
        }
    }

    fn seen(&self, now: Instant) -> (Vec<LiveSource>, Seen) {
        let sight = self.sight.lock().unwrap_or_else(PoisonError::into_inner);
        let sources = self.metrics.sources.iter().map(|(name, source)| {
            let seen = sight.of(name, now);
            LiveSource {
                name: name.to_string(),
                connected: source.connected.get(),
                connected_s: seen.connected.map(|time| time.as_secs()),
                silent_s: seen.silent.map(|time| time.as_secs()),
                per_second: seen.per_second,
                received: source.received.get(),
                acknowledged: source.acknowledged.get(),
                redelivered: source.redelivered.get(),
                undecodable: source.undecodable.get(),
                qos0: source.qos0.get(),
                retained: source.retained.get(),
                ignored: source.ignored.get(),
                broker_dropped: source.broker_dropped.get(),
                failed_polls: source.failed_polls.get(),
                skipped: source.skipped.get(),
                unchanged: source.unchanged.get(),
                fallen: source.fallen.get(),
                absurd: source.absurd.get(),
                clock_off: source.clock_off.get(),
            }
        });
        (sources.collect(), sight.of_kafka(now))
    }
}

/// Asks the agent that has the queue in `folder`; none where there is none, or it does not answer.
pub fn ask(folder: &Path) -> Option<Live> {
    heard(UnixStream::connect_addr(&address(folder).ok()?).ok()?)
}

/// Asks the agent behind the socket in the `runtime` folder; none where there is none, or it does not answer.
///
/// # Errors
///
/// The socket is there, and this user may not open it.
pub fn ask_in(runtime: &Path) -> io::Result<Option<Live>> {
    match UnixStream::connect(runtime.join(SOCKET)) {
        Ok(stream) => Ok(heard(stream)),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
        Err(_) => Ok(None),
    }
}

fn heard(stream: UnixStream) -> Option<Live> {
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut answer = Vec::new();
    stream.take(LARGEST).read_to_end(&mut answer).ok()?;
    serde_json::from_slice(&answer).ok()
}

/// Answers until a stop is asked for. Without a socket the agent works all the same, it only cannot be asked.
pub(super) async fn answer(told: Arc<Told>, runtime: Option<PathBuf>, shutdown: Shutdown) {
    let by_folder = match listen(&told.settings.queue.path) {
        Ok(listener) => Some(listener),
        Err(error) => {
            debug!(%error, "the status socket cannot be opened");
            None
        }
    };
    let path = runtime.map(|folder| folder.join(SOCKET));
    let by_path = path.as_deref().and_then(|path| match listen_at(path) {
        Ok(listener) => Some(listener),
        Err(error) => {
            warn!(%error, path = %path.display(), "the status socket cannot be opened: meterferry status works for the agent's user only");
            None
        }
    });
    let bound = by_path.is_some();
    tokio::join!(serve(by_folder, false, &told, &shutdown), serve(by_path, true, &told, &shutdown));
    if let Some(path) = path.filter(|_| bound) {
        let _ = fs::remove_file(path);
    }
}

/// Who may open the socket is answered; of an abstract one, which has no mode, only the own user and root.
async fn serve(listener: Option<tokio::net::UnixListener>, has_mode: bool, told: &Arc<Told>, shutdown: &Shutdown) {
    let Some(listener) = listener else { return };
    loop {
        let accepted = tokio::select! {
            () = shutdown.asked() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((mut stream, _)) = accepted else { continue };
        let own = nix::unistd::geteuid().as_raw();
        if !has_mode && !stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0) {
            continue;
        }
        let asked = Arc::clone(told);
        let live = tokio::task::spawn_blocking(move || asked.live()).await.unwrap_or_default();
        let text = serde_json::to_vec(&live).unwrap_or_default();
        // One at a time, and not for long: nobody can hold up the others or fill the memory.
        let _ = tokio::time::timeout(PATIENCE, stream.write_all(&text)).await;
    }
}

fn listen(folder: &Path) -> io::Result<tokio::net::UnixListener> {
    from_std(UnixListener::bind_addr(&address(folder)?)?)
}

/// What a killed agent left there is replaced: the lock on the queue's folder says that there is no other.
fn listen_at(path: &Path) -> io::Result<tokio::net::UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o660))?;
    from_std(listener)
}

fn from_std(listener: UnixListener) -> io::Result<tokio::net::UnixListener> {
    listener.set_nonblocking(true)?;
    tokio::net::UnixListener::from_std(listener)
}

fn address(folder: &Path) -> io::Result<SocketAddr> {
    let metadata = fs::metadata(folder)?;
    SocketAddr::from_abstract_name(format!("meterferry/{}:{}", metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Promise 9: the socket is for the group, and one that a killed agent left is replaced.
    #[tokio::test]
    async fn the_socket_is_for_the_group() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join(SOCKET);
        drop(listen_at(&path).expect("bound"));
        assert!(path.exists(), "left behind");
        assert!(ask_in(folder.path()).expect("no agent").is_none());
        let _listener = listen_at(&path).expect("bound again");
        assert_eq!(fs::metadata(&path).expect("a socket").mode() & 0o777, 0o660);
    }
}

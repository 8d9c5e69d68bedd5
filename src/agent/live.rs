//! What a running agent tells about itself: one JSON object to everybody of the same user who connects to its socket.
//!
//! The socket is an abstract one, named after the queue's folder (device and inode), so that it leaves nothing on the
//! card and nothing behind. Only the agent's own user and root are answered.

use std::fs;
use std::io::{self, Read};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use tracing::debug;

use crate::metrics::Metrics;
use crate::shutdown::Shutdown;

/// How long either side waits for the other.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes of an answer that are read.
const LARGEST: u64 = 1 << 20;

/// A running agent's figures.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Live {
    pub process: u32,
    /// Of the program; empty where it is older than this field.
    #[serde(default)]
    pub version: String,
    pub release_point: u64,
    pub end: u64,
    /// The queue has no room.
    pub blocked: bool,
    pub kafka_connected: bool,
    pub sent: u64,
    pub retries: u64,
    /// Records committed and sent a second, over the last minute.
    #[serde(default)]
    pub stored_per_second: f64,
    #[serde(default)]
    pub sent_per_second: f64,
    /// Sequences lost to damage since its start.
    #[serde(default)]
    pub lost: u64,
    /// Dead letters deleted since its start, for lack of room or for their age.
    #[serde(default)]
    pub letters_deleted: u64,
    pub sources: Vec<LiveSource>,
}

/// One source of a running agent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LiveSource {
    pub name: String,
    pub connected: bool,
    pub received: u64,
    pub acknowledged: u64,
    pub redelivered: u64,
    pub undecodable: u64,
    pub qos0: u64,
    pub retained: u64,
    pub broker_dropped: u64,
}

impl Live {
    fn of(metrics: &Metrics) -> Self {
        let sources = metrics.sources.iter().map(|(name, source)| LiveSource {
            name: name.to_string(),
            connected: source.connected.get(),
            received: source.received.get(),
            acknowledged: source.acknowledged.get(),
            redelivered: source.redelivered.get(),
            undecodable: source.undecodable.get(),
            qos0: source.qos0.get(),
            retained: source.retained.get(),
            broker_dropped: source.broker_dropped.get(),
        });
        Self {
            process: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            release_point: metrics.queue.release_point.get(),
            end: metrics.queue.next_sequence.get(),
            blocked: metrics.queue.blocked.get(),
            kafka_connected: metrics.forwarder.connected.get(),
            sent: metrics.forwarder.sent.get(),
            retries: metrics.forwarder.retries.get(),
            stored_per_second: metrics.queue.stored_rate.get() as f64 / 1000.0,
            sent_per_second: metrics.forwarder.sent_rate.get() as f64 / 1000.0,
            lost: metrics.queue.lost.get(),
            letters_deleted: metrics.queue.dead_letters_deleted.get(),
            sources: sources.collect(),
        }
    }
}

/// Asks the agent that has the queue in `folder`; none where there is none, or it does not answer.
pub fn ask(folder: &Path) -> Option<Live> {
    let stream = UnixStream::connect_addr(&address(folder).ok()?).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut answer = Vec::new();
    stream.take(LARGEST).read_to_end(&mut answer).ok()?;
    serde_json::from_slice(&answer).ok()
}

/// Answers until a stop is asked for. Without the socket the agent works all the same, it only cannot be asked.
pub(super) async fn answer(folder: &Path, metrics: Arc<Metrics>, shutdown: Shutdown) {
    let listener = match listen(folder) {
        Ok(listener) => listener,
        Err(error) => {
            debug!(%error, "the status socket cannot be opened");
            return;
        }
    };
    loop {
        let accepted = tokio::select! {
            () = shutdown.asked() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((mut stream, _)) = accepted else { continue };
        let own = nix::unistd::geteuid().as_raw();
        if !stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0) {
            continue;
        }
        let text = serde_json::to_vec(&Live::of(&metrics)).unwrap_or_default();
        // One at a time, and not for long: nobody can hold up the others or fill the memory.
        let _ = tokio::time::timeout(PATIENCE, stream.write_all(&text)).await;
    }
}

fn listen(folder: &Path) -> io::Result<tokio::net::UnixListener> {
    let listener = UnixListener::bind_addr(&address(folder)?)?;
    listener.set_nonblocking(true)?;
    tokio::net::UnixListener::from_std(listener)
}

fn address(folder: &Path) -> io::Result<SocketAddr> {
    let metadata = fs::metadata(folder)?;
    SocketAddr::from_abstract_name(format!("meterferry/{}:{}", metadata.dev(), metadata.ino()))
}

//! What can go wrong with the queue, one enum an operation.

use std::io;
use std::path::PathBuf;

use crate::queue::segment::SegmentError;

/// The queue cannot be opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "the queue's folder {path} is in use by another agent (process {pid})\n  hint: stop that one first, or give this agent a queue.path of its own"
    )]
    Locked { path: PathBuf, pid: String },
    #[error(
        "the queue's folder {path} cannot be used\n  hint: it must be a folder that the agent's user may read and write; see queue.path"
    )]
    Folder {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "{path} has format {found}, this release reads up to {known}\n  hint: install the release that wrote it; nothing was touched"
    )]
    Newer { path: PathBuf, found: u32, known: u32 },
    #[error(
        "{path} holds agent id {found:?}, the configuration says {configured:?}\n  hint: remove agent.id, or move the queue's folder away once it is drained"
    )]
    OtherAgent { path: PathBuf, found: String, configured: String },
    #[error(transparent)]
    Segment(#[from] SegmentError),
    #[error("the queue's writer thread cannot be started")]
    Thread(#[source] io::Error),
}

/// The queue stopped: a write failed and is not a matter of space, or the writer has ended.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    #[error("the queue has stopped")]
    Stopped,
    #[error(transparent)]
    Segment(#[from] SegmentError),
    #[error("{path} cannot be written")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} cannot be read")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the damaged segment {first} could not be salvaged: it is refused again")]
    Unsalvageable { first: u64 },
}

impl QueueError {
    /// Whether room on the disk is all that is missing.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Segment(error) => error.is_full(),
            Self::Write { source, .. } => {
                source.kind() == io::ErrorKind::StorageFull || source.kind() == io::ErrorKind::QuotaExceeded
            }
            Self::Stopped | Self::Read { .. } | Self::Unsalvageable { .. } => false,
        }
    }
}

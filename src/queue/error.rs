//! What can go wrong with the queue, one enum an operation.

use std::io;
use std::path::PathBuf;

use crate::queue::folder::is_full;
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
        "there is no queue in {path}: {what}\n  hint: no agent has run with it yet, or it is elsewhere: name the folder that holds queue.toml with --path, or the agent's configuration with --config"
    )]
    NoQueue { path: PathBuf, what: String },
    #[error(
        "{path} is damaged: {reason}\n  hint: the agent goes on without it at its next start; meterferry rescue reads the folder in any case"
    )]
    NoIdentity { path: PathBuf, reason: String },
    #[error(
        "the queue's folder {path} may not be used: {who}\n  hint: give it to the agent's user (chown -R USER: {path}), or name another one in queue.path"
    )]
    Forbidden {
        path: PathBuf,
        who: String,
        #[source]
        source: io::Error,
    },
    #[error(
        "the queue's folder {path} is on a file system that is mounted read-only\n  hint: mount it for writing; if the kernel made it read-only after errors (see dmesg), the card is dying: copy the folder and replace the card"
    )]
    ReadOnly { path: PathBuf },
    #[error("the queue's path {path} is not a folder\n  hint: name a folder in queue.path, or move away what is there")]
    NotAFolder {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "the folder {path} holds other files ({found}) and no queue; nothing was touched\n  hint: name a new or an empty folder in queue.path"
    )]
    NotAQueue { path: PathBuf, found: String },
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

impl OpenError {
    /// Whether a person has to change something before another start makes sense.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Forbidden { .. }
            | Self::NotAFolder { .. }
            | Self::NotAQueue { .. }
            | Self::Newer { .. }
            | Self::OtherAgent { .. } => true,
            Self::Locked { .. }
            | Self::Folder { .. }
            | Self::NoQueue { .. }
            | Self::NoIdentity { .. }
            | Self::ReadOnly { .. }
            | Self::Segment(_)
            | Self::Thread(_) => false,
        }
    }
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
    /// Whether a file's content is at fault, so that salvaging it is the cure.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Segment(error) if error.is_damage())
    }

    /// Whether room on the disk is all that is missing.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Segment(error) => error.is_full(),
            Self::Write { source, .. } => is_full(source),
            Self::Stopped | Self::Read { .. } | Self::Unsalvageable { .. } => false,
        }
    }
}

//! `queue.toml`: whose queue this is, and what has to outlive a restart besides the records.

use std::collections::BTreeMap;
use std::io;

use serde::{Deserialize, Serialize};

use super::error::OpenError;
use super::folder::Folder;
use crate::daily::Ledger;
use crate::reading::QueueId;

pub(super) const FILE: &str = "queue.toml";
/// The folder's format that this release writes; older ones are read. 1: every record alone under its sequence; 2: records
/// in blocks.
pub const FORMAT: u32 = 2;

/// The content of `queue.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub format: u32,
    /// Part of every checksum: the queue id that the folder was made with. A fork leaves it as it is.
    #[serde(with = "hex")]
    pub origin: u128,
    /// Names the sequence numbers; a fork replaces it.
    #[serde(with = "hex")]
    pub queue_id: u128,
    pub agent_id: String,
    /// Of the machine that wrote here last; none where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardware_serial: Option<String>,
    /// MQTT filters subscribed so far, of each source.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub filters: BTreeMap<String, Vec<String>>,
    /// Sequences that damage took and that are not released yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<Lost>,
    /// What the daily receipts need to know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daily: Option<Daily>,
}

/// What the daily receipts need to know.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Daily {
    /// The day (UTC) whose receipt comes next, counted from 1970-01-01; none: not known yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_day: Option<i32>,
    /// What it will say.
    pub ledger: Ledger,
}

/// A range of sequences that cannot be read, both ends inclusive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    pub first: u64,
    pub last: u64,
    pub reason: String,
}

impl Identity {
    /// A new queue's.
    pub fn new(agent_id: &str, hardware_serial: Option<String>) -> Self {
        let queue_id = rand::random();
        Self {
            format: FORMAT,
            origin: queue_id,
            queue_id,
            agent_id: agent_id.to_owned(),
            hardware_serial,
            filters: BTreeMap::new(),
            lost: Vec::new(),
            daily: None,
        }
    }

    pub fn queue_id(&self) -> QueueId {
        QueueId(self.queue_id)
    }

    /// Reads the folder's identity; none where there is none. A file that makes no sense is `Err(Ok(reason))`.
    pub(super) fn read(folder: &Folder) -> Result<Option<Self>, Unreadable> {
        let path = folder.file(FILE);
        let text = match folder.disk.read(&path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Unreadable::Refused(OpenError::Folder { path, source })),
        };
        let identity: Self = toml::from_str(&text).map_err(|error| Unreadable::Damaged(error.message().to_owned()))?;
        if identity.format > FORMAT {
            return Err(Unreadable::Refused(OpenError::Newer { path, found: identity.format, known: FORMAT }));
        }
        Ok(Some(identity))
    }

    pub(super) fn write(&self, folder: &Folder) -> io::Result<()> {
        let text = toml::to_string(self).map_err(io::Error::other)?;
        folder.replace(FILE, text.as_bytes())
    }
}

/// Why [`Identity::read`] gave none.
pub(super) enum Unreadable {
    Refused(OpenError),
    Damaged(String),
}

mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(value: &u128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{value:032x}"))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
        let text = String::deserialize(deserializer)?;
        u128::from_str_radix(&text, 16).map_err(D::Error::custom)
    }
}

//! Store and forward between a house's smart meter and a Kafka cluster.
//!
//! # Layout
//!
//! The modules stand in the order in which a reading travels:
//!
//! ```text
//! adapter ── MQTT ──> source ── Raw ──> decode ── Reading ──> queue (redb, fsync)
//!              ^                                                │
//!              └──────── receipt, after the commit ─────────────┤
//!                                                               v
//! consumer <── Kafka <──── one transaction: records + resume point ── forwarder
//! ```
//!
//! - [`source`]: one configured place readings come from; hands out [`source::Raw`] with the right to acknowledge it.
//! - [`receipt`]: that right. Dropped unused, it acknowledges nothing.
//! - [`decode`], [`obis`]: bytes in, reading or reason out. Pure.
//! - [`normalize`]: our own document of a reading, where that is asked for. Pure.
//! - [`reading`]: the words the stages share, so that no stage has to name another.
//! - [`daily`]: the daily receipt, by which a consumer proves that it has everything. Pure.
//! - [`queue`]: the write-ahead queue on disk. The only module that knows redb.
//! - [`forwarder`]: takes batches from the queue to Kafka.
//! - [`agent`]: the only place that wires the stages together.
//!
//! Around the line: [`config`] (the only reader of files and environment), [`clock`], [`backoff`], [`flapping`], [`shutdown`],
//! [`metrics`], [`wear`] and [`card`] (what is written, and how long the card lasts), [`recent`] (the log's last words),
//! [`notify`], [`failpoint`] (where a test may end the process), [`simulate`] (the adapter as it speaks)
//! and [`cli`] (one file a subcommand).
//!
//! # What is not there
//!
//! Only `queue/` names redb, only `source/mqtt*.rs` and the simulator rumqttc, only `source/rest*.rs` and the
//! simulator hyper, only `forwarder/kafka.rs` and the
//! consumer commands rdkafka; no stage names another stage; decode, batching, resume rule, retry table and backoff hold no clock,
//! socket or random source; no lock is held across an await; no fsync runs on a tokio worker; no channel is
//! unbounded; there is no `unsafe`. `tests/tidy` holds the code to this.

// The test bed names the crate as everybody else does.
#[cfg(test)]
extern crate self as meterferry;

pub mod source;

pub mod receipt;

pub mod decode;

pub mod obis;

pub mod normalize;

pub mod reading;

pub mod daily;

pub mod queue;

pub mod forwarder;

pub mod agent;

pub mod config;

pub mod clock;

pub mod backoff;

pub mod flapping;

pub mod shutdown;

pub mod failpoint;

pub mod metrics;

pub mod wear;

pub mod card;

pub mod recent;

pub mod health;

pub mod notify;

pub mod simulate;

pub mod cli;

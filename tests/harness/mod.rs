//! The test bed: real servers and the real agent, each started on a free port, in a folder of its own, and ended with
//! the test process however that ends.
//!
//! - [`process`]: folders, ports, child processes and the guard that outlives a killed test process.
//! - [`wait`]: waiting for a state, with a limit.
//! - [`mosquitto`], [`kafka`]: the servers on either side, which can be stopped, killed and started on the same data.
//! - [`certificates`]: a certificate authority for the TLS tests of both sides.
//! - [`namespace`], [`small_disk`]: another view of the machine, a disk that is full or broken; for root only.
//! - [`logged_disk`], [`block_log`]: a disk that logs every block, and what a power cut may leave of it.
//! - [`clock`]: a wall clock that can be set.
//! - [`proxy`]: a TCP proxy that cuts, holds and swallows.
//! - [`config`], [`agent`]: the agent's configuration file and the agent, as a process.
//! - [`scale`]: small in a test run, long on demand; and the seed that replays a run.
//! - [`document`], [`publisher`]: the adapter's document, numbered, and a client that counts its acknowledgements.
//! - [`on_disk`]: what is in a queue's folder while no agent runs.
//! - [`adapter`]: the adapter as it speaks to the agent's own listener.
//! - [`meters`]: SunSpec meters on Modbus TCP, which do wrong on demand.
//! - [`rest_device`]: a device that is asked over HTTP, by Python's own server.
//! - [`line`]: all of them joined, as most tests want it.
//! - [`auditor`]: reads everything that Kafka has and compares it with what was published; shares no code with the agent.

pub mod adapter;
pub mod agent;
pub mod auditor;
pub mod block_log;
pub mod by_hand;
pub mod certificates;
pub mod clock;
pub mod config;
pub mod document;
pub mod kafka;
pub mod line;
pub mod logged_disk;
pub mod meters;
pub mod mosquitto;
pub mod namespace;
pub mod on_disk;
pub mod process;
pub mod proxy;
pub mod publisher;
pub mod rest_device;
pub mod scale;
pub mod small_disk;
pub mod wait;

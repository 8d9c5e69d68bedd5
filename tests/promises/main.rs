//! The promises of DESIGN.md, each held against the real agent, a real Mosquitto and a real Apache Kafka.
//!
//! One file a promise. Tests that need the servers are ignored by a plain `cargo test`; `tests/run` runs them all.

#[path = "../harness/mod.rs"]
#[allow(dead_code, reason = "not every test binary uses all of the test bed")]
mod harness;
#[path = "../tidy.rs"]
mod tidy;

mod as_it_was;
mod audit;
mod bed;
mod bounded;
mod broker;
mod card;
mod clock;
mod cluster;
mod daily;
mod disk;
mod doctor;
mod farewell;
mod honest;
mod hostile;
mod in_order;
mod kafka_faults;
mod killed;
mod late_is_not_lost;
mod listener;
mod modbus;
mod names;
mod network;
mod never_stuck;
mod nothing_acknowledged_before_disk;
mod once;
mod power_cut;
mod privacy;
mod readers;
mod reload;
mod repeated_not_lost;
mod rescue;
mod rest;
mod security;
mod siege;
mod soak;
mod status;
mod tools;
mod watchdog;

//! The queue on a disk that loses power, tears writes, fails, is full, or was damaged.
//!
//! - [`content`], [`tree`]: files and names on a simulated medium at one moment.
//! - [`disk`], [`handle`], [`fault`]: the disk below the queue; keeps a log of every change, fails when told to.
//! - [`medium`]: rebuilds from such a log what a power cut may leave.
//! - [`message`], [`ledger`]: the model: numbered messages, and what has to be true of them.
//! - [`gate`], [`life`]: a queue on a simulated disk, driven step by step.
//! - [`history`], [`compare`]: random operations, cuts in them, and the comparison with the model.
//! - [`strands`]: many random histories at a time.
//! - [`broker`], [`model_kafka`], [`whole_line`]: the same disk below a whole line.
//! - [`cuts`], [`failures`], [`damage`], [`letters`], [`whole_line`]: the tests.

mod broker;
mod compare;
mod content;
mod cuts;
mod damage;
mod disk;
mod failures;
mod fault;
mod gate;
mod handle;
mod history;
mod ledger;
mod letters;
mod life;
mod medium;
mod message;
#[path = "../harness/model_kafka.rs"]
mod model_kafka;
#[path = "../harness/scale.rs"]
#[allow(dead_code, reason = "not every test binary uses all of the test bed")]
mod scale;
mod strands;
mod tree;
mod whole_line;

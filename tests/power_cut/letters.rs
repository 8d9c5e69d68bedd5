//! Promise 5: what it costs to put dead letters away.

use meterferry::config::settings::WhenFull;
use meterferry::reading::Entry;

use crate::disk::SimulatedDisk;
use crate::life::{Life, Setting};
use crate::medium::Op;
use crate::tree::Tree;

const SETTING: Setting =
    Setting { segment_size: 512 << 10, max_size: 1 << 30, when_full: WhenFull::Block, packs: false };

/// Puts letters away; how often that had something flushed.
fn flushes(life: &mut Life, entries: &[Entry]) -> usize {
    let before = life.disk.position();
    life.set_aside(entries).expect("room");
    life.disk.log().ops[before..].iter().filter(|op| matches!(op, Op::Sync(_))).count()
}

/// Promise 5: many letters cost as many flushes as one, so that they do not hold up the readings behind them; and their file
/// is checked once a process, since that reads, and flushes, all of it.
#[test]
fn many_letters_cost_what_one_does() {
    let disk = SimulatedDisk::new(Tree::root("/data"));
    let mut life = Life::open(disk.clone(), &SETTING).expect("a new queue");
    life.append(300).expect("room");
    let entries = life.read(1).expect("readable");
    flushes(&mut life, &entries[..1]);
    let one = flushes(&mut life, &entries[1..2]);
    let many = flushes(&mut life, &entries[2..202]);
    // A file that grows has its new length flushed.
    assert!(many <= one + 2, "{many} for 200 letters, {one} for one");
    life.end().expect("an orderly end");

    let mut life = Life::open(disk, &SETTING).expect("it opens");
    life.settle().expect("it runs");
    let checked = flushes(&mut life, &entries[202..203]);
    let unchecked = flushes(&mut life, &entries[203..204]);
    assert!(unchecked < checked, "{checked} with the check, then {unchecked}");
    life.end().expect("an orderly end");
}

//! Promises 5 and 6 against bytes that nobody should send: a short run of the fuzz targets on a stable compiler.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rand::rngs::StdRng;
use rand::{Rng, RngExt};

use crate::harness::scale::{choices, scale};

#[path = "../fuzz/targets.rs"]
mod targets;

/// Changes a seed as a fuzzer does: flips, cuts, doubles, and pieces of other seeds.
fn mutated(random: &mut StdRng, seeds: &[&Vec<u8>]) -> Vec<u8> {
    let pick = |random: &mut StdRng| seeds[random.random_range(0..seeds.len())].clone();
    let mut bytes = pick(random);
    for _ in 0..random.random_range(1..6) {
        let at = random.random_range(0..=bytes.len());
        let end = random.random_range(at..=bytes.len());
        match random.random_range(0..6) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..end)),
            2 => bytes.extend_from_within(at..end),
            3 => {
                let other = pick(random);
                let from = random.random_range(0..=other.len());
                bytes.splice(at..end, other[from..].iter().copied());
            }
            4 => bytes.insert(at, random.random()),
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << random.random_range(0..8);
                }
            }
        }
    }
    bytes.truncate(64 << 10);
    bytes
}

/// Runs one target over its seeds, random bytes and what becomes of the seeds; says which bytes it cannot stand.
fn run(name: &str, small: u64, long: u64) {
    let (_, target) = targets::ALL.into_iter().find(|(target, _)| *target == name).expect("a target of that name");
    let seeds = targets::seeds(name);
    assert!(seeds.len() >= 3, "{name} has {} seeds", seeds.len());
    let seeds: Vec<&Vec<u8>> = seeds.values().collect();
    let mut random = choices(name);
    let stands = |bytes: &[u8]| {
        let shown = bytes.escape_ascii();
        catch_unwind(AssertUnwindSafe(|| target(bytes))).unwrap_or_else(|_| panic!("{name} fails on b\"{shown}\""));
    };
    seeds.iter().for_each(|seed| stands(seed));
    for round in 0..scale(small, long) {
        if round % 10 == 0 {
            let mut bytes = vec![0; random.random_range(0..300)];
            random.fill_bytes(&mut bytes);
            stands(&bytes);
        } else {
            stands(&mutated(&mut random, &seeds));
        }
    }
}

/// Promise 5: no document, however broken, does more than become a dead letter.
#[test]
fn documents() {
    run("document", 20_000, 2_000_000);
}

/// Promise 5: no message of another reader does more, whatever shape it has.
#[test]
fn messages_of_other_readers() {
    for shape in ["fields", "codes", "topics"] {
        run(shape, 10_000, 1_000_000);
    }
}

/// Promise 5: no mapping is refused without a word, and none makes a table that falls over a message.
#[test]
fn mappings() {
    run("mapping", 2_000, 100_000);
}

/// Promise 5: no OBIS code is read in two ways.
#[test]
fn obis_codes() {
    run("obis", 50_000, 5_000_000);
}

/// Promise 7: no record that the card has changed is served, or more than refused.
#[test]
fn queue_records() {
    run("record", 20_000, 2_000_000);
}

/// Promise 5: no configuration is refused without a word, or ends the program otherwise.
#[test]
fn configurations() {
    run("configuration", 2_000, 100_000);
}

/// Promise 5: no answer of a Modbus device, right in its frame or not, does more than fail a poll.
#[test]
fn answers_of_a_modbus_device() {
    run("modbus", 5_000, 500_000);
}

/// Promise 5: no answer of a device is more than a document or a trouble with a name.
#[test]
fn answers_of_a_device() {
    run("rest", 1_000, 50_000);
}

/// Promise 6: no client of the listener gets more than its connection ended, and none keeps others out.
#[test]
fn clients_of_the_listener() {
    run("listener", 1_000, 50_000);
}

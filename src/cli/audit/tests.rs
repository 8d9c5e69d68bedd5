//! Whatever is wrong with what an agent has sent, the audit says so, and nothing else.

use proptest::prelude::*;

use super::super::consume::record::Record;
use super::super::consume::record::tests::record;
use super::account::{Disorder, Finding, Moment, Pause};
use super::tally::{Kept, Tally, TooMuch};
use crate::reading::{CE_TYPE_GAP, CE_TYPE_READING, CE_TYPE_RECEIPT};

const QUEUE: u128 = 42;
const START_MS: i64 = 1_782_000_000_000;

/// A record of the queue with that number; measured a second after the one before.
fn of(queue: u128, sequence: u64, kind: &str, key: &str, value: &str) -> Record {
    let time_ms = START_MS + i64::try_from(sequence).unwrap_or(0) * 1000;
    let time = jiff::Timestamp::from_millisecond(time_ms).expect("a time").to_string();
    let headers = [
        ("ce_id", &*format!("{queue:032x}-{sequence}")),
        ("ce_source", &format!("/pi%20{queue}/meter")),
        ("ce_type", kind),
        ("ce_time", &time),
    ];
    Record { timestamp_ms: Some(time_ms), ..record(key, value, &headers) }
}

fn reading(sequence: u64) -> Record {
    of(QUEUE, sequence, CE_TYPE_READING, ["a", "b", "c"][(sequence % 3) as usize], "{}")
}

fn gap(sequence: u64, first: u64, last: u64) -> Record {
    let value = format!(r#"{{"first":{first},"last":{last},"count":{},"reason":"damage"}}"#, last - first + 1);
    of(QUEUE, sequence, CE_TYPE_GAP, "pi", &value)
}

fn receipt(sequence: u64, first: u64, count: u64, gaps: &str) -> Record {
    let value =
        format!(r#"{{"day":"2026-06-21","first":{first},"last":{},"count":{count},"gaps":[{gaps}]}}"#, sequence - 1);
    of(QUEUE, sequence, CE_TYPE_RECEIPT, "pi", &value)
}

/// Where a reading of that sequence goes when there are three partitions.
fn place(record: &Record) -> usize {
    match record.key.as_deref() {
        Some(b"a") => 0,
        Some(b"b") => 1,
        _ => 2,
    }
}

fn audited(kept: [Kept; 3], records: &[Record]) -> Vec<Finding> {
    let mut tally = Tally::new(kept.to_vec());
    for record in records {
        tally.take(record, place(record)).expect("little memory");
    }
    tally.set_horizon();
    tally.conclude().findings
}

fn one(kept: [Kept; 3], records: &[Record]) -> Finding {
    let mut findings = audited(kept, records);
    assert_eq!(findings.len(), 1);
    findings.remove(0)
}

/// Promise 9: what is right is called right, with its figures.
#[test]
fn a_faultless_queue() {
    let mut records: Vec<_> = (1..=10).map(reading).collect();
    records.push(receipt(11, 1, 10, ""));
    records.extend((12..=20).map(reading));
    let finding = one([Kept::All; 3], &records);
    assert!(finding.is_complete());
    assert_eq!((finding.agent.as_str(), finding.queue.as_str()), ("pi 42", "0000000000000000000000000000002a"));
    assert_eq!((finding.begin, finding.end, finding.readings, finding.devices), (1, 20, 19, 3));
    assert_eq!(finding.first, Some(Moment { sequence: 1, time_ms: Some(START_MS + 1_000) }));
    assert_eq!((finding.repeats, finding.out_of_order, finding.explained), (0, Disorder::default(), 0));
    // Device c has 8 and then 14: 11 is the receipt.
    let pause = Pause { length_ms: 6_000, until_ms: START_MS + 14_000, device: "c".into() };
    assert_eq!(finding.pause, Some(pause));
    assert_eq!((finding.receipts.count, finding.receipts.agree), (1, 1));
}

/// Promise 5: a hole is missing, unless a gap record or a receipt explains it.
#[test]
fn holes_and_what_explains_them() {
    let records: Vec<_> = (1..=20).filter(|sequence| ![7, 8, 15].contains(sequence)).map(reading).collect();
    let finding = one([Kept::All; 3], &records);
    assert_eq!((finding.missing.count, finding.missing.ranges), (3, 2));
    assert_eq!(finding.missing.listed, [(7, 8), (15, 15)]);
    assert!(!finding.is_complete());

    let mut explained = records.clone();
    explained.push(gap(8, 7, 8));
    explained.push(receipt(
        21,
        1,
        17,
        r#"{"first":7,"last":8,"count":2,"reason":"damage"},{"first":15,"last":15,"count":1,"reason":"refused"}"#,
    ));
    let finding = one([Kept::All; 3], &explained);
    assert!(finding.is_complete(), "{finding:?}");
    assert_eq!((finding.explained, finding.receipts.agree), (3, 1));
    assert_eq!(finding.reasons, [("damage".to_owned(), 2), ("refused".to_owned(), 1)].into());
}

/// Promise 9: a receipt proves what no hole shows: readings that are missing at the very beginning.
#[test]
fn a_receipt_proves_the_beginning() {
    let mut records: Vec<_> = (5..=10).map(reading).collect();
    assert!(one([Kept::All; 3], &records).is_complete(), "may have begun there");
    records.push(receipt(11, 1, 10, ""));
    let finding = one([Kept::All; 3], &records);
    assert_eq!(finding.missing.listed, [(1, 4)]);
    assert_eq!((finding.receipts.disagree.len(), finding.receipts.disagree[0].seen), (1, 6));
    // Where the beginning was deleted it proves nothing.
    let finding = one([Kept::All, Kept::SinceFirst, Kept::All], &records);
    assert!(finding.is_complete(), "{finding:?}");
    assert_eq!((finding.not_kept, finding.receipts.reach_back), (4, 1));
}

/// Promise 8: what retention took from one partition is not missing; what another partition should have, is.
#[test]
fn what_retention_took_is_not_missing() {
    // Partition of device b (1, 4, 7, ...) begins with 13.
    let kept = [Kept::All, Kept::SinceFirst, Kept::All];
    let deleted = |sequence: &u64| sequence % 3 != 1 || *sequence >= 13;
    let records: Vec<_> = (2..=30).filter(deleted).map(reading).collect();
    let finding = one(kept, &records);
    assert!(finding.is_complete(), "{finding:?}");
    assert_eq!(finding.not_kept, 3, "4, 7 and 10; 1 may never have been there");
    let records: Vec<_> = (2..=30).filter(deleted).filter(|sequence| *sequence != 20).map(reading).collect();
    assert_eq!(one(kept, &records).missing.listed, [(20, 20)]);
    // A partition that is empty now: everything older than the retention may have been there.
    let kept = [Kept::All, Kept::Since(START_MS + 13_000), Kept::All];
    let records: Vec<_> = (2..=30).filter(|sequence| ![4, 7, 19].contains(sequence)).map(reading).collect();
    let finding = one(kept, &records);
    assert_eq!((finding.not_kept, finding.missing.listed), (2, vec![(19, 19)]));
}

/// Promise 4: order is judged within a partition, of a device and of the queue.
#[test]
fn disorder_is_found() {
    let mut records: Vec<_> = (1..=12).map(reading).collect();
    // Partitions may be read in any order.
    records.sort_by_key(place);
    assert_eq!(one([Kept::All; 3], &records).out_of_order, Disorder::default());
    records.swap(0, 1);
    assert_eq!(one([Kept::All; 3], &records).out_of_order, Disorder { of_a_device: 1, of_the_queue: 1 });
    let mut other_device = vec![reading(5), of(QUEUE, 1, CE_TYPE_READING, "x", "{}")];
    other_device.extend((3..=4).map(reading));
    let disorder = one([Kept::All; 3], &other_device).out_of_order;
    assert_eq!((disorder.of_a_device, disorder.of_the_queue > 0), (0, true));
}

/// Promise 9: what is on its way while the audit reads is not missing.
#[test]
fn beyond_the_horizon_nothing_is_missing() {
    let mut tally = Tally::new(vec![Kept::All; 3]);
    for sequence in [1, 2, 4, 5] {
        tally.take(&reading(sequence), place(&reading(sequence))).expect("little memory");
    }
    tally.set_horizon();
    for sequence in [3, 7] {
        tally.take(&reading(sequence), place(&reading(sequence))).expect("little memory");
    }
    let finding = tally.conclude().findings.remove(0);
    assert!(finding.is_complete(), "{finding:?}");
}

/// Promise 5: what says to be a gap record and is none explains nothing; what is nobody's is only counted.
#[test]
fn strangers_explain_nothing() {
    let mut records: Vec<_> = (1..=9).filter(|sequence| *sequence != 5).map(reading).collect();
    records.push(of(QUEUE, 10, CE_TYPE_GAP, "pi", "{}"));
    records.push(of(QUEUE, 11, "io.meterferry.later", "pi", "{}"));
    records.push(of(QUEUE, 5, "com.example.reading", "pi", "{}"));
    records.push(record("k", "v", &[]));
    let finding = one([Kept::All; 3], &records);
    assert_eq!((finding.missing.listed, finding.unreadable, finding.end), (vec![(5, 5)], 1, 11));
}

/// Promise 6: memory has a limit with a name, and what exceeds it is said.
#[test]
fn memory_has_a_limit() {
    let mut tally = Tally::new(vec![Kept::All]);
    let error = (0..).find_map(|n| tally.take(&reading(2 * n), 0).err()).expect("a limit");
    assert_eq!(error, TooMuch::Ranges);
    assert_eq!(tally.records(), super::tally::MOST_RANGES as u64 + 1);
    assert!(error.to_string().contains("--topic"));
}

proptest! {
    /// Promises 3, 4 and 5: whatever is taken away, repeated or moved, and however partitions are read, the audit counts it.
    #[test]
    fn every_fault_is_counted(
        lost in proptest::collection::btree_set(2u64..200, 0..20),
        repeated in proptest::collection::btree_set(1u64..201, 0..20),
        explained: bool,
        seed: u64,
    ) {
        let mut parts = [Vec::new(), Vec::new(), Vec::new()];
        for sequence in 1..=201 {
            let record = reading(sequence);
            if lost.contains(&sequence) {
                if explained {
                    parts[2].push(gap(sequence, sequence, sequence));
                }
                continue;
            }
            parts[place(&record)].push(record.clone());
            if repeated.contains(&sequence) {
                parts[place(&record)].push(record);
            }
        }
        // Interleaved at random, each partition in its order.
        let mut random = seed;
        let mut records = Vec::new();
        let mut parts = parts.map(|part| part.into_iter().peekable());
        while parts.iter_mut().any(|part| part.peek().is_some()) {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            records.extend(parts[(random >> 33) as usize % 3].next());
        }
        let finding = one([Kept::All; 3], &records);
        let repeats = repeated.difference(&lost).count() as u64;
        prop_assert_eq!(finding.readings, 201 - lost.len() as u64);
        prop_assert_eq!(finding.repeats, repeats);
        prop_assert_eq!(finding.out_of_order, Disorder::default());
        prop_assert_eq!(finding.missing.count, if explained { 0 } else { lost.len() as u64 });
        prop_assert_eq!(finding.explained, if explained { lost.len() as u64 } else { 0 });
    }
}

//! Whatever is wrong with what an agent has sent, the audit says so, and nothing else.

use proptest::prelude::*;

use super::super::consume::record::Record;
use super::super::consume::record::tests::record;
use super::account::{Beginning, Disorder, Finding, Moment, Pause};
use super::report;
use super::tally::{Conclusion, Kept, Tally, TooMuch};
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
    concluded(kept, records).findings
}

fn concluded(kept: [Kept; 3], records: &[Record]) -> Conclusion {
    let mut tally = Tally::new(&kept, None);
    for record in records {
        tally.take(record, place(record)).expect("little memory");
    }
    tally.set_horizon();
    tally.conclude()
}

/// Kafka's date of that record, so much before (seconds) it was its turn.
fn dated(record: Record, lag: i64) -> Record {
    Record { timestamp_ms: record.timestamp_ms.map(|ms| ms - lag * 1000), ..record }
}

/// As they lie in Kafka.
fn parted(records: impl IntoIterator<Item = Record>) -> [Vec<Record>; 3] {
    let mut parts = [Vec::new(), Vec::new(), Vec::new()];
    for record in records {
        parts[place(&record)].push(record);
    }
    parts
}

/// Reads as the reader does: each partition from the first record on that is dated since `from_ms`, and two more at a time
/// in front of that as long as something is sought.
fn since(parts: &[Vec<Record>; 3], from_ms: i64) -> Finding {
    let mut tally = Tally::new(&[Kept::All; 3], Some(from_ms));
    let begins = |part: &Vec<Record>| part.iter().position(|record| record.timestamp_ms >= Some(from_ms));
    let mut fronts = parts.each_ref().map(|part| begins(part).unwrap_or(part.len()));
    for (at, part) in parts.iter().enumerate() {
        part[fronts[at]..].iter().for_each(|record| tally.take(record, at).expect("little memory"));
    }
    tally.set_horizon();
    loop {
        let sought = tally.sought();
        let unsettled: Vec<usize> = (0..3).filter(|at| !tally.is_settled(*at, &sought) && fronts[*at] > 0).collect();
        if sought.count == 0 || unsettled.is_empty() {
            break;
        }
        for at in unsettled {
            let back = fronts[at].saturating_sub(2);
            parts[at][back..fronts[at]].iter().for_each(|record| tally.look_back(record, at).expect("little memory"));
            fronts[at] = back;
        }
    }
    tally.conclude().findings.remove(0)
}

fn listed(finding: &Finding) -> Vec<u64> {
    finding.missing.listed.iter().flat_map(|(first, last)| *first..=*last).collect()
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
    let finding = one([Kept::All; 3], &records);
    assert_eq!((finding.is_complete(), finding.beginning), (true, Beginning::Unknown), "may have begun there");
    records.push(receipt(11, 1, 10, ""));
    let finding = one([Kept::All; 3], &records);
    assert_eq!(finding.missing.listed, [(1, 4)]);
    assert_eq!((finding.receipts.disagree.len(), finding.receipts.disagree[0].seen), (1, 6));
    // Where the beginning was deleted it proves nothing.
    let finding = one([Kept::All, Kept::Since(i64::MAX), Kept::All], &records);
    assert!(finding.is_complete(), "{finding:?}");
    assert_eq!((finding.not_kept, finding.receipts.reach_back), (4, 1));
}

/// Promise 8: what retention took from one partition is not missing; what another partition should have, is.
#[test]
fn what_retention_took_is_not_missing() {
    // Partition of device b (1, 4, 7, ...) begins with 13.
    let kept = [Kept::All, Kept::Since(i64::MAX), Kept::All];
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

/// Promise 9: a date does not tell what was sent before: after a start an agent whose device's clock is behind dates a later
/// sequence earlier, in another partition. What is lost is missing all the same.
#[test]
fn a_clock_that_is_behind_loses_nothing() {
    let readings = |lost: Option<u64>| {
        let there = (1..=20).filter(move |sequence| Some(*sequence) != lost);
        parted(there.map(|sequence| dated(reading(sequence), if sequence == 10 { 30 } else { 0 })))
    };
    let from_ms = START_MS + 9_000;
    let finding = since(&readings(None), from_ms);
    assert!(finding.is_complete(), "{finding:?}");
    assert_eq!((finding.begin, finding.end, finding.readings), (9, 20, 11), "10 is dated earlier");
    assert_eq!(listed(&since(&readings(Some(13)), from_ms)), [13]);
}

/// Promise 9: a reading that was a dead letter and is sent again has its old date and a new sequence.
#[test]
fn a_replayed_reading_is_not_missing() {
    let records = [reading(1), gap(2, 2, 2), reading(3), dated(reading(4), 3), reading(5), reading(6)];
    let finding = since(&parted(records), START_MS + 3_000);
    assert!(finding.is_complete(), "{finding:?}");
    assert_eq!((finding.begin, finding.readings, finding.explained), (3, 3, 0));
}

/// Promise 9: what explains a hole may be dated earlier too.
#[test]
fn an_explanation_is_looked_for() {
    let records = [reading(1), reading(3), dated(gap(5, 4, 5), 9), reading(6), reading(7)];
    let finding = since(&parted(records), START_MS + 3_000);
    assert!(finding.is_complete(), "{finding:?}");
    assert_eq!(finding.reasons, [("damage".to_owned(), 2)].into());
}

/// Promise 9: with `--from`, what Kafka dates earlier is in no figure, although it may stand behind the place that Kafka
/// names for that time.
#[test]
fn what_is_dated_earlier_is_in_no_figure() {
    let mut tally = Tally::new(&[Kept::All; 3], Some(START_MS + 60_000));
    let mut records: Vec<_> = (1..=80).filter(|sequence| ![5, 70].contains(sequence)).map(reading).collect();
    records.insert(20, of(QUEUE, 5, CE_TYPE_READING, "only then", "{}"));
    records.push(receipt(81, 1, 79, ""));
    records.push(record("k", "v", &[]));
    for record in &records {
        tally.take(record, place(record)).expect("little memory");
    }
    tally.set_horizon();
    let conclusion = tally.conclude();
    let finding = &conclusion.findings[0];
    assert_eq!((finding.begin, finding.end, finding.readings, finding.devices), (60, 81, 20, 3));
    assert_eq!(finding.first, Some(Moment { sequence: 60, time_ms: Some(START_MS + 60_000) }));
    // Device b has 67 and then 73.
    assert_eq!(finding.pause.as_ref().map(|pause| (pause.length_ms, pause.device.as_str())), Some((6_000, "b")));
    assert_eq!((listed(finding), finding.receipts.reach_back, conclusion.foreign), (vec![70], 1, 0));
    // A queue of which nothing counts is not spoken of.
    let mut tally = Tally::new(&[Kept::All; 3], Some(START_MS + 60_000));
    tally.take(&reading(3), 0).expect("little memory");
    tally.set_horizon();
    assert!(tally.conclude().findings.is_empty());
}

/// Promise 9: a queue that begins above 1 has lost its head, or is a fork: where nothing tells which, that is said.
#[test]
fn a_lost_head_is_not_called_complete() {
    let said = |conclusion: &Conclusion| anstream::adapter::strip_str(&report::text(&[], conclusion)).to_string();
    let conclusion = concluded([Kept::All; 3], &[reading(18), reading(19)]);
    let text = said(&conclusion);
    assert_eq!((conclusion.is_complete(), conclusion.unknown_beginnings()), (true, 1));
    assert!(text.contains("begins with 18: what was before is not in Kafka: a fork"), "{text}");
    assert!(text.contains("complete from where it begins: 2 readings") && !text.contains("complete:"), "{text}");

    let fork = |first: u64| {
        let same_agent = |mut record: Record| {
            let source = record.headers.iter_mut().find(|(name, _)| name == "ce_source").expect("a source");
            source.1 = Some(b"/pi%2042/meter".to_vec());
            record
        };
        let forked = (first..=30).map(|sequence| same_agent(of(43, sequence, CE_TYPE_READING, "a", "{}")));
        concluded([Kept::All; 3], &(1..=19).map(reading).chain(forked).collect::<Vec<_>>())
    };
    let text = said(&fork(20));
    assert!(
        text.contains("begins where queue 00000000 ends: a fork") && text.contains("complete: 30 readings"),
        "{text}"
    );
    assert_eq!(fork(21).unknown_beginnings(), 1, "20 is in neither");
    // What retention took is said as such.
    let finding = one([Kept::All, Kept::Since(i64::MAX), Kept::All], &[reading(18), reading(19)]);
    assert_eq!((finding.is_complete(), finding.beginning), (true, Beginning::LeftOut));
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
    let mut tally = Tally::new(&[Kept::All; 3], None);
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
    let mut tally = Tally::new(&[Kept::All], None);
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

    /// Promise 9: with `--from`, however far dates and sequences disagree, what is in Kafka or explained there is not missing,
    /// and what was lost is.
    #[test]
    fn from_a_time_on_losses_are_found_and_not_invented(
        lags in proptest::collection::vec(prop_oneof![4 => Just(0i64), 1 => 0i64..60], 120),
        lost in proptest::collection::btree_map(1u64..=120, any::<bool>(), 0..15),
        from in 1i64..120,
    ) {
        let from_ms = START_MS + from * 1000;
        let records = (1u64..=120).zip(&lags).filter_map(|(sequence, lag)| match lost.get(&sequence) {
            None => Some(dated(reading(sequence), *lag)),
            Some(true) => Some(dated(gap(sequence, sequence, sequence), *lag)),
            Some(false) => None,
        });
        let parts = parted(records);
        let counted = || parts.iter().flatten().filter(|record| record.timestamp_ms >= Some(from_ms));
        prop_assume!(counted().next().is_some());
        let finding = since(&parts, from_ms);
        let sequence = |record: &Record| record.event().expect("an id").sequence;
        prop_assert_eq!(Some(finding.begin), counted().map(sequence).min());
        prop_assert_eq!(Some(finding.end), counted().map(sequence).max());
        let gaps = counted().filter(|record| record.header("ce_type") == Some(CE_TYPE_GAP)).count() as u64;
        prop_assert_eq!((finding.readings, finding.gap_records), (counted().count() as u64 - gaps, gaps));
        // What was read goes on to the last record of the partitions that were read.
        let read = parts.iter().filter(|part| part.iter().any(|record| record.timestamp_ms >= Some(from_ms)));
        let horizon = read.filter_map(|part| part.last()).map(sequence).max().unwrap_or(0);
        let missing = lost.iter().filter(|(_, explained)| !**explained).map(|(sequence, _)| *sequence);
        let missing: Vec<u64> = missing.filter(|sequence| (finding.begin..=horizon).contains(sequence)).collect();
        prop_assert_eq!(listed(&finding), missing);
    }

    /// Promise 9: whatever was deleted from whichever partition, and however far back readings were dated, only what was
    /// lost is missing; and what was lost behind a record that every such partition still has, is.
    #[test]
    fn what_may_be_deleted_is_not_judged(
        lags in proptest::collection::vec(0i64..=20, 120),
        lost in proptest::collection::btree_set(1u64..=120, 0..15),
        deleted in proptest::array::uniform3(0usize..45),
    ) {
        let there = (1u64..=120).zip(&lags).filter(|(sequence, _)| !lost.contains(sequence));
        let mut parts = parted(there.map(|(sequence, lag)| dated(reading(sequence), *lag)));
        let mut kept = [Kept::All; 3];
        let mut behind = 0;
        for (at, part) in parts.iter_mut().enumerate().filter(|(at, _)| deleted[*at] > 0) {
            let gone: Vec<Record> = part.drain(..deleted[at].min(part.len())).collect();
            let oldest = part.first().and_then(|record| record.timestamp_ms);
            let since = oldest.or(gone.iter().filter_map(|record| record.timestamp_ms.map(|ms| ms + 1)).max());
            kept[at] = since.map_or(Kept::All, |since| Kept::Since(since + 20_000));
            let lowest = part.first().and_then(Record::event).map_or(u64::MAX, |event| event.sequence);
            behind = behind.max(lowest);
        }
        let records = parts.concat();
        prop_assume!(!records.is_empty());
        let finding = one(kept, &records);
        let missing = listed(&finding);
        prop_assert!(missing.iter().all(|sequence| lost.contains(sequence)), "{:?}", finding);
        let range = finding.begin.max(behind)..=finding.end;
        prop_assert!(lost.iter().filter(|sequence| range.contains(sequence)).all(|sequence| missing.contains(sequence)));
    }
}

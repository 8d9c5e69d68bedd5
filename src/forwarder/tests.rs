//! The loop against a Kafka whose every call may fail before or after it took effect, with crashes in between.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::daily::DailyReceipt;
use crate::forwarder::advice::Names;
use crate::forwarder::batch::Allowance;
use crate::forwarder::fake::FakeBacklog;
use crate::forwarder::record::Record;
use crate::forwarder::timestamp::TopicLimits;
use crate::forwarder::transfer::{Next, Parts, Transfer};
use crate::metrics::Metrics;
use crate::reading::{CE_TYPE_GAP, CE_TYPE_READING, CE_TYPE_RECEIPT, Received};
use crate::shutdown::Shutdown;

#[path = "../../tests/harness/model_kafka.rs"]
mod model_kafka;

use model_kafka::{Dice, FakeCluster, cluster, explained, values};

const LIMITS: TopicLimits = TopicLimits { retention_ms: Some(604_800_000), before_max_ms: None, compact: false };
const NOW: Received = Received { wall_ms: 1_800_000_000_000, boot_ms: 5_000, boot_id: 1, synchronised: true };

fn transfer(cluster: &FakeCluster, backlog: &FakeBacklog, metrics: &Arc<Metrics>) -> Transfer {
    Transfer::new(Parts {
        agent_id: "pi".into(),
        topics: [("meter".into(), "t".into())].into(),
        names: Names { topic: "t".into(), ..Names::default() },
        assumed: LIMITS,
        most: Allowance { records: 100, bytes: 1 << 20 },
        linger: Duration::ZERO,
        retry_max_delay: Duration::from_secs(1),
        clock_wait: Duration::ZERO,
        backlog: Box::new(backlog.clone()),
        cluster: Box::new(cluster.clone()),
        metrics: Arc::clone(metrics),
        shutdown: Shutdown::new(),
        heartbeat: Arc::new(|| {}),
        now: Box::new(|| NOW),
        random: Box::new(|| 0.5),
    })
}

/// Promise 5, as a consumer would check it: each receipt follows the one before, and says what is there and what is not.
/// Returns how many there are.
fn check_receipts(log: &[(Record, i64)], seed: u64) -> usize {
    let sequence = |record: &Record| record.headers.sequence.parse::<u64>().unwrap();
    let of_kind = |kind| log.iter().map(|(record, _)| record).filter(move |record| record.headers.kind == kind);
    let readings: BTreeSet<u64> = of_kind(CE_TYPE_READING).map(sequence).collect();
    let (mut next, mut number) = (1, 0);
    for record in of_kind(CE_TYPE_RECEIPT) {
        let receipt: DailyReceipt = serde_json::from_slice(&record.value).unwrap();
        let missing: u64 = receipt.gaps.iter().map(|gap| gap.count).sum();
        assert_eq!((receipt.first, receipt.last), (next, sequence(record) - 1), "seed {seed}: {receipt:?}");
        assert_eq!(receipt.count + missing, receipt.last + 1 - receipt.first, "seed {seed}: {receipt:?}");
        let there = readings.range(receipt.first..receipt.last + 1).count() as u64;
        assert_eq!(receipt.count, there, "seed {seed}: {receipt:?}");
        for gap in &receipt.gaps {
            let there = readings.range(gap.first..=gap.last).count() as u64;
            assert_eq!(gap.count + there, gap.last - gap.first + 1, "seed {seed}: {gap:?}");
        }
        next = sequence(record) + 1;
        number += 1;
    }
    number
}

/// Rounds without faults until everything is released.
fn drain(transfer: &mut Transfer, cluster: &FakeCluster) {
    cluster.0.lock().unwrap().faults = 0;
    for _ in 0..10_000 {
        let next = transfer.round().unwrap();
        if matches!(next, Next::Await { .. }) && transfer.backlog().release_point() >= transfer.backlog().end() {
            return;
        }
    }
    panic!("never done");
}

/// Adds something to the queue; `good` are the values that Kafka must get.
fn feed(dice: &mut Dice, backlog: &FakeBacklog, n: u64, good: &mut Vec<String>) {
    match dice.below(21) {
        0 => drop(backlog.dead(format!("DEAD{n}"), NOW)),
        1 => drop(backlog.reading("d", format!("BAD{n}"), NOW)),
        2 => drop(backlog.gap(1 + dice.below(3), NOW)),
        3 => backlog.disk().next += 1 + dice.below(3),
        4 => drop(backlog.day_over(i32::try_from(n).unwrap(), NOW)),
        _ => {
            good.push(format!("r{n}"));
            backlog.reading("d", format!("r{n}"), NOW);
        }
    }
}

/// Promises 2, 3, 4 and 5: whichever calls fail, with whatever outcome, and wherever the agent is killed: every reading is
/// in Kafka exactly once and in order, everything else is explained, and nothing is released that is not there.
#[test]
fn exactly_once_whatever_fails() {
    let mut receipts = 0;
    for seed in 0..400 {
        let mut dice = Dice(seed ^ 0xfeed);
        let (cluster, backlog) = (cluster(seed, 4 + seed % 60), FakeBacklog::new(7));
        let metrics = Arc::new(Metrics::default());
        let mut line = transfer(&cluster, &backlog, &metrics);
        let (mut good, mut checked) = (vec![], 1);
        for n in 0..300 {
            for _ in 0..dice.below(4) {
                feed(&mut dice, &backlog, good.len() as u64 * 1000 + n, &mut good);
            }
            line.round().unwrap();
            let mut world = cluster.0.lock().unwrap();
            let there = explained(&world.log);
            let released = backlog.disk().released;
            assert!((checked..released).all(|s| there.contains(&s)), "seed {seed}: released {released}, not in Kafka");
            checked = released;
            // Kafka forgets an idle group; not while an outcome is unknown.
            let known = world.groups.get(&format!("meterferry.pi.{:032x}", 7)).is_some_and(|k| k.offset == released);
            if known && dice.below(40) == 0 {
                world.groups.clear();
            }
            if std::mem::take(&mut world.crashed) || dice.below(50) == 0 {
                drop(world);
                line = transfer(&cluster, &backlog, &metrics);
            }
        }
        backlog.reading("d", "last", NOW);
        good.push("last".into());
        drain(&mut line, &cluster);
        let world = cluster.0.lock().unwrap();
        assert_eq!(values(&world.log), good, "seed {seed}");
        let (there, disk) = (explained(&world.log), backlog.disk());
        assert!((1..disk.next).all(|s| there.contains(&s)), "seed {seed}: a sequence is missing and not explained");
        let ids: BTreeSet<_> = world.log.iter().map(|(record, _)| &record.headers.id).collect();
        assert_eq!(ids.len(), world.log.len(), "seed {seed}: a ce_id came twice");
        assert!(world.log.windows(2).all(|w| w[0].0.headers.sequence < w[1].0.headers.sequence), "seed {seed}: order");
        assert_eq!(disk.forks, 0, "seed {seed}");
        receipts += check_receipts(&world.log, seed);
        let letters = disk.entries.values().filter(|e| {
            let text = format!("{:?}", e.body);
            text.contains("BAD") || text.contains("DEAD")
        });
        for entry in letters {
            assert!(
                disk.letters.keys().any(|(_, s)| *s == entry.sequence),
                "seed {seed}: {} not set aside",
                entry.sequence
            );
        }
        assert!(
            disk.letters.values().all(|l| !format!("{:?}", l.body).contains("b\"r")),
            "seed {seed}: a neighbour condemned"
        );
    }
    assert!(receipts > 1_000, "{receipts} receipts");
}

/// Promise 3: a restored image or a rolled-back file forks the queue; a reading is repeated rather than lost.
#[test]
fn restored_image_loses_nothing() {
    let mut forked = 0;
    for seed in 0..200 {
        let mut dice = Dice(seed);
        let (cluster, mut backlog) = (cluster(seed, 30), FakeBacklog::new(7));
        let metrics = Arc::new(Metrics::default());
        let (mut line, mut image) = (transfer(&cluster, &backlog, &metrics), backlog.image());
        let mut lost_from = 0;
        let mut given: Vec<(u64, String)> = vec![];
        for n in 0..120 {
            given.push((n, format!("r{n}")));
            backlog.reading("d", format!("r{n}"), NOW);
            line.round().unwrap();
            match n {
                40 => (image, lost_from) = (backlog.image(), n + 1),
                80 => {
                    // What was taken in since is gone with the card, unless Kafka has it; new readings get its numbers.
                    backlog = image.image();
                    given.retain(|(m, _)| *m < lost_from);
                    for extra in 0..dice.below(60) {
                        given.push((n, format!("new{extra}")));
                        backlog.reading("d", format!("new{extra}"), NOW);
                    }
                    line = transfer(&cluster, &backlog, &metrics);
                }
                _ => {}
            }
        }
        drain(&mut line, &cluster);
        let there: BTreeSet<_> = values(&cluster.0.lock().unwrap().log).into_iter().collect();
        assert!(given.iter().all(|(_, value)| there.contains(value)), "seed {seed}: lost");
        forked += backlog.disk().forks;
    }
    assert!(forked > 100, "{forked}");
}

/// Promise 3: a cloned card on other hardware takes its own id without fencing the original; neither loses anything.
#[test]
fn clone_on_other_hardware_does_not_fence_the_original() {
    let (cluster, original) = (cluster(1, 0), FakeBacklog::new(7));
    let metrics = Arc::new(Metrics::default());
    let mut line = transfer(&cluster, &original, &metrics);
    for n in 0..10 {
        original.reading("d", format!("both{n}"), NOW);
    }
    let clone = original.image();
    drain(&mut line, &cluster);
    clone.disk().moved = true;
    clone.reading("d", "clone", NOW);
    let mut other = transfer(&cluster, &clone, &metrics);
    drain(&mut other, &cluster);
    assert_eq!(clone.disk().forks, 1);
    original.reading("d", "original", NOW);
    let connects = metrics.forwarder.connects.get();
    drain(&mut line, &cluster);
    assert_eq!(metrics.forwarder.connects.get(), connects, "the original was fenced");
    let log = values(&cluster.0.lock().unwrap().log);
    let both = (0..10).map(|n| format!("both{n}"));
    assert_eq!(
        log,
        both.chain(["clone".into(), "original".into()]).collect::<Vec<_>>(),
        "Kafka had ten, by fingerprint"
    );
}

/// Promise 3: a clone on the same hardware is noticed by what Kafka knows under its number.
#[test]
fn clone_without_a_serial_forks_on_the_fingerprint() {
    let (cluster, original) = (cluster(1, 0), FakeBacklog::new(7));
    let metrics = Arc::new(Metrics::default());
    let clone = original.image();
    let (mut a, mut b) = (transfer(&cluster, &original, &metrics), transfer(&cluster, &clone, &metrics));
    for n in 0..5 {
        original.reading("d", format!("a{n}"), NOW);
        clone.reading("d", format!("b{n}"), NOW);
        drain(&mut a, &cluster);
        drain(&mut b, &cluster);
    }
    let log: BTreeSet<_> = values(&cluster.0.lock().unwrap().log).into_iter().collect();
    assert_eq!(log.len(), 10, "{log:?}");
    assert_eq!(original.disk().forks + clone.disk().forks, 1);
}

/// Promise 5: what explains a missing sequence is never given up. A topic that refuses even that is waited for, and does not
/// send the readings behind it to the dead letters; once it is cured, every sequence is there or explained.
#[test]
fn refused_gap_record_waits_for_a_person() {
    let (cluster, backlog) = (cluster(1, 0), FakeBacklog::new(7));
    let metrics = Arc::new(Metrics::default());
    let mut line = transfer(&cluster, &backlog, &metrics);
    cluster.0.lock().unwrap().no_gaps = true;
    backlog.reading("d", "one", NOW);
    backlog.reading("d", "BAD", NOW);
    backlog.dead("DEAD", NOW);
    backlog.disk().next += 2;
    backlog.reading("d", "two", NOW);
    backlog.gap(2, NOW);
    for n in 0..20 {
        backlog.reading("d", format!("BAD {n}"), NOW);
    }
    let mut waits = 0;
    for _ in 0..200 {
        waits += u32::from(matches!(line.round().unwrap(), Next::Pause(delay) if !delay.is_zero()));
    }
    assert!(waits > 50, "it waits between its attempts: {waits}");
    assert_eq!(values(&cluster.0.lock().unwrap().log), ["one"]);
    assert_eq!(backlog.disk().released, 2, "nothing is released without a word");
    assert!(backlog.disk().letters.len() <= 2, "only the first refused reading, and what was looked at, is set aside");

    cluster.0.lock().unwrap().no_gaps = false;
    drain(&mut line, &cluster);
    let explained: u64 = {
        let world = cluster.0.lock().unwrap();
        assert_eq!(values(&world.log), ["one", "two"]);
        let gaps = world.log.iter().filter(|(record, _)| record.headers.kind == CE_TYPE_GAP);
        let count =
            |record: &Record| serde_json::from_slice::<serde_json::Value>(&record.value).unwrap()["count"].as_u64();
        gaps.map(|(record, _)| count(record).unwrap()).sum()
    };
    assert_eq!(explained, 1 + 1 + 2 + 2 + 20, "refused, dead, missing, the queue's own gap, and the twenty");
    assert_eq!(backlog.disk().letters.len(), 1 + 1 + 20);
}

/// Promise 8: nothing is sent while the clock is known to be wrong, for as long as was configured.
#[test]
fn waits_for_the_clock_and_then_believes_it() {
    let (cluster, backlog) = (cluster(1, 0), FakeBacklog::new(7));
    let boot = Arc::new(Mutex::new(1_000u64));
    let metrics = Arc::new(Metrics::default());
    let mut line = transfer(&cluster, &backlog, &metrics);
    let ticks = Arc::clone(&boot);
    line.set_clock(Duration::from_secs(60), move || Received {
        wall_ms: 10_000,
        boot_ms: *ticks.lock().unwrap(),
        boot_id: 1,
        synchronised: false,
    });
    backlog.reading("d", "r", NOW);
    assert_eq!(line.round().unwrap(), Next::Again, "connects");
    assert!(matches!(line.round().unwrap(), Next::Pause(_)), "waits");
    assert!(cluster.0.lock().unwrap().log.is_empty());
    *boot.lock().unwrap() = 62_000;
    drain(&mut line, &cluster);
    assert_eq!(cluster.0.lock().unwrap().log.len(), 1);
}

/// Promise 8: a clock that is set back behind what Kafka has taken is waited for again; what comes meanwhile keeps its
/// true time.
#[test]
fn waits_for_a_clock_that_is_set_back() {
    let (cluster, backlog) = (cluster(1, 0), FakeBacklog::new(7));
    let set_back_ms = Arc::new(Mutex::new(0));
    let metrics = Arc::new(Metrics::default());
    let mut line = transfer(&cluster, &backlog, &metrics);
    let back = Arc::clone(&set_back_ms);
    let now = move || Received { wall_ms: NOW.wall_ms - *back.lock().unwrap(), ..NOW };
    line.set_clock(Duration::from_secs(60), now.clone());
    backlog.reading("d", "before", now());
    drain(&mut line, &cluster);
    *set_back_ms.lock().unwrap() = 50 * 60 * 1000;
    backlog.reading("d", "an hour at most cannot be told", now());
    drain(&mut line, &cluster);
    *set_back_ms.lock().unwrap() = 365 * 86_400_000;
    backlog.reading("d", "a year", now());
    assert!(matches!(line.round().unwrap(), Next::Pause(_)), "waits");
    assert_eq!(cluster.0.lock().unwrap().log.len(), 2);
    *set_back_ms.lock().unwrap() = 0;
    drain(&mut line, &cluster);
    let cluster = cluster.0.lock().unwrap();
    assert_eq!(cluster.log.len(), 3);
    assert_eq!(cluster.log[2].1, NOW.wall_ms, "by the boot clock: {:?}", cluster.log);
}

/// Promise 8: whatever moment the clock is set back at, between any two looks at it, nothing is stamped by it: Kafka would
/// delete that.
#[test]
fn a_clock_that_is_set_back_at_any_moment_stamps_nothing() {
    for moment in 1..40 {
        let (cluster, backlog) = (cluster(1, 0), FakeBacklog::new(7));
        let metrics = Arc::new(Metrics::default());
        let mut line = transfer(&cluster, &backlog, &metrics);
        let looks = Arc::new(Mutex::new(None));
        let counted = Arc::clone(&looks);
        line.set_clock(Duration::from_secs(60), move || {
            let mut looks = counted.lock().unwrap();
            let look = looks.as_mut().map(|look: &mut i32| std::mem::replace(look, *look + 1));
            let set_back = look.is_some_and(|look| (moment..moment + 5).contains(&look));
            Received { wall_ms: NOW.wall_ms - if set_back { 365 * 86_400_000 } else { 0 }, ..NOW }
        });
        backlog.reading("d", "before", NOW);
        drain(&mut line, &cluster);
        *looks.lock().unwrap() = Some(0);
        for _ in 0..300 {
            backlog.reading("d", "behind", NOW);
        }
        drain(&mut line, &cluster);
        let cluster = cluster.0.lock().unwrap();
        assert_eq!(cluster.log.len(), 301);
        assert!(cluster.log.iter().all(|(_, stamp)| *stamp == NOW.wall_ms), "set back at look {moment}");
    }
}

/// Promise 5: however many messages cannot be decoded, the disk is asked once a transaction, not once a message: they hold
/// up the readings behind them no longer than readings would.
#[test]
fn dead_letters_are_put_away_together() {
    let (cluster, backlog) = (cluster(1, 0), FakeBacklog::new(7));
    let metrics = Arc::new(Metrics::default());
    let mut line = transfer(&cluster, &backlog, &metrics);
    for n in 0..2_000 {
        backlog.dead(format!("{n:>21}"), NOW);
    }
    drain(&mut line, &cluster);
    let disk = backlog.disk();
    assert_eq!(disk.letters.len(), 2_000);
    assert!(disk.set_asides <= 40, "{}", disk.set_asides);
}

/// Promise 6: what waits is more than a transaction may carry, be it in bytes: the next one follows at once. Only the last
/// one of all, which has all that waits, is preceded by a wait for more.
#[test]
fn full_transactions_follow_each_other_at_once() {
    let (cluster, backlog) = (cluster(1, 0), FakeBacklog::new(7));
    let metrics = Arc::new(Metrics::default());
    let mut line = transfer(&cluster, &backlog, &metrics);
    line.set_linger(Duration::from_secs(3_600));
    // More than one does not fit into the first allowance, and five not into any.
    let large = vec![b'x'; 250_000];
    for _ in 0..20 {
        backlog.reading("d", large.clone(), NOW);
    }
    assert_eq!(line.round().unwrap(), Next::Again, "connects");
    assert!(matches!(line.round().unwrap(), Next::Await { .. }), "there may be more to come");
    line.set_linger(Duration::ZERO);
    assert_eq!(line.round().unwrap(), Next::Again, "the first");
    line.set_linger(Duration::from_secs(3_600));
    for _ in 0..40 {
        if backlog.disk().released == 21 {
            break;
        }
        assert_eq!(line.round().unwrap(), Next::Again, "{} are released", backlog.disk().released - 1);
    }
    assert_eq!(backlog.disk().released, 21);
    backlog.reading("d", "later", NOW);
    assert!(matches!(line.round().unwrap(), Next::Await { .. }), "what comes then waits for others");
}

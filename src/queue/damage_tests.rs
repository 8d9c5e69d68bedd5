//! Damage as the tools see it: what is told of it, what is kept of it, and that looking changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::inspect::Inspector;
use super::repair::repair;
use super::walk::Find;
use super::{Options, mend, open};
use crate::clock::Clock;
use crate::config::settings::WhenFull;
use crate::metrics::Metrics;
use crate::reading::{Body, Kind, Mark, Reading};
use crate::receipt::Receipt;

/// Readings in a queue.
const COUNT: u64 = 5_000;

fn options(path: &Path) -> Options {
    Options {
        path: path.to_owned(),
        max_size: 1 << 30,
        min_free: 0,
        when_full: WhenFull::Block,
        pack_after: super::PACK_AFTER,
        segment_size: 256 << 10,
        redelivery_window: 50,
        windows: BTreeMap::new(),
        max_dead_letters: 1 << 20,
        dead_letters_max_age: None,
        keeps_wear: false,
        agent_id: None,
        default_agent_id: "pi-1".into(),
        hardware_serial: None,
    }
}

/// A closed queue of `count` readings in several segments; each payload tells its sequence.
fn filled(folder: &Path, count: u64) -> Options {
    let options = options(folder);
    let queue = open(&options, Arc::new(Metrics::default()), Clock::new(), Arc::new(|| ())).expect("opens");
    let super::Queue { intake, outlet, writer, .. } = queue;
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let received = Clock::new().now();
    for sequence in 1..=count {
        let payload = format!("{sequence:>800}");
        let mark = Mark::of("", None, "sma", payload.as_bytes(), true);
        let reading = Reading {
            source: "meter".into(),
            device: "d".into(),
            topic: "sma".into(),
            sender: String::new(),
            packet_id: None,
            received,
            measured_ms: None,
            self_identified: true,
            json: false,
            kind: Kind::default(),
            marks: Vec::new(),
            payload: payload.into(),
        };
        let (body, last) = (Body::Reading(reading), sequence % 100 == 0);
        let delay = if last { Duration::ZERO } else { Duration::from_secs(5) };
        runtime.block_on(intake.append(body, mark, Receipt::unneeded(), delay)).expect("the writer runs");
        // In small commits: a large one would roll a segment late, and there would be few.
        assert!(!last || outlet.wait(sequence, Duration::from_secs(30)));
    }
    drop((intake, outlet));
    writer.join().expect("an orderly end");
    options
}

fn segments(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.file_name().is_some_and(|name| name.len() == "00000000000000000001.redb".len()))
        .collect();
    paths.sort();
    paths
}

/// Everything in a folder, to show that nothing changed.
fn content(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.map(|path| (path.clone(), fs::read(path).expect("readable"))).collect()
}

/// Every sequence that a walk finds, and those it says are missing or damaged. Each payload must be its sequence's own.
fn walked(inspector: &Inspector) -> (BTreeSet<u64>, BTreeSet<u64>) {
    let (mut good, mut bad) = (BTreeSet::new(), BTreeSet::new());
    let mut walk = inspector.walk(Some(0), None).expect("readable");
    loop {
        let finds = walk.read(37, 10_000).expect("readable");
        if finds.is_empty() {
            return (good, bad);
        }
        for find in finds {
            match find {
                Find::Record(entry) => {
                    let Body::Reading(reading) = &entry.body else { panic!("{entry:?}") };
                    assert_eq!(&reading.payload[..], format!("{:>800}", entry.sequence).as_bytes());
                    assert!(good.insert(entry.sequence), "{} twice", entry.sequence);
                }
                // Where the newest segment is damaged, sequences jump by more than anybody wants to list.
                Find::Missing { first, last, .. } | Find::Damaged { first, last, .. } => {
                    bad.extend(first..=last.min(2 * COUNT));
                }
            }
        }
    }
}

/// SplitMix64: the same seed gives the same damage on every machine.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

/// Flips bytes, blanks blocks, or cuts a file short.
fn damage(path: &Path, dice: &mut Dice) {
    let mut bytes = fs::read(path).expect("readable");
    let size = bytes.len() as u64;
    match dice.below(3) {
        0 => {
            for _ in 0..=dice.below(20) {
                bytes[dice.below(size) as usize] ^= 1 << dice.below(8);
            }
        }
        1 => {
            for _ in 0..=dice.below(6) {
                let at = (dice.below(size) / 4096 * 4096) as usize;
                let end = (at + 4096).min(bytes.len());
                bytes[at..end].fill(0);
            }
        }
        _ => bytes.truncate(dice.below(size) as usize),
    }
    fs::write(path, bytes).expect("written");
}

/// Promise 7: whatever the damage, looking never panics, never serves it as good, says every sequence once, and changes
/// nothing; repair and mend keep at least what looking finds, and the second time find nothing to do.
#[test]
fn damage_is_told_and_kept_from() {
    let seed = std::env::var("METERFERRY_SEED").map_or(4, |text| text.parse().expect("a number"));
    let rounds = if std::env::var_os("METERFERRY_LONG").is_some() { 500 } else { 25 };
    let template = tempfile::tempdir().expect("a temporary folder");
    filled(template.path(), COUNT);
    assert!(segments(template.path()).len() > 3, "{:?}", segments(template.path()));
    for round in 0..rounds {
        let mut dice = Dice(seed * 1_000_003 + round);
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (path, bytes) in content(template.path()) {
            fs::write(folder.path().join(path.file_name().expect("a name")), bytes).expect("written");
        }
        let files = segments(folder.path());
        let at = dice.below(files.len() as u64) as usize;
        let newest = at + 1 == files.len();
        damage(&files[at], &mut dice);
        let (options, before) = (options(folder.path()), content(folder.path()));
        let inspector = Inspector::open(folder.path()).expect("a queue");
        let shown = format!("seed {seed}, round {round}, {:?}", files[at]);

        let status = inspector.status().expect("readable");
        let (good, bad) = walked(&inspector);
        assert!(good.is_disjoint(&bad), "{shown}");
        if !newest {
            let all: BTreeSet<_> = good.union(&bad).copied().collect();
            assert_eq!(all, (1..=COUNT).collect(), "{shown}");
        }
        let report = inspector.verify(|_| ()).expect("readable");
        let whole = good.len() as u64 == COUNT;
        assert!(whole || !report.is_sound(), "{shown}: {report:?}");
        assert_eq!(content(folder.path()), before, "{shown}: looking changes nothing");
        assert!(status.segments.len() == files.len(), "{shown}");

        let again = if dice.below(2) == 0 {
            let mended = mend::mend(&options, |_, _| ()).expect("mended");
            assert!(mended.records >= good.len() as u64, "{shown}: {mended:?} of {}", good.len());
            let second = mend::mend(&options, |_, _| ()).expect("mended");
            assert_eq!((second.records, second.salvaged.len()), (mended.records, 0), "{shown}");
            mended.records
        } else {
            let repaired = repair(&options, |_| ()).expect("repaired");
            assert!(repaired.records >= good.len() as u64, "{shown}: {repaired:?} of {}", good.len());
            let second = repair(&options, |_| ()).expect("repaired");
            assert!(second.is_nothing(), "{shown}: {second:?}");
            repaired.records
        };
        let inspector = Inspector::open(folder.path()).expect("a queue");
        let (kept, _) = walked(&inspector);
        assert!(kept.is_superset(&good), "{shown}");
        assert_eq!(kept.len() as u64, again, "{shown}");
        let report = inspector.verify(|_| ()).expect("readable");
        assert!(report.is_sound(), "{shown}: {report:?}");
    }
}

/// Promise 7: a file that is gone is told as that, is explained to Kafka, and its neighbours are left as they are.
#[test]
fn a_missing_file_is_not_its_neighbours_damage() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = filled(folder.path(), COUNT);
    let files = segments(folder.path());
    let first =
        |path: &Path| -> u64 { path.file_stem().and_then(|name| name.to_str()?.parse().ok()).expect("a number") };
    let (from, to) = (first(&files[2]), first(&files[3]) - 1);
    fs::remove_file(&files[2]).expect("removed");
    let before: Vec<_> = [1, 3].iter().map(|at| fs::read(&files[*at]).expect("readable")).collect();

    let report = Inspector::open(folder.path()).expect("a queue").verify(|_| ()).expect("readable");
    assert!(report.segments.iter().all(|segment| segment.wrong.is_empty()), "{report:?}");
    assert_eq!(report.segments[1].gone, Some((from, to)));
    assert!(!report.is_sound() && report.wrong.iter().any(|wrong| wrong.contains("is missing")), "{:?}", report.wrong);

    let repaired = repair(&options, |_| ()).expect("repaired");
    let lost: Vec<_> = repaired.lost.iter().map(|lost| (lost.first, lost.last)).collect();
    assert_eq!((lost, repaired.salvaged.len(), repaired.set_aside.len()), (vec![(from, to)], 0, 0));
    let after: Vec<_> = [1, 3].iter().map(|at| fs::read(&files[*at]).expect("readable")).collect();
    assert!(before == after, "the neighbours are not touched");
    assert!(Inspector::open(folder.path()).expect("a queue").verify(|_| ()).expect("readable").is_sound());
}

/// Promise 7: damage that the tools come by is told once, in words, and not as a crash of theirs.
#[test]
fn a_truncated_file_is_told_of_once() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    filled(folder.path(), COUNT);
    let files = segments(folder.path());
    let bytes = fs::read(&files[1]).expect("readable");
    fs::write(&files[1], &bytes[..bytes.len() / 2]).expect("written");
    let report = Inspector::open(folder.path()).expect("a queue").verify(|_| ()).expect("readable");
    assert_eq!((report.segments[1].wrong.len(), report.segments[1].gone), (1, None), "{:?}", report.segments[1]);
    assert!(!report.segments[1].wrong[0].contains("records 0 "), "{:?}", report.segments[1]);
}

/// Promise 3: what is mended ends with the last record that can be read: a later look at the card may find that more came
/// after it, under the next sequence.
#[test]
fn a_mended_copy_does_not_jump() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = filled(folder.path(), COUNT);
    let newest = segments(folder.path()).pop().expect("segments");
    let bytes = fs::read(&newest).expect("readable");
    fs::write(&newest, &bytes[..bytes.len() / 2]).expect("written");
    let mended = mend::mend(&options, |_, _| ()).expect("mended");
    assert!(mended.open_end);
    let queue = open(&options, Arc::new(Metrics::default()), Clock::new(), Arc::new(|| ())).expect("opens");
    assert!(queue.recovered.end <= COUNT + 1, "{}", queue.recovered.end);
    drop((queue.intake, queue.outlet));
    queue.writer.join().expect("an orderly end");
}

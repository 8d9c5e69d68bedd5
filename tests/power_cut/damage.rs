//! Damage: whatever a bad medium, or a person, does to the files of a queue.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use meterferry::config::settings::WhenFull;
use meterferry::queue;
use meterferry::queue::inspect::Inspector;
use meterferry::reading::{Body, Entry, QueueId};
use rand::RngExt;
use rand::rngs::StdRng;

use crate::compare::{chain, ensure};
use crate::content::Content;
use crate::disk::SimulatedDisk;
use crate::ledger::Written;
use crate::life::{FOLDER, Life, Setting, is_gap};
use crate::message;
use crate::scale::scale;
use crate::strands;
use crate::tree::Tree;

/// Damages of one queue.
const STRAND: u64 = 100;
const SETTING: Setting =
    Setting { segment_size: 48 << 10, max_size: 1 << 30, when_full: WhenFull::Block, packs: false };
/// Numbers of what is appended after the damage.
const LATER: u64 = 1 << 40;

/// A queue that has some of everything, closed or killed, and the model of it.
struct Sample {
    tree: Tree,
    written: Vec<Written>,
    queue_id: QueueId,
    /// First sequence of the newest segment.
    newest: u64,
    letters: usize,
    copies: Vec<Copy>,
}

/// Promises 5 and 7: whatever happened to the files of a queue, it opens by itself, never serves a record that was not
/// appended, keeps what can be read, leaves the neighbours of a damaged segment as they are, sets it aside under a name
/// with its date, counts what is lost and hands it out as a gap.
#[test]
fn damage_is_noticed_contained_and_told() {
    let strands = scale(10_000, 50_000) / STRAND;
    let (salvaged, with_packed) = (AtomicU64::new(0), AtomicU64::new(0));
    strands::run(strands, |strand, random| {
        let (sample, other) = (sample(random), sample(random));
        with_packed.fetch_add(u64::from(has_packed(&sample.tree)), Ordering::Relaxed);
        for case in 0..STRAND {
            let mut tree = sample.tree.clone();
            let what: Vec<String> =
                (0..random.random_range(1..=2)).map(|_| damage(&mut tree, &other.tree, random)).collect();
            if is_of_the_other(&tree, &other.tree) {
                continue;
            }
            let set_aside = live_on(&sample, tree, random)
                .unwrap_or_else(|wrong| panic!("strand {strand}, case {case}, {what:?}: {wrong}"));
            salvaged.fetch_add(set_aside as u64, Ordering::Relaxed);
        }
    });
    eprintln!("{} cases, {} files set aside", strands * STRAND, salvaged.load(Ordering::Relaxed));
    assert!(salvaged.into_inner() > strands * STRAND / 10);
    assert!(with_packed.into_inner() > strands / 5, "too few queues with packed segments");
}

fn has_packed(tree: &Tree) -> bool {
    tree.names_where(is_segment).iter().any(|path| !frames(&tree.content(path).expect("a file").bytes()).is_empty())
}

/// One of the places where a record stands.
struct Copy {
    sequence: u64,
    path: PathBuf,
    /// From its header, or before it, to its end, or behind it.
    region: std::ops::Range<usize>,
}

/// Every place of every record.
fn copies(tree: &Tree, written: &[Written]) -> Vec<Copy> {
    const HEAD: usize = 200;
    let sequences: BTreeMap<u64, u64> =
        (1..).zip(written).map(|(sequence, written)| (written.number, sequence)).collect();
    let mut copies = Vec::new();
    for path in tree.names_where(is_segment) {
        let bytes = tree.content(&path).expect("a file").bytes();
        let packed = frames(&bytes);
        for (sequences, region) in &packed {
            let of = |sequence| Copy { sequence, path: path.clone(), region: region.clone() };
            copies.extend(sequences.clone().map(of));
        }
        if !packed.is_empty() {
            // What stands in the open there, the packer found nothing to shorten in.
            continue;
        }
        let mut at = 0;
        while let Some(next) = bytes[at..].iter().position(|byte| *byte == b'<') {
            at += next;
            let payload =
                numbered(&bytes[at..]).and_then(|number| Some((sequences.get(&number)?, message::payload(number))));
            match payload.filter(|(_, payload)| bytes[at..].starts_with(payload)) {
                Some((sequence, payload)) => {
                    let region = at.saturating_sub(HEAD)..(at + payload.len() + 8).min(bytes.len());
                    copies.push(Copy { sequence: *sequence, path: path.clone(), region });
                    at += payload.len();
                }
                None => at += 1,
            }
        }
    }
    copies
}

/// The frames of packed records in a segment's file (see src/queue/frame.rs): their sequences, and where they stand.
fn frames(bytes: &[u8]) -> Vec<(std::ops::RangeInclusive<u64>, std::ops::Range<usize>)> {
    const HEADER: usize = 36;
    let mut frames = Vec::new();
    for at in (0..bytes.len().saturating_sub(HEADER)).filter(|at| bytes[*at..].starts_with(b"MFP\x01")) {
        let long = |offset| u64::from_le_bytes(bytes[at + offset..at + offset + 8].try_into().expect("8 bytes"));
        let packed = u32::from_le_bytes(bytes[at + 32..at + HEADER].try_into().expect("4 bytes"));
        frames.push((long(8)..=long(16), at..at + HEADER + packed as usize));
    }
    frames
}

/// The number at the beginning of a payload.
fn numbered(bytes: &[u8]) -> Option<u64> {
    let end = bytes.iter().take(24).position(|byte| *byte == b'>')?;
    std::str::from_utf8(bytes.get(1..end)?).ok()?.parse().ok()
}

/// What stands whole anywhere in the files was not lost.
fn kept(before: &Tree, sample: &Sample, lost: &BTreeSet<u64>) -> Result<(), String> {
    let mut contents: BTreeMap<&Path, (Vec<u8>, Option<Vec<u8>>)> = BTreeMap::new();
    for copy in sample.copies.iter().filter(|copy| lost.contains(&copy.sequence)) {
        let (sound, damaged) = contents.entry(&copy.path).or_insert_with(|| {
            let of = |tree: &Tree| tree.content(&copy.path).map(Content::bytes);
            (of(&sample.tree).unwrap_or_default(), of(before))
        });
        let left = damaged.as_ref().and_then(|damaged| damaged.get(copy.region.clone()));
        ensure(left != Some(&sound[copy.region.clone()]), || {
            format!(
                "sequence {} is lost, although it stands in {} at {:?}",
                copy.sequence,
                copy.path.display(),
                copy.region
            )
        })?;
    }
    Ok(())
}

/// With a queue.toml and a segment of the other queue it is that queue.
fn is_of_the_other(tree: &Tree, other: &Tree) -> bool {
    let identity = Path::new(FOLDER).join("queue.toml");
    let theirs: Vec<_> = other.names_where(is_segment).iter().map(|path| other.content(path)).collect();
    tree.content(&identity) == other.content(&identity)
        && tree.names_where(is_segment).iter().any(|path| theirs.contains(&tree.content(path)))
}

fn sample(random: &mut StdRng) -> Sample {
    let disk = SimulatedDisk::new(Tree::root("/data"));
    let mut life = Life::open(disk.clone(), &SETTING).expect("a new queue");
    life.ledger.next_number = random.random_range(1..1_000_000_000);
    life.settle().expect("it runs");
    for _ in 0..random.random_range(4..14) {
        life.append(random.random_range(5..80)).expect("room");
    }
    let (end, mut letters) = (life.ledger.end(), 0);
    let release_point = random.random_range(1..end);
    if random.random_bool(0.5) {
        life.release(release_point).expect("released");
    }
    for some in life.read(end - 3).expect("readable").chunks(random.random_range(1..=3)) {
        life.set_aside(some).expect("room");
        letters += some.len();
    }
    let (queue_id, written) = (life.outlet().queue_id(), life.ledger.written.clone());
    let tree = if random.random_bool(0.5) {
        life.end().expect("an orderly end");
        disk.live()
    } else {
        let tree = disk.live();
        life.end().expect("an orderly end");
        tree
    };
    let tree = if random.random_bool(0.5) { packed(tree) } else { tree };
    let newest = tree.names_where(is_segment).pop().expect("a segment");
    let newest = newest.file_stem().and_then(|name| name.to_str()?.parse().ok()).expect("a sequence");
    let copies = copies(&tree, &written);
    Sample { tree, written, queue_id, newest, letters, copies }
}

/// The same queue after the line was down for long.
fn packed(tree: Tree) -> Tree {
    let disk = SimulatedDisk::new(tree);
    queue::pack_on(Arc::new(disk.clone()), Path::new(FOLDER), &mut |_| true).expect("it can be packed");
    disk.live()
}

/// Does one thing to one file; says what.
fn damage(tree: &mut Tree, other: &Tree, random: &mut StdRng) -> String {
    let files: Vec<PathBuf> = tree.names_where(|name| name != "lock");
    if files.is_empty() {
        return "nothing is left".to_owned();
    }
    let path = files[random.random_range(0..files.len())].clone();
    let mut bytes = tree.content(&path).expect("a file").bytes();
    let what = match random.random_range(0..9) {
        0..3 if !bytes.is_empty() => flip(&mut bytes, random),
        3 => {
            bytes.truncate(random.random_range(0..=bytes.len()));
            format!("truncated to {}", bytes.len())
        }
        4 if !bytes.is_empty() => blot(&mut bytes, random),
        5 => {
            tree.names.remove(&path);
            return format!("{} removed", path.display());
        }
        6 => return foreign(tree, other, &path, random),
        7 if !bytes.is_empty() => return refuse(tree, &path, random),
        _ => {
            let from = files[random.random_range(0..files.len())].clone();
            bytes = tree.content(&from).expect("a file").bytes();
            format!("replaced by {}", from.display())
        }
    };
    tree.put(&path, Content::of(&bytes));
    format!("{} {what}", path.display())
}

fn flip(bytes: &mut [u8], random: &mut StdRng) -> String {
    let count = [1, 1, 3, 20][random.random_range(0..4)];
    // The first pages tell the database where everything is.
    let until = if random.random_bool(0.3) { bytes.len().min(8192) } else { bytes.len() };
    let places: Vec<usize> = (0..count).map(|_| random.random_range(0..until)).collect();
    places.iter().for_each(|at| bytes[*at] ^= 1 << random.random_range(0..8));
    format!("flipped at {places:?}")
}

/// Sectors that read as zeros, as noise, or as another place of the same file.
fn blot(bytes: &mut [u8], random: &mut StdRng) -> String {
    let sectors = random.random_range(1..=16).min(bytes.len().div_ceil(512));
    let start = random.random_range(0..bytes.len()) / 512 * 512;
    let end = (start + sectors * 512).min(bytes.len());
    let from = random.random_range(0..=bytes.len() - (end - start));
    match random.random_range(0..3) {
        0 => bytes[start..end].fill(0),
        1 => bytes[start..end].fill_with(|| random.random()),
        _ => bytes.copy_within(from..from + end - start, start),
    }
    format!("overwritten from {start} to {end}")
}

/// Pages that the medium refuses to read.
fn refuse(tree: &mut Tree, path: &Path, random: &mut StdRng) -> String {
    let mut content = tree.content(path).expect("a file").clone();
    let size = content.len() as usize;
    let places: Vec<usize> = (0..[1, 1, 3][random.random_range(0..3)]).map(|_| random.random_range(0..size)).collect();
    places.iter().for_each(|at| content.refuse(*at));
    tree.put(path, content);
    format!("{} refused at {places:?}", path.display())
}

/// A file of another queue, in the place of this one or beside it.
fn foreign(tree: &mut Tree, other: &Tree, path: &Path, random: &mut StdRng) -> String {
    let files: Vec<PathBuf> = other.names_where(|name| name != "lock");
    let from = &files[random.random_range(0..files.len())];
    let to = if random.random_bool(0.5) { from.clone() } else { path.to_owned() };
    tree.put(&to, other.content(from).expect("a file").clone());
    format!("{} from another queue as {}", from.display(), to.display())
}

/// Opens it, reads it, uses it, and opens it again. How many files were set aside.
fn live_on(sample: &Sample, tree: Tree, random: &mut StdRng) -> Result<usize, String> {
    let before = tree.clone();
    let disk = SimulatedDisk::new(tree);
    let mut life = open(&disk)?;
    let from = life.outlet().release_point();
    let entries = read(&mut life, from)?;
    let end = life.outlet().end();
    whole(&entries, from, end)?;
    as_appended(&entries, sample)?;
    let lost_here = told(&mut life, &entries, sample, end)?;
    kept(&before, sample, &lost_here)?;

    // It goes on: what is appended now is there after the next start, and no sequence is used twice.
    life.ledger.next_number = LATER;
    life.ledger.written.clear();
    let count = random.random_range(1..40);
    life.append(count).map_err(|error| format!("it takes no more: {}", chain(&error)))?;
    let some = life.read(end).map_err(|error| chain(&error))?;
    life.set_aside(&some[..1]).map_err(|error| format!("it takes no dead letters: {}", chain(&error)))?;
    life.end().map_err(|error| format!("no orderly end: {}", chain(&error)))?;
    let mut again = open(&disk)?;
    let from = again.outlet().release_point();
    let later = read(&mut again, from)?;
    whole(&later, from, again.outlet().end())?;
    let is_new = |entry: &&Entry| number(entry).is_some_and(|number| number >= LATER);
    let new: Vec<u64> = later.iter().filter(is_new).map(|entry| entry.sequence).collect();
    ensure(new == (end..end + count).collect::<Vec<_>>(), || format!("{count} new ones from {end} on are {new:?}"))?;
    let lost_later = lost(&later, sample);
    ensure(lost_later == lost_here, || format!("lost were {lost_here:?}, now {lost_later:?}"))?;
    again.end().map_err(|error| format!("no orderly end: {}", chain(&error)))?;
    neighbours(&before, sample, &disk.live())?;
    letters(&before, sample, &disk)?;
    Ok(disk.live().names_where(|name| name.contains(".damaged-")).len())
}

/// What was not damaged is as it was; what was set aside is as it was found.
fn neighbours(before: &Tree, sample: &Sample, after: &Tree) -> Result<(), String> {
    let newest = before.names_where(is_segment).pop();
    let identity = Path::new(FOLDER).join("queue.toml");
    if before.content(&identity) != sample.tree.content(&identity) {
        // A foreign queue.toml beside a foreign segment is a queue of its own.
        return Ok(());
    }
    for path in sample.tree.names_where(is_segment).into_iter().filter(|path| Some(path) != newest.as_ref()) {
        let (sound, now) = (sample.tree.content(&path), after.content(&path));
        if before.content(&path) == sound && now.is_some() {
            ensure(now == sound, || format!("{} was not damaged, and is not as it was", path.display()))?;
        }
    }
    for path in after.names_where(|name| name.contains(".damaged-")) {
        let original = path.to_string_lossy().split(".damaged-").next().map(PathBuf::from).unwrap_or_default();
        // The newest is opened for writing before it is known to be damaged.
        if Some(&original) != newest.as_ref() && is_segment(&original.to_string_lossy()) {
            ensure(before.content(&original) == after.content(&path), || {
                format!("{} is not as it was", path.display())
            })?;
        }
    }
    Ok(())
}

fn is_segment(name: &str) -> bool {
    name.ends_with(".redb") && !name.contains("dead-letters")
}

/// Dead letters that were not damaged are all there; those that were hold up nothing.
fn letters(before: &Tree, sample: &Sample, disk: &SimulatedDisk) -> Result<(), String> {
    let inspector = Inspector::open_on(Arc::new(disk.clone()), Path::new(FOLDER)).map_err(|error| chain(&error))?;
    let listed = inspector.dead_letters().map_err(|error| format!("dead letters: {}", chain(&error)))?;
    let path = Path::new(FOLDER).join("dead-letters.redb");
    let sound = before.content(&path) == sample.tree.content(&path);
    ensure(!sound || listed.len() == sample.letters + 1, || format!("{} dead letters are left", listed.len()))
}

fn open(disk: &SimulatedDisk) -> Result<Life, String> {
    let mut life =
        Life::open(disk.clone(), &SETTING).map_err(|error| format!("it does not open: {}", chain(&error)))?;
    life.settle().map_err(|error| format!("it stops at once: {}", chain(&error)))?;
    Ok(life)
}

fn read(life: &mut Life, from: u64) -> Result<Vec<Entry>, String> {
    life.read(from).map_err(|error| format!("it cannot be read: {}", chain(&error)))
}

/// Every sequence is there or within a gap.
fn whole(entries: &[Entry], from: u64, end: u64) -> Result<(), String> {
    let mut next = from.max(1);
    for entry in entries {
        let first = if let Body::Gap(gap) = &entry.body { gap.first } else { entry.sequence };
        ensure(first == next, || format!("after {next} comes {first}"))?;
        next = entry.sequence + 1;
    }
    ensure(next == end, || format!("it ends with {next} instead of {end}"))
}

fn number(entry: &Entry) -> Option<u64> {
    let payload = match &entry.body {
        Body::Reading(reading) => &reading.payload,
        Body::Dead(dead) => &dead.payload,
        Body::Gap(_) | Body::Daily(_) => return None,
    };
    numbered(payload)
}

/// Nothing is served that was not appended, byte by byte, under its sequence.
fn as_appended(entries: &[Entry], sample: &Sample) -> Result<(), String> {
    for entry in entries.iter().filter(|entry| !is_gap(entry)) {
        let written = sample.written.get(entry.sequence as usize - 1);
        ensure(written.is_some_and(|written| message::body(written.number) == entry.body), || {
            format!("sequence {} was never appended: {:?}", entry.sequence, entry.body)
        })?;
    }
    Ok(())
}

/// Sequences of the sample that come out as gaps.
fn lost(entries: &[Entry], sample: &Sample) -> BTreeSet<u64> {
    let gaps = entries.iter().filter_map(|entry| if let Body::Gap(gap) = &entry.body { Some(gap) } else { None });
    gaps.flat_map(|gap| gap.first..=gap.last.min(sample.written.len() as u64)).collect()
}

/// What is lost is counted, and no sequence that was used is used again under the same queue id.
fn told(life: &mut Life, entries: &[Entry], sample: &Sample, end: u64) -> Result<BTreeSet<u64>, String> {
    let lost = lost(entries, sample);
    let counted = life.metrics.queue.lost.get();
    // How far the newest segment reached, only its own file knew.
    let known = lost.iter().filter(|sequence| **sequence < sample.newest).count() as u64;
    ensure(counted >= known, || format!("{} are lost, {counted} are counted", lost.len()))?;
    let same = life.outlet().queue_id() == sample.queue_id;
    ensure(!same || end > sample.written.len() as u64, || {
        format!("sequences go on at {end}, {} were used", sample.written.len())
    })?;
    Ok(lost)
}

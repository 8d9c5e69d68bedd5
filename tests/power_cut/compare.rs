//! Holds a queue that was opened after a power cut against the model.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use meterferry::queue::inspect::Inspector;
use meterferry::reading::{Body, Entry};

use crate::disk::SimulatedDisk;
use crate::ledger::{Expected, Register};
use crate::life::{FOLDER, Life, Setting};
use crate::message;
use crate::tree::Tree;

/// Opens a queue on what a power cut left and looks at everything that it shows. What is wrong, otherwise.
pub fn revive(image: Tree, setting: &Setting, expected: &Expected) -> Result<Life, String> {
    let disk = SimulatedDisk::new(image);
    let mut life = Life::open(disk, setting).map_err(|error| format!("it does not open: {}", chain(&error)))?;
    examine(&mut life, expected)?;
    Ok(life)
}

/// Looks at everything that a queue shows that was just opened. What is wrong, otherwise.
pub fn examine(life: &mut Life, expected: &Expected) -> Result<(), String> {
    let disk = life.disk.clone();
    let read: Vec<PathBuf> = disk.files_read();
    // Those that are unlinked have to be looked at before.
    let waits = |path: &&PathBuf| {
        let after =
            life.disk.live().names_where(|name| is_segment(Path::new(name))).into_iter().find(|other| other > *path);
        after
            .and_then(|after| after.file_stem()?.to_str()?.parse::<u64>().ok())
            .is_none_or(|after| after > life.recovered.release_point)
    };
    let segments = read.iter().filter(|path| is_segment(path)).filter(waits).count();
    ensure(segments <= 2, || format!("opening has read {segments} segments: {read:?}"))?;
    let mut left = disk.live().names_where(|name| name.contains(".damaged-"));
    left.extend(life.unfinished());
    ensure(left.is_empty(), || format!("files that should not be there: {left:?}"))?;

    let (release_point, end) = (life.recovered.release_point, life.recovered.end);
    let ends = expected.acknowledged as u64 + 1..=expected.written.len() as u64 + 1;
    ensure(ends.contains(&end), || format!("it ends with {end}, not in {ends:?}"))?;
    ensure(expected.release_points.contains(&release_point), || {
        format!("release point {release_point}, not in {:?}", expected.release_points)
    })?;
    let id = life.outlet().queue_id();
    ensure(expected.ids.is_empty() || expected.ids.contains(&id), || {
        format!("queue id {id}, not in {:?}", expected.ids)
    })?;
    let filters = life.recovered.filters.get(message::SOURCE).cloned().unwrap_or_default();
    ensure(expected.filters.contains(&filters), || format!("filters {filters:?}, not in {:?}", expected.filters))?;
    let marks = life.recovered.marks.get(message::SOURCE).cloned().unwrap_or_default();
    let wanted = expected.marks(end);
    ensure(marks == wanted, || format!("{} marks, not the last {} messages", marks.len(), wanted.len()))?;

    life.settle().map_err(|error| chain(&error))?;
    let entries = life.read(release_point).map_err(|error| format!("it cannot be read: {}", chain(&error)))?;
    records(&entries, release_point, end, expected)?;
    ensure(life.metrics.queue.lost.get() == 0, || "it says that records are lost".to_owned())?;
    // While nothing can be written, dead letters that were not closed cannot be looked at beside the agent.
    if !disk.has_struck() {
        letters(&disk, expected)?;
    }
    adopt(life, expected, end);
    Ok(())
}

fn is_segment(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.ends_with(".redb") && name.starts_with('0')
}

/// Every sequence, with what was written under it, or why it is missing.
fn records(entries: &[Entry], release_point: u64, end: u64, expected: &Expected) -> Result<(), String> {
    let mut next = release_point;
    for entry in entries {
        let first = if let Body::Gap(gap) = &entry.body { gap.first } else { entry.sequence };
        ensure(first == next, || format!("{first} comes where {next} is wanted, of {release_point}..{end}"))?;
        next = entry.sequence + 1;
        if let Body::Gap(gap) = &entry.body {
            ensure(next <= expected.given_up && gap.reason.starts_with("the queue was full"), || {
                format!("{gap:?} is no record that was given up, those are below {}", expected.given_up)
            })?;
            continue;
        }
        let written = expected.written[entry.sequence as usize - 1];
        ensure(entry.body == message::body(written.number), || {
            format!("sequence {} is not message {}: {:?}", entry.sequence, written.number, entry.body)
        })?;
    }
    ensure(next == end, || format!("it ends before {next}, not before {end}"))
}

fn letters(disk: &SimulatedDisk, expected: &Expected) -> Result<(), String> {
    if expected.letters.is_empty() {
        return Ok(());
    }
    let inspector = Inspector::open_on(Arc::new(disk.clone()), Path::new(FOLDER)).map_err(|error| chain(&error))?;
    let listed = inspector.dead_letters().map_err(|error| format!("dead letters: {}", chain(&error)))?;
    let keys: BTreeSet<_> = listed.iter().map(|letter| (letter.queue_id, letter.sequence)).collect();
    ensure(keys.len() == listed.len(), || "a dead letter is listed twice".to_owned())?;
    for letter in &expected.letters {
        ensure(listed.contains(letter), || format!("dead letter {} is lost", letter.sequence))?;
    }
    Ok(())
}

/// From here on, the queue's next life counts on what this one has shown.
fn adopt(life: &mut Life, expected: &Expected, end: u64) {
    let ledger = &mut life.ledger;
    ledger.written = expected.written[..end as usize - 1].to_vec();
    ledger.before = ledger.written.len();
    ledger.next_number = expected.next_number;
    ledger.told = *expected.release_points.end();
    ledger.known = !expected.ids.is_empty();
    ledger.given_up.insert(0, (0, expected.given_up));
    ledger.letters = expected.letters.iter().map(|letter| (0, letter.clone())).collect();
    ledger.id = Register::new(life.outlet.as_ref().expect("just opened").queue_id());
}

/// An error with its causes.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

pub fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

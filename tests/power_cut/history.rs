//! Random operations on a queue, and the power cuts in them.

use std::sync::atomic::{AtomicU64, Ordering};

use meterferry::config::settings::WhenFull;
use meterferry::reading::Entry;
use rand::RngExt;
use rand::rngs::StdRng;

use crate::compare::{chain, ensure};
use crate::disk::Log;
use crate::ledger::{Expected, Ledger};
use crate::life::{GROUP, Life, Setting, is_gap};
use crate::medium::{Medium, Op};
use crate::tree::Tree;

/// What can be done with a queue.
#[derive(Debug, Clone, Copy)]
pub enum Action {
    Append,
    Release,
    SetAside,
    Fork,
    Filters,
}

/// How often, in hundredths.
const ACTIONS: [(u32, Action); 5] =
    [(60, Action::Append), (26, Action::Release), (7, Action::SetAside), (2, Action::Fork), (5, Action::Filters)];

/// Bytes that hold little more than two segments.
pub const TIGHT: u64 = 1100 << 10;
/// How often a queue had no room.
pub static BLOCKED: AtomicU64 = AtomicU64::new(0);
/// Records given up for want of room.
pub static DROPPED: AtomicU64 = AtomicU64::new(0);
pub static THINNED: AtomicU64 = AtomicU64::new(0);
/// Rounds after which a queue whose records are all released has room.
const PATIENCE: usize = 20;

/// One setting of many.
pub fn setting(random: &mut StdRng) -> Setting {
    let segment_size = [32 << 10, 64 << 10, 128 << 10, 512 << 10][random.random_range(0..4)];
    // In one of ten there is hardly room for anything.
    if random.random_bool(0.1) { tight(random) } else { roomy(segment_size, random) }
}

fn roomy(segment_size: u64, random: &mut StdRng) -> Setting {
    Setting { segment_size, max_size: 1 << 30, when_full: WhenFull::Block, packs: random.random() }
}

/// One in which there is hardly room for anything.
pub fn tight(random: &mut StdRng) -> Setting {
    Setting { segment_size: 64 << 10, max_size: TIGHT, when_full: WhenFull::Block, packs: random.random() }
}

/// One in which the queue is full most of the time, and old records are given up for new ones.
pub fn generous(when_full: WhenFull, random: &mut StdRng) -> Setting {
    Setting {
        segment_size: 32 << 10,
        max_size: random.random_range(TIGHT..3 * TIGHT),
        when_full,
        packs: random.random(),
    }
}

/// Does some of everything, then ends the queue.
pub fn play(life: &mut Life, setting: &Setting, actions: usize, random: &mut StdRng) -> Result<(), String> {
    for _ in 0..actions {
        let action = action(random);
        act(life, setting, action, random).map_err(|error| format!("{action:?}: {}", chain(&error)))?;
        ensure(life.acknowledged_in_order(), || "acknowledged out of order".to_owned())?;
        make_room(life)?;
        let all = life.ledger.written.len() - life.ledger.before;
        ensure(life.acknowledged() == all, || format!("{} of {all} acknowledged", life.acknowledged()))?;
    }
    match setting.when_full {
        WhenFull::Block => {}
        WhenFull::DropOldest => _ = DROPPED.fetch_add(life.metrics.queue.dropped.get(), Ordering::Relaxed),
        WhenFull::Thin => _ = THINNED.fetch_add(life.metrics.queue.dropped.get(), Ordering::Relaxed),
    }
    life.end().map_err(|error| format!("no orderly end: {}", chain(&error)))
}

/// Where the queue has no room, everything is released until it has.
pub fn make_room(life: &mut Life) -> Result<(), String> {
    let mut rounds = 0;
    if life.is_blocked() {
        BLOCKED.fetch_add(1, Ordering::Relaxed);
    }
    while life.is_blocked() {
        let end = life.outlet().end();
        life.release(end).map_err(|error| chain(&error))?;
        rounds += 1;
        ensure(rounds < PATIENCE, || {
            let tree = life.disk.live();
            let files: Vec<_> =
                tree.names.keys().map(|path| (path, tree.content(path).map(|content| content.len()))).collect();
            let shown = (
                life.ledger.release_point(),
                life.recovered.release_point,
                life.recovered.end,
                life.disk.log().ops.len(),
            );
            format!("everything is released, and there is still no room: {shown:?} {files:?}")
        })?;
    }
    life.settle().map_err(|error| chain(&error))
}

pub fn action(random: &mut StdRng) -> Action {
    let mut point = random.random_range(0..100);
    let action = ACTIONS.iter().find_map(|(share, action)| {
        let hit = point < *share;
        point = point.saturating_sub(*share);
        hit.then_some(*action)
    });
    action.unwrap_or(Action::Append)
}

pub fn act(
    life: &mut Life,
    setting: &Setting,
    action: Action,
    random: &mut StdRng,
) -> Result<(), meterferry::queue::QueueError> {
    let (release_point, end) = (life.ledger.release_point(), life.outlet().end());
    match action {
        // Rarely released, so that it fills.
        Action::Release if setting.is_small() && random.random_bool(0.8) => life.append(40),
        Action::Append => {
            let many = setting.max_size > TIGHT && random.random_bool(if setting.is_small() { 0.6 } else { 0.1 });
            let count = random.random_range(1..=if many { GROUP } else { 60 });
            life.append(count)
        }
        Action::Release => {
            let next = if random.random_bool(0.4) { end } else { random.random_range(release_point..=end) };
            life.release(next)
        }
        // What was looked at is not thinned: Kafka may have it.
        Action::SetAside if setting.when_full == WhenFull::Thin => life.append(40),
        Action::SetAside if release_point < end && setting.max_size > TIGHT => {
            let entries = life.read(random.random_range(release_point..end))?;
            let count = if random.random_bool(0.5) { 1 } else { random.random_range(2..60) };
            let some: Vec<Entry> = entries.into_iter().filter(|entry| !is_gap(entry)).take(count).collect();
            if some.is_empty() { Ok(()) } else { life.set_aside(&some) }
        }
        Action::SetAside => Ok(()),
        Action::Fork => life.fork(),
        Action::Filters => life.remember_filters(vec![format!("sma/{}", random.random_range(0..1000))]),
    }
}

/// What one power cut left, and what has to be true of it.
pub struct Cut {
    pub image: Tree,
    pub expected: Expected,
    /// For a person.
    pub place: String,
}

/// Cuts the power at `count` places of a life, some of them next to each other.
pub fn cuts(log: &Log, ledger: &Ledger, acknowledged: usize, count: usize, random: &mut StdRng) -> Vec<Cut> {
    let turns: Vec<usize> =
        log.ops.iter().enumerate().filter(|(_, op)| op.is_turn()).map(|(position, _)| position).collect();
    let mut places: Vec<usize> = (0..count)
        .map(|_| match random.random_range(0..10) {
            0..4 if !turns.is_empty() => {
                (turns[random.random_range(0..turns.len())] + random.random_range(0..3)).min(log.ops.len())
            }
            4..6 => random.random_range(0..=ledger.opened.min(log.ops.len())),
            _ => random.random_range(0..=log.ops.len()),
        })
        .collect();
    places.sort_unstable();
    let mut medium = Medium::new(log.start.clone());
    let mut applied = 0;
    places
        .into_iter()
        .map(|position| {
            log.ops[applied..position].iter().for_each(|op| medium.apply(op));
            applied = position;
            let acknowledged = log.acknowledged.get(position).copied().unwrap_or(acknowledged);
            let next = log.ops.get(position);
            let place = format!("after {position} of {} changes, before {}", log.ops.len(), shown(next));
            Cut { image: leave(&medium, next, random), expected: ledger.at(position, acknowledged), place }
        })
        .collect()
}

/// The operation that was under way may be there, or a part of it.
fn leave(medium: &Medium, next: Option<&Op>, random: &mut StdRng) -> Tree {
    if random.random_bool(0.1) {
        return medium.kill();
    }
    match next {
        Some(op) if !matches!(op, Op::Sync(_) | Op::SyncFolder(_)) && random.random_bool(0.5) => {
            let mut medium = medium.clone();
            medium.apply(op);
            medium.cut(random)
        }
        _ => medium.cut(random),
    }
}

fn shown(op: Option<&Op>) -> String {
    match op {
        Some(Op::Write(inode, offset, data)) => format!("Write({inode}, {offset}, {} bytes)", data.len()),
        Some(op) => format!("{op:?}"),
        None => "the end".to_owned(),
    }
}

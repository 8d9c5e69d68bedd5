//! Promises 1, 3, 5 and 7 on a disk that fails: full, refusing to read, write or flush, read-only, gone.

use std::sync::atomic::{AtomicU64, Ordering};

use rand::RngExt;
use rand::rngs::StdRng;

use meterferry::config::settings::WhenFull;

use crate::compare::{chain, ensure, examine, revive};
use crate::disk::{Log, SimulatedDisk};
use crate::fault::{EIO, ENOSPC, EROFS, Fault, Kind};
use crate::history::{self, Cut};
use crate::ledger::{Expected, Ledger};
use crate::life::{Life, Setting};
use crate::medium::Medium;
use crate::scale::scale;
use crate::strands;
use crate::tree::Tree;

/// Lives of one disk, each with a fault.
const LIVES: usize = 12;
/// Threads: a full disk is tried again after a while, and until then a strand waits.
const WORKERS: usize = 40;
/// Messages that may wait for room.
const WAITING: usize = 200;
/// Rounds after which a queue has taken up again what a healed disk takes.
const PATIENCE: usize = 20;

const WRITES: &[Kind] = &[Kind::Write, Kind::Sync, Kind::Name];
const ALL: &[Kind] = &[Kind::Read, Kind::Write, Kind::Sync, Kind::Name, Kind::Open];
const CHANGES: &[Kind] = &[Kind::Write, Kind::Name, Kind::Open];
/// What lacks room, or fails, where.
const PLACES: [&[Kind]; 4] = [&[Kind::Write], &[Kind::Sync], &[Kind::Name], WRITES];

/// How often what happened, over all strands.
#[derive(Default)]
struct Counts {
    struck: AtomicU64,
    healed: AtomicU64,
    ended: AtomicU64,
    refused: AtomicU64,
    cuts: AtomicU64,
}

/// Promises 1, 3, 5, 7: whatever the disk refuses, and whenever, nothing is acknowledged that is not durable, not even after
/// a flush that failed; when the fault is over, a queue that only lacked room goes on by itself, any other after a restart;
/// everything acknowledged is there then, and after a power cut at any write, nothing that was released comes back, no
/// sequence is used twice, and the queue id is the same.
#[test]
fn nothing_acknowledged_is_lost_by_a_disk_that_fails() {
    let strands = scale(40, 1_500);
    let counts = Counts::default();
    strands::run_on(WORKERS, strands, |strand, random| {
        if let Err(wrong) = run(random, &counts) {
            panic!("strand {strand}, {wrong}");
        }
    });
    let [struck, healed, ended, refused, cuts] =
        [&counts.struck, &counts.healed, &counts.ended, &counts.refused, &counts.cuts]
            .map(|count| count.load(Ordering::Relaxed));
    eprintln!(
        "{struck} faults have struck: {healed} were over before the queue gave up, {ended} ended it, {refused} refused a start; {cuts} power cuts"
    );
    assert!([struck, healed, ended, refused, cuts].iter().all(|count| *count > strands / 10));
}

/// One disk's lives, each held against what the one before has left.
fn run(random: &mut StdRng, counts: &Counts) -> Result<(), String> {
    let setting = history::setting(random);
    let mut disk = SimulatedDisk::new(Tree::root("/data"));
    let mut expected = Expected::nothing();
    for life in 0..LIVES {
        let trouble = trouble(random);
        let shown = format!("{trouble:?}");
        let begun = disk.position();
        let lived = live(&disk, &setting, &expected, trouble, random, counts);
        let (ledger, acknowledged) = lived.map_err(|wrong| format!("life {life}, {shown}: {wrong}"))?;
        let next = ledger.at(disk.position(), acknowledged);
        let log = disk.log();
        let places = cut(&log, begun, &expected, &ledger, acknowledged, random);
        for cut in &places {
            counts.cuts.fetch_add(1, Ordering::Relaxed);
            afterwards(&setting, cut, random)
                .map_err(|wrong| format!("life {life}, {shown}, cut {}: {wrong}", cut.place))?;
        }
        expected = next;
        if random.random_bool(0.2)
            && let Some(cut) = places.into_iter().next_back()
        {
            disk = SimulatedDisk::new(cut.image);
            expected = cut.expected;
        }
    }
    Ok(())
}

/// Promises 1 and 6: a disk so full that not even the folder's names can be flushed refuses no start: what waits is
/// read, nothing is acknowledged, and when there is room the queue goes on by itself.
#[test]
fn a_full_disk_refuses_no_start() {
    let setting = Setting { segment_size: 64 << 10, max_size: 1 << 30, when_full: WhenFull::Block, packs: false };
    let disk = SimulatedDisk::new(Tree::root("/data"));
    let mut life = Life::open(disk.clone(), &setting).expect("a new queue");
    life.append(200).expect("room");
    life.end().expect("an orderly end");
    disk.inject(Fault::new(&[Kind::Sync], ENOSPC, 0, usize::MAX));
    let mut life = Life::open(disk.clone(), &setting).expect("a full disk can be drained");
    life.settle().expect("it runs");
    assert_eq!(life.read(1).expect("readable").len(), 200);
    life.ledger.next_number = 1_000;
    life.hand_in(5).expect("it listens");
    life.settle().expect("it runs");
    assert_eq!((life.acknowledged(), life.is_blocked()), (0, true));
    life.release(150).expect("released");
    disk.heal();
    recover(&mut life, &setting, true).expect("it goes on");
    assert_eq!((life.acknowledged(), life.read(201).expect("readable").len()), (5, 5));
    life.end().expect("an orderly end");
}

#[derive(Debug, Clone)]
enum Trouble {
    Fault(Fault),
    /// So many bytes are left: the rest is full of other files.
    Room(u64),
}

impl Trouble {
    fn lacks_room(&self) -> bool {
        !matches!(self, Self::Fault(fault) if fault.errno != ENOSPC)
    }

    fn strike(self, disk: &SimulatedDisk) {
        match self {
            Self::Fault(fault) => disk.inject(fault),
            Self::Room(bytes) => disk.set_capacity(disk.used() + bytes),
        }
    }
}

fn trouble(random: &mut StdRng) -> Trouble {
    if random.random_bool(0.1) {
        return Trouble::Room(random.random_range(0..2 << 20));
    }
    Trouble::Fault(fault(random))
}

fn fault(random: &mut StdRng) -> Fault {
    let most = [4, 12, 60][random.random_range(0..3)];
    let after = random.random_range(0..most);
    let times = [1, 2, random.random_range(1..20), usize::MAX][random.random_range(0..4)];
    match random.random_range(0..10) {
        0..4 => Fault::new(PLACES[random.random_range(0..PLACES.len())], ENOSPC, after, times),
        4..7 => Fault::new(PLACES[random.random_range(0..PLACES.len())], EIO, after, times),
        7 => Fault::new(&[Kind::Read], EIO, after, times.min(2)),
        8 => Fault::new(CHANGES, EROFS, after, usize::MAX),
        _ => Fault::new(ALL, EIO, after, usize::MAX),
    }
}

/// A start on the disk as the last life has left it, and what the queue does until the fault is over, or it ends.
fn live(
    disk: &SimulatedDisk,
    setting: &Setting,
    expected: &Expected,
    trouble: Trouble,
    random: &mut StdRng,
    counts: &Counts,
) -> Result<(Ledger, usize), String> {
    let lacks_room = trouble.lacks_room();
    let mut later = Some(trouble);
    if random.random_bool(0.3) {
        later.take().expect("it was just put there").strike(disk);
    }
    let mut opened = Life::open(disk.clone(), setting);
    if later.is_none() && opened.is_err() {
        counts.refused.fetch_add(1, Ordering::Relaxed);
        disk.heal();
        opened = Life::open(disk.clone(), setting);
    }
    let mut life = opened.map_err(|error| format!("it does not open: {}", chain(&error)))?;
    // Only where nothing but room is missing, all can be looked at.
    if later.is_none() && !lacks_room {
        disk.heal();
    }
    if life.settle().is_err() {
        ensure(later.is_none() && !lacks_room, || "it stops at once".to_owned())?;
        let _ = life.end();
        disk.heal();
        life = Life::open(disk.clone(), setting).map_err(|error| format!("it does not open: {}", chain(&error)))?;
    }
    examine(&mut life, expected)?;
    if let Some(trouble) = later {
        trouble.strike(disk);
    }
    life.doubtful = true;
    let alive = suffer(&mut life, setting, random, lacks_room)?;
    counts.struck.fetch_add(u64::from(disk.has_struck()), Ordering::Relaxed);
    if !alive {
        counts.ended.fetch_add(1, Ordering::Relaxed);
    } else if random.random_bool(0.8) {
        counts.healed.fetch_add(u64::from(disk.has_struck()), Ordering::Relaxed);
        disk.heal();
        recover(&mut life, setting, lacks_room)?;
    }
    let ended = life.end();
    ensure(!disk.has_struck() || ended.is_err() || alive, || "it has ended without a word".to_owned())?;
    disk.heal();
    ensure(life.acknowledged_in_order(), || "acknowledged out of order".to_owned())?;
    Ok((life.ledger.clone(), life.acknowledged()))
}

/// Goes on as long as the queue does. Whether it still runs.
fn suffer(life: &mut Life, setting: &Setting, random: &mut StdRng, lacks_room: bool) -> Result<bool, String> {
    for _ in 0..random.random_range(2..12) {
        let action = history::action(random);
        if matches!(action, history::Action::Append) && waiting(life) > WAITING {
            break;
        }
        match history::act(life, setting, action, random) {
            Ok(()) => {}
            Err(error) if life.ends() => {
                ensure(!lacks_room, || {
                    let cause = life.end().map_or_else(|error| chain(&error), |()| "none".to_owned());
                    format!("a full disk has ended it: {action:?}: {}, cause: {cause}", chain(&error))
                })?;
                return Ok(false);
            }
            Err(error) => {
                ensure(life.disk.has_struck(), || format!("{action:?}: {}", chain(&error)))?;
            }
        }
        if life.is_blocked() && random.random_bool(0.7) {
            break;
        }
    }
    Ok(true)
}

fn waiting(life: &Life) -> usize {
    life.ledger.written.len() - life.ledger.before - life.acknowledged()
}

/// The fault is over: everything that was handed in is taken.
fn recover(life: &mut Life, setting: &Setting, lacks_room: bool) -> Result<(), String> {
    for _ in 0..PATIENCE {
        if let Err(error) = life.settle() {
            return ensure(!lacks_room, || format!("it does not go on: {}", chain(&error)));
        }
        if waiting(life) == 0 && !life.is_blocked() {
            return Ok(());
        }
        if setting.is_tight() {
            return history::make_room(life);
        }
    }
    Err(format!("{} messages still wait", waiting(life)))
}

/// Power cuts between a position and the end of the log.
fn cut(
    log: &Log,
    begun: usize,
    before: &Expected,
    ledger: &Ledger,
    acknowledged: usize,
    random: &mut StdRng,
) -> Vec<Cut> {
    let mut places: Vec<usize> = (0..3).map(|_| random.random_range(begun..=log.ops.len())).collect();
    places.push(log.ops.len());
    places.sort_unstable();
    let (mut medium, mut applied) = (Medium::new(log.start.clone()), 0);
    let cut = |position: usize| {
        log.ops[applied..position].iter().for_each(|op| medium.apply(op));
        applied = position;
        let acknowledged = log.acknowledged.get(position).copied().unwrap_or(acknowledged);
        let expected = if position < ledger.opened { before.clone() } else { ledger.at(position, acknowledged) };
        let place = format!("after {position} of {} changes, opened at {}", log.ops.len(), ledger.opened);
        Cut { image: medium.cut(random), expected, place }
    };
    places.into_iter().map(cut).collect()
}

/// On a sound disk, after a power cut.
fn afterwards(setting: &Setting, cut: &Cut, random: &mut StdRng) -> Result<(), String> {
    let mut life = revive(cut.image.clone(), setting, &cut.expected)?;
    let actions = random.random_range(0..3);
    history::play(&mut life, setting, actions, random)
}

//! Promises 1, 3 and 7 across power cuts at any write.

use std::sync::atomic::{AtomicU64, Ordering};

use rand::RngExt;
use rand::rngs::StdRng;

use crate::compare::revive;
use crate::history::{self, Cut};
use crate::ledger::Expected;
use crate::life::Setting;
use crate::scale::scale;
use crate::strands;
use crate::tree::Tree;

/// Images of one strand: a first life, and what follows from the cuts in it.
const STRAND: u64 = 40;
/// A cut in the recovery from a cut in the recovery…
const DEPTH: usize = 5;

/// Promises 1, 3, 7: after a power cut at any write, in the first creation, growing, rolling, unlinking, closing, and in
/// the recovery from another cut, the queue opens by itself having looked at no more than two segments, holds everything
/// that was acknowledged, and nothing that was released durably comes back; no sequence is used twice, and the queue id is
/// the same.
#[test]
fn nothing_acknowledged_is_lost_by_a_power_cut() {
    let strands = scale(2_000, 20_000) / STRAND;
    let images = AtomicU64::new(0);
    strands::run(strands, |strand, random| {
        images.fetch_add(run(strand, random), Ordering::Relaxed);
    });
    let (images, blocked) = (images.into_inner(), history::BLOCKED.load(Ordering::Relaxed));
    eprintln!("{images} images; {blocked} times a queue had no room");
    assert!(images >= strands * STRAND && blocked > 0);
}

/// One strand; the number of images that were opened.
fn run(strand: u64, random: &mut StdRng) -> u64 {
    let setting = history::setting(random);
    let first = Cut { image: Tree::root("/data"), expected: Expected::nothing(), place: "the first start".into() };
    let mut waiting = vec![(0, first)];
    let mut images = 0;
    while images < STRAND {
        let (depth, cut) = waiting.pop().unwrap_or_else(|| {
            let first =
                Cut { image: Tree::root("/data"), expected: Expected::nothing(), place: "the first start".into() };
            (0, first)
        });
        images += 1;
        let actions = if depth == 0 { random.random_range(5..30) } else { random.random_range(0..6) };
        let next = live(&setting, &cut, actions, if depth == 0 { 12 } else { 2 }, random).unwrap_or_else(|wrong| {
            panic!("strand {strand}, image {images}, cut {}, depth {depth}: {wrong}", cut.place)
        });
        if depth < DEPTH {
            waiting.extend(next.into_iter().map(|cut| (depth + 1, cut)));
        }
    }
    images
}

/// A life on what a cut left, and cuts in it.
fn live(setting: &Setting, cut: &Cut, actions: usize, count: usize, random: &mut StdRng) -> Result<Vec<Cut>, String> {
    let mut life = revive(cut.image.clone(), setting, &cut.expected)?;
    history::play(&mut life, setting, actions, random)?;
    let (log, acknowledged) = (life.disk.log(), life.acknowledged());
    Ok(history::cuts(&log, &life.ledger, acknowledged, count, random))
}

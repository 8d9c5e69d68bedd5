//! Promises 1, 3 and 7 across power cuts at any write.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use meterferry::config::settings::WhenFull;
use meterferry::queue::{FORMAT, Identity};
use rand::RngExt;
use rand::rngs::StdRng;

use crate::compare::revive;
use crate::content::Content;
use crate::history::{self, Cut};
use crate::ledger::Expected;
use crate::life::{FOLDER, Setting};
use crate::scale::scale;
use crate::strands;
use crate::tree::Tree;

/// Images of one strand: a first life, and what follows from the cuts in it.
const STRAND: u64 = 40;
/// A cut in the recovery from a cut in the recovery…
const DEPTH: usize = 5;
/// Strands at a time.
const WORKERS: usize = 6;
/// Lives that have raised a queue's format.
static RAISED: AtomicU64 = AtomicU64::new(0);

/// Promises 1, 3, 7: after a power cut at any write, in the first creation, a change of format, growing, rolling, unlinking, closing, and in
/// the recovery from another cut, the queue opens by itself having looked at no more than two segments, holds everything
/// that was acknowledged, but for what it gave up where it was told to, and nothing that was released durably comes back; no
/// sequence is used twice, and the queue id is the same.
#[test]
fn nothing_acknowledged_is_lost_by_a_power_cut() {
    let strands = scale(2_000, 20_000) / STRAND;
    let images = AtomicU64::new(0);
    // Those without room wait for some most of the time.
    strands::run_on(WORKERS, strands, |strand, random| {
        images.fetch_add(run(strand, random), Ordering::Relaxed);
    });
    let images = images.into_inner();
    let [blocked, dropped, thinned] =
        [&history::BLOCKED, &history::DROPPED, &history::THINNED].map(|count| count.load(Ordering::Relaxed));
    let raised = RAISED.load(Ordering::Relaxed);
    eprintln!(
        "{images} images; {blocked} times a queue had no room; {dropped} records dropped, {thinned} thinned out; format \
         raised {raised} times"
    );
    assert!(images >= strands * STRAND && blocked > 0 && dropped > 0 && thinned > 0 && raised > 0);
}

/// One strand; the number of images that were opened.
fn run(strand: u64, random: &mut StdRng) -> u64 {
    let setting = match strand % 10 {
        0 => history::tight(random),
        1 | 6 => history::generous(WhenFull::DropOldest, random),
        3 | 8 => history::generous(WhenFull::Thin, random),
        _ => history::setting(random),
    };
    let mut waiting = Vec::new();
    if strand % 10 == 7 {
        let format = random.random_range(1..FORMAT);
        let cut = of_format(format, &setting, random)
            .unwrap_or_else(|wrong| panic!("strand {strand}, format {format}: {wrong}"));
        waiting.push((0, cut));
    }
    let mut images = 0;
    while images < STRAND {
        let (depth, cut) = waiting.pop().unwrap_or_else(|| {
            let first =
                Cut { image: Tree::root("/data"), expected: Expected::nothing(), place: "the first start".into() };
            (0, first)
        });
        images += 1;
        let actions = match depth {
            0 => random.random_range(5..30),
            _ => random.random_range(0..if setting.when_full == WhenFull::Block { 6 } else { 20 }),
        };
        let next = live(&setting, &cut, actions, if depth == 0 { 12 } else { 2 }, random).unwrap_or_else(|wrong| {
            panic!("strand {strand}, image {images}, cut {}, depth {depth}: {wrong}", cut.place)
        });
        if depth < DEPTH {
            waiting.extend(next.into_iter().map(|cut| (depth + 1, cut)));
        }
    }
    images
}

/// A queue that an older release has left behind. The first commit of the next life raises its format.
fn of_format(format: u32, setting: &Setting, random: &mut StdRng) -> Result<Cut, String> {
    let setting = Setting { packs: setting.packs && format > 1, ..setting.clone() };
    let mut life = revive(Tree::root("/data"), &setting, &Expected::nothing())?;
    history::play(&mut life, &setting, random.random_range(1..10), random)?;
    let (mut image, path) = (life.disk.live(), Path::new(FOLDER).join("queue.toml"));
    let text = image.content(&path).map(|content| String::from_utf8_lossy(&content.bytes()).into_owned());
    let text = text.ok_or("no queue.toml")?;
    let (checksum, content) = text.split_once('\n').ok_or("an empty queue.toml")?;
    let (this, older) = (format!("format = {FORMAT}\n"), format!("format = {format}\n"));
    if !content.contains(&this) {
        return Err(format!("no line {this:?} in {content}"));
    }
    let mut content = content.replace(&this, &older);
    // Format 1 has no line with a checksum.
    if format > 1 {
        let (key, _) = checksum.rsplit_once(' ').ok_or("no checksum")?;
        content = format!("{key} {:08x}\n{content}", crc32fast::hash(content.as_bytes()));
    }
    image.put(&path, Content::of(content.as_bytes()));
    let expected = life.ledger.at(life.disk.position(), life.acknowledged());
    Ok(Cut { image, expected, place: "an older release's end".into() })
}

/// A life on what a cut left, and cuts in it.
fn live(setting: &Setting, cut: &Cut, actions: usize, count: usize, random: &mut StdRng) -> Result<Vec<Cut>, String> {
    let mut life = revive(cut.image.clone(), setting, &cut.expected)?;
    history::play(&mut life, setting, actions, random)?;
    let identity = Path::new(FOLDER).join("queue.toml");
    let format = |tree: &Tree| {
        let text = tree.content(&identity).map(|content| content.bytes()).unwrap_or_default();
        toml::from_slice::<Identity>(&text).map_or(FORMAT, |identity| identity.format)
    };
    RAISED.fetch_add(u64::from(format(&cut.image) < format(&life.disk.live())), Ordering::Relaxed);
    let (log, acknowledged) = (life.disk.log(), life.acknowledged());
    Ok(history::cuts(&log, &life.ledger, acknowledged, count, random))
}

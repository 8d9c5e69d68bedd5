//! The queue as a whole: a folder, two ends, and what a crash may leave.

mod limited;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::inspect::Inspector;
use super::*;
use crate::config::settings::WhenFull;
use crate::daily::Ledger;
use crate::reading::{Dead, DeadLetter, Entry, Kind, Reading};
use crate::receipt::{Receipt, Ticket};

const SOON: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(20);

fn options(folder: &Path) -> Options {
    Options {
        path: folder.join("queue"),
        max_size: 1 << 30,
        min_free: 0,
        when_full: WhenFull::Block,
        segment_size: 256 << 10,
        pack_after: PACK_AFTER,
        redelivery_window: 50,
        windows: BTreeMap::new(),
        max_dead_letters: 64 << 10,
        dead_letters_max_age: None,
        keeps_wear: false,
        agent_id: None,
        default_agent_id: "test-0a1b2c".into(),
        hardware_serial: Some("serial-1".into()),
    }
}

fn folder_of(options: &Options) -> folder::Folder {
    folder::Folder::new(Arc::new(LocalDisk), &options.path)
}

fn start(options: &Options) -> Queue {
    open(options, Arc::default(), Clock::new(), Arc::new(|| ())).expect("the queue opens")
}

fn stop(queue: Queue) {
    let Queue { intake, outlet, writer, .. } = queue;
    drop((intake, outlet));
    writer.join().expect("an orderly end");
}

fn body(number: u64) -> Body {
    Body::Reading(Reading {
        source: "sma".into(),
        device: "meter".into(),
        topic: "sma".into(),
        sender: String::new(),
        packet_id: Some(number as u16),
        received: Clock::new().now(),
        measured_ms: None,
        self_identified: false,
        json: false,
        kind: Kind::default(),
        marks: Vec::new(),
        payload: Bytes::from(format!("{number:>0400}")),
    })
}

fn number_of(entry: &Entry) -> u64 {
    let Body::Reading(reading) = &entry.body else { panic!("not a reading: {entry:?}") };
    std::str::from_utf8(&reading.payload).expect("text").parse().expect("a number")
}

/// Appends `numbers` and waits until each receipt came back, in order. In steps, so that a busy machine does not put
/// everything into one commit and thus into one segment.
fn append(queue: &Queue, numbers: std::ops::Range<u64>) {
    const STEP: usize = 200;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let (counter, mut tickets) = mpsc::channel(STEP);
    for first in numbers.clone().step_by(STEP) {
        let step = first..numbers.end.min(first + STEP as u64);
        runtime.block_on(async {
            for number in step.clone() {
                let receipt = Receipt::new(counter.clone(), Ticket { connection: 1, ordinal: number });
                let body = body(number);
                let mark = body.marks().1[0];
                queue.intake.append(body, mark, receipt, SOON).await.expect("the queue takes it");
            }
            for number in step {
                let ticket = tokio::time::timeout(PATIENCE, tickets.recv()).await.expect("acknowledged in time");
                assert_eq!(ticket.map(|ticket| ticket.ordinal), Some(number), "acknowledged in order");
            }
        });
    }
}

fn read_all(outlet: &mut Outlet) -> Vec<Entry> {
    let mut all: Vec<Entry> = Vec::new();
    let mut next = outlet.release_point();
    while next < outlet.end() {
        let some = outlet.read(next, 1000, 1 << 20).expect("readable");
        next = some.last().expect("at least one").sequence + 1;
        all.extend(some);
    }
    all
}

/// What a kill leaves: the files as they are, in the middle of everything. Copied again where a file came or went
/// meanwhile, since a kill takes no time.
fn crash_image(options: &Options, name: &str) -> Options {
    let image = options.path.with_file_name(name);
    let names = || {
        let files = fs::read_dir(&options.path).expect("files").map(|file| file.expect("a file"));
        let mut names: Vec<_> = files
            .filter_map(|file| Some((file.file_name(), std::os::unix::fs::MetadataExt::ino(&file.metadata().ok()?))))
            .collect();
        names.sort();
        names
    };
    loop {
        let before = names();
        fs::create_dir(&image).expect("a folder");
        let copied = before.iter().all(|(name, _)| fs::copy(options.path.join(name), image.join(name)).is_ok());
        if copied && names() == before {
            return Options { path: image, ..options.clone() };
        }
        fs::remove_dir_all(&image).expect("our own");
    }
}

fn wait_until(mut is_so: impl FnMut() -> bool) {
    let until = std::time::Instant::now() + PATIENCE;
    while !is_so() {
        assert!(std::time::Instant::now() < until, "it did not come to pass in {PATIENCE:?}");
        std::thread::yield_now();
    }
}

/// Promise 1: whoever was told "I have it" finds it after a kill, in order, under the sequences it had.
#[test]
fn acknowledged_readings_outlive_a_kill() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = options(folder.path());
    let queue = start(&options);
    append(&queue, 0..2_000);
    let image = crash_image(&options, "image");
    let mut again = start(&image);
    let entries = read_all(&mut again.outlet);
    assert_eq!(entries.iter().map(number_of).collect::<Vec<_>>(), (0..2_000).collect::<Vec<_>>());
    assert_eq!(entries.iter().map(|entry| entry.sequence).collect::<Vec<_>>(), (1..=2_000).collect::<Vec<_>>());
    assert_eq!(again.outlet.queue_id(), queue.outlet.queue_id());
    append(&again, 2_000..2_010);
    assert_eq!(again.outlet.end(), 2_011, "sequences go on");
    stop(queue);
    stop(again);
}

/// Promise 9: what waits can be looked at after a kill, and beside a running agent.
#[test]
fn a_killed_queue_can_be_looked_at() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = options(folder.path());
    let queue = start(&options);
    append(&queue, 0..900);
    let beside = Inspector::open(&options.path).expect("a queue");
    assert_eq!(beside.peek(None, 2_000).expect("readable").len(), 900);
    assert!(beside.status().expect("status").running);
    let image = crash_image(&options, "image");
    let killed = Inspector::open(&image.path).expect("a queue");
    assert_eq!(killed.peek(None, 2_000).expect("readable").len(), 900);
    assert!(!killed.status().expect("status").running);
    stop(queue);
    let mut again = start(&image);
    assert_eq!(read_all(&mut again.outlet).len(), 900);
    stop(again);
}

/// Promise 6: what Kafka has leaves the disk; promise 2: nothing else does.
#[test]
fn released_segments_are_unlinked_and_nothing_comes_back() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = options(folder.path());
    let mut queue = start(&options);
    // In small commits: a large one would roll a segment late, and there would be few.
    (0..4_000).step_by(200).for_each(|first| append(&queue, first..first + 200));
    queue.outlet.release(7).expect("released");
    assert_eq!(queue.outlet.release_point(), 7, "seen at once: what is released is never sent again");
    let segments =
        |options: &Options| Inspector::open(&options.path).expect("a queue").status().expect("status").segments;
    let before = segments(&options);
    assert!(before.len() > 5, "{before:?}");
    queue.outlet.release(3_500).expect("released");
    wait_until(|| segments(&options)[1] > 3_500);
    assert!(segments(&options)[0] <= 3_500);
    let image = crash_image(&options, "image");
    let mut again = start(&image);
    assert_eq!(again.outlet.release_point(), 3_500);
    assert_eq!(number_of(&read_all(&mut again.outlet)[0]), 3_499);
    stop(again);
    stop(queue);
}

/// Promise 3: the redelivery window outlives restarts, rolls and unlinked segments.
#[test]
fn marks_outlive_everything() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = options(folder.path());
    let mut queue = start(&options);
    append(&queue, 0..3_000);
    queue.outlet.release(3_001).expect("released");
    stop(queue);
    let queue = start(&options);
    let marks = &queue.recovered.marks["sma"];
    let expected: Vec<Option<u16>> = (2_950..3_000).map(Some).collect();
    assert_eq!(marks.iter().map(|mark| mark.packet_id).collect::<Vec<_>>(), expected);
    stop(queue);
}

/// Promise 7: a damaged newest segment is set aside; what can be read is kept, the rest is explained, and no sequence is
/// used twice.
#[test]
fn damaged_newest_segment_is_salvaged() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = Options { segment_size: 16 << 20, ..options(folder.path()) };
    let queue = start(&options);
    append(&queue, 0..1_500);
    let id = queue.outlet.queue_id();
    stop(queue);
    let path = segment::path(&folder_of(&options), 1);
    let mut bytes = fs::read(&path).expect("bytes");
    for number in [0, 750, 751, 1_499] {
        let text = format!("{number:>0400}");
        let copies: Vec<usize> =
            (0..bytes.len() - 400).filter(|at| bytes[*at..*at + 400] == *text.as_bytes()).collect();
        assert!(!copies.is_empty());
        copies.into_iter().for_each(|at| bytes[at] ^= 1);
    }
    fs::write(&path, bytes).expect("damaged");

    let metrics: Arc<Metrics> = Arc::default();
    let mut again = open(&options, Arc::clone(&metrics), Clock::new(), Arc::new(|| ())).expect("the queue opens");
    assert_eq!(again.outlet.queue_id(), id);
    assert_eq!(metrics.queue.waiting(), 1_496, "what is missing does not wait");
    let entries = read_all(&mut again.outlet);
    let kept: Vec<u64> = entries.iter().filter(|entry| matches!(entry.body, Body::Reading(_))).map(number_of).collect();
    let whole: Vec<u64> = (0..1_500).filter(|number| ![0, 750, 751, 1_499].contains(number)).collect();
    assert_eq!(kept, whole);
    assert!(again.outlet.end() > loss::JUMP, "sequences jump");
    let names: Vec<_> = fs::read_dir(&options.path).expect("files").flatten().map(|entry| entry.file_name()).collect();
    assert!(names.iter().any(|name| name.to_string_lossy().contains(".damaged-")), "{names:?}");
    append(&again, 5_000..5_001);
    assert_eq!(metrics.queue.waiting(), 1_497);
    let entries = read_all(&mut again.outlet);
    assert_eq!(number_of(entries.last().expect("one")), 5_000);
    let mut next = 1;
    for entry in &entries {
        if let Body::Gap(gap) = &entry.body {
            assert_eq!(gap.first, next, "a gap explains what is missing and nothing else");
        } else {
            assert_eq!(entry.sequence, next);
        }
        next = entry.sequence + 1;
    }
    stop(again);
}

/// Promise 7: a sealed segment that was damaged, truncated or removed while nobody looked never holds up its neighbours.
#[test]
fn damaged_or_missing_sealed_segments_become_gaps() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = options(folder.path());
    let queue = start(&options);
    append(&queue, 0..4_000);
    stop(queue);
    let segments: Vec<u64> = open::segments(&folder_of(&options)).expect("segments").into_iter().collect();
    assert!(segments.len() > 5);
    fs::remove_file(segment::path(&folder_of(&options), segments[1])).expect("removed");
    fs::write(segment::path(&folder_of(&options), segments[3]), b"nothing of redb").expect("overwritten");
    let mut again = start(&options);
    let entries = read_all(&mut again.outlet);
    let gaps: Vec<(u64, u64)> = entries
        .iter()
        .filter_map(|entry| if let Body::Gap(gap) = &entry.body { Some((gap.first, gap.last)) } else { None })
        .collect();
    assert_eq!(gaps, [(segments[1], segments[2] - 1), (segments[3], segments[4] - 1)]);
    let kept = entries.len() - 2;
    assert_eq!(kept as u64, 4_000 - (segments[2] - segments[1]) - (segments[4] - segments[3]));
    stop(again);
}

/// Appends bodies from a task of its own, as sources do, and hears what is acknowledged.
struct Feeder {
    runtime: tokio::runtime::Runtime,
    task: tokio::task::JoinHandle<()>,
    tickets: mpsc::Receiver<Ticket>,
}

impl Feeder {
    fn start(queue: &Queue, count: u64) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().expect("a runtime");
        let (counter, tickets) = mpsc::channel(10_000);
        let intake = queue.intake.clone();
        let task = runtime.spawn(async move {
            for number in 0..count {
                let receipt = Receipt::new(counter.clone(), Ticket { connection: 1, ordinal: number });
                let body = body(number);
                let mark = body.marks().1[0];
                intake.append(body, mark, receipt, SOON).await.expect("taken");
            }
        });
        Self { runtime, task, tickets }
    }

    /// Acknowledgements since the last look.
    fn acknowledged(&mut self) -> usize {
        std::iter::from_fn(|| self.tickets.try_recv().ok()).count()
    }
}

/// Promise 6: at its limit the queue acknowledges nothing, and goes on by itself once there is room.
#[test]
fn a_full_queue_blocks_and_recovers() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = Options { max_size: 2 << 20, ..options(folder.path()) };
    let metrics: Arc<Metrics> = Arc::default();
    let mut queue = open(&options, Arc::clone(&metrics), Clock::new(), Arc::new(|| ())).expect("opens");
    let mut feeder = Feeder::start(&queue, 8_000);
    wait_until(|| metrics.queue.blocked.get());
    let mut received = 0;
    let (mut acknowledged, mut next) = (0, 1);
    let since = std::time::Instant::now();
    while received < 8_000 {
        assert!(since.elapsed() < 6 * PATIENCE, "stuck at {next} of {}", queue.outlet.end());
        if queue.outlet.wait(next, Duration::from_secs(1)) {
            let entries = queue.outlet.read(next, 500, 1 << 20).expect("readable");
            for entry in &entries {
                assert_eq!(number_of(entry), received);
                received += 1;
            }
            next = entries.last().expect("one").sequence + 1;
            queue.outlet.release(next).expect("released");
        }
        acknowledged += feeder.acknowledged();
    }
    feeder.runtime.block_on(&mut feeder.task).expect("fed");
    wait_until(|| {
        acknowledged += feeder.acknowledged();
        acknowledged == 8_000
    });
    assert!(!metrics.queue.blocked.get());
    stop(queue);
}

/// Promise 6: a stop is orderly although there is no room; what was not acknowledged is not there.
#[test]
fn a_full_queue_stops() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = Options { max_size: 1 << 20, ..options(folder.path()) };
    let metrics: Arc<Metrics> = Arc::default();
    let queue = open(&options, Arc::clone(&metrics), Clock::new(), Arc::new(|| ())).expect("opens");
    let mut feeder = Feeder::start(&queue, 8_000);
    wait_until(|| metrics.queue.blocked.get());
    feeder.task.abort();
    stop(queue);
    let acknowledged = feeder.acknowledged();
    let mut again = start(&options);
    assert_eq!(read_all(&mut again.outlet).len(), acknowledged);
    stop(again);
}

/// Promise 1: a stop does not wait for the commit delay.
#[test]
fn hurry_commits_at_once() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let queue = start(&options(folder.path()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let (counter, mut tickets) = mpsc::channel(1);
    runtime.block_on(async {
        let receipt = Receipt::new(counter, Ticket { connection: 1, ordinal: 0 });
        let body = body(1);
        let mark = body.marks().1[0];
        queue.intake.append(body, mark, receipt, Duration::from_secs(3600)).await.expect("taken");
        queue.intake.hurry().await.expect("told");
        tokio::time::timeout(PATIENCE, tickets.recv()).await.expect("acknowledged in time");
    });
    stop(queue);
}

/// Promise 3: one folder, one agent; the second is told whose it is.
#[test]
fn second_agent_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = options(folder.path());
    let queue = start(&options);
    let error = open(&options, Arc::default(), Clock::new(), Arc::new(|| ())).err().expect("refused");
    let expected = format!("(process {})", std::process::id());
    assert!(error.to_string().contains(&expected), "{error}");
    stop(queue);
    stop(start(&options));
}

/// Promise 3: a fork is durable, sequences go on, and another machine's serial is noticed.
#[test]
fn fork_and_moved_card() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let first = options(folder.path());
    let queue = start(&first);
    append(&queue, 0..5);
    let id = queue.outlet.queue_id();
    stop(queue);
    let elsewhere = Options { hardware_serial: Some("serial-2".into()), ..first };
    let mut queue = start(&elsewhere);
    assert!(queue.outlet.moved());
    queue.outlet.release(4).expect("released");
    let forked = queue.outlet.fork("test").expect("forked");
    assert_ne!(forked, id);
    assert!(!queue.outlet.moved());
    // What a kill right behind it leaves: the release point that Kafka knew under the old id is there.
    let killed = tempfile::tempdir().expect("a temporary folder");
    for file in fs::read_dir(&elsewhere.path).expect("the queue's folder") {
        let file = file.expect("a file").path();
        fs::copy(&file, killed.path().join(file.file_name().expect("a name"))).expect("copied");
    }
    let left = start(&Options { path: killed.path().to_owned(), ..elsewhere.clone() });
    assert_eq!((left.outlet.queue_id(), left.outlet.release_point()), (forked, 4));
    stop(left);
    stop(queue);
    let mut queue = start(&elsewhere);
    assert_eq!(queue.outlet.queue_id(), forked);
    assert_eq!(read_all(&mut queue.outlet).len(), 2);
    stop(queue);
}

/// Promise 7: without `queue.toml` the records are still there, under a new queue id.
#[test]
fn lost_identity_forks_and_keeps_the_records() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = options(folder.path());
    let queue = start(&options);
    append(&queue, 0..100);
    let id = queue.outlet.queue_id();
    stop(queue);
    fs::write(options.path.join(identity::FILE), "format = \u{0}").expect("damaged");
    let mut queue = start(&options);
    assert_ne!(queue.outlet.queue_id(), id);
    assert_eq!(read_all(&mut queue.outlet).len(), 100);
    stop(queue);
}

/// Promise 5: dead letters are durable, listed, and bounded by dropping the oldest.
#[test]
fn dead_letters_are_kept_within_their_limit() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = options(folder.path());
    let mut queue = start(&options);
    let queue_id = queue.outlet.queue_id();
    for sequence in 1..=300 {
        let letter = DeadLetter {
            queue_id,
            sequence,
            reason: "test".into(),
            set_aside: Clock::new().now(),
            body: body(sequence),
        };
        queue.outlet.set_aside(vec![letter.clone()]).expect("put away");
        queue.outlet.set_aside(vec![letter]).expect("again changes nothing");
    }
    let letters = Inspector::open(&options.path).expect("a queue").dead_letters().expect("letters");
    assert!((80..200).contains(&letters.len()), "{}", letters.len());
    assert_eq!(letters.last().map(|letter| letter.sequence), Some(300));
    stop(queue);
}

/// Promise 5: dead letters that turn out to be damaged end nothing, whoever comes upon it: what can be read of them is kept,
/// and the damaged file too.
#[test]
fn damaged_dead_letters_end_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = options(folder.path());
    let mut queue = start(&options);
    let queue_id = queue.outlet.queue_id();
    let letter = |sequence| DeadLetter {
        queue_id,
        sequence,
        reason: "test".into(),
        set_aside: Clock::new().now(),
        body: body(sequence),
    };
    queue.outlet.set_aside((1..=20).map(letter).collect()).expect("put away");
    let file = options.path.join(dead_letter::FILE);
    let mut bytes = fs::read(&file).expect("readable");
    bytes[..64].fill(0);
    fs::write(&file, bytes).expect("damaged");
    queue.outlet.delete_letters(vec![(queue_id, 3)]).expect("deleted");
    let inspector = Inspector::open(&options.path).expect("a queue");
    let left: Vec<u64> = inspector.letter_ids().expect("readable").into_iter().map(|(_, sequence)| sequence).collect();
    assert_eq!(left, (1..=20).filter(|sequence| *sequence != 3).collect::<Vec<_>>());
    let kept = inspector.set_aside().expect("readable");
    assert!(kept.len() == 1 && kept[0].starts_with(dead_letter::FILE), "{kept:?}");
    append(&queue, 0..3);
    stop(queue);
}

/// Promise 5: a message that could not be decoded is found while it waits in the queue, in a long one among the newest
/// records, and counted once although it is set aside already.
#[test]
fn dead_letters_that_wait_are_found() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = options(folder.path());
    let mut queue = start(&options);
    append(&queue, 0..10);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    for number in 10..15_u64 {
        let Body::Reading(reading) = body(number) else { panic!("a reading") };
        let Reading { source, topic, sender, packet_id, received, payload, .. } = reading;
        let dead = Body::Dead(Dead {
            source,
            topic,
            sender,
            packet_id,
            received,
            reason: "not JSON".into(),
            marks: Vec::new(),
            payload,
        });
        let mark = Mark::of("", None, "sma", &number.to_le_bytes(), false);
        runtime.block_on(queue.intake.append(dead, mark, Receipt::unneeded(), SOON)).expect("the queue takes it");
    }
    assert!(queue.outlet.wait(15, PATIENCE), "15 are committed");
    append(&queue, 15..20);
    let inspector = Inspector::open(&options.path).expect("a queue");
    let found = |released: u64, most: u64| {
        let (mut waiting, mut found) = (inspector.waiting_letters(released, most).expect("readable"), Vec::new());
        let passed_over = waiting.passed_over();
        let visit = |letter: DeadLetter| {
            found.push(letter.sequence);
            std::ops::ControlFlow::Continue(())
        };
        waiting.visit(|_| {}, visit).expect("readable");
        (passed_over, found)
    };
    assert_eq!(found(0, u64::MAX), (0, vec![11, 12, 13, 14, 15]));
    assert_eq!(found(0, 7), (13, vec![14, 15]));
    assert_eq!(found(13, 8), (0, vec![13, 14, 15]));
    assert_eq!(found(1_000, 8), (0, vec![]));
    let of = |released, sequence| inspector.waiting_letter(released, sequence).expect("readable");
    assert!(of(0, 10).is_none() && of(0, 16).is_none() && of(12, 11).is_none() && of(0, 100).is_none());
    let letter = of(0, 11).expect("it waits");
    assert_eq!((letter.sequence, letter.reason.as_str()), (11, "not JSON"));
    queue.outlet.set_aside(vec![letter]).expect("put away");
    let counted = inspector.count_waiting_letters(0, 17).expect("readable");
    assert_eq!(counted, waiting::Found { letters: 4, looked_at: 17, passed_over: 3 });
    stop(queue);
}

/// Promise 2: the fingerprint tells a record from any other that could stand under its sequence.
#[test]
fn fingerprints_are_of_key_and_content() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = options(folder.path());
    let mut queue = start(&options);
    append(&queue, 0..3);
    let of = |outlet: &mut Outlet, sequence| outlet.fingerprint(sequence).expect("readable");
    let entries = read_all(&mut queue.outlet);
    for entry in &entries {
        assert!(of(&mut queue.outlet, entry.sequence).is_some());
    }
    assert_ne!(of(&mut queue.outlet, 1), of(&mut queue.outlet, 2));
    assert_eq!(of(&mut queue.outlet, 4), None, "not here yet");
    stop(queue);
}

/// Promises 4 and 5: of a device that is forgotten nothing is left on the disk, a gap stands for each of its readings, and
/// its neighbours are as they were.
#[test]
fn a_forgotten_device_leaves_gaps() {
    const NAME: &str = "somebody's meter";
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = Options { segment_size: 64 << 10, ..options(folder.path()) };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let queue = start(&options);
    for first in (0..120).step_by(3) {
        append(&queue, first..first + 3);
        let Body::Reading(reading) = body(first) else { panic!("a reading") };
        let payload = Bytes::from(format!("{NAME} says {first:>4000}"));
        let body = Body::Reading(Reading { device: NAME.to_owned(), payload, ..reading });
        let mark = body.marks().1[0];
        runtime.block_on(queue.intake.append(body, mark, Receipt::unneeded(), SOON)).expect("the queue takes it");
    }
    let is_meant = |reading: &Reading| reading.device == NAME;
    let locked = forget::forget(&options, &is_meant, |_, _| ());
    assert!(matches!(locked, Err(forget::ForgetError::NotClosed | forget::ForgetError::Open(_))), "{locked:?}");
    stop(queue);
    let forgotten = forget::forget(&options, &is_meant, |_, _| ()).expect("it is forgotten");
    assert_eq!(forgotten, forget::Forgotten { readings: 40, dead_letters: 0 });
    let again = forget::forget(&options, &is_meant, |_, _| ()).expect("nothing is left");
    assert_eq!(again, forget::Forgotten::default());
    for file in fs::read_dir(&options.path).expect("files") {
        let path = file.expect("a file").path();
        let content = fs::read(&path).expect("readable");
        assert!(!content.windows(NAME.len()).any(|window| window == NAME.as_bytes()), "{}", path.display());
    }
    let mut queue = start(&options);
    let entries = read_all(&mut queue.outlet);
    assert_eq!(entries.iter().map(|entry| entry.sequence).collect::<Vec<_>>(), (1..=160).collect::<Vec<_>>());
    let (gaps, readings): (Vec<_>, Vec<_>) = entries.iter().partition(|entry| matches!(entry.body, Body::Gap(_)));
    assert_eq!(readings.into_iter().map(number_of).collect::<Vec<_>>(), (0..120).collect::<Vec<_>>());
    assert!(
        gaps.iter()
            .all(|gap| matches!(&gap.body, Body::Gap(it) if (it.first, it.last) == (gap.sequence, gap.sequence)))
    );
    append(&queue, 120..123);
    stop(queue);
}

/// Promise 3: the messages that one reading was made of are recognised after a restart, each by itself.
#[test]
fn the_window_knows_every_message_of_a_reading() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = options(folder.path());
    let marks: Vec<Mark> = (0..3u16).map(|id| Mark::of("", Some(id), "a/value", &[1, id as u8], false)).collect();
    let queue = start(&options);
    let Body::Reading(reading) = body(0) else { panic!("a reading") };
    let made = Body::Reading(Reading { marks: marks.clone(), kind: Kind::Normalized, ..reading });
    let source = made.marks().0.expect("a source").to_string();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(queue.intake.append(made, marks[0], Receipt::unneeded(), SOON)).expect("the queue takes it");
    stop(queue);
    let queue = start(&options);
    assert_eq!(queue.recovered.marks[&source], marks);
    stop(queue);
}

/// Promise 7: a queue of an older release opens, and its format is raised before anything new is written; one of a newer
/// release is refused, not taken for damaged.
#[test]
fn older_formats_open_and_newer_ones_are_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = options(folder.path());
    let identity_file = options.path.join(identity::FILE);
    let write_format = |format: u32| {
        let text = fs::read_to_string(&identity_file).expect("text");
        let line = text.lines().find(|line| line.starts_with("format = ")).expect("a format").to_owned();
        let (_, content) = text.split_once('\n').expect("a checksum, then the content");
        let content = content.replace(&line, &format!("format = {format}"));
        let checksum = format!("# crc32 {:08x}\n", crc32fast::hash(content.as_bytes()));
        // Format 1 had no checksum.
        let first_line = if format == 1 { "" } else { checksum.as_str() };
        fs::write(&identity_file, format!("{first_line}{content}")).expect("written");
    };
    let queue = start(&options);
    // Few at a time stay single records, as in format 1.
    (0..30).step_by(3).for_each(|first| append(&queue, first..first + 3));
    stop(queue);
    write_format(1);
    let mut queue = start(&options);
    assert_eq!(read_all(&mut queue.outlet).len(), 30);
    assert!(fs::read_to_string(&identity_file).expect("text").contains("format = 1\n"), "no record was written yet");
    append(&queue, 30..500);
    assert!(fs::read_to_string(&identity_file).expect("text").contains(&format!("format = {FORMAT}\n")));
    assert_eq!(read_all(&mut queue.outlet).iter().map(number_of).collect::<Vec<_>>(), (0..500).collect::<Vec<_>>());
    stop(queue);
    write_format(FORMAT + 1);
    let error = open(&options, Arc::default(), Clock::new(), Arc::new(|| ())).err().expect("refused");
    assert!(
        matches!(error, OpenError::Newer { found, known, .. } if (found, known) == (FORMAT + 1, FORMAT)),
        "{error}"
    );
}

/// Promise 4: wherever a reader begins, and however the records were committed, it reads the same.
#[test]
fn a_reader_may_begin_within_a_block() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = options(folder.path());
    let mut queue = start(&options);
    for (first, last) in [(0, 1), (1, 180), (180, 183), (183, 383), (383, 390)] {
        append(&queue, first..last);
    }
    for from in 1..=390 {
        let entries = queue.outlet.read(from, 7, 1 << 20).expect("readable");
        let expected: Vec<u64> = (from - 1..390.min(from + 6)).collect();
        assert_eq!(entries.iter().map(number_of).collect::<Vec<_>>(), expected);
        assert_eq!(entries[0].sequence, from);
        assert!(queue.outlet.fingerprint(from).expect("readable").is_some());
    }
    stop(queue);
}

/// Promise 9: a day that is over has one place for its receipt, whenever the agent was killed around midnight.
#[test]
fn a_day_has_one_receipt() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = options(folder.path());
    let today = crate::daily::day_of(Clock::new().now().wall_ms);
    let set_open_day = |day: i32| {
        let folder = super::folder::Folder::new(Arc::new(super::disk::LocalDisk), &options.path);
        let Ok(Some(mut identity)) = identity::Identity::read(&folder) else { panic!("no identity") };
        identity.daily.as_mut().expect("kept from the start on").open_day = Some(day);
        identity.write(&folder).expect("written");
    };
    let days = || {
        let entries = Inspector::open(&options.path).expect("a queue").peek(Some(1), 1_000).expect("readable");
        let day = |entry: &Entry| match &entry.body {
            Body::Daily(daily) => Some(daily.day),
            _ => None,
        };
        entries.iter().filter_map(day).collect::<Vec<_>>()
    };
    let run = |readings: std::ops::Range<u64>| {
        let queue = start(&options);
        append(&queue, readings);
        stop(queue);
    };
    run(0..10);
    assert_eq!(days(), [0; 0], "the first day is not over");
    set_open_day(today - 3);
    run(10..20);
    run(20..30);
    assert_eq!(days(), [today - 3], "one for three days without the agent");
    // Killed between the commit and the note that the day is closed.
    set_open_day(today - 3);
    run(30..40);
    run(40..50);
    assert_eq!(days(), [today - 3]);
    set_open_day(today - 1);
    run(50..60);
    assert_eq!(days(), [today - 3, today - 1]);
    // A clock that was ahead leads to no receipt.
    set_open_day(today + 100);
    run(60..70);
    assert_eq!(days(), [today - 3, today - 1]);
}

/// Promise 5: what the next receipt says outlives a restart, and begins anew with a new queue id.
#[test]
fn the_ledger_is_kept() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = options(folder.path());
    let mut queue = start(&options);
    append(&queue, 0..100);
    let mut ledger = queue.outlet.ledger();
    assert_eq!(ledger, Ledger::new(1));
    ledger.explain(5, 9, "not \"JSON\" \u{0} ü");
    ledger.sent(crate::daily::date_of(20_000), 20);
    ledger.explain(25, 25, "damage");
    queue.outlet.keep(&ledger).expect("kept");
    stop(queue);
    let mut queue = start(&options);
    assert_eq!(queue.outlet.ledger(), ledger);
    queue.outlet.release(50).expect("released");
    queue.outlet.fork("test").expect("forked");
    stop(queue);
    let queue = start(&options);
    assert_eq!(queue.outlet.ledger(), Ledger::new(50));
    stop(queue);
}

//! When the disk is limited: packing, thinning and dropping, and that whatever is missing is explained.

use std::collections::BTreeMap;
use std::ops::Range;

use proptest::prelude::*;

use super::*;
use crate::reading::{Fingerprint, Kind, Mark, Received};
use crate::simulate::adapter::{self, Adapter};

/// A year of documents, one a second, has to fit into this.
const YEAR_BYTES: u64 = 1_500_000_000;
const YEAR_SECONDS: u64 = 365 * 24 * 3600;

/// Documents of two meters, a second apart, as they would be received.
struct Meters {
    adapters: Vec<Adapter>,
    second: u64,
    noise: u64,
}

impl Meters {
    fn new(count: u32) -> Self {
        let options = |index| adapter::Options {
            seed: 11,
            index,
            name: None,
            start_ms: 1_782_000_000_000,
            step: Duration::from_secs(1),
        };
        Self { adapters: (0..count).map(|index| Adapter::new(&options(index))).collect(), second: 0, noise: 7 }
    }

    /// The next second's, one of each meter.
    fn next(&mut self) -> Vec<Body> {
        self.second += 1;
        let second = self.second;
        let mut bodies = Vec::new();
        for adapter in &mut self.adapters {
            self.noise = self.noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let late = (self.noise >> 33) % 40;
            let received = Received {
                wall_ms: 1_782_000_000_000 + (second * 1000 + late) as i64,
                boot_ms: 90_000 + second * 1000 + late,
                boot_id: 0x1234_5678_9abc_def0_1234_5678_9abc_def0,
                synchronised: true,
            };
            bodies.push(Body::Reading(Reading {
                source: "meter".into(),
                device: adapter.name().to_owned(),
                topic: "sma".into(),
                sender: String::new(),
                packet_id: Some((second % 65_535 + 1) as u16),
                received,
                measured_ms: Some(1_782_000_000_000 + second as i64 * 1000),
                self_identified: true,
                json: true,
                kind: Kind::default(),
                marks: Vec::new(),
                payload: Bytes::from(adapter.document()),
            }));
        }
        bodies
    }
}

/// Appends in one go and waits for every receipt, `limit` at most. How many came back.
fn put(queue: &Queue, bodies: Vec<Body>) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let (counter, mut tickets) = mpsc::channel(bodies.len().max(1));
    runtime.block_on(async {
        let count = bodies.len();
        for (ordinal, body) in bodies.into_iter().enumerate() {
            let receipt = Receipt::new(counter.clone(), Ticket { connection: 1, ordinal: ordinal as u64 });
            let mark: Mark = body.marks().1[0];
            queue.intake.append(body, mark, receipt, SOON).await.expect("the queue takes it");
        }
        for received in 0..count {
            if tokio::time::timeout(PATIENCE, tickets.recv()).await.is_err() {
                return received;
            }
        }
        count
    })
}

/// Fills the queue with `seconds` of one meter, 500 a commit; what was put under each sequence from `first` on.
fn fill(queue: &Queue, meters: &mut Meters, seconds: u64) -> Vec<Body> {
    let mut all = Vec::new();
    for step in (0..seconds).step_by(500) {
        let bodies: Vec<Body> = (step..seconds.min(step + 500)).flat_map(|_| meters.next()).collect();
        all.extend(bodies.iter().cloned());
        assert_eq!(put(queue, bodies.clone()), bodies.len(), "all acknowledged");
    }
    all
}

fn segment_sizes(options: &Options) -> BTreeMap<u64, u64> {
    let folder = folder_of(options);
    let all = open::segments(&folder).expect("segments");
    all.into_iter()
        .map(|first| (first, fs::metadata(segment::path(&folder, first)).map_or(0, |file| file.len())))
        .collect()
}

fn packed(options: &Options, first: u64, origin: u128) -> bool {
    let reader = segment::Reader::open(&folder_of(options), first, origin).expect("a segment");
    reader.is_packed().expect("readable")
}

fn origin(options: &Options) -> u128 {
    let Ok(Some(identity)) = identity::Identity::read(&folder_of(options)) else { panic!("an identity") };
    identity.origin
}

fn prints(outlet: &mut Outlet, sequences: Range<u64>) -> Vec<Option<Fingerprint>> {
    sequences.map(|sequence| outlet.fingerprint(sequence).expect("readable")).collect()
}

/// Every entry stands where it should, and every sequence is there or explained. The readings, by sequence.
fn explained(from: u64, end: u64, entries: &[Entry]) -> BTreeMap<u64, Body> {
    let (mut next, mut readings) = (from, BTreeMap::new());
    for entry in entries {
        match &entry.body {
            Body::Gap(gap) => {
                assert_eq!((gap.first, gap.last), (next, entry.sequence), "a gap says exactly what is missing");
                assert!(gap.reason.starts_with("the queue was full"), "{}", gap.reason);
            }
            body => {
                assert_eq!(entry.sequence, next, "nothing is left out without a word");
                readings.insert(entry.sequence, body.clone());
            }
        }
        next = entry.sequence + 1;
    }
    assert_eq!(next, end, "up to the end");
    readings
}

/// Promise 6: a stopped queue is packed to less than a tenth, every record comes out as it went in, under the fingerprint
/// that Kafka may know, and a year of one reading a second fits into 1.5 GB.
#[test]
fn a_packed_queue_holds_the_same_and_a_year_fits() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = Options { segment_size: 16 << 20, ..options(folder.path()) };
    let mut queue = start(&options);
    let bodies = fill(&queue, &mut Meters::new(1), 80_000);
    let marks = queue.recovered.marks.clone();
    let before = prints(&mut queue.outlet, 1..2_000);
    queue.outlet.release(5).expect("released");
    stop(queue);
    let mut steps = Vec::new();
    let done = pack(&options.path, &mut |progress| {
        steps.push(*progress);
        true
    });
    let done = done.expect("packed");
    assert_eq!(steps.last(), Some(&done));
    assert!(done.packed >= 2 && done.done == done.segments && done.after * 8 < done.before, "{done:?}");
    let again = pack(&options.path, &mut |_| true).expect("packed");
    assert_eq!(again.packed, 0, "once is enough");

    let sizes: Vec<(u64, u64)> = segment_sizes(&options).into_iter().collect();
    let sealed = &sizes[..sizes.len() - 1];
    let readings = sizes[sizes.len() - 1].0 - 1;
    let bytes: u64 = sealed.iter().map(|(_, bytes)| bytes).sum();
    println!("{:.1} bytes a packed reading of {}", bytes as f64 / readings as f64, payload_of(&bodies[0]).len());
    assert!(bytes * YEAR_SECONDS / readings < YEAR_BYTES, "{bytes} bytes for {readings} readings");

    let mut queue = start(&options);
    assert_eq!(queue.outlet.release_point(), 5);
    assert_eq!(prints(&mut queue.outlet, 1..2_000), before);
    let entries = read_all(&mut queue.outlet);
    assert_eq!(entries.len(), bodies.len() - 4);
    assert!(entries.iter().zip(&bodies[4..]).all(|(entry, body)| entry.body == *body));
    assert_eq!(marks.len(), 0, "it was new");
    assert_eq!(queue.recovered.marks["meter"].len(), 50, "the redelivery window is there");
    queue.outlet.release(entries.last().expect("one").sequence + 1).expect("released");
    wait_until(|| segment_sizes(&options).len() <= 2);
    stop(queue);
}

fn payload_of(body: &Body) -> &[u8] {
    if let Body::Reading(reading) = body { &reading.payload } else { &[] }
}

/// Promise 6: while the line is down what waits is packed beside the appending; readers see no difference, what a kill
/// leaves at any moment opens with everything, and after a drain two segments are left.
#[test]
fn a_long_backlog_is_packed_beside_the_work() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = Options { segment_size: 1 << 20, pack_after: Duration::ZERO, ..options(folder.path()) };
    let metrics: Arc<Metrics> = Arc::default();
    let mut queue = open(&options, Arc::clone(&metrics), Clock::new(), Arc::new(|| ())).expect("opens");
    let mut meters = Meters::new(2);
    let mut bodies = Vec::new();
    for image in 0..8 {
        bodies.extend(fill(&queue, &mut meters, 1_000));
        let image = crash_image(&options, &format!("image-{image}"));
        let mut again = start(&image);
        let entries = read_all(&mut again.outlet);
        assert!(entries.iter().map(|entry| &entry.body).eq(&bodies), "{} of {}", entries.len(), bodies.len());
        stop(again);
        let unfinished = fs::read_dir(&image.path).expect("files").flatten().map(|file| file.file_name());
        assert!(!unfinished.into_iter().any(|name| name.to_string_lossy().ends_with(".new")));
    }
    let origin = origin(&options);
    wait_until(|| {
        let firsts: Vec<u64> = segment_sizes(&options).into_keys().collect();
        let sealed = &firsts[..firsts.len() - 2];
        sealed.iter().filter(|first| !packed(&options, **first, origin)).count() <= 4
    });
    assert!(metrics.queue.packed.get() >= 2);
    let entries = read_all(&mut queue.outlet);
    assert!(entries.iter().map(|entry| &entry.body).eq(&bodies));
    queue.outlet.release(queue.outlet.end()).expect("released");
    wait_until(|| segment_sizes(&options).len() == 2);
    stop(queue);
}

/// Promise 7: damage in a packed segment costs the frames it hit and nothing else, and is explained.
#[test]
fn damage_in_a_packed_segment_is_salvaged_frame_by_frame() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = Options { segment_size: 2 << 20, ..options(folder.path()) };
    let queue = start(&options);
    let bodies = fill(&queue, &mut Meters::new(1), 10_000);
    stop(queue);
    pack(&options.path, &mut |_| true).expect("packed");
    let firsts: Vec<u64> = segment_sizes(&options).into_keys().collect();
    let path = segment::path(&folder_of(&options), firsts[1]);
    let mut bytes = fs::read(&path).expect("bytes");
    let frames: Vec<usize> = (0..bytes.len() - 36).filter(|at| bytes[*at..].starts_with(&frame::MAGIC)).collect();
    assert!(frames.len() > 8, "{} frames", frames.len());
    let hit = frames[frames.len() / 2] + 1_000;
    bytes[hit] ^= 4;
    fs::write(&path, bytes).expect("damaged");
    let mut queue = start(&options);
    let entries = read_all(&mut queue.outlet);
    let gaps: Vec<&Entry> = entries.iter().filter(|entry| matches!(entry.body, Body::Gap(_))).collect();
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    let Body::Gap(gap) = &gaps[0].body else { unreachable!("it was chosen so") };
    assert!(gap.first > firsts[1] && gap.last < firsts[2] - 1 && gap.last - gap.first < 200, "{gap:?}");
    for entry in entries.iter().filter(|entry| !matches!(entry.body, Body::Gap(_))) {
        assert_eq!(entry.body, bodies[entry.sequence as usize - 1]);
    }
    assert_eq!(entries.len() as u64, 10_000 - (gap.last - gap.first));
    stop(queue);
}

/// Meters whose documents hardly pack: fullness is reached with few of them.
fn noisy(device: u64, second: u64) -> Body {
    let mut state = (second * 31 + device).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let noise: String = (0..400)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(b'0' + (state >> 60) as u8 % 10)
        })
        .collect();
    Body::Reading(Reading {
        source: "meter".into(),
        device: format!("meter {device}"),
        topic: "sma".into(),
        sender: String::new(),
        packet_id: None,
        received: Received { wall_ms: 0, boot_ms: second * 1000, boot_id: 3, synchronised: false },
        measured_ms: None,
        self_identified: true,
        json: true,
        kind: Kind::default(),
        marks: Vec::new(),
        payload: Bytes::from(format!("{{\"1-0:1.8.0\":{{\"value\":{second}}},\"noise\":{noise}}}")),
    })
}

/// Promise 6: "drop-oldest" never stops acknowledging, keeps to its size, keeps the newest; promise 5: gap records
/// explain exactly what is gone, before and after a restart; promise 3: what was handed out before it was dropped is
/// still known by its fingerprint.
#[test]
fn drop_oldest_takes_everything_and_explains_what_is_gone() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = Options { max_size: 3 << 20, when_full: WhenFull::DropOldest, ..options(folder.path()) };
    let metrics: Arc<Metrics> = Arc::default();
    let mut queue = open(&options, Arc::clone(&metrics), Clock::new(), Arc::new(|| ())).expect("opens");
    let mut bodies = Vec::new();
    let mut handed = None;
    for second in (0..20_000).step_by(100) {
        let some: Vec<Body> = (second..second + 100).map(|second| noisy(0, second)).collect();
        assert_eq!(put(&queue, some.clone()), 100);
        bodies.extend(some);
        if handed.is_none() {
            let entries = queue.outlet.read(1, 50, 1 << 20).expect("readable");
            handed = Some((entries[49].sequence, queue.outlet.fingerprint(50).expect("readable").expect("there")));
        }
        let used: u64 = segment_sizes(&options).values().sum();
        assert!(used <= options.max_size, "{used}");
    }
    let (sequence, print) = handed.expect("some were read");
    assert_eq!(queue.outlet.fingerprint(sequence).expect("known"), Some(print), "dropped, but Kafka may have it");
    let (release_point, end) = (queue.outlet.release_point(), queue.outlet.end());
    let check = |queue: &mut Queue| {
        let readings = explained(release_point, end, &read_all(&mut queue.outlet));
        for (sequence, body) in &readings {
            assert_eq!(*body, bodies[*sequence as usize - 1]);
        }
        assert!(readings.len() > 1_000, "{}", readings.len());
        let newest: Vec<u64> = readings.keys().copied().collect();
        assert!(newest.windows(2).all(|pair| pair[0] + 1 == pair[1]), "only the oldest are gone");
        assert_eq!(metrics.queue.dropped.get() + readings.len() as u64, 20_000);
        // A hole is sent as a gap, and known by it.
        let hole = newest[0] - 1;
        assert_eq!(queue.outlet.fingerprint(hole).expect("known"), Some(record::hole_fingerprint(hole)));
    };
    check(&mut queue);
    assert!(!metrics.queue.blocked.get());
    stop(queue);
    let mut queue = start(&options);
    check(&mut queue);
    queue.outlet.release(end).expect("released");
    wait_until(|| segment_sizes(&options).len() <= 2);
    stop(queue);
    let text = fs::read_to_string(options.path.join(identity::FILE)).expect("text");
    assert!(!text.contains("dropped"), "what is released needs no words: {text}");
}

/// Promise 6: "thin" never stops acknowledging, keeps the newest whole, and of what is older every device keeps the last
/// reading of each interval; promise 5: gap records explain the others.
#[test]
fn thin_keeps_the_newest_whole_and_the_oldest_in_steps() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = Options { max_size: 3 << 20, when_full: WhenFull::Thin, ..options(folder.path()) };
    let metrics: Arc<Metrics> = Arc::default();
    let mut queue = open(&options, Arc::clone(&metrics), Clock::new(), Arc::new(|| ())).expect("opens");
    let mut bodies = Vec::new();
    for second in (0..12_000).step_by(50) {
        let some: Vec<Body> =
            (second..second + 50).flat_map(|second| (0..2).map(move |device| noisy(device, second))).collect();
        assert_eq!(put(&queue, some.clone()), 100);
        bodies.extend(some);
    }
    assert!(!metrics.queue.blocked.get());
    let (from, end) = (queue.outlet.release_point(), queue.outlet.end());
    let readings = explained(from, end, &read_all(&mut queue.outlet));
    for (sequence, body) in &readings {
        assert_eq!(*body, bodies[*sequence as usize - 1]);
    }
    assert_eq!(metrics.queue.dropped.get() + readings.len() as u64, 24_000);
    // Both meters alike, and from the newest backwards the steps only grow.
    let seconds = |device: u64| -> Vec<u64> {
        readings.keys().filter(|sequence| (*sequence - 1) % 2 == device).map(|sequence| (sequence - 1) / 2).collect()
    };
    let (one, other) = (seconds(0), seconds(1));
    assert!(one.len().abs_diff(other.len()) < 40, "{} and {}", one.len(), other.len());
    for seconds in [one, other] {
        let whole = seconds.windows(2).rev().take_while(|pair| pair[1] - pair[0] == 1).count();
        assert!(whole > 800, "{whole} whole");
        let older = &seconds[..seconds.len() - whole - 1];
        let tens = older.windows(2).filter(|pair| pair[1] - pair[0] >= 9).count();
        assert!(tens > 100 && tens * 10 > older.len() * 7, "{tens} of {}", older.len());
        assert!(
            older.iter().filter(|second| *second % 10 == 9).count() * 10 > older.len() * 7,
            "the last of each interval"
        );
    }
    let end = queue.outlet.end();
    queue.outlet.release(end).expect("released");
    wait_until(|| segment_sizes(&options).len() <= 2);
    stop(queue);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    /// Promises 2, 4, 5 and 6: with any policy, whatever is appended, read, released, killed and started anew in any order,
    /// everything acknowledged and not released is there or explained, once and in order, and the room is kept to.
    #[test]
    fn a_limited_queue_explains_everything(
        policy in prop_oneof![Just(WhenFull::DropOldest), Just(WhenFull::Thin)],
        packs in any::<bool>(),
        segments in 4u64..13,
        steps in proptest::collection::vec((0u8..10, any::<proptest::sample::Index>()), 10..40),
    ) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut options = Options {
            // As few as the configuration allows, and more.
            max_size: segments << 20,
            segment_size: 1 << 20,
            when_full: policy,
            pack_after: if packs { Duration::ZERO } else { PACK_AFTER },
            ..options(folder.path())
        };
        let mut queue = start(&options);
        let (mut second, mut image) = (0, 0);
        for (step, at) in steps {
            match step {
                0..=6 => {
                    let count = 50 + at.index(2_000) as u64;
                    let bodies: Vec<Body> = (second..second + count).map(|second| noisy(0, second)).collect();
                    prop_assert_eq!(put(&queue, bodies) as u64, count);
                    second += count;
                }
                7 => {
                    let entries = queue.outlet.read(queue.outlet.release_point(), 1 + at.index(400), 1 << 20).expect("readable");
                    if let Some(last) = entries.last() {
                        let print = queue.outlet.fingerprint(last.sequence).expect("known");
                        prop_assert!(print.is_some(), "what was handed out is known");
                        queue.outlet.release(last.sequence + 1).expect("released");
                    }
                }
                8 => {
                    stop(queue);
                    queue = start(&options);
                }
                _ => {
                    let copy = crash_image(&options, &format!("image-{image}"));
                    image += 1;
                    // A release may not be on disk yet: then it comes again, as after any kill.
                    let released = queue.outlet.release_point();
                    stop(queue);
                    options = copy;
                    queue = start(&options);
                    prop_assert!(queue.outlet.release_point() <= released);
                }
            }
            let used: u64 = segment_sizes(&options).values().sum();
            prop_assert!(used <= options.max_size, "{} bytes", used);
        }
        prop_assert_eq!(queue.outlet.end(), second + 1, "no sequence twice, none left out");
        let from = queue.outlet.release_point();
        let readings = explained(from, second + 1, &read_all(&mut queue.outlet));
        for (sequence, body) in readings {
            prop_assert_eq!(body, noisy(0, sequence - 1));
        }
        queue.outlet.release(second + 1).expect("released");
        wait_until(|| segment_sizes(&options).len() <= 2);
        stop(queue);
    }
}

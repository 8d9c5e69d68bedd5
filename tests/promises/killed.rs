//! Promise 3: killed at any moment, every reading is in Kafka once, and in order.
//!
//! Readings come all the time. The agent is killed where a seed says, at a named point (`src/failpoint.rs`) or at a moment
//! of its work, and started again at once; the auditor compares in the end.

use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use meterferry::agent::live::Live;
use meterferry::failpoint::POINTS;
use rand::RngExt;
use rand::rngs::StdRng;

use crate::harness::agent::Agent;
use crate::harness::auditor::Audit;
use crate::harness::config::Config;
use crate::harness::document;
use crate::harness::kafka::Kafka;
use crate::harness::line::Line;
use crate::harness::mosquitto::Options;
use crate::harness::scale::{choices, scale};
use crate::harness::wait::{PATIENT, SetAtEnd};

const DEVICES: [&str; 3] = ["alpha", "beta", "gamma"];

/// When the agent is killed, counted from its start.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// When it comes by a named point for the n-th time.
    Point(&'static str, u32),
    /// So long after the process began: while it opens its queue, connects, reads the resume point.
    Young(Duration),
    /// So long after a figure of its own has risen by so much.
    Busy(Figure, u64, Duration),
}

#[derive(Debug, Clone, Copy)]
enum Figure {
    Received,
    Stored,
    Acknowledged,
    Released,
}

impl Figure {
    fn of(self, live: &Live) -> u64 {
        match self {
            Self::Received => live.sources.iter().map(|source| source.received).sum(),
            Self::Stored => live.end,
            Self::Acknowledged => live.sources.iter().map(|source| source.acknowledged).sum(),
            Self::Released => live.release_point,
        }
    }
}

impl Moment {
    /// Every second kill is at a point, at each of them in turn.
    fn choose(number: u64, choices: &mut StdRng) -> Self {
        if number.is_multiple_of(2) {
            let point = usize::try_from(number / 2).expect("a number of kills") % POINTS.len();
            return Self::Point(POINTS[point], choices.random_range(1..6));
        }
        Self::any(choices)
    }

    /// A moment of the agent's work.
    fn any(choices: &mut StdRng) -> Self {
        let while_it_works = Duration::from_micros(choices.random_range(0..20_000));
        let much = choices.random_range(1..80);
        match choices.random_range(0..6) {
            0 | 1 => Self::Young(Duration::from_micros(choices.random_range(0..600_000))),
            2 => Self::Busy(Figure::Received, much, while_it_works),
            3 => Self::Busy(Figure::Stored, much, while_it_works),
            4 => Self::Busy(Figure::Acknowledged, much, while_it_works),
            _ => Self::Busy(Figure::Released, much, while_it_works),
        }
    }

    /// Starts the agent and kills it when the moment has come.
    #[track_caller]
    fn strike(self, agent: &mut Agent) {
        if let Self::Point(name, nth) = self {
            agent.failpoint(Some(&format!("{name}:{nth}")));
            agent.start();
            agent.wait_failpoint();
            agent.failpoint(None);
            return;
        }
        agent.start();
        match self {
            Self::Point(..) => unreachable!("handled above"),
            Self::Young(age) => thread::sleep(age),
            Self::Busy(figure, much, later) => {
                let start = Instant::now();
                let mut before = None;
                loop {
                    assert!(start.elapsed() < PATIENT, "{self:?} did not come:\n{}", agent.log());
                    assert!(agent.ended().is_none(), "the agent ended by itself:\n{}", agent.log());
                    if let Some(live) = agent.figures()
                        && figure.of(&live) >= *before.get_or_insert(figure.of(&live)) + much
                    {
                        break;
                    }
                    thread::sleep(Duration::from_millis(1));
                }
                thread::sleep(later);
            }
        }
        assert!(agent.ended().is_none(), "the agent ended by itself:\n{}", agent.log());
        agent.kill();
    }
}

/// Kills the agent of `line` at these moments while readings come in, and lets it deliver everything in the end.
fn kill_under_load(line: &mut Line<'_>, moments: impl Iterator<Item = Moment>, load: StdRng) -> Audit {
    let enough = AtomicBool::new(false);
    // The broker keeps messages from the first subscription on.
    line.start();
    line.agent.kill();
    let Line { agent, publisher, .. } = line;
    thread::scope(|scope| {
        scope.spawn(|| publisher.publish_on(load, &enough, |first, count| document::readings(&DEVICES, first, count)));
        // However this ends: the scope waits for the publisher.
        let _end = SetAtEnd(&enough);
        for (number, moment) in moments.enumerate() {
            println!("kill {number}: {moment:?}");
            moment.strike(agent);
        }
    });
    agent.start();
    publisher.wait_acknowledged();
    let audit = line.finish();
    println!("{audit}");
    assert!(!line.agent.full_log().contains(" ERROR "), "a kill is no error:\n{}", line.agent.full_log());
    audit
}

/// Commits, sends and rolls often, so that every point comes by soon.
fn busy(config: Config) -> Config {
    config.queue("commit_delay = \"20ms\"").queue("segment_size = \"1 MiB\"").kafka("linger = \"10ms\"")
}

/// Promise 3: real broker, real cluster, exactly-once, killed again and again under load.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn at_named_points_and_at_any_moment() {
    let mut line = Line::with(Kafka::shared(), "killed", &Options::default(), |config, _| busy(config));
    let mut choices = choices("killed");
    let moments = (0..scale(25, 1_000)).map(|number| Moment::choose(number, &mut choices));
    kill_under_load(&mut line, moments, self::choices("killed, the load")).assert_exact();
}

/// Promise 3: in `at-least-once` nothing is lost, and `ce_id` is what repeats can be dropped by.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn at_least_once_can_be_made_once_by_id() {
    let mut line = Line::with(Kafka::shared(), "at-least", &Options::default(), |config, _| {
        busy(config).kafka("delivery = \"at-least-once\"")
    });
    let mut choices = choices("at-least-once");
    // It does not come by the points of a transaction.
    let moments = (0..scale(8, 200)).map(|_| Moment::any(&mut choices));
    kill_under_load(&mut line, moments, self::choices("at-least-once, the load")).assert_exact_by_id();
}

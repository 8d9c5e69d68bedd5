//! The model: what is known outside the queue, and what follows from it for a disk that lost power.

use std::ops::RangeInclusive;
use std::path::Path;

use meterferry::queue::Identity;
use meterferry::reading::{DeadLetter, Mark, QueueId};

use crate::life::FOLDER;
use crate::message;
use crate::tree::Tree;

/// Marks that the queue keeps of a source.
pub const WINDOW: usize = 50;

/// One message that was handed in.
#[derive(Debug, Clone, Copy)]
pub struct Written {
    pub number: u64,
    /// The release point when it was handed in.
    pub carried: u64,
}

/// A value that is changed durably: while a change runs, it is the old one or the new one.
#[derive(Debug, Clone)]
pub struct Register<T>(Vec<(usize, usize, T)>);

impl<T: Clone> Register<T> {
    pub fn new(value: T) -> Self {
        Self(vec![(0, 0, value)])
    }

    /// Positions in the disk's log where the change began and where it was done.
    pub fn change(&mut self, begun: usize, done: usize, value: T) {
        self.0.push((begun, done, value));
    }

    /// What it may be at a position.
    pub fn at(&self, position: usize) -> Vec<T> {
        let done = self.0.iter().rposition(|(_, done, _)| *done <= position).unwrap_or(0);
        self.0[done..].iter().filter(|(begun, _, _)| *begun <= position).map(|(_, _, value)| value.clone()).collect()
    }
}

/// What was done with a queue in one life.
#[derive(Debug, Clone)]
pub struct Ledger {
    /// Sequence 1 comes first.
    pub written: Vec<Written>,
    pub next_number: u64,
    /// How many of `written` were on disk when this life began.
    pub before: usize,
    /// The release points of this life, and since when; the first is the recovered one.
    pub released: Vec<(usize, u64)>,
    /// The highest release point that an earlier life had.
    pub told: u64,
    pub id: Register<QueueId>,
    /// Since when the queue id may be a new one that nobody was told.
    pub fork_failed: Option<usize>,
    /// Whether an earlier life has shown the queue id to anybody.
    pub known: bool,
    pub filters: Register<Vec<String>>,
    pub letters: Vec<(usize, DeadLetter)>,
    /// Positions in the disk's log from which on records below a sequence may have been given up for want of room.
    pub given_up: Vec<(usize, u64)>,
    /// Where that was last looked at.
    pub looked: usize,
    /// Where the opening was done.
    pub opened: usize,
    /// Where an orderly end was done.
    pub closed: Option<usize>,
}

/// What has to be true of a disk.
#[derive(Debug, Clone)]
pub struct Expected {
    /// What may be there, sequence 1 first.
    pub written: Vec<Written>,
    pub next_number: u64,
    /// So many of them are there.
    pub acknowledged: usize,
    pub release_points: RangeInclusive<u64>,
    /// Empty: any.
    pub ids: Vec<QueueId>,
    pub filters: Vec<Vec<String>>,
    pub letters: Vec<DeadLetter>,
    /// Records below this may have been given up for want of room.
    pub given_up: u64,
}

impl Expected {
    /// Of a disk that has no queue yet.
    pub fn nothing() -> Self {
        Self {
            written: Vec::new(),
            next_number: 1,
            acknowledged: 0,
            release_points: 1..=1,
            ids: Vec::new(),
            filters: vec![Vec::new()],
            letters: Vec::new(),
            given_up: 0,
        }
    }

    /// The redelivery window of a queue that ends with `end`.
    pub fn marks(&self, end: u64) -> Vec<Mark> {
        let there = &self.written[..end as usize - 1];
        there[there.len().saturating_sub(WINDOW)..].iter().map(|written| message::mark(written.number)).collect()
    }
}

impl Ledger {
    pub fn release_point(&self) -> u64 {
        self.released.last().map_or(1, |(_, next)| *next)
    }

    /// One past the newest sequence.
    pub fn end(&self) -> u64 {
        self.written.len() as u64 + 1
    }

    /// Looks at what the queue says that it has given up, on a disk that stands at `position` of its log.
    pub fn look(&mut self, disk: &Tree, position: usize) {
        let file = disk.content(&Path::new(FOLDER).join("queue.toml"));
        let identity: Option<Identity> = file.and_then(|file| toml::from_slice(&file.bytes()).ok());
        let below = identity.and_then(|identity| identity.dropped.last().map(|range| range.last + 1)).unwrap_or(0);
        if self.given_up.last().map_or(0, |(_, known)| *known) < below {
            self.given_up.push((self.looked, below));
        }
        self.looked = position;
    }

    /// Follows from a disk that was cut off at `position` of its log, when `acknowledged` messages of this life had been
    /// acknowledged.
    pub fn at(&self, position: usize, acknowledged: usize) -> Expected {
        let acknowledged = self.before + acknowledged;
        let carried = self.written[..acknowledged].iter().map(|written| written.carried).max().unwrap_or(1);
        let floor = match self.closed {
            Some(closed) if closed <= position => self.release_point(),
            _ => self.released[0].1.max(carried),
        };
        let told = self.released.iter().filter(|(at, _)| *at <= position).map(|(_, next)| *next).max().unwrap_or(1);
        let told = told.max(self.told);
        let known = self.known || position >= self.opened;
        let known = known && self.fork_failed.is_none_or(|begun| position < begun);
        Expected {
            written: self.written.clone(),
            next_number: self.next_number,
            acknowledged,
            release_points: floor..=told.max(floor),
            ids: if known { self.id.at(position) } else { Vec::new() },
            filters: self.filters.at(position),
            given_up: self
                .given_up
                .iter()
                .filter(|(at, _)| *at <= position)
                .map(|(_, below)| *below)
                .max()
                .unwrap_or(0),
            letters: self.letters.iter().filter(|(at, _)| *at <= position).map(|(_, letter)| letter.clone()).collect(),
        }
    }
}

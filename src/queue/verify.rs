//! Every record of every file, read and held against its checksum. Changes nothing.

use std::ops::ControlFlow;

use super::error::QueueError;
use super::folder::Folder;
use super::identity::Identity;
use super::inspect::Inspector;
use super::record::{self, Content, Stored, WINDOW_KEY};
use super::release;
use super::segment::{self, Reader, SegmentError};
use super::segment_file;
use super::tolerant::{self, Seen};
use super::view::View;

/// What was found in one segment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// Its first sequence, which names it.
    pub first: u64,
    pub bytes: u64,
    /// Records that are as they were written.
    pub records: u64,
    /// What is wrong, in words.
    pub wrong: Vec<String>,
    /// First and last sequence that neither it nor the next segment holds, though both are whole: a file between them is
    /// gone.
    pub gone: Option<(u64, u64)>,
}

impl Verified {
    /// What is wrong behind it, in words.
    pub fn gone(&self) -> Option<String> {
        let (first, last) = self.gone?;
        let place = format!("between {} and {}", segment_file(self.first), segment_file(last + 1));
        Some(format!("records {first} to {last} are in no file: a segment {place} is missing"))
    }
}

/// What was found in the folder.
#[derive(Debug, Clone, Default)]
pub struct Report {
    pub segments: Vec<Verified>,
    /// What is wrong with the other files.
    pub wrong: Vec<String>,
    /// Ranges that an earlier damage took and that are explained to Kafka.
    pub known_lost: u64,
    /// The newest segment was not closed: no damage, the agent repairs it at its start.
    pub not_closed: bool,
    /// One past the newest record, and the release point, as far as they can be read.
    pub end: u64,
    pub release_point: u64,
}

impl Report {
    pub fn is_sound(&self) -> bool {
        self.wrong.is_empty() && self.segments.iter().all(|segment| segment.wrong.is_empty() && segment.gone.is_none())
    }
}

/// Wrong things told of one segment; the rest is counted.
const TOLD: usize = 8;

impl Inspector {
    /// Reads everything. `progress` is told the bytes read so far, of [`super::inspect::Status::segment_bytes`].
    pub fn verify(&self, mut progress: impl FnMut(u64)) -> Result<Report, QueueError> {
        let identity = self.identity();
        let view = View::of(self.place(), identity)?;
        let mut report = Report {
            known_lost: identity.lost.len() as u64,
            not_closed: view.not_closed,
            end: view.end,
            release_point: view.release_point,
            ..Report::default()
        };
        let mut done = 0;
        for (at, first) in view.segments.iter().copied().enumerate() {
            let until = view.segments.get(at + 1).copied();
            let bytes = self.place().disk.size(&segment::path(self.place(), first)).unwrap_or(0);
            match segment_of(&view.folder, identity, first, until, view.release_point, |part| {
                progress(done + part.min(bytes))
            }) {
                Some(verified) => report.segments.push(Verified { bytes, ..verified }),
                // Released and unlinked since.
                None => continue,
            }
            done += bytes;
            progress(done);
        }
        report.wrong = report.segments.iter().filter_map(Verified::gone).chain(self.others()).collect();
        Ok(report)
    }

    /// The small files, and the dead letters.
    fn others(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let there = self.place().has(&self.place().file(release::FILE)).unwrap_or(true);
        if there && release::read(self.place(), self.identity().origin).is_none() {
            wrong.push(format!("{} does not fit its checksum: the records' own release point is used", release::FILE));
        }
        match self.letters().damaged() {
            Ok(0) => {}
            Ok(count) => wrong.push(format!("{count} dead letters do not fit their checksum")),
            Err(error) => wrong.push(format!("the dead letters cannot be read: {}", tolerant::reason(&error))),
        }
        wrong
    }
}

/// One segment, read through; none where it is gone. Sequences below `released` may be missing.
pub(super) fn segment_of(
    folder: &Folder,
    identity: &Identity,
    first: u64,
    until: Option<u64>,
    released: u64,
    mut progress: impl FnMut(u64),
) -> Option<Verified> {
    let mut scan = Scan { verified: Verified { first, ..Verified::default() }, next: first, released, more: 0 };
    let mut read = 0;
    let scanned = Reader::open(folder, first, identity.origin).and_then(|reader| {
        tolerant::scan(&reader, WINDOW_KEY, u64::MAX, |seen| {
            match seen {
                Seen::Bytes(sequence, bytes) => {
                    read += bytes.len() as u64;
                    progress(read);
                    scan.record(identity, sequence, until, bytes);
                }
                Seen::Unreadable(from, to, error) => {
                    let (from, next) = (from.max(first), to.saturating_add(1).min(until.unwrap_or(u64::MAX)));
                    let to = if to == u64::MAX { "the end".to_owned() } else { to.to_string() };
                    scan.wrong(format!("records {from} to {to}: {}", tolerant::reason(error)));
                    // They are told of.
                    scan.next = scan.next.max(next);
                }
            }
            ControlFlow::Continue(())
        })
    });
    match scanned {
        Ok(()) => {
            let behind = until.filter(|until| *until > scan.next).map(|until| (scan.next, until - 1));
            scan.verified.gone = behind.filter(|(first, last)| scan.is_news(identity, *first, *last));
        }
        Err(SegmentError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => scan.wrong(tolerant::reason(&error)),
    }
    if scan.more > 0 {
        scan.verified.wrong.push(format!("and {} more", scan.more));
    }
    Some(scan.verified)
}

struct Scan {
    verified: Verified,
    /// The sequence that is to come next.
    next: u64,
    released: u64,
    /// Wrong things beyond those told.
    more: u64,
}

impl Scan {
    fn record(&mut self, identity: &Identity, sequence: u64, until: Option<u64>, bytes: &[u8]) {
        match record::decode(identity.origin, sequence, bytes) {
            Ok(Stored { content: Content::Window(_), .. }) if sequence == WINDOW_KEY => {}
            Ok(_) if sequence < self.verified.first || until.is_some_and(|until| sequence >= until) => {
                self.wrong(format!("record {sequence} does not belong here"));
            }
            Ok(_) => {
                if sequence > self.next {
                    self.missing(identity, sequence);
                }
                self.next = sequence + 1;
                self.verified.records += 1;
            }
            Err(error) => {
                self.next = self.next.max(sequence.saturating_add(1));
                self.wrong(format!("record {sequence}: {error}"));
            }
        }
    }

    /// Sequences up to `until` (exclusive) are not there. What is known to be lost is no news, and what is released was
    /// explained to Kafka.
    fn missing(&mut self, identity: &Identity, until: u64) {
        let (first, last) = (self.next, until - 1);
        if self.is_news(identity, first, last) {
            self.wrong(format!("records {first} to {last} are missing"));
        }
    }

    fn is_news(&self, identity: &Identity, first: u64, last: u64) -> bool {
        !identity.explains(first, last) && last >= self.released
    }

    fn wrong(&mut self, what: String) {
        if self.verified.wrong.len() < TOLD {
            self.verified.wrong.push(what);
        } else {
            self.more += 1;
        }
    }
}

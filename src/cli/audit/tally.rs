//! All queues of the topics that are read. Pure: records come from whoever reads them.

use std::collections::HashMap;

use percent_encoding::percent_decode_str;

use super::super::consume::record::{Content, Record};
use super::account::{Account, At, Beginning, Finding, Seen};
use crate::reading::{CE_TYPE_GAP, CE_TYPE_OURS, CE_TYPE_READING, CE_TYPE_RECEIPT, CE_TYPE_STATUS, QueueId};

/// Ranges of sequences kept in memory, over all queues: 40 MB. Queues with few holes need a handful.
pub(super) const MOST_RANGES: usize = 1_000_000;
/// Devices, in each partition and queue.
pub(super) const MOST_DEVICES: usize = 250_000;
/// Queue ids.
pub(super) const MOST_QUEUES: usize = 100_000;

/// The audit would take more memory than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum TooMuch {
    #[error(
        "the sequences seen lie in more than {MOST_RANGES} separate ranges\n  hint: name all topics that the agents send to (--topic), or begin later (--from)"
    )]
    Ranges,
    #[error(
        "there are more than {MOST_DEVICES} devices\n  hint: audit fewer topics at a time (--topic), or begin later (--from)"
    )]
    Devices,
    #[error(
        "there are more than {MOST_QUEUES} queue ids\n  hint: audit fewer topics at a time (--topic), or begin later (--from)"
    )]
    Queues,
}

/// What is known of a partition's beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    /// Nothing was deleted.
    All,
    /// Something was deleted, and what an agent dates since (milliseconds since 1970) was sent after all of that.
    Since(i64),
}

/// What was seen so far.
#[derive(Debug)]
pub(super) struct Tally {
    accounts: HashMap<QueueId, Account>,
    /// What Kafka dates before counts for nothing (milliseconds since 1970).
    from: Option<i64>,
    /// Partitions of which not all is kept, with the time since which nothing was deleted.
    cut: Vec<(usize, i64)>,
    records: u64,
    foreign: u64,
    ranges: usize,
    devices: usize,
}

impl Tally {
    /// Partitions are known by their place in `kept`.
    pub(super) fn new(kept: &[Kept], from: Option<i64>) -> Self {
        let cut = kept.iter().enumerate().filter_map(|(place, kept)| match kept {
            Kept::Since(time) => Some((place, *time)),
            Kept::All => None,
        });
        Self { accounts: HashMap::new(), from, cut: cut.collect(), records: 0, foreign: 0, ranges: 0, devices: 0 }
    }

    /// Takes a record of the partition at `place`. Of one partition, records come in order; of several best in the order
    /// of their timestamps, which keeps the ranges few.
    pub(super) fn take(&mut self, record: &Record, place: usize) -> Result<(), TooMuch> {
        self.records += 1;
        let timestamp = record.timestamp_ms.unwrap_or(i64::MIN);
        let counts = self.from.is_none_or(|from| timestamp >= from);
        let kind = record.header("ce_type").filter(|kind| kind.starts_with(CE_TYPE_OURS));
        let (Some(kind), Some(event)) = (kind, record.event()) else {
            self.foreign += u64::from(counts);
            return Ok(());
        };
        if self.accounts.len() >= MOST_QUEUES && !self.accounts.contains_key(&event.queue) {
            return Err(TooMuch::Queues);
        }
        let account = self.accounts.entry(event.queue).or_default();
        let ranges = account.ranges();
        if let Some(agent) = record.header("ce_source").map(agent).filter(|agent| account.agent != *agent) {
            account.agent = agent;
        }
        for (cut, since) in &self.cut {
            if timestamp >= *since {
                account.is_since(*cut, event.sequence);
            }
        }
        let at = At { place, sequence: event.sequence, counts };
        match kind {
            CE_TYPE_READING | CE_TYPE_STATUS => {
                let time_ms = record.time().map(|time| time.as_millisecond());
                let key = record.key.as_deref().unwrap_or_default();
                let new = account.reading(Seen { at, key, time_ms });
                self.devices += usize::from(new);
            }
            CE_TYPE_GAP | CE_TYPE_RECEIPT => match record.content() {
                Content::Gap(gap) => account.gap(at, &gap),
                Content::Receipt(receipt) => account.receipt(at, &receipt),
                Content::Reading(_) | Content::Other => account.other(at, false),
            },
            _ => account.other(at, true),
        }
        self.ranges = self.ranges + account.ranges() - ranges;
        match () {
            () if self.ranges > MOST_RANGES => Err(TooMuch::Ranges),
            () if self.devices > MOST_DEVICES => Err(TooMuch::Devices),
            () => Ok(()),
        }
    }

    /// All partitions were read up to where they ended at one moment or later: what is missing up to the sequences seen so far
    /// is not on its way any more once the partitions are read a second time.
    pub(super) fn set_horizon(&mut self) {
        self.accounts.values_mut().for_each(Account::set_horizon);
    }

    /// What would be missing if there were nothing in front of what was read.
    pub(super) fn sought(&self) -> Sought {
        let mut sought = Sought { firsts: Vec::new(), count: 0 };
        for (queue, account) in self.accounts.iter().filter(|_| self.from.is_some()) {
            if let Some((first, count)) = account.sought() {
                sought.firsts.push((*queue, first));
                sought.count = sought.count.saturating_add(count);
            }
        }
        sought
    }

    /// Whether nothing of that can be in the partition at `place`, in front of what was read: sequences rise there.
    pub(super) fn is_settled(&self, place: usize, sought: &Sought) -> bool {
        sought.firsts.iter().all(|(queue, first)| self.accounts[queue].is_settled(place, *first))
    }

    /// Takes a record that stands in front of what [`Tally::take`] was given of the partition at `place`.
    pub(super) fn look_back(&mut self, record: &Record, place: usize) -> Result<(), TooMuch> {
        let ours = record.header("ce_type").is_some_and(|kind| kind.starts_with(CE_TYPE_OURS));
        let Some(event) = record.event().filter(|_| ours) else { return Ok(()) };
        let Some(account) = self.accounts.get_mut(&event.queue) else { return Ok(()) };
        let ranges = account.ranges();
        account.found(place, event.sequence, &record.content());
        self.ranges = self.ranges + account.ranges() - ranges;
        if self.ranges > MOST_RANGES { Err(TooMuch::Ranges) } else { Ok(()) }
    }

    pub(super) fn records(&self) -> u64 {
        self.records
    }

    /// What the audit found, by agent and queue in the order of their first readings.
    pub(super) fn conclude(self) -> Conclusion {
        let cut: Vec<usize> = self.cut.iter().map(|(place, _)| *place).collect();
        let partial = self.from.is_some();
        let finding = |(queue, account): (QueueId, Account)| account.finding(queue.to_string(), &cut, partial);
        let mut findings: Vec<Finding> = self.accounts.into_iter().filter_map(finding).collect();
        find_forks(&mut findings);
        let began = |finding: &Finding| finding.first.and_then(|first| first.time_ms);
        findings.sort_by(|a, b| (&a.agent, began(a), &a.queue).cmp(&(&b.agent, began(b), &b.queue)));
        find_new_beginnings(&mut findings);
        Conclusion { findings, records: self.records, foreign: self.foreign }
    }
}

/// A queue that begins where another of the same agent ends is its fork: a fork goes on counting.
fn find_forks(findings: &mut [Finding]) {
    let ends: HashMap<(String, u64), String> = findings
        .iter()
        .filter_map(|finding| Some(((finding.agent.clone(), finding.end.checked_add(1)?), finding.queue.clone())))
        .collect();
    for finding in findings.iter_mut().filter(|finding| finding.beginning == Beginning::Unknown) {
        if let Some(of) = ends.get(&(finding.agent.clone(), finding.begin)) {
            finding.beginning = Beginning::Fork(of.clone());
        }
    }
}

/// An agent whose folder is deleted begins a new queue: nobody knows what waited in the old one. Expects those of an agent
/// in the order of their first readings.
fn find_new_beginnings(findings: &mut [Finding]) {
    for next in 1..findings.len() {
        let (before, finding) = (&findings[next - 1], &findings[next]);
        if finding.beginning == Beginning::New && before.agent == finding.agent {
            findings[next].beginning = Beginning::Anew(before.queue.clone());
        }
    }
}

/// Sequences of which it is not known yet whether they are missing.
#[derive(Debug)]
pub(super) struct Sought {
    /// The lowest of each queue.
    firsts: Vec<(QueueId, u64)>,
    pub(super) count: u64,
}

/// The audit's outcome.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Conclusion {
    pub(super) findings: Vec<Finding>,
    /// All records read.
    pub(super) records: u64,
    /// Not an agent's, of the time that is audited.
    pub(super) foreign: u64,
}

impl Conclusion {
    /// Whether everything is there or explained, and there is something at all: nothing proves nothing.
    pub(super) fn is_complete(&self) -> bool {
        !self.findings.is_empty() && self.findings.iter().all(Finding::is_complete)
    }

    /// Queues of which it is not known whether there was anything before their beginning.
    pub(super) fn unknown_beginnings(&self) -> u64 {
        self.findings.iter().filter(|finding| finding.beginning == Beginning::Unknown).count() as u64
    }
}

/// The agent of `/<agent>/<source>` or `/<agent>`.
fn agent(source: &str) -> String {
    let agent = source.strip_prefix('/').unwrap_or(source).split('/').next().unwrap_or_default();
    percent_decode_str(agent).decode_utf8_lossy().into_owned()
}

//! The outcome as one JSON object, for programs.

use serde_json::{Value, json};

use super::super::units::rfc3339;
use super::account::{Beginning, Finding, Moment};
use super::reader::Partition;
use super::tally::Conclusion;

/// Numbers are numbers, times RFC 3339, queue ids 32 hexadecimal digits; what is unknown is null.
pub(super) fn text(partitions: &[Partition], conclusion: &Conclusion) -> String {
    let partition = |partition: &Partition| {
        json!({
            "topic": partition.topic,
            "partition": partition.id,
            "log_start": partition.low,
            "read_from": partition.start,
        })
    };
    let value = json!({
        "complete": conclusion.is_complete(),
        "unknown_beginnings": conclusion.unknown_beginnings(),
        "records": conclusion.records,
        "foreign_records": conclusion.foreign,
        "partitions": partitions.iter().map(partition).collect::<Vec<_>>(),
        "queues": conclusion.findings.iter().map(queue).collect::<Vec<_>>(),
    });
    format!("{value}\n")
}

fn queue(finding: &Finding) -> Value {
    let time = |moment: Option<Moment>| moment.and_then(|moment| moment.time_ms).map(rfc3339);
    let sequence = |moment: Option<Moment>| moment.map(|moment| moment.sequence);
    let range = |(first, last): &(u64, u64)| json!({"first": first, "last": last, "count": last - first + 1});
    json!({
        "agent": finding.agent,
        "queue_id": finding.queue,
        "complete": finding.is_complete(),
        "beginning": match &finding.beginning {
            Beginning::New => "new",
            Beginning::Anew(_) => "anew",
            Beginning::Fork(_) => "fork",
            Beginning::LeftOut => "left_out",
            Beginning::Unknown => "unknown",
        },
        "fork_of": match &finding.beginning {
            Beginning::Fork(of) => Some(of),
            _ => None,
        },
        "after_queue": match &finding.beginning {
            Beginning::Anew(before) => Some(before),
            _ => None,
        },
        "first": finding.begin,
        "last": finding.end,
        "first_reading": {"sequence": sequence(finding.first), "measured": time(finding.first)},
        "last_reading": {"sequence": sequence(finding.last), "measured": time(finding.last)},
        "readings": finding.readings,
        "devices": finding.devices,
        "missing": finding.missing.count,
        "missing_ranges": finding.missing.listed.iter().map(range).collect::<Vec<_>>(),
        "missing_ranges_in_all": finding.missing.ranges,
        "explained": finding.explained,
        "explained_and_there": finding.contradictory,
        "reasons": finding.reasons,
        "gap_records": finding.gap_records,
        "not_kept": finding.not_kept,
        "repeats": finding.repeats,
        "out_of_order": {
            "within_a_device": finding.out_of_order.of_a_device,
            "within_the_queue": finding.out_of_order.of_the_queue,
        },
        "unreadable": finding.unreadable,
        "longest_pause": finding.pause.as_ref().map(|pause| json!({
            "seconds": pause.length_ms as f64 / 1000.0,
            "until": rfc3339(pause.until_ms),
            "device": pause.device,
        })),
        "receipts": {
            "count": finding.receipts.count,
            "newest_day": finding.receipts.newest,
            "agree": finding.receipts.agree,
            "reach_back": finding.receipts.reach_back,
            "disagree": finding.receipts.disagree.iter().map(|wrong| json!({
                "day": wrong.day, "first": wrong.first, "last": wrong.last, "says": wrong.says, "seen": wrong.seen,
            })).collect::<Vec<_>>(),
        },
    })
}

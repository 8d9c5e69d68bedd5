//! The outcome as a table that a person reads: a row a queue, below it what there is to say of it.

use std::fmt::Write as _;
use std::time::Duration;

use super::super::terminal::{HEADER, OUT, WARNING, printable};
use super::super::units::{count, duration, local_time};
use super::account::{Beginning, Finding};
use super::reader::Partition;
use super::tally::Conclusion;

/// Ranges of missing sequences that are shown of one queue; `--json` has more.
const SHOWN: usize = 5;
/// Characters of a name that anybody may choose.
const NAME: usize = 40;

const HEADINGS: [&str; 8] = ["queue", "first", "last", "readings", "missing", "explained", "repeats", "disorder"];

pub(super) fn text(partitions: &[Partition], conclusion: &Conclusion) -> String {
    let mut text = String::new();
    let rows: Vec<[String; 8]> = conclusion.findings.iter().map(row).collect();
    let width = |column: usize| {
        let widest = rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
        widest.max(HEADINGS[column].len())
    };
    let widths: Vec<usize> = (0..HEADINGS.len()).map(width).collect();
    let mut agent = None;
    for (finding, row) in conclusion.findings.iter().zip(&rows) {
        if agent != Some(&finding.agent) {
            let gap = if agent.is_some() { "\n" } else { "" };
            let _ = writeln!(text, "{gap}agent {}", printable(&finding.agent, NAME));
            let _ = writeln!(text, "{HEADER}{}{HEADER:#}", line(&HEADINGS.map(str::to_owned), &widths));
            agent = Some(&finding.agent);
        }
        let _ = writeln!(text, "{}", line(row, &widths));
        remarks(&mut text, finding);
    }
    if agent.is_some() {
        text.push('\n');
    }
    for partition in partitions.iter().filter(|partition| partition.low > 0) {
        let _ = writeln!(
            text,
            "{}/{} begins with offset {}: what was before is deleted",
            partition.topic,
            partition.id,
            count(partition.low.unsigned_abs())
        );
    }
    text.push_str(&verdict(conclusion));
    text
}

fn row(finding: &Finding) -> [String; 8] {
    [
        short(&finding.queue),
        count(finding.begin),
        count(finding.end),
        count(finding.readings),
        count(finding.missing.count),
        count(finding.explained),
        count(finding.repeats),
        count(finding.out_of_order.of_the_queue),
    ]
}

/// What tells a queue from others.
fn short(queue: &str) -> String {
    queue.chars().take(8).collect()
}

fn line(cells: &[String; 8], widths: &[usize]) -> String {
    let mut line = format!("{:<width$}", cells[0], width = widths[0]);
    for (cell, width) in cells.iter().zip(widths).skip(1) {
        let _ = write!(line, "  {cell:>width$}");
    }
    line
}

fn remarks(text: &mut String, finding: &Finding) {
    let mut say = |line: String| {
        let _ = writeln!(text, "  {line}");
    };
    let time = |moment: Option<super::account::Moment>| moment.and_then(|moment| moment.time_ms).map(local_time);
    if let (Some(first), Some(last)) = (time(finding.first), time(finding.last)) {
        let devices = if finding.devices == 1 { "device" } else { "devices" };
        say(format!("{first} to {last}, {} {devices}", count(finding.devices as u64)));
    }
    match &finding.beginning {
        Beginning::New | Beginning::LeftOut => {}
        Beginning::Anew(before) => say(format!(
            "{WARNING}a new queue after {}{WARNING:#}: what still waited in that one was lost with its folder; nothing in Kafka \
             knows of it",
            short(before)
        )),
        Beginning::Fork(of) => say(format!("begins where queue {} ends: a fork", short(of))),
        Beginning::Unknown => say(format!(
            "{WARNING}begins with {}: what was before is not in Kafka{WARNING:#}: a fork, which goes on counting, or lost",
            count(finding.begin)
        )),
    }
    for (first, last) in finding.missing.listed.iter().take(SHOWN) {
        let number = last - first + 1;
        let sequences = if number == 1 { count(*first) } else { format!("{} to {}", count(*first), count(*last)) };
        say(format!("{WARNING}missing and not explained: {sequences}{WARNING:#} ({})", count(number)));
    }
    let more = finding.missing.ranges.saturating_sub(SHOWN as u64);
    if more > 0 {
        say(format!("{WARNING}and {} more ranges{WARNING:#}", count(more)));
    }
    for (reason, number) in &finding.reasons {
        say(format!("explained: {} ({})", printable(reason, 2 * NAME - 30), count(*number)));
    }
    if finding.contradictory > 0 {
        say(format!("{} explained and there all the same", count(finding.contradictory)));
    }
    if finding.not_kept > 0 {
        say(format!("{} not there, and perhaps among what Kafka has deleted: not judged", count(finding.not_kept)));
    }
    if finding.repeats > 0 {
        let number = count(finding.repeats);
        say(format!("{number} repeated, to be dropped by ce_id: at-least-once may, exactly-once does not"));
    }
    if finding.out_of_order.of_a_device > 0 {
        let number = count(finding.out_of_order.of_a_device);
        say(format!("{WARNING}{number} behind a later one of the same device{WARNING:#}"));
    }
    if finding.unreadable > 0 {
        say(format!("{WARNING}{} gap records or receipts that cannot be read{WARNING:#}", count(finding.unreadable)));
    }
    if let Some(pause) = &finding.pause {
        let length = duration(Duration::from_millis(pause.length_ms.unsigned_abs()));
        let device = printable(&pause.device, NAME - 10);
        say(format!("longest pause {length}, until {}, device {device}", local_time(pause.until_ms)));
    }
    receipts(&mut say, finding);
}

fn receipts(say: &mut impl FnMut(String), finding: &Finding) {
    let receipts = &finding.receipts;
    let Some(newest) = receipts.newest else { return };
    let back = match receipts.reach_back {
        0 => String::new(),
        number => format!(", {} about what is not kept or was left out", count(number)),
    };
    say(format!("daily receipts: {} agree{back}, the newest of {newest}", count(receipts.agree)));
    for wrong in receipts.disagree.iter().take(SHOWN) {
        say(format!(
            "{WARNING}the receipt of {} says {} readings in {} to {}, here are {}{WARNING:#}",
            wrong.day,
            count(wrong.says),
            count(wrong.first),
            count(wrong.last),
            count(wrong.seen)
        ));
    }
}

fn verdict(conclusion: &Conclusion) -> String {
    let foreign = match conclusion.foreign {
        0 => String::new(),
        1 => "; 1 record of somebody else".to_owned(),
        number => format!("; {} records of somebody else", count(number)),
    };
    let findings = &conclusion.findings;
    if findings.is_empty() {
        return format!("{WARNING}no record of an agent: nothing is proved{WARNING:#}{foreign}\n");
    }
    let readings = count(findings.iter().map(|finding| finding.readings).sum());
    let missing: u64 = findings.iter().map(|finding| finding.missing.count).sum();
    match (missing, conclusion.is_complete()) {
        (0, true) if conclusion.unknown_beginnings() > 0 => format!(
            "{WARNING}complete from where it begins{WARNING:#}: {readings} readings, nothing is missing unexplained; \
             what was before is not in Kafka{foreign}\n"
        ),
        (0, true) => format!("{OUT}complete{OUT:#}: {readings} readings, nothing is missing unexplained{foreign}\n"),
        (0, false) => {
            format!("{WARNING}incomplete{WARNING:#}: {readings} readings, fewer than the receipts say{foreign}\n")
        }
        _ => format!(
            "{WARNING}incomplete{WARNING:#}: {readings} readings, {} missing and not explained{foreign}\n\
             \x20 hint: if the agents send to other topics too, name all of them with --topic\n",
            count(missing)
        ),
    }
}

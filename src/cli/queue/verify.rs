//! `meterferry queue verify`

use std::process::ExitCode;

use serde_json::json;

use super::Folder;
use crate::cli::progress::{Progress, Unit};
use crate::cli::units::{bytes, count};
use crate::cli::{Global, fail, out};
use crate::queue::segment_file;
use crate::queue::verify::Report;

const EXAMPLES: &str = "\
Examples:
  meterferry queue verify                  every record against its checksum
  meterferry queue verify --json | jq .wrong
  meterferry queue verify --path /mnt/card/var/lib/meterferry/queue

Reads every segment, the dead letters and the small files; changes nothing; works beside the running
agent. What it finds the agent salvages by itself when it comes to it.

Exit codes:
  0  everything is as it was written
  1  damage was found, or the queue cannot be read";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    folder: Folder,
    /// One JSON object instead of lines
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, global: &Global) -> Result<ExitCode, ExitCode> {
    let (inspector, _) = args.folder.inspect(global)?;
    let status = inspector.status().map_err(|error| fail(&error))?;
    let report = {
        let mut progress = Progress::new("verifying", status.segment_bytes, Unit::Bytes);
        inspector.verify(|read| progress.at(read)).map_err(|error| fail(&error))?
    };
    let text = if args.json { format!("{}\n", report_json(&report)) } else { text(&report, status.running) };
    let printed = out(&text);
    Ok(if report.is_sound() { printed } else { ExitCode::FAILURE })
}

fn text(report: &Report, running: bool) -> String {
    let mut text = String::new();
    for segment in report.segments.iter().filter(|segment| !segment.wrong.is_empty()) {
        text.push_str(&format!(
            "segment {} is damaged; {} of its records are whole\n",
            segment_file(segment.first),
            count(segment.records)
        ));
        for wrong in &segment.wrong {
            text.push_str(&format!("  {wrong}\n"));
        }
    }
    for wrong in &report.wrong {
        text.push_str(&format!("{wrong}\n"));
    }
    if report.not_closed {
        text.push_str("The newest segment was not closed: the agent was killed. It closes it at its next start.\n");
    }
    if report.known_lost > 0 {
        let explained = "are known to be lost, and are explained to Kafka";
        text.push_str(&format!("{} ranges of sequences {explained}.\n", count(report.known_lost)));
    }
    let records: u64 = report.segments.iter().map(|segment| segment.records).sum();
    let size: u64 = report.segments.iter().map(|segment| segment.bytes).sum();
    let read = format!("{} records in {} segments, {}", count(records), report.segments.len(), bytes(size));
    if report.is_sound() {
        text.push_str(&format!("All is as it was written: {read}.\n"));
    } else {
        let cure = if running {
            "the agent salvages a segment by itself when it comes to it"
        } else {
            "the agent salvages what can be read by itself, or: meterferry queue repair"
        };
        text.push_str(&format!("Damage was found: {read} were read.\n  hint: {cure}\n"));
    }
    text
}

fn report_json(report: &Report) -> serde_json::Value {
    let segments: Vec<_> = report
        .segments
        .iter()
        .map(|segment| json!({"first": segment.first, "bytes": segment.bytes, "records": segment.records, "wrong": segment.wrong, "gone_behind": segment.gone.map(|(first, last)| json!({"first": first, "last": last}))}))
        .collect();
    json!({
        "sound": report.is_sound(),
        "release_point": report.release_point,
        "end": report.end,
        "not_closed": report.not_closed,
        "known_lost_ranges": report.known_lost,
        "wrong": report.wrong,
        "segments": segments,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::verify::Verified;

    fn report(wrong: &[&str]) -> Report {
        let wrong = wrong.iter().map(|text| (*text).to_owned()).collect();
        let segments = vec![
            Verified { first: 1, bytes: 16 << 20, records: 31_244, ..Verified::default() },
            Verified { first: 31_245, bytes: 3 << 20, records: 5_000, wrong, gone: None },
        ];
        Report { segments, end: 36_245, release_point: 30_000, ..Report::default() }
    }

    /// Promise 7: what verify says to a person.
    #[test]
    fn verify_in_words() {
        insta::assert_snapshot!(text(&report(&[]), true), @"All is as it was written: 36,244 records in 2 segments, 19.0 MiB.");
        let mut damaged = report(&["record 31300: the checksum does not fit", "records 31400 to 31420 are missing"]);
        damaged.not_closed = true;
        damaged.known_lost = 1;
        damaged.wrong.push("2 dead letters do not fit their checksum".into());
        insta::assert_snapshot!(text(&damaged, false), @r"
        segment 00000000000000031245.redb is damaged; 5,000 of its records are whole
          record 31300: the checksum does not fit
          records 31400 to 31420 are missing
        2 dead letters do not fit their checksum
        The newest segment was not closed: the agent was killed. It closes it at its next start.
        1 ranges of sequences are known to be lost, and are explained to Kafka.
        Damage was found: 36,244 records in 2 segments, 19.0 MiB were read.
          hint: the agent salvages what can be read by itself, or: meterferry queue repair
        ");
        assert_eq!(report_json(&damaged)["sound"], false);
    }
}

//! What is said at the end: what to know about the figures, and the audit as the last line.

use std::io::Write as _;
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};

use super::Args;
use super::audit::Verdict;
use super::auditor::lock;
use super::board::{Board, Kind};
use super::story::Stage;
use super::workplace::Source;
use crate::cli::terminal;
use crate::cli::units::count;
use crate::simulate::mqtt::{self, Report};
use crate::simulate::session;

const GOOD: Style = AnsiColor::Green.on_default().bold();
const BAD: Style = AnsiColor::Red.on_default().bold();

/// Lines of the agent's log that are shown when the story failed.
const TAIL: usize = 15;

/// Readings that were lost, of which at most so many are named.
const EXAMPLES: usize = 5;

/// Ended by SIGINT, as a shell says it.
const INTERRUPTED: u8 = 130;

/// How the story ended.
pub enum Ending {
    Told,
    Failed {
        why: String,
        /// What the auditor had to say of the cluster.
        kafka: Option<String>,
    },
    Interrupted,
}

/// The last words.
pub struct Closing<'a> {
    pub args: &'a Args,
    pub ending: Ending,
}

impl Closing<'_> {
    /// Says them, tidies up, and tells the exit code.
    pub async fn say(self, stage: Stage) -> ExitCode {
        if let (Ending::Failed { why, .. }, 0) = (&self.ending, stage.board.figures().starts) {
            // It never began: there is nothing to look at.
            terminal::fail(why);
            return ExitCode::FAILURE;
        }
        let (verdict, missing) = {
            let audit = lock(&stage.audit);
            (audit.verdict(), audit.examples_missing(EXAMPLES))
        };
        if let Ending::Failed { why, kafka } = &self.ending {
            let error = BAD;
            say(format_args!("{error}The story could not be told{error:#}: {why}"));
            if let Some(kafka) = kafka {
                say(format_args!("The consumer's last trouble: {kafka}"));
            }
            match stage.workplace.log_tail(TAIL) {
                Ok(lines) => say(format_args!("The end of the agent's log:\n  {}", lines.join("\n  "))),
                Err(error) => say(format_args!("The agent's log cannot be read: {error}")),
            }
        }
        let topics = [stage.configuration.topic.as_str(), stage.configuration.resume_topic.as_str()];
        if self.args.keep && stage.cluster.is_real() {
            say(format_args!("The topics {} are still there.", topics.join(" and ")));
        } else if let Err(why) = stage.cluster.tidy(&topics).await {
            say(format_args!("The demo's topics could not be deleted: {why}"));
        }
        for why in forget(&stage.configuration.source, &stage.board).await {
            say(format_args!("The broker still knows a session of the demo: {why}"));
        }
        let report = stage.report;
        if self.args.keep || matches!(self.ending, Ending::Failed { .. }) {
            say(format_args!("The agent's configuration, queue and log: {}", stage.workplace.keep().display()));
        }
        let figures = stage.board.figures();
        let kinds = [Kind::Mqtt, Kind::Rest, Kind::Modbus].map(|kind| (kind.name(), figures.published_by(kind)));
        let kinds: Vec<_> = kinds
            .iter()
            .filter(|(_, safe)| *safe > 0)
            .map(|(name, safe)| format!("{} by {name}", count(*safe)))
            .collect();
        say(format_args!("Readings: {}", kinds.join(", ")));
        for note in notes(&verdict, &report, self.args) {
            say(format_args!("{note}"));
        }
        if !missing.is_empty() && !matches!(self.ending, Ending::Interrupted) {
            let missing: Vec<_> = missing.iter().map(|(device, number)| format!("{device}'s {number}.")).collect();
            say(format_args!("Not delivered, for instance: {}", missing.join(", ")));
        }
        let (line, is_good, code) = self.last_line(&verdict, &report);
        let style = if is_good { GOOD } else { BAD };
        say(format_args!("{style}{line}{style:#}"));
        code
    }

    fn last_line(&self, verdict: &Verdict, report: &Report) -> (String, bool, ExitCode) {
        match self.ending {
            Ending::Interrupted => {
                let Verdict { published, delivered, lost, repeated, out_of_order, .. } = *verdict;
                let [published, delivered, waiting] = [published, delivered, lost].map(count);
                let line = format!(
                    "audit so far: {published} published, {delivered} delivered, {waiting} not yet delivered, {repeated} \
                     repeated, {out_of_order} out of order"
                );
                (line, repeated + out_of_order == 0, ExitCode::from(INTERRUPTED))
            }
            Ending::Failed { .. } => (format!("audit so far: {verdict}"), false, ExitCode::FAILURE),
            Ending::Told => {
                let clean = verdict.is_clean(report.unacknowledged);
                (format!("audit: {verdict}"), clean, if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
            }
        }
    }
}

/// A line; nobody may be listening any more (`| head`), which changes nothing.
fn say(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(anstream::stdout(), "{line}");
}

/// Ends the sessions that a real broker would keep.
async fn forget(source: &Source, board: &Board) -> Vec<String> {
    let Source::Broker { host, port, client_id, .. } = source else { return Vec::new() };
    let mut failures = Vec::new();
    let mut devices = board.figures().devices;
    devices.retain(|device| device.kind == Kind::Mqtt);
    for client_id in devices.iter().map(|device| mqtt::client_id(&device.name)).chain([client_id.clone()]) {
        if let Err(why) = session::end(host, *port, &client_id).await {
            failures.push(format!("{client_id}: {why}"));
            // The others would wait as long for the same.
            break;
        }
    }
    failures
}

/// What the figures do not say by themselves.
fn notes(verdict: &Verdict, report: &Report, args: &Args) -> Vec<String> {
    let mut notes = Vec::new();
    if report.repeated > 0 {
        notes.push(format!(
            "Sent again, since the killed agent took the acknowledgement with it: {}",
            count(report.repeated)
        ));
    }
    if report.missed > 0 {
        notes.push(format!(
            "Never sent, as no agent listened and adapters keep nothing: {} (see --broker)",
            count(report.missed)
        ));
    }
    if verdict.unknown > 0 {
        notes.push(format!(
            "Read, though no meter was told that it is safe: {} (on their way when an agent or a meter ended: {})",
            count(verdict.unknown),
            count(report.unacknowledged)
        ));
    }
    if verdict.gaps > 0 {
        notes.push(format!("Gap records, each for something that is missing: {}", count(verdict.gaps)));
    }
    if args.kafka.is_none() {
        notes.push(format!(
            "At least once (the stand-in has no transactions); repeats dropped by ce_id: {}",
            count(verdict.dropped)
        ));
    } else {
        notes.push("Exactly once: read as read_committed, and the audit drops nothing.".to_owned());
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::super::audit::Audit;
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn closing(ending: Ending, delivered: &[&str]) -> (String, bool, ExitCode) {
        let args = Line::parse_from(["demo"]).args;
        let mut audit = Audit::new(true);
        for document in ["one", "two", "three"] {
            audit.published("meter", document.as_bytes());
        }
        for document in delivered {
            audit.delivered(b"meter", document.as_bytes(), Some(document.as_bytes()));
        }
        Closing { args: &args, ending }.last_line(&audit.verdict(), &Report::default())
    }

    fn is(code: ExitCode, number: u8) -> bool {
        format!("{code:?}") == format!("{:?}", ExitCode::from(number))
    }

    /// Promise 9: one message missing, repeated or overtaken, and the demo fails.
    #[test]
    fn a_fault_is_an_exit_code() {
        let (line, good, code) = closing(Ending::Told, &["one", "two", "three"]);
        assert_eq!(line, "audit: 3 published, 3 delivered, 0 lost, 0 repeated, 0 out of order");
        assert!(good && is(code, 0));
        let (line, good, code) = closing(Ending::Told, &["one", "three"]);
        assert_eq!(line, "audit: 3 published, 2 delivered, 1 lost, 0 repeated, 0 out of order");
        assert!(!good && is(code, 1));
        let (line, good, code) = closing(Ending::Told, &["one", "three", "two"]);
        assert_eq!(line, "audit: 3 published, 3 delivered, 0 lost, 0 repeated, 1 out of order");
        assert!(!good && is(code, 1));
    }

    /// Promise 9: a story that was not told to its end proves nothing, and what waited then is not called lost.
    #[test]
    fn an_unfinished_story_is_no_success() {
        let all = ["one", "two", "three"];
        assert!(is(closing(Ending::Failed { why: "it rained".into(), kafka: None }, &all).2, 1));
        let (line, _, code) = closing(Ending::Interrupted, &["one"]);
        assert_eq!(line, "audit so far: 3 published, 1 delivered, 2 not yet delivered, 0 repeated, 0 out of order");
        assert!(is(code, 130));
    }
}

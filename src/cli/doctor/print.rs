//! The checks as a person and as a program reads them.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use serde_json::{Value, json};

use super::check::{Check, Group, Summary, Verdict};
use crate::cli::terminal::{self, HEADER};
use crate::cli::units::counted;

/// Where the text of a check begins: after two spaces, the longest verdict and a space.
const INDENT: usize = 10;

const HINT: Style = AnsiColor::Cyan.on_default();

fn colour(verdict: Verdict) -> Style {
    match verdict {
        Verdict::Ok => AnsiColor::Green.on_default(),
        Verdict::Warning => AnsiColor::Yellow.on_default().bold(),
        Verdict::Wrong => AnsiColor::Red.on_default().bold(),
        Verdict::Skipped => terminal::DIM,
    }
}

/// One group, its lines folded at `width` columns; none: as long as they are. Commands are never folded, so that they can
/// be copied.
pub fn group(out: &mut impl Write, group: &Group, width: Option<usize>) -> io::Result<()> {
    writeln!(out, "{HEADER}{}{HEADER:#}", terminal::printable(&group.area, usize::MAX))?;
    group.checks.iter().try_for_each(|one| check(out, one, width))
}

fn check(out: &mut impl Write, check: &Check, width: Option<usize>) -> io::Result<()> {
    let style = colour(check.verdict);
    let text = terminal::printable(&format!("{}: {}", check.name, check.message), usize::MAX);
    let indent = " ".repeat(INDENT);
    for (number, line) in folded(&text, width.map(|width| width.saturating_sub(INDENT))).into_iter().enumerate() {
        match number {
            0 => writeln!(out, "  {style}{:<7}{style:#} {line}", check.verdict.word())?,
            _ => writeln!(out, "{indent}{line}")?,
        }
    }
    if let Some(hint) = &check.hint {
        let hint = terminal::printable(hint, usize::MAX);
        // "hint: " takes six columns of the first line, and the others stand below its text.
        for (number, line) in folded(&hint, width.map(|width| width.saturating_sub(INDENT + 6))).into_iter().enumerate()
        {
            match number {
                0 => writeln!(out, "{indent}{HINT}hint:{HINT:#} {line}")?,
                _ => writeln!(out, "{indent}      {line}")?,
            }
        }
    }
    for command in &check.commands {
        writeln!(out, "{indent}{HINT}{}:{HINT:#}", command.tool)?;
        for line in command.text.lines() {
            writeln!(out, "    {}", terminal::printable(line, usize::MAX))?;
        }
    }
    Ok(())
}

/// The text in lines of at most `width` columns, broken at spaces; a longer word has a line of its own.
fn folded(text: &str, width: Option<usize>) -> Vec<String> {
    let Some(width) = width else { return vec![text.to_owned()] };
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is a first line");
        let length = line.chars().count();
        if length == 0 {
            line.push_str(word);
        } else if length + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// The line at the end.
pub fn summary(out: &mut impl Write, summary: &Summary) -> io::Result<()> {
    let Summary { ok, warning, wrong, skipped } = *summary;
    let (verdict, words) = match (wrong, warning) {
        (0, 0) => (Verdict::Ok, "all is well".to_owned()),
        (0, _) => (Verdict::Warning, counted(warning as u64, "warning")),
        (_, 0) => (Verdict::Wrong, format!("{wrong} wrong")),
        _ => (Verdict::Wrong, format!("{wrong} wrong, {}", counted(warning as u64, "warning"))),
    };
    let style = colour(verdict);
    writeln!(out, "{style}{words}{style:#}; {ok} ok, {skipped} skipped")
}

/// Everything as one object.
pub fn json(groups: &[Group]) -> Value {
    let checks: Vec<Value> = groups
        .iter()
        .flat_map(|group| group.checks.iter().map(|check| (&group.area, check)))
        .map(|(area, check)| {
            json!({
                "area": area,
                "name": check.name,
                "verdict": check.verdict,
                "message": check.message,
                "hint": check.hint,
                "commands": check.commands,
            })
        })
        .collect();
    json!({ "version": env!("CARGO_PKG_VERSION"), "checks": checks, "summary": Summary::of(groups) })
}

#[cfg(test)]
pub(super) fn shown(checks: Vec<Check>) -> String {
    let mut out = Vec::new();
    for one in &checks {
        check(&mut out, one, Some(80)).expect("a vector takes everything");
    }
    anstream::adapter::strip_bytes(&out).into_vec().into_iter().map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::super::check::Command;
    use super::*;

    fn sample() -> Group {
        let long = "the broker refuses the login, which is a rather long thing to say in a terminal of eighty columns";
        let command = Command { tool: "kafka-acls", text: format!("kafka-acls.sh {}", "x".repeat(90)) };
        Group::new(
            "Kafka",
            vec![
                Check::ok("address", "k:9092 is reached"),
                Check::wrong("login", long, long).with(vec![command]),
                Check::skipped("topics", "there was no login\u{1b}[2J"),
            ],
        )
    }

    /// Promise 9: prose is folded to the terminal, a command never is, and nothing that a server says steers the terminal.
    #[test]
    fn folds_prose_and_leaves_commands() {
        let mut out = Vec::new();
        group(&mut out, &sample(), Some(60)).expect("a vector takes everything");
        let text = String::from_utf8(anstream::adapter::strip_bytes(&out).into_vec()).expect("UTF-8");
        insta::assert_snapshot!(text);
        assert!(text.lines().filter(|line| !line.contains("kafka-acls.sh")).all(|line| line.chars().count() <= 60));
    }

    /// Promise 9: a program gets one object, with each check's area and the cure, and counts.
    #[test]
    fn as_json() {
        insta::assert_snapshot!(serde_json::to_string_pretty(&json(&[sample()])).expect("JSON"));
    }
}

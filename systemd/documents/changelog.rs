//! Debian's changelog (deb-changelog(5)) from CHANGELOG.md.

use jiff::{Timestamp, civil};

use crate::Outcome;

/// As in the package's control file.
const MAINTAINER: &str = include_str!("../debian/maintainer");
/// Debian's tools fold at 80.
const WIDTH: usize = 76;

/// One entry a release; what is not released yet is this version, of `date`.
pub fn debian(text: &str, date: &Timestamp) -> Outcome<String> {
    let mut out = String::new();
    for release in text.split("\n## ").skip(1) {
        let (heading, body) = release.split_once('\n').unwrap_or((release, ""));
        let (version, date) = version_and_date(heading, date)?;
        let items = items(body);
        if items.is_empty() {
            return Err(format!("CHANGELOG.md says nothing about {version}").into());
        }
        out += &format!("meterferry ({version}) stable; urgency=medium\n\n");
        for item in items {
            out += &folded(&item);
        }
        let stamp = date.strftime("%a, %d %b %Y %H:%M:%S +0000");
        out += &format!("\n -- {}  {stamp}\n\n", MAINTAINER.trim());
    }
    if out.is_empty() { Err("CHANGELOG.md has no release".into()) } else { Ok(out.trim_end().to_owned() + "\n") }
}

/// `Unreleased`, or `0.1.0 - 2026-01-31`, the version with or without brackets.
fn version_and_date(heading: &str, now: &Timestamp) -> Outcome<(String, Timestamp)> {
    let Some((version, day)) = heading.split_once(" - ") else {
        return Ok((env!("CARGO_PKG_VERSION").to_owned(), *now));
    };
    let day: civil::Date = day.trim().parse()?;
    Ok((version.trim_matches(['[', ']', ' ']).to_owned(), day.at(0, 0, 0, 0).in_tz("UTC")?.timestamp()))
}

/// The list's entries, each in one line.
fn items(body: &str) -> Vec<String> {
    let mut items: Vec<String> = Vec::new();
    for line in body.lines() {
        if let Some(begin) = line.strip_prefix("- ") {
            items.push(begin.trim().to_owned());
        } else if let (true, Some(item)) = (line.starts_with("  "), items.last_mut()) {
            item.push(' ');
            item.push_str(line.trim());
        }
    }
    items
}

fn folded(item: &str) -> String {
    let (mut out, mut line) = (String::new(), String::from("  *"));
    for word in item.split_whitespace() {
        if line.len() + 1 + word.len() > WIDTH {
            out += &line;
            out.push('\n');
            line = "   ".to_owned();
        }
        line.push(' ');
        line.push_str(word);
    }
    out + &line + "\n"
}

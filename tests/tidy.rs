//! DESIGN.md's "rules that are absences", held against the source.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Fewer source files than this, and the test has looked at the wrong folder.
const FEWEST: usize = 20;

/// One file below `src/`: its path from there, and its text without tests.
struct Source {
    path: String,
    text: String,
    code: Vec<(usize, String)>,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    files.sort();
    let texts: Vec<_> = files.iter().map(|file| fs::read_to_string(file).expect("a readable file")).collect();
    let tests: BTreeSet<_> = files.iter().zip(&texts).flat_map(|(file, text)| test_modules(file, text)).collect();
    let sources: Vec<_> = files
        .iter()
        .zip(texts)
        .map(|(file, text)| {
            let path = file.strip_prefix(&root).expect("below src").to_str().expect("a plain name").to_owned();
            let code = if tests.contains(file) { Vec::new() } else { code(&text) };
            Source { path, text, code }
        })
        .collect();
    assert!(sources.len() >= FEWEST, "only {} files below {}", sources.len(), root.display());
    sources
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("src is here") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Files of modules that are compiled for tests only, as `file` declares them.
fn test_modules(file: &Path, text: &str) -> Vec<PathBuf> {
    let parent = if file.ends_with("mod.rs") || file.ends_with("lib.rs") {
        file.parent().expect("below src").to_owned()
    } else {
        file.with_extension("")
    };
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let declared = lines.windows(2).filter(|pair| pair[0].starts_with("#[cfg(") && pair[0].contains("test"));
    declared
        .filter_map(|pair| pair[1].strip_prefix("mod ")?.strip_suffix(';'))
        .flat_map(|name| [parent.join(format!("{name}.rs")), parent.join(name).join("mod.rs")])
        .collect()
}

/// The lines that are code: no comments, and nothing from the module of tests on, which stands last.
fn code(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let all: Vec<_> = text.lines().collect();
    for (number, line) in all.iter().enumerate() {
        let next = all.get(number + 1).map_or("", |next| next.trim_start());
        if line.starts_with("#[cfg(") && line.contains("test") && next.starts_with("mod ") && next.ends_with('{') {
            break;
        }
        let code = line.split("//").next().unwrap_or_default();
        if !code.trim().is_empty() {
            lines.push((number + 1, code.to_owned()));
        }
    }
    lines
}

/// Every use of one of `words` outside the files that `allowed` lets have it.
fn uses(words: &[&str], allowed: impl Fn(&str) -> bool) -> String {
    let mut found = String::new();
    for source in sources().iter().filter(|source| !allowed(&source.path)) {
        for (number, line) in &source.code {
            for word in words.iter().filter(|word| names(line, word)) {
                writeln!(found, "  src/{}:{number}: {word}: {}", source.path, line.trim()).expect("a string takes it");
            }
        }
    }
    found
}

/// Whether `word` stands in `line`, and not as part of a longer name or the extension of a file's.
fn names(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let longer = |c: char| part(c) || c == '.';
        let before = line[..at].chars().next_back().is_some_and(longer) && word.starts_with(part);
        let after = line[at + word.len()..].chars().next().is_some_and(part) && word.ends_with(part);
        !before && !after
    })
}

#[track_caller]
fn assert_none(rule: &str, found: &str) {
    assert!(found.is_empty(), "{rule}:\n{found}");
}

/// Promise 9: the file that knows a library is the one that says so.
#[test]
fn each_library_has_its_place() {
    // `version` prints the versions of the libraries.
    let version = |path: &str| path == "cli/version.rs";
    assert_none("only queue/ names redb", &uses(&["redb"], |path| path.starts_with("queue/") || version(path)));
    assert_none(
        "only source/mqtt* and simulate/ name rumqttc",
        &uses(&["rumqttc"], |path| path.starts_with("source/mqtt") || path.starts_with("simulate/") || version(path)),
    );
    assert_none(
        "only forwarder/kafka*, cli/consume*, cli/audit* and cli/demo* name rdkafka",
        &uses(&["rdkafka", "rdkafka_sys"], |path| {
            ["forwarder/kafka", "cli/consume", "cli/audit", "cli/demo"].iter().any(|place| path.starts_with(place))
                || version(path)
        }),
    );
    assert_none(
        "only source/rest* and simulate/ name hyper",
        &uses(&["hyper", "hyper_util", "http_body_util"], |path| {
            path.starts_with("source/rest") || path.starts_with("simulate/")
        }),
    );
    assert_none("only simulate/ makes certificates", &uses(&["rcgen"], |path| path.starts_with("simulate/")));
    assert_none(
        "only source/modbus* names tokio_modbus: the simulator is held against it",
        &uses(&["tokio_modbus"], |path| path.starts_with("source/modbus")),
    );
    assert_none("only notify speaks to systemd", &uses(&["UnixDatagram"], |path| path.starts_with("notify")));
}

/// Promise 6: nothing without a limit, nothing that gives up by panicking.
#[test]
fn nothing_forbidden_is_there() {
    assert_none("no unwrap outside tests", &uses(&[".unwrap()", ".unwrap_err()"], |_| false));
    assert_none("no unsafe", &uses(&["unsafe"], |_| false));
    assert_none(
        "no unbounded channel",
        &uses(&["unbounded_channel", "unbounded", "mpsc::channel::<", "UnboundedSender"], |_| false)
            .lines()
            .filter(|line| !line.contains("mpsc::channel::<") || line.contains("std::sync"))
            .fold(String::new(), |all, line| all + line + "\n"),
    );
    assert_none("no std::sync::mpsc::channel", &uses(&["std::sync::mpsc::channel"], |_| false));
    assert_none("no unfinished work", &uses(&["todo!", "unimplemented!", "dbg!"], |_| false));
}

/// Promise 9: a test that nobody runs proves nothing. Those that need servers are among the promises, which `tests/run` runs all.
#[test]
fn no_test_beside_the_code_is_left_out() {
    let left_out: String = sources()
        .iter()
        .filter(|source| source.text.lines().any(|line| line.trim_start().starts_with("#[ignore")))
        .map(|source| format!("  src/{}\n", source.path))
        .collect();
    assert_none("no ignored test in src/", &left_out);
}

/// Promise 9: what decides is pure.
#[test]
fn pure_cores_hold_no_clock_socket_or_random_source() {
    const PURE: [&str; 30] = [
        "decode/",
        "obis",
        "daily.rs",
        "queue/day.rs",
        "cli/audit/account.rs",
        "cli/doctor/rights.rs",
        "cli/doctor/topic.rs",
        "backoff.rs",
        "flapping.rs",
        "forwarder/batch.rs",
        "forwarder/grant.rs",
        "forwarder/resume.rs",
        "forwarder/outcome.rs",
        "forwarder/record.rs",
        "forwarder/timestamp.rs",
        "source/rest_answer.rs",
        "source/rest_paths.rs",
        "source/rest_sameness.rs",
        "source/rest_trouble.rs",
        "source/grid.rs",
        "source/measured.rs",
        "source/modbus_answer.rs",
        "source/modbus_fault.rs",
        "source/registers.rs",
        "source/scaled.rs",
        "source/sunspec.rs",
        "source/sunspec_meter",
        "simulate/meter.rs",
        "simulate/reader.rs",
        "config/mapping.rs",
    ];
    let pure = |path: &str| PURE.iter().any(|place| path.starts_with(place));
    for place in PURE {
        assert!(sources().iter().any(|source| source.path.starts_with(place)), "src/{place} has moved: tell this test");
    }
    assert_none(
        "pure code reads no clock, socket, file or random source",
        &uses(
            &[
                "Instant::now",
                "SystemTime",
                "Timestamp::now",
                "TimeZone::system",
                "Clock::new",
                "std::net",
                "tokio",
                "std::fs",
                "std::env",
                "rand",
            ],
            |path| !pure(path),
        ),
    );
}

/// Promise 9: stages meet in `agent.rs` only.
#[test]
fn no_stage_names_another_stage() {
    const STAGES: [&str; 4] = ["source", "decode", "queue", "forwarder"];
    // A seam is a trait or a word that the stage offers; it is listed here, with who may know it.
    const SEAMS: [(&str, &str, &str); 2] = [
        // The queue is what the forwarder calls its backlog.
        ("queue/", "forwarder", "use crate::forwarder::{Backlog, BacklogError};"),
        // The redelivery rule is the queue's writer's to apply: it alone knows what is committed.
        ("queue/", "source", "source::"),
    ];
    let mut found = String::new();
    for source in sources() {
        let Some(own) = STAGES.iter().find(|stage| source.path.starts_with(&format!("{stage}/"))) else { continue };
        for (number, line) in &source.code {
            for other in STAGES.iter().filter(|stage| *stage != own) {
                let seam = SEAMS.iter().any(|(place, stage, text)| {
                    source.path.starts_with(place) && stage == other && line.contains(text)
                });
                if line.contains(&format!("crate::{other}")) && !seam {
                    writeln!(found, "  src/{}:{number}: {}", source.path, line.trim()).expect("a string takes it");
                }
            }
        }
    }
    assert_none("no stage names another stage", &found);
}

/// Promise 9: a reader finds out what a file is for, by opening it, and finds every file in the architecture page's tree.
#[test]
fn every_file_says_what_it_is() {
    let mut found = String::new();
    for source in sources() {
        let first = source.text.lines().next().unwrap_or_default();
        if !first.starts_with("//! ") || first.len() < 12 {
            writeln!(found, "  src/{}:1: {first:?}", source.path).expect("a string takes it");
        }
    }
    assert_none("every file begins with a module's doc comment", &found);
    let vague: BTreeSet<_> = ["utils.rs", "util.rs", "helpers.rs", "common.rs", "types.rs", "misc.rs"].into();
    let named: String = sources()
        .iter()
        .filter(|source| source.path.rsplit('/').next().is_some_and(|name| vague.contains(name)))
        .map(|source| format!("  src/{}\n", source.path))
        .collect();
    assert_none("a file is named by a noun of the field", &named);
}

/// Promise 9: the house has the rooms that its plan shows, and no others.
#[test]
fn the_house_has_no_other_rooms() {
    const ROOMS: [&str; 6] = ["benches", "edge-config", "src", "systemd", "target", "tests"];
    let entries = fs::read_dir(env!("CARGO_MANIFEST_DIR")).expect("the house");
    let folders = entries.map(|entry| entry.expect("an entry")).filter(|entry| entry.path().is_dir());
    let found: String = folders
        .map(|folder| folder.file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.') && !ROOMS.contains(&name.as_str()))
        .map(|name| format!("  {name}/\n"))
        .collect();
    assert_none("no other folder at the top level", &found);
}

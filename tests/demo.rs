//! `meterferry demo` as a new user runs it: nothing installed, nothing left behind.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The demo with `folder` as the system's temporary folder.
fn demo(folder: &Path, seconds: &str) -> Child {
    Command::new(env!("CARGO_BIN_EXE_meterferry"))
        .args(["demo", "--plain", "--color", "never", "--seconds", seconds])
        .env("TMPDIR", folder)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the demo starts")
}

fn lines(demo: &mut Child) -> impl Iterator<Item = String> + use<> {
    BufReader::new(demo.stdout.take().expect("a pipe")).lines().map(|line| line.expect("text"))
}

/// Neither a file in `folder` nor a process that names it.
#[track_caller]
fn assert_nothing_left(folder: &Path) {
    let left: Vec<_> = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    assert!(left.is_empty(), "{left:?}");
    let processes = processes_of(folder);
    assert!(processes.is_empty(), "{processes:?}");
}

/// Command lines that name `folder`.
fn processes_of(folder: &Path) -> Vec<String> {
    let command_line = |process: &fs::DirEntry| fs::read(process.path().join("cmdline")).unwrap_or_default();
    let processes = fs::read_dir("/proc").expect("procfs").flatten();
    let lines = processes.map(|process| String::from_utf8_lossy(&command_line(&process)).replace('\0', " "));
    lines.filter(|line| line.contains(&*folder.to_string_lossy())).collect()
}

/// Promises 1 to 4 over the whole story, for all three kinds of meter: Kafka gone, the agent killed, both back; the audit is the last line.
#[test]
fn the_story_ends_with_a_clean_audit() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut demo = demo(folder.path(), "8");
    let lines: Vec<_> = lines(&mut demo).collect();
    let code = demo.wait().expect("it ends").code();
    let all = lines.join("\n");
    for act in ["Act 1.", "Act 2.", "SIGKILL", "Act 4.", "nothing waits in its queue"] {
        assert!(all.contains(act), "{act} is missing:\n{all}");
    }
    let last = lines.last().expect("a last line");
    assert!(last.starts_with("audit: ") && last.ends_with(" delivered, 0 lost, 0 repeated, 0 out of order"), "{all}");
    let figures: Vec<_> = last.split([' ', ',']).filter_map(|word| word.parse::<u64>().ok()).collect();
    assert!(figures[0] >= 30 && figures[0] == figures[1], "{last}");
    let kinds = lines.iter().find(|line| line.starts_with("Readings: ")).expect("how many of which kind");
    for kind in [" by MQTT", " by REST", " by Modbus"] {
        assert!(kinds.contains(kind), "no reading{kind}: {kinds}");
    }
    assert_eq!(code, Some(0), "{all}");
    assert_nothing_left(folder.path());
}

/// Promise 9: Ctrl-C with Kafka gone and readings waiting gives the audit so far, and leaves nothing behind.
#[test]
fn an_interrupted_demo_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut demo = demo(folder.path(), "30");
    let pid = Pid::from_raw(i32::try_from(demo.id()).expect("a process id"));
    let mut lines = lines(&mut demo);
    assert!(lines.any(|line| line.contains("Act 2.")));
    assert!(lines.any(|line| line.contains("waiting on the disk, the oldest")));
    kill(pid, Signal::SIGINT).expect("it runs");
    let last = lines.last().expect("a last line");
    assert!(last.starts_with("audit so far: ") && last.contains(" not yet delivered, 0 repeated"), "{last}");
    assert_eq!(demo.wait().expect("it ends").code(), Some(130));
    assert_nothing_left(folder.path());
}

/// A demo that is killed leaves no agent behind; its folder cannot be helped.
#[test]
fn a_killed_demo_leaves_no_agent_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut demo = demo(folder.path(), "30");
    assert!(lines(&mut demo).any(|line| line.contains("delivered")));
    demo.kill().expect("killed");
    demo.wait().expect("it ends");
    let until = Instant::now() + Duration::from_secs(30);
    while !processes_of(folder.path()).is_empty() {
        assert!(Instant::now() < until, "{:?}", processes_of(folder.path()));
        std::thread::sleep(Duration::from_millis(20));
    }
}

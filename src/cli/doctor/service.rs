//! The agent as a service: does it run, does it start again by itself, is it this version.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use super::check::Check;
use crate::agent::live::Live;

const UNIT: &str = "meterferry.service";

/// How long the service manager may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the service manager and the agent say.
#[derive(Debug, Default)]
struct Facts {
    /// Of the unit; none where there is no systemd, or it does not answer.
    unit: Option<BTreeMap<String, String>>,
    live: Option<Live>,
    /// An agent has the queue, whether it answers or not.
    running: bool,
}

/// Asks systemd.
pub async fn look(live: Option<Live>, running: bool) -> Vec<Check> {
    verdicts(&Facts { unit: unit().await, live, running })
}

async fn unit() -> Option<BTreeMap<String, String>> {
    if !Path::new("/run/systemd/system").is_dir() {
        return None;
    }
    let properties = "--property=LoadState,ActiveState,Result,UnitFileState,WatchdogUSec";
    let mut command = Command::new("systemctl");
    command.args(["show", UNIT, properties]).kill_on_drop(true);
    let output = timeout(PATIENCE, command.output()).await.ok()?.ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let unit: BTreeMap<_, _> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    (!unit.is_empty()).then_some(unit)
}

fn verdicts(facts: &Facts) -> Vec<Check> {
    let property = |name: &str| facts.unit.as_ref().and_then(|unit| unit.get(name)).map_or("", String::as_str);
    let installed = property("LoadState") == "loaded";
    let mut checks = vec![agent(facts, installed, property("ActiveState"), property("Result"))];
    if let Some(live) = &facts.live {
        checks.push(version(live));
    }
    if !installed {
        let why = match facts.unit {
            None => "systemd does not run here".to_owned(),
            Some(_) => format!("there is no {UNIT}"),
        };
        checks.push(Check::skipped("start at boot", &*why));
        checks.push(Check::skipped("watchdog", why));
        return checks;
    }
    checks.push(match property("UnitFileState") {
        "enabled" | "enabled-runtime" | "static" => Check::ok("start at boot", format!("{UNIT} is enabled")),
        "masked" => Check::wrong("start at boot", format!("{UNIT} is masked"), "sudo systemctl unmask meterferry"),
        other => {
            let message = format!("{UNIT} is {other}: after a power cut nothing starts it");
            Check::warning("start at boot", message, "sudo systemctl enable meterferry")
        }
    });
    checks.push(match property("WatchdogUSec") {
        "" | "0" | "infinity" => {
            let hint = "put WatchdogSec=120 into the unit: sudo systemctl edit meterferry";
            Check::warning("watchdog", "it is off: an agent that hangs is not restarted", hint)
        }
        time => Check::ok("watchdog", format!("systemd restarts an agent that does no work for {time}")),
    });
    checks
}

fn agent(facts: &Facts, installed: bool, state: &str, result: &str) -> Check {
    const NAME: &str = "agent";
    match &facts.live {
        Some(live) if installed && state != "active" && state != "reloading" => {
            let message = format!("it runs (process {}), but not as a service: nothing starts it again", live.process);
            Check::warning(NAME, message, "stop it, and sudo systemctl enable --now meterferry")
        }
        Some(live) if live.blocked => {
            let message = format!("it runs (process {}), and its queue has no room: nothing is taken", live.process);
            Check::wrong(NAME, message, "meterferry queue status says why")
        }
        Some(live) => Check::ok(NAME, format!("it runs (process {})", live.process)),
        None if facts.running => {
            let message = "it runs, and does not answer this user";
            Check::skipped(NAME, format!("{message}; try sudo"))
        }
        None if state == "failed" => {
            let message = format!("systemd gave it up ({result})");
            Check::wrong(NAME, message, "journalctl -u meterferry -n 50 says why")
        }
        None if state == "activating" => {
            let hint = "journalctl -u meterferry -n 50 says why";
            Check::wrong(NAME, "systemd starts it again and again, or it is just starting", hint)
        }
        None if installed => Check::warning(NAME, "it does not run", "sudo systemctl start meterferry"),
        None => Check::warning(NAME, "none runs with this queue", "meterferry run"),
    }
}

fn version(live: &Live) -> Check {
    let own = env!("CARGO_PKG_VERSION");
    match live.version.as_str() {
        running if running == own => Check::ok("version", format!("the running agent is {own}, as this is")),
        running => {
            let running = if running.is_empty() { "older" } else { running };
            let message = format!("the running agent is {running}, this is {own}");
            Check::warning("version", message, "sudo systemctl restart meterferry; nothing is lost by it")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::print::shown;
    use super::*;

    fn facts(state: &str, file: &str, watchdog: &str) -> Facts {
        let unit =
            [("LoadState", "loaded"), ("ActiveState", state), ("UnitFileState", file), ("WatchdogUSec", watchdog)];
        let unit = unit.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let live = Live { process: 4711, version: env!("CARGO_PKG_VERSION").into(), ..Live::default() };
        Facts { unit: Some(unit), live: Some(live), running: true }
    }

    fn said(mut facts: Facts, change: impl FnOnce(&mut Facts)) -> String {
        change(&mut facts);
        shown(verdicts(&facts)).replace(env!("CARGO_PKG_VERSION"), "1.2.3")
    }

    /// Promise 9: a service that does not come back by itself is said before it is needed.
    #[test]
    fn services() {
        let well = || facts("active", "enabled", "2min");
        let dead = |facts: &mut Facts| (facts.live, facts.running) = (None, false);
        let cases = [
            said(well(), |_| {}),
            said(facts("active", "disabled", "0"), |_| {}),
            said(facts("inactive", "masked", "2min"), |_| {}),
            said(well(), |facts| facts.live.as_mut().expect("alive").version = "0.0.9".into()),
            said(well(), |facts| facts.live.as_mut().expect("alive").version = String::new()),
            said(well(), |facts| facts.live.as_mut().expect("alive").blocked = true),
            said(well(), |facts| facts.live = None),
            said(facts("inactive", "enabled", "2min"), dead),
            said(facts("activating", "enabled", "2min"), dead),
            said(facts("failed", "enabled", "2min"), |facts| {
                dead(facts);
                facts.unit.as_mut().expect("a unit").insert("Result".into(), "exit-code".into());
            }),
            said(Facts::default(), |_| {}),
        ];
        insta::assert_snapshot!(cases.join("\n"));
    }
}

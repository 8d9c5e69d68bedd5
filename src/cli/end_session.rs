//! `meterferry end-session`

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use super::{Global, chain, fail, load, out};
use crate::agent::client_id;
use crate::config::machine::Machine;
use crate::config::settings::{Interface, Mqtt, Settings};
use crate::config::show_address;
use crate::queue::OpenError;
use crate::queue::inspect::Inspector;
use crate::source::mqtt_farewell;

/// How long one broker has to answer.
const LIMIT: Duration = Duration::from_secs(10);

/// End the sessions at the MQTT brokers, for an agent that is given up: they forget what they keep for it
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  systemctl disable --now meterferry
  meterferry end-session

Each broker forgets the session, and the messages that it keeps for it. An agent that starts again begins a new
session. Purging the Debian package runs it. One broker is given 10 seconds.

Exit codes:
  0   every session was ended
  1   a broker was not reached, or the agent is running
  78  the configuration is wrong")]
pub struct Args {}

pub fn run(_args: &Args, global: &Global) -> ExitCode {
    let settings = match load(global) {
        Ok(loaded) => loaded.settings,
        Err(code) => return code,
    };
    let agent_id = match agent_id(&settings) {
        Ok(agent_id) => agent_id,
        Err(code) => return code,
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let (mut text, mut code) = (String::new(), ExitCode::SUCCESS);
    for source in &settings.sources {
        let Interface::Mqtt(mqtt) = &source.interface else { continue };
        let client_id = mqtt.client_id.clone().unwrap_or_else(|| client_id(&agent_id, &source.name));
        let broker = show_address(&mqtt.host, mqtt.port);
        match runtime.block_on(mqtt_farewell::end_session(mqtt, &client_id, LIMIT)) {
            Ok(()) => {
                // A string takes it.
                let _ = writeln!(text, "source {}: the session {client_id} at {broker} has ended", source.name);
            }
            Err(error) => {
                anstream::eprintln!(
                    "warning: source {}: the session {client_id} at {broker} could not be ended: {}\n  hint: {}",
                    source.name,
                    chain(&error),
                    by_hand(mqtt, &client_id)
                );
                code = ExitCode::FAILURE;
            }
        }
    }
    let printed = out(&text);
    if code == ExitCode::SUCCESS { printed } else { code }
}

/// The id that the queue keeps, else the configured one, else that of an agent that never ran. Fails beside a running
/// agent: the session is in use.
fn agent_id(settings: &Settings) -> Result<String, ExitCode> {
    let fallback = || settings.agent.id.clone().unwrap_or_else(|| Machine::here().default_agent_id());
    match Inspector::open(&settings.queue.path) {
        Ok(inspector) if inspector.is_running() => {
            anstream::eprintln!(
                "error: the agent is running, and its sessions are in use\n  hint: stop it first: systemctl stop meterferry"
            );
            Err(ExitCode::FAILURE)
        }
        Ok(inspector) => Ok(inspector.identity().agent_id.clone()),
        Err(OpenError::NoQueue { .. }) => Ok(fallback()),
        Err(error) => {
            anstream::eprintln!("warning: {}", chain(&error));
            Ok(fallback())
        }
    }
}

/// What a person can do at the broker's machine.
fn by_hand(mqtt: &Mqtt, client_id: &str) -> String {
    format!("once the broker is there: mosquitto_sub -h {} -p {} -i {client_id} -t none -E", mqtt.host, mqtt.port)
}

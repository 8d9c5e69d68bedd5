//! A source of type `modbus`: is the device there, which meter is it, and does it give a reading.

use super::check::Check;
use crate::agent::live::LiveSource;
use crate::cli::terminal::printable;
use crate::cli::units::count;
use crate::config::settings::{Modbus, Source};
use crate::decode::decode;
use crate::source::measured::{Measured, Picture};
use crate::source::modbus_device::show_device;
use crate::source::modbus_fault::Fault;
use crate::source::modbus_probe::{self, Found};

/// Characters of what a device says of itself.
const WIDTH: usize = 200;

/// Asks the device once; not while the running agent has its connection, since many devices serve one client at a time and
/// would turn the agent out. `agents`: the running agent's figures of this source.
pub async fn look(source: &Source, modbus: &Modbus, agents: Option<&LiveSource>) -> Vec<Check> {
    if let Some(live) = agents.filter(|live| live.connected) {
        return of_agent(modbus, live);
    }
    let found = modbus_probe::visit(modbus).await;
    verdicts(source, modbus, found)
}

/// What the running agent knows.
fn of_agent(modbus: &Modbus, live: &LiveSource) -> Vec<Check> {
    let readings = count(live.received);
    let limit = (modbus.interval * 3 + modbus.timeout).as_secs();
    let reading = match live.silent_s {
        Some(silent) if silent <= limit => {
            Check::ok("reading", format!("{readings} since the agent's start, the last one {silent} s ago"))
        }
        Some(silent) => {
            Check::warning("reading", format!("the last one came {silent} s ago"), "the agent's log says why")
        }
        None => Check::warning("reading", "none since the agent's start", "the agent's log says why"),
    };
    vec![
        Check::ok("device", format!("{}: the running agent is connected", show_device(modbus))),
        Check::skipped(
            "meter",
            "many devices serve one client at a time, and the agent is it; its log names the meter",
        ),
        reading,
    ]
}

fn verdicts(source: &Source, modbus: &Modbus, found: Result<Found, Fault>) -> Vec<Check> {
    let address = show_device(modbus);
    let found = match found {
        Ok(found) => found,
        Err(fault) if matches!(fault, Fault::Unreachable(_)) => {
            let device = Check::wrong("device", said(&address, &fault), fault.cure());
            let skipped = ["meter", "reading"].map(|name| Check::skipped(name, "the device is not reached"));
            return std::iter::once(device).chain(skipped).collect();
        }
        Err(fault) => {
            return vec![
                Check::ok("device", format!("{address}: connected")),
                Check::wrong("meter", said(&address, &fault), fault.cure()),
                Check::skipped("reading", "no meter is found"),
            ];
        }
    };
    let reading = match &found.picture {
        Err(fault) => Check::wrong("reading", said(&address, fault), fault.cure()),
        Ok(picture) => reading(source, &found, picture),
    };
    vec![
        Check::ok("device", format!("{address}: connected")),
        Check::ok("meter", printable(&found.identity.to_string(), WIDTH).to_string()),
        reading,
    ]
}

fn said(address: &str, fault: &Fault) -> String {
    format!("{address}: {} ({fault})", fault.words())
}

fn reading(source: &Source, found: &Found, picture: &Picture) -> Check {
    let device = match decode(&source.payload, &source.name, "", &found.document) {
        Ok(decoded) => decoded.device,
        Err(reason) => return Check::wrong("reading", reason.to_string(), "please report it"),
    };
    let codes = |wanted: &dyn Fn(&Measured) -> bool| {
        let codes: Vec<_> = picture.measured.iter().filter(|one| wanted(one)).map(|one| &*one.code).collect();
        codes.join(", ")
    };
    let absurd = codes(&|one| one.flag.is_some());
    let values = match picture.measured.len() {
        1 => "1 value".to_owned(),
        values => format!("{} values", count(values as u64)),
    };
    let message = format!("{values} of {}", printable(&device, WIDTH));
    if !absurd.is_empty() || !picture.left_out.is_empty() {
        let mut wrong = Vec::new();
        if !absurd.is_empty() {
            wrong.push(format!("no meter can have measured {absurd}"));
        }
        if !picture.left_out.is_empty() {
            wrong.push(format!("no number: {}", picture.left_out.join(", ")));
        }
        let hint = "is the meter wired and set up right, and do types, word order and factors fit? Numbers are kept and flagged, the others left out";
        return Check::warning("reading", format!("{message}; {}", wrong.join("; ")), hint);
    }
    Check::ok("reading", message)
}

#[cfg(test)]
mod tests {
    use super::super::print::shown;
    use super::*;
    use crate::config::settings::Interface;
    use crate::config::{Environment, load};
    use crate::source::measured::{Counters, document};
    use crate::source::modbus_answer::Malformed;
    use crate::source::modbus_device::Identity;
    use crate::source::scaled::Scaled;
    use crate::source::sunspec::{Common, Model};

    fn source() -> (Source, Modbus) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("meterferry.toml");
        std::fs::write(&file, "[[source]]\nname = \"meter\"\ntype = \"modbus\"\nhost = \"10.0.0.9\"\n").expect("write");
        let environment = Environment::of(folder.path(), [("STATE_DIRECTORY", folder.path())]);
        let settings = load(Some(&file), &environment).unwrap_or_else(|problems| panic!("{problems}")).settings;
        let source = settings.sources.into_iter().next().expect("a source");
        let Interface::Modbus(modbus) = source.interface.clone() else { panic!("a Modbus device") };
        (source, modbus)
    }

    fn found(picture: Result<Picture, Fault>) -> Result<Found, Fault> {
        let meter = Model { id: 203, length: 105, address: 40_071 };
        let common = Common {
            maker: "Fronius".to_owned(),
            model: "Smart Meter 63A".to_owned(),
            version: "1.3".to_owned(),
            serial: "15120149".to_owned(),
        };
        let mut picture = picture;
        let mut text = Vec::new();
        if let Ok(picture) = &mut picture {
            Counters::default().judge(picture);
            text = document(Some("15120149"), None, picture);
        }
        let identity = Identity::SunSpec { base: 40_000, models: vec![meter], meter, common };
        Ok(Found { identity, picture, document: text })
    }

    /// Promise 9: each step on the way to a reading has its own words and its own cure.
    #[test]
    fn on_the_way_to_a_reading() {
        let said = |found| {
            let (source, modbus) = source();
            shown(verdicts(&source, &modbus, found))
        };
        let power =
            || Picture { measured: vec![Measured::new("1-0:16.7.0", Scaled::new(-60, 0))], left_out: Vec::new() };
        let mut absurd = power();
        absurd.measured.push(Measured { absurd: true, ..Measured::new("1-0:13.7.0", Scaled::new(15, -1)) });
        absurd.left_out = vec!["1-0:31.7.0".into(), "1-0:51.7.0".into()];
        let exception = |code| Fault::Exception { code, what: "registers 40071 to 40175".to_owned() };
        let cases = [
            said(found(Ok(power()))),
            said(found(Ok(absurd))),
            said(found(Err(exception(2)))),
            said(Err(Fault::Unreachable("connection refused".to_owned()))),
            said(Err(Fault::Silent("3s".to_owned()))),
            said(Err(Fault::Malformed(Malformed::Unit { asked: 1, got: 2 }))),
            said(Err(exception(11))),
            said(Err(Fault::NoMarker("0: no answer within 3s; 40000: exception 2; 50000: something else".to_owned()))),
            said(Err(Fault::NoMeter("1, 103".to_owned()))),
        ];
        insta::assert_snapshot!(cases.join("\n"));
    }

    /// Promise 9: an agent that is connected is not disturbed.
    #[test]
    fn beside_a_running_agent() {
        let (_, modbus) = source();
        let said = |received, silent_s| {
            shown(of_agent(&modbus, &LiveSource { connected: true, received, silent_s, ..LiveSource::default() }))
        };
        insta::assert_snapshot!([said(1_234, Some(3)), said(1_234, Some(300)), said(0, None)].join("\n"));
    }
}

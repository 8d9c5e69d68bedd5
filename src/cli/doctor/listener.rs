//! A source of type `mqtt-listener`: does the agent listen, could it, and does anything come.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::account::Account;
use super::certificate;
use super::check::Check;
use super::reach;
use crate::agent::live::LiveSource;
use crate::cli::units::{chain, count};
use crate::config::settings::MqttListener;
use crate::config::show_duration;

/// Ports below it are for root unless the machine says otherwise.
const UNPRIVILEGED: &str = "/proc/sys/net/ipv4/ip_unprivileged_port_start";

/// What was seen of the place where a listener listens.
enum Place {
    /// An agent runs; whether somebody answers there.
    Running(Result<(), String>),
    /// None runs; whether the address can be had.
    Free(Result<(), io::Error>),
}

/// Looks at the address: from the other side where an agent runs, else by taking it for a moment.
pub async fn look(listener: &MqttListener, account: &Account, running: bool, now_s: i64) -> Vec<Check> {
    let place = if running {
        let own = match listener.listen.ip() {
            IpAddr::V4(address) if address.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
            IpAddr::V6(address) if address.is_unspecified() => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
            address => address,
        };
        let answer = reach::connect(&own.to_string(), listener.listen.port()).await;
        Place::Running(answer.map(|_| ()).map_err(|unreached| unreached.words()))
    } else {
        Place::Free(tokio::net::TcpListener::bind(listener.listen).await.map(|_| ()))
    };
    let first = std::fs::read_to_string(UNPRIVILEGED).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1024);
    let mut checks = vec![address(listener.listen, &place, account, first)];
    if let Some(file) = listener.tls.as_ref().and_then(|tls| tls.certificate_file.as_ref()) {
        let what = file.display().to_string();
        let cure = "have its authority make a new one, for the adapters' sake";
        checks.push(certificate::lifetime("certificate", &what, certificate::ends_in_file(file), now_s, cure));
    }
    checks
}

fn address(listen: SocketAddr, place: &Place, account: &Account, first_free_port: u16) -> Check {
    const NAME: &str = "listener";
    let who = &account.name;
    match place {
        Place::Running(Ok(())) => Check::ok(NAME, format!("the agent listens on {listen}")),
        Place::Running(Err(error)) => {
            let hint = "does the running agent have this configuration? sudo systemctl restart meterferry";
            Check::wrong(NAME, format!("nobody listens on {listen}: {error}"), hint)
        }
        Place::Free(Ok(())) if listen.port() != 0 && listen.port() < first_free_port && account.uid != 0 => {
            let message =
                format!("{who} may not listen on port {}: those below {first_free_port} are root's", listen.port());
            Check::wrong(NAME, message, "use another port, such as 1883, in source.listen")
        }
        Place::Free(Ok(())) => Check::ok(NAME, format!("{listen} is free; no agent runs")),
        Place::Free(Err(error)) => match error.kind() {
            io::ErrorKind::AddrInUse => {
                let hint =
                    format!("sudo ss -ltnp 'sport = :{}' says which; stop it, or use another port", listen.port());
                Check::wrong(NAME, format!("another program listens on {listen}"), hint)
            }
            io::ErrorKind::AddrNotAvailable => {
                let hint = "ip -brief address shows those it has; 0.0.0.0 stands for all";
                Check::wrong(NAME, format!("{} is no address of this machine", listen.ip()), hint)
            }
            _ => Check::wrong(
                NAME,
                format!("{listen} cannot be had: {}", chain(error)),
                "use another address in source.listen",
            ),
        },
    }
}

/// What the running agent received from the adapters; `before` and `after` are its figures.
pub fn messages(before: Option<&LiveSource>, after: Option<&LiveSource>, wait: Duration) -> Check {
    const NAME: &str = "messages";
    let (Some(before), Some(after)) = (before, after) else {
        return Check::skipped(NAME, "no agent runs that could receive them");
    };
    let came = after.received.saturating_sub(before.received);
    let qos0 = after.qos0.saturating_sub(before.qos0);
    let within = show_duration(wait);
    if came == 0 {
        let ever = match after.received {
            0 => "none since the agent's start".to_owned(),
            all => format!("{} since the agent's start", count(all)),
        };
        let hint = "does the adapter know this machine's address and port, user and password? If it sends more seldom: --wait 10min";
        return Check::wrong(NAME, format!("none within {within}; {ever}"), hint);
    }
    if qos0 > 0 {
        let message = format!("{} came with QoS 0: one that is lost on the way is sent by nobody again", count(qos0));
        return Check::warning(NAME, message, "set QoS 1 in the adapter");
    }
    let undecodable = after.undecodable.saturating_sub(before.undecodable);
    if undecodable > 0 {
        let message = format!("{} of {} are no readings, and go to the dead letters", count(undecodable), count(came));
        return Check::wrong(NAME, message, "meterferry dead-letters list says why");
    }
    Check::ok(NAME, format!("the agent received {}", count(came)))
}

#[cfg(test)]
mod tests {
    use super::super::print::shown;
    use super::*;

    /// Promise 9: where the agent listens, or why it could not, and whether anything comes.
    #[test]
    fn verdicts() {
        let account = Account { name: "meterferry".into(), uid: 990, gids: Vec::new() };
        let at = |listen: &str, place| address(listen.parse().expect("an address"), &place, &account, 1024);
        let failed = |kind| Place::Free(Err(io::Error::from(kind)));
        let source = |received, qos0, undecodable| LiveSource {
            name: "sma".into(),
            connected: true,
            received,
            acknowledged: received,
            undecodable,
            qos0,
            ..LiveSource::default()
        };
        let minute = Duration::from_secs(60);
        let (none, some) = (source(0, 0, 0), source(120, 0, 0));
        let checks = vec![
            at("0.0.0.0:1883", Place::Running(Ok(()))),
            at("0.0.0.0:1883", Place::Running(Err("no connection to 127.0.0.1:1883: connection refused".into()))),
            at("127.0.0.1:1883", Place::Free(Ok(()))),
            at("127.0.0.1:883", Place::Free(Ok(()))),
            at("127.0.0.1:1883", failed(io::ErrorKind::AddrInUse)),
            at("10.9.9.9:1883", failed(io::ErrorKind::AddrNotAvailable)),
            at("127.0.0.1:883", failed(io::ErrorKind::PermissionDenied)),
            messages(Some(&none), Some(&some), minute),
            messages(Some(&none), Some(&none), minute),
            messages(Some(&some), Some(&some), minute),
            messages(Some(&none), Some(&source(120, 3, 0)), minute),
            messages(Some(&none), Some(&source(120, 0, 4)), minute),
            messages(None, None, minute),
        ];
        insta::assert_snapshot!(shown(checks));
    }
}

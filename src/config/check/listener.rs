//! `[[source]]` with `type = "mqtt-listener"`

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::source::Found;
use super::{DAY, MIB, MILLISECOND, MINUTE, SECOND, mqtt};
use crate::config::files::{self, Around, Side};
use crate::config::names;
use crate::config::problem::{Place, Report};
use crate::config::raw::{Value, quoted};
use crate::config::section::{Section, Taken};
use crate::config::settings::{Interface, Login, MqttListener, Queue};

/// The acknowledgement waits for the commit, and an ESP32 repeats what is not acknowledged within about a second.
const SLOWEST_COMMIT: Duration = Duration::from_millis(250);

/// Users of one listener.
const USERS: usize = 1_000;

pub fn check(
    section: &mut Section,
    topics: Vec<String>,
    queue: &Queue,
    around: Around<'_>,
    report: &mut Report,
) -> MqttListener {
    let (listen, listen_at) = listen(section, report);
    let logins = logins(section, around, report);
    let allow_anonymous = anonymous(section, listen, listen_at, &logins, report);
    MqttListener {
        listen,
        topics,
        allow_anonymous,
        logins: logins.known,
        tls: mqtt::tls(section, Side::Server, around, report),
        max_clients: whole(section.count(report, "max_clients", 1..=1_000).or(20)),
        max_packet_size: mqtt::max_packet_size(section, queue, 32 * MIB, MIB, report),
        max_unacknowledged: mqtt::max_unacknowledged(section, queue, 100, report),
        idle_timeout: section.duration(report, "idle_timeout", 5 * SECOND..=DAY, 2 * MINUTE).or(2 * MINUTE),
        commit_delay: section
            .duration(report, "commit_delay", MILLISECOND..=SLOWEST_COMMIT, SLOWEST_COMMIT)
            .or(SLOWEST_COMMIT),
    }
}

fn whole(count: i64) -> usize {
    usize::try_from(count).unwrap_or(1)
}

/// The address, and where it stands.
fn listen(section: &mut Section, report: &mut Report) -> (SocketAddr, Place) {
    let default = SocketAddr::from((Ipv4Addr::LOCALHOST, 1883));
    let place = section.place();
    let taken = section.read(report, "listen", |value| {
        let must = "must be ADDRESS:PORT, an IPv6 address in brackets".to_owned();
        let Value::Text(text) = value else { return Err((must, format!("write listen = \"{default}\""))) };
        text.parse::<SocketAddr>().map_err(|_| {
            let (host, port) = text.rsplit_once(':').unwrap_or((text, "1883"));
            let port = port.parse::<u16>().unwrap_or(1883);
            let hint = match host {
                "" | "*" => format!("write \"0.0.0.0:{port}\" for every interface"),
                "localhost" => format!("write \"127.0.0.1:{port}\""),
                _ => text.parse::<IpAddr>().map_or_else(
                    |_| "an address is needed, not a name".to_owned(),
                    |address| format!("write \"{}\"", SocketAddr::from((address, 1883))),
                ),
            };
            (must, hint)
        })
    });
    match taken {
        Taken::Value(given) => (given.value, given.place),
        Taken::Absent | Taken::Wrong => (default, place),
    }
}

/// Users, and whether any were meant: a wrong one must not look like none.
struct Logins {
    known: Vec<Login>,
    meant: bool,
}

fn logins(section: &mut Section, around: Around<'_>, report: &mut Report) -> Logins {
    let mut meant = section.has("users") || section.has("username") || section.has("password_file");
    let mut known: Vec<Login> = Vec::new();
    let own = files::login(section, report, around);
    known.extend(own.given().map(|given| given.value));
    for (index, mut user) in section.tables(report, "users", "source.users").into_iter().enumerate() {
        meant = true;
        let place = user.place();
        if index == USERS {
            report.error(place, format!("source.users has one too many: at most {USERS}"), "adapters may share a user");
            break;
        }
        match files::login(&mut user, report, around) {
            Taken::Value(login) => {
                if known.iter().any(|other| other.username == login.value.username) {
                    let name = quoted(&login.value.username);
                    report.error(
                        login.place,
                        format!("source.users.username is {name}: it is there twice"),
                        "keep one",
                    );
                }
                known.push(login.value);
            }
            Taken::Absent => {
                let hint = "users = [{ username = \"NAME\", password_file = \"FILE\" }]";
                report.error(place, "source.users holds an entry without username and password_file", hint);
            }
            Taken::Wrong => {}
        }
        user.finish(report, |_| None);
    }
    Logins { known, meant }
}

/// On loopback without users everybody may publish; elsewhere only if that is said.
fn anonymous(
    section: &mut Section,
    listen: SocketAddr,
    listen_at: Place,
    logins: &Logins,
    report: &mut Report,
) -> bool {
    let loopback = listen.ip().is_loopback();
    match section.flag(report, "allow_anonymous") {
        Taken::Value(given) => {
            if !given.value && !logins.meant {
                report.error(
                    given.place,
                    "source.allow_anonymous is false and there is no user: nobody could connect",
                    "add username and password_file, or users = [{ username = \"NAME\", password_file = \"FILE\" }]",
                );
            }
            given.value
        }
        Taken::Absent => {
            if !loopback && !logins.meant {
                report.error(
                    listen_at,
                    format!("source.listen is \"{listen}\": an address that others reach needs a login"),
                    "add username and password_file, or write allow_anonymous = true",
                );
            }
            loopback && !logins.meant
        }
        Taken::Wrong => false,
    }
}

/// Two listeners on one port, and a client that would connect to this agent itself.
pub fn together(found: &[Found], report: &mut Report) {
    let mut earlier: Vec<(SocketAddr, &Found)> = Vec::new();
    for source in found {
        let Interface::MqttListener(listener) = &source.source.interface else { continue };
        let own = listener.listen;
        if let Some((_, first)) = earlier.iter().find(|(other, _)| collide(*other, own)) {
            let first = report.name(first.place);
            let message = format!("source.listen is \"{own}\": the source at {first} listens there");
            report.error(source.place, message, "give each listener a port of its own");
        }
        earlier.push((own, source));
    }
    for source in found {
        let Interface::Mqtt(client) = &source.source.interface else { continue };
        let own = earlier.iter().find(|(listen, _)| {
            let here = listen.ip().is_loopback() || listen.ip().is_unspecified();
            listen.port() == client.port && here && names::is_loopback(&client.host)
        });
        if let Some((listen, listener)) = own {
            let message = format!(
                "source {} reads from {}:{}, where the listener at {} waits too",
                quoted(&source.source.name),
                client.host,
                client.port,
                report.name(listener.place)
            );
            let hint =
                format!("only one program can have port {}: give the listener or the broker another", listen.port());
            report.warning(source.place, message, hint);
        }
    }
}

fn collide(left: SocketAddr, right: SocketAddr) -> bool {
    let everywhere = left.ip().is_unspecified() || right.ip().is_unspecified();
    left.port() != 0 && left.port() == right.port() && (everywhere || left.ip() == right.ip())
}

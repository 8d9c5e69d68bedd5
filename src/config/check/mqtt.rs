//! `[[source]]` with `type = "mqtt"`

use super::source::Found;
use super::{HOUR, KIB, MIB, MINUTE, SECOND};
use crate::config::files::{self, Around, Side};
use crate::config::names;
use crate::config::problem::{Place, Report};
use crate::config::raw::quoted;
use crate::config::schema;
use crate::config::section::{Section, Taken};
use crate::config::settings::{Interface, Mqtt, Queue, Tls};
use crate::config::units::show_size;

/// The longest topic, and what stands around topic and payload in a packet.
const AROUND_PAYLOAD: u64 = 65 * KIB;

/// What MQTT's length field can say is one byte below 256 MiB.
const LARGEST_PACKET: u64 = 255 * MIB;

pub fn check(
    section: &mut Section,
    topics: Vec<String>,
    queue: &Queue,
    around: Around<'_>,
    report: &mut Report,
) -> Mqtt {
    let host = host(section, report);
    let tls = tls(section, Side::Client, around, report);
    let default_port = if tls.is_some() { 8883 } else { 1883 };
    let port = section.count(report, "port", 1..=65_535).or(default_port);
    let client_id = client_id(section, report);
    let login = files::login(section, report, around).given().map(|given| given.value);
    // MQTT counts the keep alive in 16 bits of seconds.
    let keep_alive = section.seconds(report, "keep_alive", 5 * SECOND..=18 * HOUR, 30 * SECOND).or(30 * SECOND);
    let connect_timeout = section.seconds(report, "connect_timeout", SECOND..=5 * MINUTE, 10 * SECOND).or(10 * SECOND);
    let reconnect_max_delay = section.duration(report, "reconnect_max_delay", SECOND..=HOUR, MINUTE).or(MINUTE);
    Mqtt {
        host,
        port: u16::try_from(port).unwrap_or(1883),
        topics,
        client_id,
        login,
        tls,
        keep_alive,
        connect_timeout,
        reconnect_max_delay,
        max_unacknowledged: max_unacknowledged(section, queue, 1_000, report),
        max_packet_size: max_packet_size(section, queue, LARGEST_PACKET, 16 * MIB, report),
        retained: section.flag(report, "retained").or(false),
    }
}

/// `[source.tls]` of either type.
pub fn tls(section: &mut Section, side: Side, around: Around<'_>, report: &mut Report) -> Option<Tls> {
    let keys = match side {
        Side::Client | Side::Kafka => schema::MQTT_TLS,
        Side::Server => schema::MQTT_LISTENER_TLS,
    };
    let mut table = section.table(report, "tls", "source.tls").given()?.value.with_keys(keys);
    let tls = files::tls(&mut table, report, side, around);
    table.finish(report, |key| match (side, key) {
        (_, "verify_hostname") => Some((
            "is no key of [source.tls]: the name is always verified".to_owned(),
            "set host to a name that stands in the broker's certificate".to_owned(),
        )),
        (Side::Server, "ca_file") => Some((
            "belongs to type = \"mqtt\": a listener asks for no client certificates".to_owned(),
            "remove it".to_owned(),
        )),
        _ => None,
    });
    Some(tls)
}

/// Never more than the redelivery window remembers: a message beyond it would be stored twice after a reconnect.
pub fn max_unacknowledged(section: &mut Section, queue: &Queue, default: usize, report: &mut Report) -> usize {
    let taken = section.count(report, "max_unacknowledged", 1..=10_000);
    let window = queue.redelivery_window;
    let place = match &taken {
        Taken::Value(given) => given.place,
        Taken::Absent | Taken::Wrong => section.place(),
    };
    let absent = taken.is_absent();
    let value = taken.given().and_then(|given| usize::try_from(given.value).ok()).unwrap_or(default);
    if absent {
        return value.min(window);
    }
    if value > window {
        report.error(
            place,
            format!("source.max_unacknowledged is {value}: must be at most queue.redelivery_window, {window}"),
            "what the window forgets would be stored twice after a reconnect; raise redelivery_window",
        );
    }
    value
}

/// Always more than the largest reading needs: a larger packet ends the connection, and comes again for ever.
pub fn max_packet_size(section: &mut Section, queue: &Queue, most: u64, default: u64, report: &mut Report) -> usize {
    let least = queue.max_reading_size as u64 + AROUND_PAYLOAD;
    let taken = section.size(report, "max_packet_size", 64 * KIB..=most, default);
    let given = match &taken {
        Taken::Value(given) => Some((given.place, given.value)),
        Taken::Absent | Taken::Wrong => None,
    };
    if let Some((place, value)) = given
        && value < least
    {
        report.error(
            place,
            format!(
                "source.max_packet_size is {}: must be at least 65 KiB above queue.max_reading_size, {}",
                quoted(&show_size(value)),
                show_size(queue.max_reading_size as u64)
            ),
            format!(
                "a larger packet ends the connection and is sent again for ever; write max_packet_size = \"{}\"",
                show_size(least.next_multiple_of(MIB))
            ),
        );
    }
    // Where nothing is said, the default grows with the largest reading.
    let value = taken.or(default.max(least.next_multiple_of(MIB)));
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// `source.host`, of every type that has one.
pub fn host(section: &mut Section, report: &mut Report) -> String {
    let Some(given) = section.text(report, "host").given() else { return "localhost".to_owned() };
    match names::host(&given.value) {
        Ok(host) => host,
        Err(what) => {
            let bare = given.value.split_once("://").map_or(given.value.as_str(), |(_, rest)| rest);
            let bare = bare.rsplit('@').next().unwrap_or_default().trim_end_matches('/');
            let hint = match names::host_and_port(bare) {
                Ok((host, port)) => format!("write host = {} and port = {port}", quoted(&host)),
                Err(_) if bare != given.value && names::host(bare).is_ok() => format!("write host = {}", quoted(bare)),
                Err(_) => "for example host = \"broker.lan\"".to_owned(),
            };
            report.error(given.place, format!("source.host is {}: {what}", quoted(&given.value)), hint);
            given.value
        }
    }
}

/// A broker keeps the session under this name.
fn client_id(section: &mut Section, report: &mut Report) -> Option<String> {
    const LONGEST: usize = 256;
    super::legal("source.client_id", section.text(report, "client_id"), report, |id| {
        let fits = (1..=LONGEST).contains(&id.len()) && !id.chars().any(char::is_control);
        if fits { Ok(()) } else { Err(format!("must have 1 to {LONGEST} bytes and no control characters")) }
    })
}

/// What sources of one broker must not have in common: a message that two filters match would be stored twice, and two
/// clients of one name throw each other out.
pub fn together(found: &[Found], report: &mut Report) {
    let brokers: Vec<(&Found, &Mqtt)> = found
        .iter()
        .filter_map(|found| match &found.source.interface {
            Interface::Mqtt(mqtt) => Some((found, mqtt)),
            Interface::MqttListener(_) | Interface::Rest(_) | Interface::Modbus(_) => None,
        })
        .collect();
    let mut earlier: Vec<(&str, u16, &str, Place)> = Vec::new();
    for (found, mqtt) in &brokers {
        for topic in &found.topics {
            let overlaps = |(host, port, filter, _): &&(&str, u16, &str, Place)| {
                *port == mqtt.port && names::same_host(host, &mqtt.host) && names::filters_overlap(filter, &topic.value)
            };
            if let Some((.., filter, place)) = earlier.iter().find(overlaps) {
                report.error(
                    topic.place,
                    format!(
                        "source.topics holds {}: it overlaps {} at {} on the same broker",
                        quoted(&topic.value),
                        quoted(filter),
                        report.name(*place)
                    ),
                    "a message that both match would be stored twice; keep one of them",
                );
            }
            earlier.push((&mqtt.host, mqtt.port, &topic.value, topic.place));
        }
    }
    for (index, (later, mqtt)) in brokers.iter().enumerate() {
        let clash = brokers[..index].iter().find(|(_, other)| {
            mqtt.client_id.is_some()
                && mqtt.client_id == other.client_id
                && mqtt.port == other.port
                && names::same_host(&mqtt.host, &other.host)
        });
        if let (Some((first, _)), Some(id)) = (clash, &mqtt.client_id) {
            let first = report.name(first.place);
            let message =
                format!("source.client_id is {}: the source at {first} has it on the same broker", quoted(id));
            report.error(later.place, message, "two clients of one name throw each other out; leave it out");
        }
    }
}

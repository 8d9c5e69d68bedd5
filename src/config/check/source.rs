//! `[[source]]`: the keys of each, and what the sources must not do to each other.

use std::sync::Arc;

use super::payload::Decoding;
use super::{legal, listener, modbus, mqtt, payload, rest};
use crate::config::files::Around;
use crate::config::names;
use crate::config::problem::{Place, Report};
use crate::config::raw::{Value, quoted};
use crate::config::schema;
use crate::config::section::{Given, Section, Taken, either, nearest_word};
use crate::config::settings::{Format, Interface, Kafka, Payload, Queue, Source};

/// Sources of one agent: each has a connection, a channel and a window of its own.
const MOST: usize = 100;

/// A source that was read, and where its parts stand.
pub struct Found {
    pub source: Source,
    /// Where the table begins.
    pub place: Place,
    name: Option<Place>,
    kafka_topic: Option<Place>,
    payload: Option<Place>,
    /// Topic filters with their places; each is a legal one.
    pub topics: Vec<Given<String>>,
    /// Its type is what the file says, not a guess.
    sure: bool,
}

/// All sources; where none is configured, the broker on this machine.
pub fn check(root: &mut Section, kafka: &Kafka, queue: &Queue, around: Around<'_>, report: &mut Report) -> Vec<Source> {
    let mut found: Vec<Found> = Vec::new();
    for (index, section) in root.tables(report, "source", "source").into_iter().enumerate() {
        if index == MOST {
            report.error(
                section.place(),
                format!("[[source]] is one too many: at most {MOST} sources"),
                "run a second agent, with a queue of its own",
            );
            break;
        }
        found.push(one(section, queue, around, report));
    }
    unique_names(&found, report);
    for source in &found {
        not_the_resume_topic(source, kafka, report);
        can_be_normalized(source, kafka, report);
    }
    // What a source without a type is like was only guessed.
    let (sure, guessed): (Vec<Found>, Vec<Found>) = found.into_iter().partition(|found| found.sure);
    mqtt::together(&sure, report);
    listener::together(&sure, report);
    modbus::together(&sure, report);
    let found: Vec<Found> = sure.into_iter().chain(guessed).collect();
    if found.is_empty() {
        report.warning(
            Place { file: 0, line: 0 },
            "no [[source]] is configured: reading topic sma of the broker at localhost:1883",
            "write a [[source]] to make it so, or to read elsewhere",
        );
        let table = Section::absent("source").with_keys(schema::MQTT);
        let mut source = one(table, queue, around, &mut Report::default()).source;
        source.name = Arc::from("sma");
        return vec![source];
    }
    found.into_iter().map(|found| found.source).collect()
}

fn one(mut section: Section, queue: &Queue, around: Around<'_>, report: &mut Report) -> Found {
    let place = section.place();
    let missing = |report: &mut Report, key: &str, hint: &str| {
        report.error(place, format!("source.{key} is missing: every [[source]] needs it"), hint);
    };
    let name = section.text(report, "name");
    if name.is_absent() {
        missing(report, "name", "name = \"sma\"");
    }
    let name_at = at(&name);
    let name = legal("source.name", name, report, names::source_name);
    let kind = kind(&mut section, report);
    if kind.is_absent() {
        missing(report, "type", &format!("type = {}", either(types())));
    }
    // The keys of a source without a type are those of the type they look like.
    let sure = matches!(kind, Taken::Value(_));
    let kind = kind.or(guess(&section));
    let own = schema::SOURCES.into_iter().find(|(name, _)| *name == kind).map_or(schema::MQTT, |(_, keys)| keys);
    let payload_at = section.place_of("payload");
    let Decoding { payload, mapping_file, timezone } = payload::check(&mut section, own, around, report);
    only_documents(kind, payload_at, &payload, report);
    let kafka_topic = section.text(report, "kafka_topic");
    let kafka_topic_at = at(&kafka_topic);
    let kafka_topic = expanded(kafka_topic, name.as_deref());
    let kafka_topic = legal("source.kafka_topic", kafka_topic, report, names::source_topic);
    let topics = if own.contains(&"topics") { topics(&mut section, report) } else { Vec::new() };

    let filters = topics.iter().map(|given| given.value.clone()).collect();
    let mut section = section.with_keys(own);
    let interface = match kind {
        "rest" => Interface::Rest(rest::check(&mut section, &payload, around, report)),
        "modbus" => Interface::Modbus(modbus::check(&mut section, report)),
        "mqtt-listener" => Interface::MqttListener(listener::check(&mut section, filters, queue, around, report)),
        _ => Interface::Mqtt(mqtt::check(&mut section, filters, queue, around, report)),
    };
    if !sure {
        for key in schema::SOURCES.iter().flat_map(|(_, keys)| *keys) {
            section.take(key);
        }
    }
    section.finish(report, |key| {
        let owners = schema::SOURCES.iter().filter(|(_, keys)| keys.contains(&key)).map(|(name, _)| *name);
        let owners = either(owners);
        (!owners.is_empty()).then(|| {
            let what = format!("belongs to type = {owners}, this source has type = \"{kind}\"");
            (what, "remove it, or change the type".to_owned())
        })
    });
    let name = Arc::from(name.unwrap_or_default());
    let source = Source { name, payload, mapping_file, timezone, kafka_topic, interface };
    Found { source, place, name: name_at, kafka_topic: kafka_topic_at, payload: payload_at, topics, sure }
}

/// With the source's name, which is known here, for `{source}`. What is wrong with a name is said of the name.
fn expanded(topic: Taken<String>, name: Option<&str>) -> Taken<String> {
    match topic {
        Taken::Value(Given { place, value }) => {
            Taken::Value(Given { place, value: value.replacen("{source}", name.unwrap_or("source"), 1) })
        }
        other => other,
    }
}

fn at<T>(taken: &Taken<T>) -> Option<Place> {
    match taken {
        Taken::Value(given) => Some(given.place),
        Taken::Absent | Taken::Wrong => None,
    }
}

fn types() -> impl Iterator<Item = &'static str> {
    schema::SOURCES.into_iter().map(|(name, _)| name)
}

/// The type of a source that does not say it.
fn guess(section: &Section) -> &'static str {
    let has = |keys: &[&str]| keys.iter().any(|key| section.has(key));
    match () {
        () if has(&["listen"]) => "mqtt-listener",
        () if has(&["url"]) => "rest",
        () if has(&["unit", "base", "registers"]) => "modbus",
        () => "mqtt",
    }
}

/// What a polled meter says is made into the adapter's document here: there is nothing else to decode.
fn only_documents(kind: &str, place: Option<Place>, payload: &Payload, report: &mut Report) {
    if let ("modbus", Some(place), Payload::Any | Payload::Mapped(_)) = (kind, place, payload) {
        let message = "source.payload is not \"sma\": a Modbus device's registers become that document";
        report.error(place, message, "remove the line");
    }
}

fn kind(section: &mut Section, report: &mut Report) -> Taken<&'static str> {
    section.read(report, "type", |value| {
        let must = format!("must be {}", either(types()));
        let Value::Text(text) = value else { return Err((must, String::new())) };
        match types().find(|kind| kind == text) {
            Some(kind) => Ok(kind),
            None => Err((must, nearest_word(text, types()))),
        }
    })
}

/// Filters in one source.
const TOPICS: usize = 1_000;

/// The legal ones of `topics`; the default where the key is missing.
fn topics(section: &mut Section, report: &mut Report) -> Vec<Given<String>> {
    let place = section.place();
    let listed = match section.texts(report, "topics", TOPICS) {
        Taken::Value(given) => given.value,
        Taken::Absent => vec![Given { place, value: "sma".to_owned() }],
        Taken::Wrong => Vec::new(),
    };
    let mut topics = Vec::new();
    for given in listed {
        match names::topic_filter(&given.value) {
            Ok(()) => topics.push(given),
            Err(what) => {
                let message = format!("source.topics holds {}: the filter {what}", quoted(&given.value));
                report.error(given.place, message, "filters look like \"sma\", \"meters/+/sma\" or \"meters/#\"");
            }
        }
    }
    topics
}

fn unique_names(found: &[Found], report: &mut Report) {
    for (index, later) in found.iter().enumerate() {
        let name = &later.source.name;
        let earlier = found[..index].iter().find(|earlier| earlier.source.name == *name);
        if let (Some(place), Some(Some(first))) = (later.name, earlier.map(|earlier| earlier.name)) {
            let message =
                format!("source.name is {}: it is taken by the source at {}", quoted(name), report.name(first));
            report.error(place, message, "give each source a name of its own");
        }
    }
}

fn not_the_resume_topic(found: &Found, kafka: &Kafka, report: &mut Report) {
    let Some(topic) = &found.source.kafka_topic else { return };
    if let (true, Some(place)) = (*topic == kafka.resume_topic, found.kafka_topic) {
        report.error(
            place,
            format!("source.kafka_topic is {}: must not be kafka.resume_topic", quoted(topic)),
            "the resume topic stays empty; name another topic",
        );
    }
}

/// Any bytes have no measurements that our document could name.
fn can_be_normalized(found: &Found, kafka: &Kafka, report: &mut Report) {
    if let (Payload::Any, Format::Normalized, Some(place)) = (&found.source.payload, kafka.format, found.payload) {
        report.error(
            place,
            "source.payload is \"any\": must name what the device sends with kafka.format = \"normalized\"",
            "set the payload, or kafka.format = \"original\"",
        );
    }
}

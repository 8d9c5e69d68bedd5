//! The effective configuration as TOML, secrets masked.

use std::fmt::Display;
use std::path::Path;

use super::check::{COMPRESSION, FORMAT, FUNCTIONS, MECHANISMS, ORDERS, THIN, TYPES, WHEN_FULL};
use super::names;
use super::settings::{
    Interface, Kafka, Login, Modbus, Mqtt, MqttListener, Privacy, Queue, Rest, Settings, Source, Tls, Trust,
};
use super::units::{show_duration, show_size};

/// What stands where a secret's file was named.
const MASK: &str = "***";

/// All settings as a configuration file that [`load`](super::load) reads back, but for the masks: `password_file =
/// "***"`. Keys without a value are left out.
pub fn dump(settings: &Settings) -> String {
    let mut lines = Lines(String::new());
    lines.table("[agent]");
    lines.text_if("id", settings.agent.id.as_deref());
    lines.text("summary_interval", show_duration(settings.agent.summary_interval));
    lines.text("stop_timeout", show_duration(settings.agent.stop_timeout));
    lines.text("clock_wait", show_duration(settings.agent.clock_wait));
    queue(&mut lines, &settings.queue);
    kafka(&mut lines, &settings.kafka);
    privacy(&mut lines, &settings.privacy);
    for one in &settings.sources {
        source(&mut lines, one);
    }
    lines.0
}

fn queue(lines: &mut Lines, queue: &Queue) {
    lines.table("[queue]");
    lines.path("path", Some(&queue.path));
    lines.text("max_size", show_size(queue.max_size));
    lines.text("min_free", show_size(queue.min_free));
    lines.text("when_full", word(WHEN_FULL, queue.when_full));
    lines.text("segment_size", show_size(queue.segment_size));
    lines.text("commit_delay", show_duration(queue.commit_delay));
    lines.plain("redelivery_window", queue.redelivery_window);
    lines.text("max_reading_size", show_size(queue.max_reading_size as u64));
    lines.text("max_dead_letters", show_size(queue.max_dead_letters));
    lines.text_if("dead_letters_max_age", queue.dead_letters_max_age.map(show_duration));
    lines.text_if("card_endurance", queue.card_endurance.map(show_size));
}

fn kafka(lines: &mut Lines, kafka: &Kafka) {
    lines.table("[kafka]");
    if !kafka.bootstrap_servers.is_empty() {
        lines.list("bootstrap_servers", &kafka.bootstrap_servers);
    }
    lines.text("topic", &kafka.topic);
    lines.text("resume_topic", &kafka.resume_topic);
    lines.text("delivery", kafka.delivery.word());
    lines.text("format", word(FORMAT, kafka.format));
    lines.text("compression", word(COMPRESSION, kafka.compression));
    lines.text("linger", show_duration(kafka.linger));
    lines.plain("batch_count", kafka.batch_count);
    lines.text("batch_size", show_size(kafka.batch_size as u64));
    lines.text("retry_max_delay", show_duration(kafka.retry_max_delay));
    lines.text("request_timeout", show_duration(kafka.request_timeout));
    lines.text("transaction_timeout", show_duration(kafka.transaction_timeout));
    lines.plain("idempotence", kafka.idempotence);
    lines.plain("create_topics", kafka.create_topics);
    lines.plain("partitions", kafka.partitions);
    lines.plain("replication", kafka.replication);
    lines.text("retention", show_duration(kafka.retention));
    lines.text_if("timestamp_before_max", kafka.timestamp_before_max.map(show_duration));
    if let Some(tls) = &kafka.tls {
        self::tls(lines, "[kafka.tls]", tls);
        lines.plain("verify_hostname", tls.verify_hostname);
    }
    if let Some(sasl) = &kafka.sasl {
        lines.table("[kafka.sasl]");
        lines.text("mechanism", word(MECHANISMS, sasl.mechanism));
        lines.text("username", &sasl.username);
        lines.text("password_file", MASK);
    }
    if !kafka.properties.is_empty() {
        lines.table("[kafka.properties]");
        for (name, value) in &kafka.properties {
            lines.text(&quoted(name), value);
        }
    }
}

fn privacy(lines: &mut Lines, privacy: &Privacy) {
    if !privacy.is_set() {
        return;
    }
    lines.table("[privacy]");
    if let Some(codes) = &privacy.codes {
        lines.list("codes", &codes.iter().map(ToString::to_string).collect::<Vec<_>>());
    }
    lines.text_if("thin", privacy.thin.map(|thin| word(THIN, thin)));
    lines.text_if("pseudonym_key_file", privacy.pseudonym_key.as_ref().map(|_| MASK));
}

fn source(lines: &mut Lines, source: &Source) {
    lines.table("[[source]]");
    lines.text("name", &source.name);
    let (kind, topics) = match &source.interface {
        Interface::Mqtt(mqtt) => ("mqtt", &mqtt.topics[..]),
        Interface::MqttListener(listener) => ("mqtt-listener", &listener.topics[..]),
        Interface::Rest(_) => ("rest", &[][..]),
        Interface::Modbus(_) => ("modbus", &[][..]),
    };
    lines.text("type", kind);
    if !topics.is_empty() {
        lines.list("topics", topics);
    }
    match &source.mapping_file {
        Some(file) => lines.path("mapping_file", Some(file)),
        None => lines.text("payload", source.payload.name()),
    }
    lines.text_if("timezone", source.timezone.as_deref());
    lines.text_if("kafka_topic", source.kafka_topic.as_deref());
    let tls = match &source.interface {
        Interface::Mqtt(mqtt) => self::mqtt(lines, mqtt),
        Interface::MqttListener(listener) => self::listener(lines, listener),
        Interface::Rest(rest) => {
            self::rest(lines, rest);
            None
        }
        Interface::Modbus(modbus) => {
            self::modbus(lines, modbus);
            None
        }
    };
    if let Some(tls) = tls {
        self::tls(lines, "[source.tls]", tls);
    }
}

fn mqtt<'s>(lines: &mut Lines, mqtt: &'s Mqtt) -> Option<&'s Tls> {
    lines.text("host", &mqtt.host);
    lines.plain("port", mqtt.port);
    lines.text_if("client_id", mqtt.client_id.as_deref());
    if let Some(login) = &mqtt.login {
        lines.text("username", &login.username);
        lines.text("password_file", MASK);
    }
    lines.text("keep_alive", show_duration(mqtt.keep_alive));
    lines.text("connect_timeout", show_duration(mqtt.connect_timeout));
    lines.text("reconnect_max_delay", show_duration(mqtt.reconnect_max_delay));
    lines.plain("max_unacknowledged", mqtt.max_unacknowledged);
    lines.text("max_packet_size", show_size(mqtt.max_packet_size as u64));
    lines.plain("retained", mqtt.retained);
    mqtt.tls.as_ref()
}

fn listener<'s>(lines: &mut Lines, listener: &'s MqttListener) -> Option<&'s Tls> {
    lines.text("listen", listener.listen.to_string());
    if !listener.logins.is_empty() {
        let user =
            |login: &Login| format!("{{ username = {}, password_file = {} }}", quoted(&login.username), quoted(MASK));
        let users: Vec<_> = listener.logins.iter().map(user).collect();
        lines.plain("users", format!("[{}]", users.join(", ")));
    }
    lines.plain("allow_anonymous", listener.allow_anonymous);
    lines.plain("max_clients", listener.max_clients);
    lines.text("max_packet_size", show_size(listener.max_packet_size as u64));
    lines.plain("max_unacknowledged", listener.max_unacknowledged);
    lines.text("idle_timeout", show_duration(listener.idle_timeout));
    lines.text("commit_delay", show_duration(listener.commit_delay));
    listener.tls.as_ref()
}

fn rest(lines: &mut Lines, rest: &Rest) {
    lines.text("url", rest.url());
    lines.text_if("token_file", rest.token.as_ref().map(|_| MASK));
    lines.text_if("path", rest.path.as_deref());
    lines.text_if("status_path", rest.status_path.as_deref());
    lines.text("interval", show_duration(rest.interval));
    lines.text("status_interval", show_duration(rest.status_interval.unwrap_or_default()));
    lines.text("timeout", show_duration(rest.timeout));
    lines.text("max_body_size", show_size(rest.max_body_size as u64));
    lines.text("retry_max_delay", show_duration(rest.retry_max_delay));
    lines.plain("store_unchanged", rest.store_unchanged);
    let Some(trust) = &rest.trust else { return };
    lines.table("[source.tls]");
    lines.plain("trust_on_first_use", *trust == Trust::FirstUse);
    match trust {
        Trust::Authorities(ca_file) => lines.path("ca_file", ca_file.as_deref()),
        Trust::Fingerprint(fingerprint) => lines.text("fingerprint", names::show_fingerprint(fingerprint)),
        Trust::FirstUse => {}
    }
}

fn modbus(lines: &mut Lines, modbus: &Modbus) {
    lines.text("host", &modbus.host);
    lines.plain("port", modbus.port);
    lines.plain("unit", modbus.unit);
    lines.text("interval", show_duration(modbus.interval));
    lines.text("timeout", show_duration(modbus.timeout));
    lines.text("reconnect_max_delay", show_duration(modbus.reconnect_max_delay));
    lines.text_if("device", modbus.device.as_deref());
    if let Some(base) = modbus.base {
        lines.plain("base", base);
    }
    for register in &modbus.registers {
        lines.table("[[source.registers]]");
        lines.plain("address", register.address);
        lines.text("function", word(FUNCTIONS, register.function));
        lines.text("type", word(TYPES, register.kind));
        lines.text("word_order", word(ORDERS, register.order));
        lines.text("factor", register.factor.to_string());
        lines.text("code", register.code.to_string());
    }
}

fn tls(lines: &mut Lines, header: &str, tls: &Tls) {
    lines.table(header);
    lines.path("ca_file", tls.ca_file.as_deref());
    lines.path("certificate_file", tls.certificate_file.as_deref());
    lines.path("key_file", tls.key_file.as_deref());
}

fn word<T: Copy + PartialEq>(words: &'static [(&'static str, T)], value: T) -> &'static str {
    words.iter().find(|(_, one)| *one == value).map_or("", |(word, _)| word)
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

struct Lines(String);

impl Lines {
    fn table(&mut self, header: &str) {
        if !self.0.is_empty() {
            self.0.push('\n');
        }
        self.0 += header;
        self.0.push('\n');
    }

    fn plain(&mut self, key: &str, value: impl Display) {
        self.0 += &format!("{key} = {value}\n");
    }

    fn text(&mut self, key: &str, value: impl AsRef<str>) {
        self.plain(key, quoted(value.as_ref()));
    }

    fn text_if(&mut self, key: &str, value: Option<impl AsRef<str>>) {
        if let Some(value) = value {
            self.text(key, value);
        }
    }

    fn path(&mut self, key: &str, path: Option<&Path>) {
        self.text_if(key, path.map(Path::to_string_lossy));
    }

    fn list(&mut self, key: &str, values: &[String]) {
        let values: Vec<_> = values.iter().map(|value| quoted(value)).collect();
        self.plain(key, format!("[{}]", values.join(", ")));
    }
}

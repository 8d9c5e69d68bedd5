//! Each reader's message comes out with the right codes, units, values and times.

use std::fmt::Write as _;

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::config::settings::Payload;
use crate::config::{PRESETS, Preset};
use crate::decode::{Decoded, MAX_DEPTH, Reason, decode};

fn preset(name: &str) -> Payload {
    let zone = TimeZone::get("Europe/Vienna").expect("the zone is known");
    Payload::Mapped(Arc::new(Preset::named(name).expect("a preset").mapping(zone)))
}

fn decoded(name: &str, topic: &str, bytes: &[u8]) -> Result<Decoded, Reason> {
    decode(&preset(name), "house", topic, bytes)
}

/// A message, line by line, as everything behind the decoder sees it.
fn told(name: &str, topic: &str, bytes: &[u8]) -> String {
    let Payload::Mapped(mapping) = preset(name) else { unreachable!("a preset is a mapping") };
    let decoded = match decode(&Payload::Mapped(Arc::clone(&mapping)), "house", topic, bytes) {
        Ok(decoded) => decoded,
        Err(reason) => return format!("{topic}: {reason}\n"),
    };
    let found = read(&mapping, topic, bytes, true).expect("it was decoded");
    let time = decoded.measured_ms.map(|ms| Timestamp::from_millisecond(ms).expect("a time").to_string());
    let mut text = format!("{topic}: {} at {}\n", decoded.device, time.unwrap_or_default());
    assert_eq!(decoded.measurements.len(), found.rows.len());
    for (measurement, row) in decoded.measurements.iter().zip(&found.rows) {
        assert_eq!(*measurement, row.measurement, "explaining changes nothing");
        let code = match &measurement.code {
            Code::Obis(code) => code.to_string(),
            Code::Other(name) => format!("({name})"),
        };
        let kind = match measurement.value {
            crate::decode::Value::Number(_) => "",
            crate::decode::Value::Text(_) => " text",
        };
        let flag = measurement.flag.map(|flag| format!(" {flag}")).unwrap_or_default();
        let _ = writeln!(
            text,
            "  {code} = {} {}{kind}{flag} <- {}",
            measurement.value,
            row.measurement.unit().unwrap_or("-"),
            row.path
        );
    }
    for (path, value) in &found.left_over {
        let _ = writeln!(text, "  left over: {path} = {value}");
    }
    text
}

macro_rules! samples {
    ($($test:ident: $preset:literal on $topic:literal;)*) => {$(
        /// Promise 5: this reader's document is understood, every digit of it.
        #[test]
        fn $test() {
            let bytes = include_bytes!(concat!("testdata/", $preset, ".json"));
            insta::assert_snapshot!($preset, told($preset, $topic, bytes));
        }
    )*};
}

samples! {
    shrdzm: "shrdzm" on "SHRDZM/84F3EB6C2A11/84F3EB6C2A11/sensor";
    amis_reader: "amis-reader" on "amis/out";
    tasmota_sml: "tasmota-sml" on "tele/cellar/SENSOR";
    tasmota_plug: "tasmota-plug" on "tele/dryer/SENSOR";
    shelly_pro_3em: "shelly-pro-3em" on "shellypro3em-0cb815fc/status/em:0";
    ams_reader: "ams-reader" on "ams/han";
    dsmr_reader: "dsmr-reader" on "dsmr/json";
    zigbee2mqtt_plug: "zigbee2mqtt-plug" on "zigbee2mqtt/kitchen/plug";
}

/// Promise 5: a topic a value: the code comes from the topic, the time from the payload where it has one.
#[test]
fn a_topic_a_value() {
    let mut text = String::new();
    for (name, topic, payload) in [
        ("vzlogger", "vzlogger/data/chn0/raw", "34507476.1"),
        ("vzlogger", "vzlogger/data/chn1/agg", r#"{"timestamp":1697623015250,"value":-894.0}"#),
        ("vzlogger", "vzlogger/data/chn0/uuid", "a6a8cbc0-6b1b-11ee-8c99-0242ac120002"),
        ("vzlogger", "vzlogger/other", "1"),
        ("sml2mqtt", "sml2mqtt/0a014c4f470000350bf6/0100010800ff", "34507.4761"),
        ("sml2mqtt", "sml2mqtt/0a014c4f470000350bf6/0100100700ff", "-894"),
        ("sml2mqtt", "sml2mqtt/0a014c4f470000350bf6/010060320101", "ISK"),
        ("sml2mqtt", "sml2mqtt/0a014c4f470000350bf6/status", "OK"),
        ("esphome", "meter/sensor/energy_delivered_tariff1/state", "2000.000"),
        ("esphome", "meter/sensor/power_delivered/state", "1.5"),
        ("esphome", "meter/sensor/voltage_l1/state", "nan"),
        ("esphome", "meter/sensor/room_temperature/state", "21.5"),
        ("esphome", "meter/sensor/power_delivered/state", ""),
        ("esphome", "meter/sensor/power_delivered/state", "null"),
        ("shelly-em", "shellies/shellyem3-AB12/emeter/1/power", "-60.20"),
        ("shelly-em", "shellies/shellyem3-AB12/emeter/1/total", "1685334.5"),
        ("shelly-em", "shellies/shellyem-CD34/emeter/1/power", "250.73"),
        ("shelly-em", "shellies/shellyem-CD34/emeter/1/energy", "17"),
        ("shelly-em", "shellies/shellyem-CD34/emeter/1/new", "17"),
    ] {
        text += &told(name, topic, payload.as_bytes());
    }
    insta::assert_snapshot!(text);
    let partial = |name, topic, payload: &str| decoded(name, topic, payload.as_bytes()).expect("a value").partial;
    assert_eq!(partial("vzlogger", "vzlogger/data/chn0/raw", "1"), Some(WINDOW));
    assert_eq!(partial("vzlogger", "vzlogger/data/chn0/uuid", "x"), None, "no part of a reading");
    assert_eq!(partial("tasmota-plug", "t", r#"{"ENERGY":{"Power":1}}"#), None);
}

/// Promise 5: what readers may also say: other groups, other places, notifications, a second circuit.
#[test]
fn variants() {
    let mut text = String::new();
    for (name, topic, payload) in [
        (
            "tasmota-sml",
            "x",
            r#"{"Time":"2024-10-27T02:30:00","MT631":{"E_in":1,"Server_id":"0a01"},"Wifi":{"RSSI":3}}"#,
        ),
        ("tasmota-sml", "x", r#"{"Time":"2022-07-07T13:01:11Z","A":{"Total_in":1.5},"B":{"Total_in":2.5}}"#),
        ("shrdzm", "x", r#"{"id":"AB","data":{"timestamp":"2022-02-06T15:20:00","1.8.0":"1","13.7.0":"100"}}"#),
        (
            "shelly-pro-3em",
            "shelly/events/rpc",
            r#"{"src":"shellypro3em-a","dst":"x","method":"NotifyStatus","params":{"ts":1697623015.25,"em:0":{"id":0,"total_act_power":-5.5}}}"#,
        ),
        (
            "shelly-pro-3em",
            "shelly/status/emdata:0",
            r#"{"id":0,"a_total_act_energy":31.5,"total_act":92.25,"total_act_ret":0.00}"#,
        ),
        ("shelly-pro-3em", "shelly/status/em1:2", r#"{"id":2,"current":0.5,"voltage":230.1,"act_power":-12.5}"#),
        ("zigbee2mqtt-plug", "zigbee2mqtt/plug", r#"{"power":5,"last_seen":1697623015250}"#),
        ("zigbee2mqtt-plug", "zigbee2mqtt/plug", r#"{"power":5,"last_seen":"soon"}"#),
        (
            "ams-reader",
            "x",
            r#"{"id":"M","t":1735407960,"data":{"P":59,"PO":0,"I1":0.10,"U1":227.10,"tPI":1685.334,"tPO":0.000}}"#,
        ),
    ] {
        text += &told(name, topic, payload.as_bytes());
    }
    insta::assert_snapshot!(text);
}

/// Promise 5: where lamps and sensors speak beside a plug, theirs are no readings and no mistake;
/// what is no document of any device is one.
#[test]
fn other_devices_on_the_same_topics() {
    let lamp =
        decoded("zigbee2mqtt-plug", "zigbee2mqtt/lamp", br#"{"state":"ON","brightness":254}"#).expect("no mistake");
    assert_eq!((lamp.device.as_str(), lamp.measurements.len()), ("lamp", 0));
    assert!(decoded("zigbee2mqtt-plug", "zigbee2mqtt/lamp", b"{\"state\":").is_err());
    assert!(decoded("tasmota-plug", "tele/lamp/SENSOR", br#"{"state":"ON"}"#).is_err());
}

/// Each value that has a message of its own keeps its own time.
#[test]
fn values_of_a_topic_each_keep_their_times() {
    let value = |chn: &str, payload: &str| {
        decoded("vzlogger", &format!("vzlogger/data/{chn}/raw"), payload.as_bytes()).expect("a value").measurements[0]
            .time
    };
    assert_eq!(value("chn0", r#"{"timestamp":1795494000123,"value":12.5}"#), Some(1_795_494_000));
    assert_eq!(value("chn0", "12.5"), None);
}

/// What a table takes no notice of is counted, so that it can be said.
#[test]
fn values_left_over_are_counted() {
    let two = br#"{"Time":"2022-07-07T13:01:11","ENERGY":{"Power":[10,20],"Voltage":227}}"#;
    assert_eq!(decoded("tasmota-plug", "tele/plug/SENSOR", two).expect("a reading").left_over, 2);
}

/// Promise 8: a time that cannot be read is told from none, and the reading is kept.
#[test]
fn times_that_cannot_be_read() {
    for (time, unread) in [
        ("\"soon\"", true),
        ("\"1970-01-01T00:00:03\"", false),
        ("\"2022-07-07T13:01:11\"", false),
        ("\"\"", false),
        ("null", false),
    ] {
        let payload = format!(r#"{{"Time":{time},"ENERGY":{{"Power":26}}}}"#);
        let decoded = decoded("tasmota-plug", "tele/plug/SENSOR", payload.as_bytes()).expect("a reading");
        assert_eq!((decoded.time_unread, decoded.measurements.len()), (unread, 1), "{payload}");
    }
}

/// Promise 5: wrong types, missing fields, truncated, other character sets, absurd values: a reason, or kept and flagged.
#[test]
fn bad_input() {
    let mut text = String::new();
    for (name, payload) in [
        ("tasmota-plug", &b"{}"[..]),
        ("tasmota-plug", b"[]"),
        ("tasmota-plug", b"42"),
        ("tasmota-plug", b"ON"),
        ("tasmota-plug", br#"{"Time":"2022-07-07T13:01:11","ENERGY":{"Power":26"#),
        ("tasmota-plug", b"{\"ENERGY\":{\"Power\":\"2\xb2\"}}"),
        ("tasmota-plug", br#"{"ENERGY":{"Power":1},"ENERGY":{"Power":2}}"#),
        ("tasmota-plug", br#"{"ENERGY":{"Power":null,"Voltage":true,"Current":[1]}}"#),
        ("tasmota-plug", br#"{"ENERGY":{"Power":"high","Voltage":true,"Total":-3}}"#),
        ("tasmota-plug", br#"{"ENERGY":{"Power":1e12,"Total":"0006.2940"}}"#),
        ("tasmota-plug", br#"{"ENERGY":{"Power":{"value":1}}}"#),
        ("shrdzm", br#"{"1.8.0":"??","1.7.0":""}"#),
        ("shrdzm", br#"{"hello":"world"}"#),
        ("vzlogger", b"1"),
    ] {
        text += &told(name, "x", payload);
    }
    let long = format!(r#"{{"ENERGY":{{"Total":{}}}}}"#, "9".repeat(65));
    text += &told("tasmota-plug", "x", long.as_bytes());
    insta::assert_snapshot!(text);
    let deep = format!("{}1{}", "[".repeat(MAX_DEPTH + 1), "]".repeat(MAX_DEPTH + 1));
    assert!(matches!(decoded("tasmota-plug", "x", deep.as_bytes()), Err(Reason::TooDeep { .. })));
}

/// Promise 5: half a document is no value of its topic.
#[test]
fn half_a_document_is_no_value() {
    for half in [r#"{"timestamp":1697623015123,"val"#, "[1,"] {
        let found = decoded("vzlogger", "vzlogger/data/chn0/raw", half.as_bytes());
        assert!(matches!(found, Err(Reason::NotJson { .. })), "{found:?}");
    }
    assert!(decoded("vzlogger", "vzlogger/data/chn0/raw", b"1.5").is_ok());
}

/// Promise 6: a document of a million values ends in bounded memory and time.
#[test]
fn monsters_end() {
    let many = format!("{{\"a\":[{}1]}}", "1,".repeat(1_000_000));
    assert!(matches!(
        decoded("tasmota-sml", "x", many.as_bytes()),
        Err(Reason::NothingMapped { values: 1_000_001, .. })
    ));
    let Payload::Mapped(mapping) = preset("esphome") else { unreachable!("a preset is a mapping") };
    let found = read(&mapping, "a/sensor/b/state", many.as_bytes(), true);
    assert!(matches!(found, Err(Reason::NothingMapped { .. })));
}

/// Promise 5: every table that is shipped can be read, says what it is, and names known codes only.
#[test]
fn every_preset_is_a_table() {
    for preset in PRESETS {
        let table = preset.table().unwrap_or_else(|problems| panic!("{problems}"));
        assert!(!table.about.is_empty() && !table.topics.is_empty(), "{}", preset.name);
        for field in &table.fields {
            if let Name::Fixed(Code::Obis(code)) = &field.name {
                assert!(code.a().is_some() && code.b().is_some() && code.e().is_some(), "{}: {code}", preset.name);
                let known = code.meaning().is_some() || matches!(code.c(), 24 | 90 | 91);
                assert!(known, "{}: {code} means nothing", preset.name);
            }
        }
    }
    let file = |name: &str| format!("{}/edge-config/mappings/{name}.toml", env!("CARGO_MANIFEST_DIR"));
    let mut names = Vec::new();
    for entry in std::fs::read_dir(file("x").replace("/x.toml", "")).expect("the tables are shipped") {
        let path = entry.expect("an entry").path();
        names.push(path.file_stem().expect("a name").to_string_lossy().into_owned());
    }
    names.sort();
    let embedded: Vec<_> = PRESETS.iter().map(|preset| preset.name).collect();
    assert_eq!(names, embedded, "every table is built in");
    for preset in PRESETS {
        assert_eq!(std::fs::read_to_string(file(preset.name)).expect("text"), preset.text);
    }
}

proptest! {
    /// Promise 5: no bytes and no topic make a table's reader panic, and it says the same thing twice.
    #[test]
    fn any_bytes(
        bytes in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..100),
            "(\\{|\\}|\\[|\\]|,|:|\"(value|time|1\\.8\\.0|Time|ENERGY|Power|SML|Total_in|timestamp|\\*)\"|-?[0-9.e]{1,6}|null){0,20}".prop_map(String::into_bytes),
        ],
        topic in "[a-z/]{0,12}|shellies/shellyem3-a/emeter/0/power|sml2mqtt/a/(\\PC{0,4}|1-0:1.8.0)",
        index in 0..PRESETS.len(),
    ) {
        let name = PRESETS[index].name;
        let once = decoded(name, &topic, &bytes);
        prop_assert_eq!(&once, &decoded(name, &topic, &bytes));
        if let Ok(decoded) = once {
            prop_assert!(!decoded.device.is_empty());
        }
    }

    /// Promise 5: a damaged document of any reader is a reason or a reading, never a panic.
    #[test]
    fn damaged(cut in 0_usize..400, at in 0_usize..400, byte: u8) {
        for (name, sample) in [
            ("shrdzm", &include_bytes!("testdata/shrdzm.json")[..]),
            ("ams-reader", include_bytes!("testdata/ams-reader.json")),
            ("shelly-pro-3em", include_bytes!("testdata/shelly-pro-3em.json")),
        ] {
            let mut bytes = sample.to_vec();
            prop_assert!(decoded(name, "x", &bytes[..cut.min(bytes.len() - 1)]).is_err());
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = decoded(name, "x", &bytes);
        }
    }
}

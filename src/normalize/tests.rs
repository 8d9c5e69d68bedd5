//! The document against its schema, digit by digit.

use proptest::prelude::*;

use super::*;
use crate::config::settings::Payload;
use crate::decode;

const SCHEMA: &str = include_str!("../../edge-config/schema/reading-1.schema.json");

const SENT: Sent<'_> = Sent {
    ce_id: "000000000000000000000000000000ab-42",
    measured: "2023-10-18T09:56:55Z",
    received_ms: 1_697_623_016_250,
    disbelieved_ms: None,
};

/// The document of a payload, as it is sent.
fn normalized(payload: Payload, bytes: &[u8]) -> String {
    let decoded = decode::decode(&payload, "house", "sma", bytes).expect("a reading");
    let content = Content {
        device: &decoded.device,
        source: "house",
        measured_ms: decoded.measured_ms,
        measurements: &decoded.measurements,
        thinned: None,
    };
    String::from_utf8(sent(&document(&content), &SENT).to_vec()).expect("UTF-8")
}

/// Holds a document against the schema that is shipped.
fn assert_valid(document: &str) {
    let schema: Json = serde_json::from_str(SCHEMA).expect("JSON");
    let mut schemas = boon::Schemas::new();
    let mut compiler = boon::Compiler::new();
    compiler.add_resource("reading.json", schema).expect("a schema");
    let index = compiler.compile("reading.json", &mut schemas).expect("a schema that is right");
    let document: Json = serde_json::from_str(document).expect("JSON");
    if let Err(error) = schemas.validate(&document, index) {
        panic!("{error}\n{document:#}");
    }
}

/// Promise 5: two spellings of one code are both there.
#[test]
fn a_code_in_two_spellings() {
    let document =
        normalized(Payload::Sma, br#"{"1-0:1.8.0":{"value":1},"1-0:1.8.0*255":{"value":2},"1.8.0":{"value":3}}"#);
    assert_valid(&document);
    for (name, value) in [("active_energy_import", 1), ("active_energy_import_2", 2), ("active_energy_import_3", 3)] {
        let entry = format!(r#""{name}":{{"obis":"1-0:1.8.0","value":{value},"#);
        assert!(document.contains(&entry), "{entry}: {document}");
    }
}

/// The adapter's document, as the shipped schema and the README show it.
#[test]
fn the_adapters_document() {
    let seen = br#"{"0-0:96.1.0":{"value":"90296857"},"0-0:1.0.0":{"value":0,"time":1697623015},
        "1-0:1.8.0":{"value":83403,"time":1697623015},"1-0:1.7.0":{"value":40.50,"time":1697623015},
        "1-0:2.7.0":{"value":0,"time":1697623015},"0-0:2.0.0":{"value":481,"time":0},
        "api_version":"v1","name":"90296857","sma_time":2435.7}"#;
    let document = normalized(Payload::Sma, seen);
    assert_valid(&document);
    insta::assert_snapshot!(document.replace("},", "},\n"));
}

/// Promise 3: a value has the digits that the device wrote, also where it wrote a text, and more than a double holds.
#[test]
fn no_digit_is_lost() {
    for (written, expected) in [
        ("12345678901234567890.123456789", "12345678901234567890.123456789"),
        ("\"2000.000\"", "2000.000"),
        ("\"000021385\"", "21385"),
        ("1685.334", "1685.334"),
        ("0.1", "0.1"),
        ("-0.0", "-0.0"),
    ] {
        let document = normalized(Payload::Sma, format!(r#"{{"1-0:1.8.0":{{"value":{written}}}}}"#).as_bytes());
        assert!(document.contains(&format!(r#""value":{expected},"unit":"Wh""#)), "{written}: {document}");
        assert_valid(&document);
    }
    let factor = normalized(Payload::Sma, br#"{"1-0:13.7.0":{"value":"0.95"}}"#);
    assert!(factor.contains(r#""obis":"1-0:13.7.0","value":0.95,"meaning""#), "{factor}");
    let number = normalized(Payload::Sma, br#"{"0-0:96.1.0":{"value":"00123"},"x":{"value":"00123"}}"#);
    assert!(number.contains(r#""obis":"0-0:96.1.0","text":"00123""#), "a meter's number is a name: {number}");
    assert!(number.contains(r#""x_x":{"code":"x","text":"00123"}"#), "{number}");
}

/// Promise 5: a value whose code says no unit has its source's, in a document of many readings' form too.
#[test]
fn gas_and_water_keep_their_unit() {
    let zone = jiff::tz::TimeZone::UTC;
    let preset = crate::config::Preset::named("dsmr-reader").expect("a preset").mapping(zone);
    let sample = include_bytes!("../decode/mapping/testdata/dsmr-reader.json");
    let payload = Payload::Mapped(std::sync::Arc::new(preset));
    let gas = r#""obis":"0-1:24.2.1","value":957.000,"unit":"m3""#;
    let normal = normalized(payload.clone(), sample);
    assert!(normal.contains(gas), "{normal}");
    assert_valid(&normal);
    let written = decode::sma_document(&decode::decode(&payload, "house", "dsmr/json", sample).expect("a reading"));
    let again = normalized(Payload::Sma, &written);
    assert!(again.contains(gas), "{again}");
    let unknown = normalized(Payload::Sma, br#"{"gas":{"value":1,"unit":"furlong"},"1.8.0":{"value":1,"unit":"m3"}}"#);
    assert!(!unknown.contains("furlong") && !unknown.contains("m3"), "{unknown}");
    assert_valid(&unknown);
}

/// Promise 3: what is no number is said without a unit: nobody has converted it.
#[test]
fn a_text_has_no_unit() {
    let zone = jiff::tz::TimeZone::UTC;
    let preset = crate::config::Preset::named("tasmota-sml").expect("a preset").mapping(zone);
    let payload = Payload::Mapped(std::sync::Arc::new(preset));
    let document = normalized(payload, br#"{"Time":"2026-11-24T05:16:13","eHZ":{"Total_in":"34507,4761","Power":1}}"#);
    assert!(document.contains(r#""text":"34507,4761","meaning""#), "{document}");
    assert_valid(&document);
}

/// Promise 9: what was not measured is marked, and nothing is worked out of values that cannot be.
#[test]
fn net_power_is_derived_and_says_so() {
    let derived = r#""active_power_net":{"obis":"1-0:16.7.0","value":-0.25,"unit":"W","meaning":"active power, import less export","derived":true}"#;
    let document = normalized(Payload::Sma, br#"{"1.7.0":{"value":1.5},"1-0:2.7.0":{"value":"1.75"}}"#);
    assert!(document.contains(derived), "{document}");
    assert_valid(&document);
    for already in [
        r#"{"1.7.0":{"value":1},"2.7.0":{"value":2},"16.7.0":{"value":-1}}"#,
        r#"{"1.7.0":{"value":1}}"#,
        r#"{"1.7.0":{"value":1},"2.7.0":{"value":"?"}}"#,
        r#"{"1.7.0":{"value":1e30},"2.7.0":{"value":1}}"#,
    ] {
        assert!(!normalized(Payload::Sma, already.as_bytes()).contains("derived"), "{already}");
    }
}

/// Promise 9: a clock that is years off is said, with what it shows; the time of receipt holds.
#[test]
fn a_device_clock_that_is_off_is_flagged() {
    let inner = document(&Content { device: "d", source: "s", ..Content::default() });
    let text = |disbelieved_ms| String::from_utf8_lossy(&sent(&inner, &Sent { disbelieved_ms, ..SENT })).into_owned();
    assert!(!text(None).contains("clock"), "{}", text(None));
    let off = text(Some(1_104_537_600_000));
    assert!(off.contains(r#""device_clock_off":true,"device_clock":"2005-01-01T00:00:00Z","device":"d""#), "{off}");
    assert_valid(&off);
    assert_valid(&text(Some(i64::MAX)));
}

fn any_code() -> impl Strategy<Value = String> {
    prop_oneof![
        "[0-9]{1,2}-[0-9]:[0-9]{1,2}\\.[678]\\.[0-3]",
        "(1|2|16|31|52)\\.7\\.0",
        "[A-Za-z][A-Za-z0-9_ .\"\\\\]{0,60}",
        "\\PC{1,20}",
    ]
}

fn any_value() -> impl Strategy<Value = String> {
    prop_oneof![
        "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?",
        "\\PC{0,20}".prop_map(|text| serde_json::to_string(&text).expect("a text")),
    ]
}

proptest! {
    /// Promise 5: whatever a device sends, the document is valid by the schema, has every code under a name of its own,
    /// and reads back as what was sent.
    #[test]
    fn every_document_is_valid_and_complete(
        members in proptest::collection::vec((any_code(), any_value(), proptest::option::of(0i64..3_000_000_000)), 1..12),
        disbelieved_ms: Option<i64>,
    ) {
        let mut seen = HashSet::new();
        let members: Vec<String> = members
            .into_iter()
            .filter(|(code, ..)| seen.insert(code.clone()))
            .map(|(code, value, time)| {
                let time = time.map(|time| format!(r#","time":{time}"#)).unwrap_or_default();
                format!(r#"{}:{{"value":{value}{time}}}"#, serde_json::to_string(&code).expect("a text"))
            })
            .collect();
        let payload = format!("{{{}}}", members.join(","));
        let decoded = decode::decode(&Payload::Sma, "house", "sma", payload.as_bytes()).expect("a reading");
        let content = Content {
            device: &decoded.device,
            source: "house",
            measured_ms: decoded.measured_ms,
            measurements: &decoded.measurements,
            thinned: None,
        };
        let written = sent(&document(&content), &Sent { disbelieved_ms, ..SENT });
        let text = std::str::from_utf8(&written).expect("UTF-8");
        assert_valid(text);
        let codes: HashSet<String> = decoded.measurements.iter().map(|measurement| name(&measurement.code)).collect();
        let document: Json = serde_json::from_str(text).expect("JSON");
        let entries = document["measurements"].as_object().expect("an object");
        for name in &codes {
            prop_assert!(entries.contains_key(name), "{name} of {payload} in {text}");
        }
        prop_assert!(entries.len() - codes.len() <= 1, "only net power is added");
    }

    /// Promise 3: no two words of devices share a column.
    #[test]
    fn foreign_names_are_their_own(left in "\\PC{0,60}", right in "\\PC{0,60}") {
        prop_assert_eq!(foreign(&left) == foreign(&right), left == right);
    }
}

//! The documents seen in public, and what no document may do.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::super::{Flag, MAX_DEPTH, Value};
use super::*;

/// A document seen in public, as it is on the wire.
const DOCUMENT: &str = concat!(
    r#"{"0-0:96.1.0":{"value":"90296857"},"0-0:1.0.0":{"value":0,"time":1697623015},"#,
    r#""1-0:1.8.0":{"value":83403,"time":1697623015},"1-0:2.8.0":{"value":16564,"time":1697623015},"#,
    r#""1-0:1.7.0":{"value":40,"time":1697623015},"1-0:2.7.0":{"value":0,"time":1697623015},"#,
    r#""0-0:2.0.0":{"value":481,"time":0},"api_version":"v1","name":"90296857","sma_time":2435.7}"#
);

fn decoded(text: &str) -> Decoded {
    decode("house", text.as_bytes()).expect("a document")
}

fn reason(bytes: impl AsRef<[u8]>) -> String {
    decode("house", bytes.as_ref()).expect_err("not a document").to_string()
}

/// Promise 4: the document of the Austrian adapter has its device's name as the key.
#[test]
fn the_document_as_it_is_seen() {
    let document = decoded(DOCUMENT);
    assert_eq!(document.device, "90296857");
    assert_eq!(document.measured_ms, Some(1_697_623_015_000));
    assert!(document.self_identified && document.json);
    assert_eq!(document.measurements.len(), 7);
    assert_eq!(document.number(1, 8, 0), Some(83_403.0));
    assert_eq!(document.number(2, 8, 0), Some(16_564.0));
    assert_eq!(document.number(1, 7, 0), Some(40.0));
    assert_eq!(document.number(16, 7, 0), None);
    assert_eq!(document.measurements[0].value, Value::Text("90296857".to_owned()));
    assert_eq!(document.measurements[6].time, Some(0));
}

/// Promise 5: a number of any length keeps its digits, and what the source found odd about it stays beside it.
#[test]
fn numbers_keep_their_digits_and_flags() {
    let document = decoded(
        r#"{"1-0:1.8.0":{"value":9007199254740993.10,"flag":"turned-over"},"1-0:2.8.0":{"value":"2000.000","flag":"x"},
            "1-0:1.7.0":{"value":0.1,"flag":"went-back"},"1-0:2.7.0":{"value":1e3,"flag":7}}"#,
    );
    let told: Vec<_> = document.measurements.iter().map(|one| (one.value.to_string(), one.flag)).collect();
    let told: Vec<_> = told.iter().map(|(value, flag)| (value.as_str(), *flag)).collect();
    assert_eq!(
        told,
        [
            ("9007199254740993.10", Some(Flag::TurnedOver)),
            ("2000.000", None),
            ("0.1", Some(Flag::WentBack)),
            ("1000", None)
        ]
    );
    let long = "1".repeat(65);
    let document = decoded(&format!(r#"{{"1-0:1.8.0":{{"value":{long}}}}}"#));
    assert_eq!(document.measurements[0].value, Value::Text(long), "longer than any meter's: kept as it is written");
}

/// Promise 4: without a name the meter's number is the key, without a number the source.
#[test]
fn the_key_is_the_name_else_the_number_else_the_source() {
    for (document, device) in [
        (r#"{"name":"Küche 🔌","0-0:96.1.0":{"value":"1"}}"#, "Küche 🔌"),
        (r#"{"name":" padded ","0-0:96.1.0":{"value":"1"}}"#, " padded "),
        (r#"{"name":"","0-0:96.1.0":{"value":"1"}}"#, "1"),
        (r#"{"name":"  ","0-0:96.1.0":{"value":"1"}}"#, "1"),
        (r#"{"name":null,"0-0:96.1.0":{"value":1}}"#, "1"),
        (r#"{"name":17,"0-0:96.1.0":{"value":1}}"#, "17"),
        (r#"{"0-0:C.1.0":{"value":"AB12"}}"#, "AB12"),
        (r#"{"0-0:96.1.0":{"value":" "},"1-0:1.7.0":{"value":4}}"#, "house"),
        (r#"{"1-0:1.7.0":{"value":4}}"#, "house"),
        (r#"{"1-0:96.1.0":{"value":"1"},"name":{"value":"x"}}"#, "house"),
    ] {
        assert_eq!(decoded(document).device, device, "{document}");
    }
}

/// Promise 8: the measurement's time is the meter's clock; 0 and nonsense are no time, and a wrong year is passed on.
#[test]
fn the_time_is_the_meters_clock() {
    for (document, measured_ms) in [
        (r#"{"0-0:1.0.0":{"value":0,"time":100},"1-0:1.7.0":{"value":1,"time":200}}"#, Some(100_000)),
        (r#"{"0-0:1.0.0":{"value":0,"time":0},"1-0:1.7.0":{"value":1,"time":200}}"#, Some(200_000)),
        (
            r#"{"1-0:1.8.0":{"value":1,"time":7},"1-0:1.7.0":{"value":1,"time":9},"x":{"value":1,"time":8}}"#,
            Some(9_000),
        ),
        (r#"{"1-0:1.8.0":{"value":1,"time":1104537600}}"#, Some(1_104_537_600_000)),
        (r#"{"1-0:1.8.0":{"value":1,"time":7.9}}"#, Some(7_000)),
        (r#"{"1-0:1.8.0":{"value":1,"time":"7"}}"#, Some(7_000)),
        (r#"{"1-0:1.8.0":{"value":1,"time":-7}}"#, Some(-7_000)),
        (r#"{"1-0:1.8.0":{"value":1,"time":1697623015000}}"#, Some(253_402_300_800_000)),
        (r#"{"1-0:1.8.0":{"value":1,"time":1697623015000},"1-0:1.7.0":{"value":1,"time":9}}"#, Some(9_000)),
        (r#"{"1-0:1.8.0":{"value":1,"time":1e300}}"#, None),
        (r#"{"1-0:1.8.0":{"value":1,"time":null}}"#, None),
        (r#"{"1-0:1.8.0":{"value":1,"time":[1]}}"#, None),
        (r#"{"1-0:1.8.0":{"value":1}}"#, None),
    ] {
        assert_eq!(decoded(document).measured_ms, measured_ms, "{document}");
    }
}

/// Promise 3: only a numeric uptime tells two equal documents apart.
#[test]
fn a_document_identifies_itself_by_its_uptime() {
    for (uptime, identified) in [("2435.7", true), ("0", true), ("\"2435.7\"", false), ("null", false), ("{}", false)] {
        let document = format!(r#"{{"1-0:1.7.0":{{"value":1}},"sma_time":{uptime}}}"#);
        assert_eq!(decoded(&document).self_identified, identified, "{uptime}");
    }
    assert!(!decoded(r#"{"1-0:1.7.0":{"value":1}}"#).self_identified);
}

/// Promise 5: partial documents, unknown codes, metadata and odd values are readings.
#[test]
fn what_is_unknown_stays_and_what_is_no_measurement_is_passed_over() {
    let document = decoded(
        r#" {"1_8_0":{"value":"83403.50","unit":"Wh"},"1-0:1.7.0":{"value":40.25},"gas":{"value":3,"time":1},
             "wifi":{"rssi":-34,"list":[{"a":[1,null,true]}]},"ok":true,"none":null,"1-0:3.7.0":{"value":null},
             "1-0:4.7.0":{"value":{"value":1}},"1-0:5.7.0":{},"fw_version":"c59cf4b510"} "#,
    );
    let codes: Vec<&Code> = document.measurements.iter().map(|measurement| &measurement.code).collect();
    let code = |text: &str| Code::Obis(text.parse().expect("a code"));
    assert_eq!(codes, [&code("1.8.0"), &code("1-0:1.7.0"), &Code::Other("gas".to_owned()), &code("1-0:4.7.0")]);
    let odd = &document.measurements[3];
    assert_eq!((&odd.value, odd.flag), (&Value::Text(r#"{"value":1}"#.to_owned()), Some(Flag::Absurd)));
    for (value, kept) in [("true", "true"), ("[1, 2]", "[1, 2]"), ("false", "false")] {
        let document = decoded(&format!(r#"{{"1-0:1.8.0":{{"time":1,"value": {value} }},"1-0:1.7.0":{{"value":1}}}}"#));
        assert_eq!(document.measurements[1].value, Value::Text(kept.to_owned()));
    }
    assert_eq!(document.number(1, 8, 0), Some(83_403.5));
    assert_eq!(document.number(1, 7, 0), Some(40.25));
}

/// Promise 5: what cannot be decoded says why, where, and what the limit is.
#[test]
fn each_reason_tells_what_and_where() {
    let deep = MAX_DEPTH - 1;
    let mut wrong = Vec::new();
    for (bytes, words) in [
        (&b""[..], "not JSON: EOF while parsing a value at line 1, column 0"),
        (b"{\"a\":\"\xc3\x28\"}", "not UTF-8 text: the byte at offset 6 starts no character"),
        (br#"{"1-0:1.7.0":{"value":1}"#, "not JSON: EOF while parsing an object at line 1, column 24"),
        (b"{\n \"a\":{\"value\":NaN}}", "not JSON: expected value at line 2, column 15"),
        (br#"{"a":{"value":Infinity}}"#, "not JSON: expected value at line 1, column 15"),
        (br#"{"a":{"value":1e999}}"#, "not JSON: number out of range at line 1, column 19"),
        (br#"{"a":{"value":1}} x"#, "not JSON: trailing characters at line 1, column 19"),
        (br#"{"a":{"value":1},}"#, "not JSON: trailing comma at line 1, column 18"),
        (br#"{"a":{"value":"\ud800"}}"#, "not JSON: unexpected end of hex escape at line 1, column 22"),
        (b"\xef\xbb\xbf{}", "not JSON: a byte order mark (U+FEFF) before the value at line 1, column 1"),
        (b"[1]", "not a JSON object but an array"),
        (b"42", "not a JSON object but a number"),
        (b"-4.5", "not a JSON object but a number"),
        (b"\"ON\"", "not a JSON object but a text"),
        (b"null", "not a JSON object but null"),
        (b"{}", "no measurement in it: of 0 members none is an object whose \"value\" is a number or a text"),
        (
            br#"{"name":"x","sma_time":1}"#,
            "no measurement in it: of 2 members none is an object whose \"value\" is a number or a text",
        ),
        (
            br#"{"a":{"value":1},"\u0061":{"value":2}}"#,
            "the JSON key \"a\" stands twice in one object, again at line 1, column 25",
        ),
        (
            br#"{"a":{"value":1,"value":2}}"#,
            "the JSON key \"value\" stands twice in one object, again at line 1, column 23",
        ),
        (
            br#"{"a":{"value":1},"wifi":{"b":[{"c":1,"c":1}]}}"#,
            "the JSON key \"c\" stands twice in one object, again at line 1, column 40",
        ),
        (
            format!(r#"{{"a":{{"value":1}},"b":{}"#, "[".repeat(deep + 1)).as_bytes(),
            "JSON nested deeper than 64 levels at line 1, column 85",
        ),
    ] {
        if reason(bytes) != words {
            wrong.push((String::from_utf8_lossy(bytes).into_owned(), reason(bytes), words));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let document = format!(r#"{{"a":{{"value":1}},"b":{}{}}}"#, "[".repeat(deep), "]".repeat(deep));
    assert_eq!(decoded(&document).measurements.len(), 1, "the limit itself is allowed");
}

/// Promise 6: a document of a million levels or ten million bytes ends in bounded time and stack.
#[test]
fn monsters_end() {
    let began = Instant::now();
    for open in ["[", "{\"a\":"] {
        assert!(reason(format!("{{\"a\":{}", open.repeat(1_000_000))).starts_with("JSON nested deeper than 64 levels"));
        assert!(!reason(open.repeat(1_000_000)).is_empty());
    }
    let long = "x".repeat(10_000_000);
    assert_eq!(decoded(&format!(r#"{{"a":{{"value":1}},"b":"{long}"}}"#)).measurements.len(), 1);
    assert_eq!(decoded(&format!(r#"{{"a":{{"value":"{long}"}}}}"#)).measurements.len(), 1);
    let shown = reason(format!(r#"{{"{long}":1,"{long}":2}}"#));
    assert!(shown.len() < 200 && shown.contains("…"), "{shown}");
    let mut many: String = (0..400_000).map(|n| format!(r#""k{n}":{{"value":{n}}},"#)).collect();
    many.insert(0, '{');
    assert_eq!(decoded(&format!("{many}\"z\":0}}")).measurements.len(), 400_000);
    assert!(reason(format!("{many}\"k399999\":0}}")).starts_with("the JSON key \"k399999\" stands twice"));
    assert!(reason(format!("{many}\"k3\":0}}")).starts_with("the JSON key \"k3\" stands twice"));
    assert!(began.elapsed() < Duration::from_secs(20));
}

proptest! {
    /// Promise 5: a broken document is a reason, and never a reading of another device.
    #[test]
    fn a_damaged_document_never_panics(at in 0..DOCUMENT.len(), byte: u8, cut in 0..DOCUMENT.len()) {
        let mut bytes = DOCUMENT.as_bytes().to_vec();
        prop_assert!(decode("house", &bytes[..cut]).is_err());
        bytes[at] = byte;
        let _ = decode("house", &bytes);
    }

    /// Promise 5: what this decoder takes, every JSON reader takes, and no document without a duplicate is refused
    /// that has a measurement.
    #[test]
    fn agrees_with_a_full_parse(
        members in proptest::collection::btree_map("[a-z0-9.:-]{1,8}|\\PC{1,3}", any::<f64>().prop_filter("finite", |n| n.is_finite()), 1..40),
        metadata in "\\PC{0,20}",
    ) {
        let mut document = serde_json::Map::new();
        document.insert("meta data".to_owned(), metadata.into());
        for (key, value) in &members {
            document.insert(key.clone(), serde_json::json!({ "value": value, "time": 1 }));
        }
        let decoded = decode("house", &serde_json::to_vec(&document).expect("JSON")).expect("a document");
        prop_assert_eq!(decoded.measurements.len(), members.len());
        prop_assert_eq!(decoded.device, "house");
        prop_assert_eq!(decoded.measured_ms, Some(1000));
    }
}

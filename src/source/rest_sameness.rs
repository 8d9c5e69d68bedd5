//! Whether a document says the same as the last: the same measurements with the same times and values. Pure.
//!
//! Members of the document that are objects are measurements, and `name` is the device; other members, such as the
//! adapter's uptime `sma_time`, differ each time and say nothing about the meter. What is compared is the text of each
//! measurement, spaces between tokens left out, so that no digit is lost by reading a number.

use crate::reading::Fingerprint;

/// What a document of the adapter says, without what differs each time. None: it is no JSON object, or holds no member
/// that is an object.
///
/// `json` must be a valid JSON text.
pub(super) fn gist(json: &[u8]) -> Option<Fingerprint> {
    let mut parts: Vec<&[u8]> = Vec::new();
    let mut measured = false;
    let members = members(json)?;
    for (key, value) in &members {
        let is_measurement = value.first() == Some(&b'{');
        measured |= is_measurement;
        if is_measurement || key == b"\"name\"" {
            parts.push(key);
            parts.push(value);
        }
    }
    measured.then(|| Fingerprint::of(&parts))
}

/// Whether some member of a JSON object is an object with a `value`: a measurement. `json` must be a valid JSON text.
pub(super) fn holds_measurement(json: &[u8]) -> bool {
    let is_measurement =
        |value: &[u8]| members(value).is_some_and(|inner| inner.iter().any(|(key, _)| key == b"\"value\""));
    members(json).is_some_and(|members| members.iter().any(|(_, value)| is_measurement(value)))
}

/// A key and its value, each as its text without spaces between tokens.
type Member = (Vec<u8>, Vec<u8>);

/// The members of a JSON object; none where it is not one.
fn members(json: &[u8]) -> Option<Vec<Member>> {
    let mut tokens = Tokens { rest: json };
    if tokens.next()? != b"{" {
        return None;
    }
    let (mut members, mut key, mut value, mut depth) = (Vec::new(), Vec::new(), Vec::new(), 1_usize);
    let mut in_value = false;
    for token in tokens {
        match token {
            b"{" | b"[" => depth += 1,
            b"}" | b"]" => depth -= 1,
            _ => {}
        }
        match (depth, token) {
            (0, _) | (1, b",") => {
                if in_value {
                    members.push((std::mem::take(&mut key), std::mem::take(&mut value)));
                }
                in_value = false;
                if depth == 0 {
                    return Some(members);
                }
            }
            (1, b":") if !in_value => in_value = true,
            _ if in_value => value.extend_from_slice(token),
            _ => key.extend_from_slice(token),
        }
    }
    None
}

/// The tokens of a JSON text: texts with their quotes, single marks, and the rest in between.
struct Tokens<'j> {
    rest: &'j [u8],
}

impl<'j> Iterator for Tokens<'j> {
    type Item = &'j [u8];

    fn next(&mut self) -> Option<&'j [u8]> {
        let rest = self.rest.trim_ascii_start();
        let end = match rest.first()? {
            b'{' | b'}' | b'[' | b']' | b',' | b':' => 1,
            b'"' => text_end(rest),
            _ => {
                let ends = |byte: &u8| byte.is_ascii_whitespace() || b"{}[],:\"".contains(byte);
                rest.iter().position(ends).unwrap_or(rest.len())
            }
        };
        let (token, after) = rest.split_at(end);
        self.rest = after;
        Some(token)
    }
}

/// Behind the closing quote of the text that begins here.
fn text_end(text: &[u8]) -> usize {
    let mut escaped = false;
    for (at, byte) in text.iter().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DOCUMENT: &str = r#"{"0-0:96.1.0":{"value":"90296857"},"1-0:1.8.0":{"value":83403,"time":1697623015},"api_version":"v1","name":"90296857","sma_time":2435.7}"#;

    fn of(text: &str) -> Option<Fingerprint> {
        gist(text.as_bytes())
    }

    /// Promise 3: what differs each time is no news; everything that was measured is, to the last digit.
    #[test]
    fn only_what_was_measured_counts() {
        let same = of(DOCUMENT);
        assert!(same.is_some());
        for (from, to) in [("2435.7", "2440.9"), ("\"v1\"", "\"v2\""), ("{\"value\":83403,", "{ \"value\" :\n83403 , ")]
        {
            assert_eq!(of(&DOCUMENT.replace(from, to)), same, "{from} is not compared");
        }
        for (from, to) in [
            ("83403", "83404"),
            ("83403", "83403.0"),
            ("83403", "\"83403\""),
            ("1697623015", "1697623016"),
            ("\"name\":\"90296857\"", "\"name\":\"Keller\""),
            ("1.8.0", "2.8.0"),
            ("\"value\":\"90296857\"", "\"value\":\"9029\\\"6857\""),
        ] {
            assert_ne!(of(&DOCUMENT.replace(from, to)), same, "{to} in place of {from} is compared");
        }
        for nothing in ["{}", "[{\"a\":{}}]", "7", r#"{"error":"meter"}"#] {
            assert_eq!(of(nothing), None, "{nothing}");
        }
    }

    /// A measurement is an object with a value, whatever else is there.
    #[test]
    fn a_measurement_has_a_value() {
        for (text, holds) in [
            (DOCUMENT, true),
            (r#"{"a":{"value":null}}"#, true),
            (r#"{"a":{"time":1}}"#, false),
            (r#"{"value":1}"#, false),
            (r#"{"a":{"b":{"value":1}}}"#, false),
            (r#"{"a":{"b":"value"}}"#, false),
        ] {
            assert_eq!(holds_measurement(text.as_bytes()), holds, "{text}");
        }
    }

    fn value() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            any::<i64>().prop_map(serde_json::Value::from),
            any::<bool>().prop_map(serde_json::Value::from),
            ".{0,8}".prop_map(serde_json::Value::from),
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
                proptest::collection::hash_map(".{0,4}", inner, 0..4)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// The members that are found are those of the document, with their values, however they are spaced.
        #[test]
        fn members_are_those_of_the_document(value in value()) {
            let found = members(serde_json::to_string_pretty(&value).expect("JSON").as_bytes());
            let expected = value.as_object().map(|object| {
                let text = |value: &serde_json::Value| serde_json::to_string(value).expect("JSON").into_bytes();
                object.iter().map(|(key, value)| (text(&key.as_str().into()), text(value))).collect::<Vec<_>>()
            });
            prop_assert_eq!(found, expected);
        }

        /// Promise 5: no bytes make it panic.
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(prop_oneof![Just(b'{'), Just(b'}'), Just(b'"'), Just(b':'), Just(b'\\'), any::<u8>()], 0..60)) {
            let _ = (gist(&bytes), holds_measurement(&bytes));
        }
    }
}

//! Whether an HTTP answer is a document. Pure.

use bytes::Bytes;
use serde::de::IgnoredAny;

use super::rest_sameness::holds_measurement;
use super::rest_trouble::Trouble;
use crate::config::settings::Payload;

/// Characters of a header that are shown.
const SHOWN: usize = 100;

/// An answer, whole. Texts of headers are shortened and hold no control characters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub content_type: String,
    pub content_encoding: String,
    pub location: String,
    pub body: Bytes,
}

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// The adapter's document: JSON with at least one measurement.
    Document,
    /// JSON in which somebody else finds the measurements.
    Json,
    Anything,
    Status,
}

impl Wanted {
    /// What a payload of this kind has to be.
    pub fn of(payload: &Payload) -> Self {
        match payload {
            Payload::Sma => Self::Document,
            Payload::Any => Self::Anything,
            Payload::Mapped(_) => Self::Json,
        }
    }
}

/// A header's value as it may be shown.
pub fn shown(value: &[u8]) -> String {
    String::from_utf8_lossy(value).chars().take(SHOWN).map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Judges an answer; `has_key`: a key was sent with the request.
///
/// # Errors
///
/// Why it is not what was wanted.
pub fn judge(answer: &Answer, wanted: Wanted, has_key: bool) -> Result<(), Trouble> {
    match answer.status {
        200 => {}
        401 | 403 => return Err(Trouble::Key { status: answer.status, has_key }),
        404 => return Err(Trouble::Paths),
        204 => return Err(Trouble::Empty),
        // An answer to a question that nobody asked: nothing has changed since.
        304 => return Err(Trouble::Status(304)),
        status @ 300..=399 => return Err(Trouble::Redirect { status, to: answer.location.clone() }),
        status @ (429 | 503) => return Err(Trouble::Busy(status)),
        status @ 500..=599 => return Err(Trouble::Failing(status)),
        status => return Err(Trouble::Status(status)),
    }
    let encoding = answer.content_encoding.trim();
    if !encoding.is_empty() && !encoding.eq_ignore_ascii_case("identity") {
        return Err(Trouble::Compressed(encoding.to_owned()));
    }
    // Some compress and do not say so (RFC 1952, 2.3.1).
    if answer.body.starts_with(&[0x1f, 0x8b]) {
        return Err(Trouble::Compressed("gzip".to_owned()));
    }
    if answer.body.trim_ascii().is_empty() {
        return Err(Trouble::Empty);
    }
    match wanted {
        Wanted::Anything => Ok(()),
        Wanted::Json => json(answer),
        Wanted::Document => {
            json(answer)?;
            if holds_measurement(&answer.body) { Ok(()) } else { Err(Trouble::NoMeasurement) }
        }
        Wanted::Status => {
            json(answer)?;
            if answer.body.trim_ascii_start().first() == Some(&b'{') { Ok(()) } else { Err(Trouble::NoObject) }
        }
    }
}

fn json(answer: &Answer) -> Result<(), Trouble> {
    let is_page = answer.body.trim_ascii_start().first() == Some(&b'<');
    if is_page || answer.content_type.to_ascii_lowercase().starts_with("text/html") && !begins_json(&answer.body) {
        return Err(Trouble::Html);
    }
    let text = std::str::from_utf8(&answer.body).map_err(|_| Trouble::NotUtf8)?;
    if text.starts_with('\u{feff}') {
        return Err(Trouble::NotJson("a byte order mark (U+FEFF) stands in front".to_owned()));
    }
    // UTF-16 and UTF-32 of plain letters are UTF-8 too, with a NUL between them.
    if text.trim_end_matches('\0').contains('\0') {
        return Err(Trouble::NotUtf8);
    }
    match serde_json::from_str::<IgnoredAny>(text) {
        Ok(_) => Ok(()),
        Err(error) if error.is_eof() => Err(Trouble::Truncated),
        Err(error) => Err(Trouble::NotJson(error.to_string())),
    }
}

/// Devices send documents as text/html too.
fn begins_json(body: &[u8]) -> bool {
    body.trim_ascii_start().first().is_some_and(|byte| b"{[".contains(byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DOCUMENT: &[u8] = br#"{"1-0:1.8.0":{"value":83403,"time":1697623015},"name":"90296857"}"#;

    fn answer(body: &'static [u8]) -> Answer {
        Answer { status: 200, content_type: "application/json".into(), body: body.into(), ..Answer::default() }
    }

    fn judged(answer: &Answer) -> Result<(), Trouble> {
        judge(answer, Wanted::Document, true)
    }

    /// Promise 5: whatever a device says in place of a document has its own name.
    #[test]
    fn each_answer_is_told_apart() {
        assert_eq!(judged(&answer(DOCUMENT)), Ok(()));
        let status = |status, location: &str| {
            judged(&Answer { status, location: location.into(), ..answer(b"<html>") }).expect_err("no document")
        };
        assert_eq!(status(401, ""), Trouble::Key { status: 401, has_key: true });
        assert_eq!(status(403, ""), Trouble::Key { status: 403, has_key: true });
        assert_eq!(status(404, ""), Trouble::Paths);
        assert_eq!(status(302, "/login"), Trouble::Redirect { status: 302, to: "/login".into() });
        assert_eq!((status(503, ""), status(500, "")), (Trouble::Busy(503), Trouble::Failing(500)));
        assert_eq!((status(204, ""), status(418, "")), (Trouble::Empty, Trouble::Status(418)));
        for (body, trouble) in [
            (&b""[..], Trouble::Empty),
            (b" \r\n", Trouble::Empty),
            (b"<!DOCTYPE html><html>", Trouble::Html),
            (b"{\"1-0:1.8.0\":{\"val", Trouble::Truncated),
            (b"{\"n\":\"K\xfcche\"}", Trouble::NotUtf8),
            (b"{\0\"\0n\0\"\0", Trouble::NotUtf8),
            (b"\x1f\x8b\x08\x00", Trouble::Compressed("gzip".into())),
            (b"{\"a\":nan}", Trouble::NotJson("expected ident at line 1 column 7".into())),
            (b"{\"error\":\"no meter\"}", Trouble::NoMeasurement),
            (b"[]", Trouble::NoMeasurement),
        ] {
            assert_eq!(judged(&answer(body)), Err(trouble), "{}", body.escape_ascii());
        }
        let encoded = Answer { content_encoding: "gzip".into(), ..answer(DOCUMENT) };
        assert_eq!(judged(&encoded), Err(Trouble::Compressed("gzip".into())));
        let mislabelled = Answer { content_type: "text/html; charset=utf-8".into(), ..answer(DOCUMENT) };
        assert_eq!(judged(&mislabelled), Ok(()), "a document is one whatever it is called");
        let page = Answer { content_type: "text/html".into(), ..answer(b"Not logged in") };
        assert_eq!(judged(&page), Err(Trouble::Html));
    }

    /// A status is an object and needs no measurement; other payloads need no measurement either, and any bytes no JSON.
    #[test]
    fn what_is_wanted_decides() {
        let status = answer(br#"{"sma_status_id":2}"#);
        assert_eq!(judge(&status, Wanted::Status, true), Ok(()));
        assert_eq!(judge(&answer(b"[1]"), Wanted::Status, true), Err(Trouble::NoObject));
        assert_eq!(judge(&answer(b"[1]"), Wanted::Json, true), Ok(()));
        assert_eq!(judge(&answer(b"ON"), Wanted::Anything, true), Ok(()));
    }

    proptest! {
        /// Promise 5: no answer makes it panic, and what it takes for a document is JSON with a measurement.
        #[test]
        fn any_answer(status in prop_oneof![Just(200), 0u16..700], kind in ".{0,12}", encoding in prop_oneof![Just(String::new()), ".{0,6}".boxed()], body in proptest::collection::vec(any::<u8>(), 0..60)) {
            let answer = Answer { status, content_type: kind, content_encoding: encoding, location: String::new(), body: body.into() };
            if judged(&answer).is_ok() {
                prop_assert_eq!(answer.status, 200);
                prop_assert!(serde_json::from_slice::<serde_json::Value>(&answer.body).is_ok_and(|value| value.is_object()));
            }
        }

        /// A header from a device cannot write over the screen or fill the log.
        #[test]
        fn headers_are_printable(value in proptest::collection::vec(any::<u8>(), 0..500)) {
            let text = shown(&value);
            prop_assert!(text.chars().count() <= SHOWN && !text.contains(char::is_control));
        }
    }
}

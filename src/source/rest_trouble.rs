//! What can be wrong with a device that is asked over HTTP, in words that name the cure. Pure.

use super::rest_paths::Met;
use crate::config::show_fingerprint;

/// Bytes of a SHA-256 of a certificate (DER).
pub type CertificateHash = [u8; 32];

/// Why there is no reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// No connection to its address, with the system's words.
    Unreachable(String),
    /// It takes the connection and says nothing within the timeout.
    Silent,
    /// Its answer began in time and did not end in time.
    Slow,
    /// It closed the connection before its answer.
    Closed,
    /// What it says is no HTTP.
    NotHttp(String),
    /// Its head of the answer is longer than any device needs.
    HeadTooLarge,
    /// It speaks no TLS.
    NotTls,
    /// TLS failed, with the library's words.
    Tls(String),
    /// Nobody who is trusted has signed its certificate, it is for another name, or it has ended.
    Untrusted(String),
    /// Another certificate than the one it must be.
    Certificate {
        expected: CertificateHash,
        shown: CertificateHash,
        remembered: bool,
    },
    /// What has to be remembered cannot be.
    Memory(String),
    /// 401 or 403.
    Key {
        status: u16,
        has_key: bool,
    },
    /// 404, on each path that is known.
    Paths,
    /// 3xx and where to.
    Redirect {
        status: u16,
        to: String,
    },
    /// 429 or 503.
    Busy(u16),
    /// 5xx.
    Failing(u16),
    /// Any other status than 200.
    Status(u16),
    /// A web page.
    Html,
    Empty,
    /// More bytes than this.
    TooLarge(usize),
    /// The connection, or the document, ended in the middle.
    Truncated,
    /// Compressed, although nobody asked for it; with its name.
    Compressed(String),
    /// No UTF-8.
    NotUtf8,
    /// Bad JSON, with the place.
    NotJson(String),
    /// JSON without a measurement.
    NoMeasurement,
    /// A status that is no JSON object.
    NoObject,
}

impl Trouble {
    /// What it tells about the way that was tried; none where the way does not matter.
    pub(super) fn met(&self) -> Option<Met> {
        match self {
            Self::Key { .. } => Some(Met::Refused),
            Self::Paths | Self::Html => Some(Met::Missing),
            _ => None,
        }
    }

    /// The more telling of two ways that failed: a path that is there and refuses, then a web page, then nothing.
    pub(super) fn or_worse(self, other: Option<Self>) -> Self {
        let rank = |trouble: &Self| match trouble {
            Self::Key { .. } => 2,
            Self::Html => 1,
            _ => 0,
        };
        match other {
            Some(other) if rank(&other) >= rank(&self) => other,
            _ => self,
        }
    }

    /// Whether the document is worth keeping as a dead letter: somebody may find out from it what the device means. Of
    /// web pages, error answers and pieces of documents the words say all.
    pub(super) fn is_evidence(&self) -> bool {
        matches!(self, Self::NotJson(_) | Self::NoMeasurement)
    }

    /// What happened.
    pub fn what(&self) -> String {
        match self {
            Self::Unreachable(error) => format!("cannot reach the device: {error}"),
            Self::Silent => "the device does not answer in time".to_owned(),
            Self::Slow => "the device's answer did not end in time".to_owned(),
            Self::Closed => "the device closed the connection before it answered".to_owned(),
            Self::NotHttp(error) => format!("what answers there does not speak HTTP: {error}"),
            Self::HeadTooLarge => "the head of the device's answer is too long".to_owned(),
            Self::NotTls => "the device does not speak TLS on this port".to_owned(),
            Self::Tls(error) => format!("TLS with the device failed: {error}"),
            Self::Untrusted(error) => format!("the device's certificate is not trusted: {error}"),
            Self::Certificate { expected, shown, remembered } => format!(
                "the device shows another certificate than {}: {} in place of {}",
                if *remembered { "at first use" } else { "source.tls.fingerprint says" },
                show_fingerprint(shown),
                show_fingerprint(expected)
            ),
            Self::Memory(error) => format!("the device's certificate cannot be remembered: {error}"),
            Self::Key { status, has_key: true } => format!("the device refuses the key ({status})"),
            Self::Key { status, has_key: false } => format!("the device wants a key ({status})"),
            Self::Paths => "the device has no measurement where one is known to be (404)".to_owned(),
            Self::Redirect { status, to } => format!("the device sends us elsewhere ({status}): {to}"),
            Self::Busy(status) => format!("the device says that it is busy ({status})"),
            Self::Failing(status) => format!("the device says that it has failed ({status})"),
            Self::Status(status) => format!("the device answers with status {status}"),
            Self::Html => "the device answers with a web page in place of a document".to_owned(),
            Self::Empty => "the device's answer is empty".to_owned(),
            Self::TooLarge(limit) => format!("the device's answer has more than {limit} bytes"),
            Self::Truncated => "the device's answer breaks off".to_owned(),
            Self::Compressed(how) => format!("the device's answer is compressed ({how}), and nobody asked for that"),
            Self::NotUtf8 => "the device's answer is no UTF-8 text".to_owned(),
            Self::NotJson(error) => format!("the device's answer is no JSON: {error}"),
            Self::NoMeasurement => "the device's answer is JSON and holds no measurement".to_owned(),
            Self::NoObject => "the device's status is no JSON object".to_owned(),
        }
    }

    /// What helps.
    pub fn cure(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "is it switched on and in this network, and is source.url right?",
            Self::Silent | Self::Slow => {
                "is its WLAN good enough, and do others ask it too (it takes 3 connections)? A longer source.timeout gives \
                 it more time"
            }
            Self::Closed => {
                "do others ask it too (it takes 3 connections), and is https or http in source.url what it speaks?"
            }
            Self::NotHttp(_) | Self::HeadTooLarge => {
                "are host and port in source.url the device's, and does it want https?"
            }
            Self::NotTls => "write http:// in source.url, or switch TLS on in the device",
            Self::Tls(_) => "is this its port for TLS? meterferry doctor shows its certificate",
            Self::Untrusted(_) => {
                "devices sign their certificates themselves: set source.tls.fingerprint to what meterferry doctor shows, or \
                 name its authority in source.tls.ca_file (if one is named there, it is another)"
            }
            Self::Certificate { remembered: false, .. } => {
                "if you know why (a new device, a reset), set source.tls.fingerprint to the new one; if not, somebody is in \
                 between. Nothing is believed, and the key is not sent"
            }
            Self::Certificate { remembered: true, .. } => {
                "if you know why (a new device, a reset), set source.tls.fingerprint to the new one in place of \
                 trust_on_first_use; if not, somebody is in between. Nothing is believed, and the key is not sent"
            }
            Self::Memory(_) => "let the agent's user write to the queue's folder, or set source.tls.fingerprint",
            Self::Key { has_key: true, .. } => {
                "copy the key from the device's web page into the file that source.token_file names"
            }
            Self::Key { has_key: false, .. } => {
                "put the key from the device's web page into a file, and name it in source.token_file"
            }
            Self::Paths => "is REST switched on in the device? Another device's path is set with source.path",
            Self::Redirect { .. } => {
                "write the address that it names in source.url and source.path; nothing is followed, and the key stays here"
            }
            Self::Busy(_) => "it is asked more slowly; do others ask it too (it takes 3 connections)?",
            Self::Failing(_) => "if it lasts, restart the device",
            Self::Status(_) => "are source.url and source.path right?",
            Self::Html => "is source.url the device's REST interface, and is REST switched on in it?",
            Self::Empty => "does it read its meter? Its web page tells",
            Self::TooLarge(_) => {
                "is source.url the device's? If its documents are so large, raise source.max_body_size"
            }
            Self::Truncated => "is its WLAN good enough? If it lasts, restart the device",
            Self::Compressed(_) => "switch compression off in the device or in what stands between",
            Self::NotUtf8 | Self::NotJson(_) | Self::NoMeasurement | Self::NoObject => {
                "if it lasts, restart the device, or ask its maker for other firmware; is source.path right?"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Trouble> {
        let error = || "words".to_owned();
        vec![
            Trouble::Unreachable(error()),
            Trouble::Silent,
            Trouble::Slow,
            Trouble::Closed,
            Trouble::NotHttp(error()),
            Trouble::HeadTooLarge,
            Trouble::NotTls,
            Trouble::Tls(error()),
            Trouble::Untrusted(error()),
            Trouble::Certificate { expected: [1; 32], shown: [0xab; 32], remembered: false },
            Trouble::Certificate { expected: [1; 32], shown: [0xab; 32], remembered: true },
            Trouble::Memory(error()),
            Trouble::Key { status: 401, has_key: true },
            Trouble::Key { status: 403, has_key: false },
            Trouble::Paths,
            Trouble::Redirect { status: 302, to: "https://meter.lan/".to_owned() },
            Trouble::Busy(503),
            Trouble::Failing(500),
            Trouble::Status(418),
            Trouble::Html,
            Trouble::Empty,
            Trouble::TooLarge(65_536),
            Trouble::Truncated,
            Trouble::Compressed("gzip".to_owned()),
            Trouble::NotUtf8,
            Trouble::NotJson(error()),
            Trouble::NoMeasurement,
            Trouble::NoObject,
        ]
    }

    /// Promise 5: each trouble has its own words, and a cure.
    #[test]
    fn each_trouble_in_words() {
        let lines: Vec<String> =
            all().iter().map(|trouble| format!("{}; {}", trouble.what(), trouble.cure())).collect();
        insta::assert_snapshot!(lines.join("\n"));
        let mut whats: Vec<String> = all().iter().map(Trouble::what).collect();
        whats.sort();
        whats.dedup();
        assert_eq!(whats.len(), all().len());
    }

    /// Promise 5: a flood of error pages pushes no dead letter out: only what is a document gets there.
    #[test]
    fn error_pages_are_no_dead_letters() {
        let kept: Vec<_> = all().into_iter().filter(Trouble::is_evidence).collect();
        assert_eq!(kept, [Trouble::NotJson("words".to_owned()), Trouble::NoMeasurement]);
    }
}

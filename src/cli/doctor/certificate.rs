//! The certificate that a server shows: is it for this name, from an authority that is trusted, and for how long.
//!
//! No certificate is taken apart here: the same verifier that the sources use says what is wrong with a chain now, and,
//! asked about a time at which no certificate is valid any more, when each of them ends.

use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, Error};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::check::Check;
use super::reach::PATIENCE;
use crate::cli::units::chain;
use crate::config::settings::Tls;
use crate::source::tls;

/// Below this many days somebody should renew it.
const SOON: i64 = 30;

const DAY: i64 = 24 * 60 * 60;

/// 9999-12-31: later than any certificate's end.
const END_OF_TIME: Duration = Duration::from_secs(253_402_300_799);

/// Certificates in a chain that are asked for their end.
const CHAIN: usize = 10;

/// What is wrong with a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It, or one above it, has ended.
    Ended,
    NotYet,
    /// It is for these names.
    Name(Vec<String>),
    /// Nobody who is trusted has signed it.
    Authority,
    Other(String),
}

/// A server's certificate, judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    pub fault: Option<Fault>,
    /// When the first of its chain ends, in seconds since 1970; none where that cannot be told.
    pub ends: Option<i64>,
}

/// Why there is no certificate to judge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoHandshake {
    /// Our own files.
    Files(String),
    /// It does not speak TLS, or not with us.
    Failed(String),
    Silent,
}

/// Shakes hands and judges what the server shows, as `tls` says whom to trust.
pub async fn look(stream: TcpStream, host: &str, tls: &Tls, now_s: i64) -> Result<Judgement, NoHandshake> {
    let files = |error: &tls::TlsError| NoHandshake::Files(chain(error));
    let shown = Arc::new(Shown::default());
    let config = tls::client_that_asks(tls, shown.clone()).map_err(|error| files(&error))?;
    let verifier = tls::verifier(tls).map_err(|error| files(&error))?;
    let name = ServerName::try_from(host.to_owned()).map_err(|error| NoHandshake::Failed(error.to_string()))?;
    match timeout(PATIENCE, TlsConnector::from(config).connect(name.clone(), stream)).await {
        Err(_) => Err(NoHandshake::Silent),
        Ok(Err(error)) => Err(NoHandshake::Failed(chain(&error))),
        Ok(Ok(_)) => Ok(judge(&shown.taken(), &*verifier, &name, tls.verify_hostname, now_s)),
    }
}

/// Whether a server at the other end speaks TLS at all.
pub async fn speaks_tls(stream: TcpStream, host: &str) -> bool {
    let tls = Tls { verify_hostname: true, ..Tls::default() };
    let config = tls::client_that_asks(&tls, Arc::new(Shown::default()));
    let (Ok(config), Ok(name)) = (config, ServerName::try_from(host.to_owned())) else { return false };
    timeout(PATIENCE, TlsConnector::from(config).connect(name, stream)).await.is_ok_and(|shaken| shaken.is_ok())
}

/// Takes every certificate, and keeps what was shown to be judged afterwards.
#[derive(Debug, Default)]
struct Shown(Mutex<Vec<CertificateDer<'static>>>);

impl Shown {
    fn taken(&self) -> Vec<CertificateDer<'static>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl tls::Judge for Shown {
    fn judge(&self, certificate: &CertificateDer<'_>, above: &[CertificateDer<'_>]) -> Result<(), Error> {
        let chain = std::iter::once(certificate).chain(above).map(|der| der.clone().into_owned()).collect();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = chain;
        Ok(())
    }
}

fn judge(
    chain: &[CertificateDer<'static>],
    verifier: &dyn ServerCertVerifier,
    name: &ServerName<'_>,
    verify_name: bool,
    now_s: i64,
) -> Judgement {
    let Some((certificate, above)) = chain.split_first() else {
        return Judgement { fault: Some(Fault::Other("the server showed none".to_owned())), ends: None };
    };
    let at = |time: Duration| {
        let time = UnixTime::since_unix_epoch(time);
        verifier.verify_server_cert(certificate, above, name, &[], time).map(|_| ())
    };
    let now = Duration::from_secs(now_s.max(0).unsigned_abs());
    let fault = at(now).err().and_then(|error| fault(error, verify_name));
    Judgement { fault, ends: ends(at) }
}

fn fault(error: Error, verify_name: bool) -> Option<Fault> {
    let Error::InvalidCertificate(error) = error else { return Some(Fault::Other(error.to_string())) };
    Some(match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => Fault::Ended,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Fault::NotYet,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } if !verify_name => {
            return None;
        }
        CertificateError::NotValidForName => Fault::Name(Vec::new()),
        CertificateError::NotValidForNameContext { presented, .. } => Fault::Name(presented),
        // An authority of the same name, with another key.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => Fault::Authority,
        other => Fault::Other(other.to_string()),
    })
}

/// When the first certificate of a chain ends: each time that is asked about names one that ends before, until none does.
fn ends(at: impl Fn(Duration) -> Result<(), Error>) -> Option<i64> {
    let mut time = END_OF_TIME;
    let mut known = None;
    for _ in 0..CHAIN {
        let ended = match at(time) {
            Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => not_after.as_secs(),
            _ => break,
        };
        if Duration::from_secs(ended) >= time {
            break;
        }
        known = i64::try_from(ended).ok();
        time = Duration::from_secs(ended);
    }
    known
}

/// When the first certificate in a file of ours ends, in seconds since 1970.
pub fn ends_in_file(path: &Path) -> Option<i64> {
    let chain = tls::certificates(path).ok()?;
    // Whatever it is, a verifier wants one.
    let verifier = tls::verifier_by(vec![chain.last()?.clone()]).ok()?;
    let name = ServerName::try_from("localhost").ok()?;
    let each = chain.into_iter().map(|certificate| judge(&[certificate], &*verifier, &name, false, 0).ends);
    each.flatten().min()
}

/// What a judgement means; `address` as the person knows it, `table` where its authority is configured.
pub fn verdict(address: &str, host: &str, table: &str, judgement: &Judgement, now_s: i64) -> Check {
    let name = format!("TLS {address}");
    let clock = "; if not, is this machine's clock right?";
    match &judgement.fault {
        None => lifetime(name, "the certificate", judgement.ends, now_s, &format!("renew it at {address}")),
        Some(Fault::Ended) => {
            let when = judgement.ends.map_or(String::new(), |ends| format!(" on {}", day(ends)));
            Check::wrong(name, format!("the certificate ended{when}"), format!("renew it at {address}{clock}"))
        }
        Some(Fault::NotYet) => Check::wrong(
            name,
            "the certificate is not valid yet",
            format!("is this machine's clock right? It says {}", day(now_s)),
        ),
        Some(Fault::Name(names)) => Check::wrong(
            name,
            match &names[..] {
                [] => format!("the certificate names no host, so not {host} either"),
                names => format!("the certificate is for {}, not for {host}", presented(names)),
            },
            format!("use a name that stands in it, or make one for {host} (subjectAltName)"),
        ),
        Some(Fault::Authority) => Check::wrong(
            name,
            "the certificate is signed by an authority that is not trusted here",
            format!("name the PEM file of its authority in {table}.ca_file"),
        ),
        Some(Fault::Other(error)) => Check::wrong(
            name,
            format!("the certificate cannot be used: {error}"),
            "make another one: X.509 version 3, with a subjectAltName",
        ),
    }
}

/// How the verifier shows names is its own: `DnsName("a")`.
fn presented(names: &[String]) -> String {
    let inner = |name: &String| {
        let text = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
        let text = text.trim_matches('"');
        // It writes ::1 as 0::1.
        text.parse::<IpAddr>().map_or_else(|_| text.to_owned(), |address| address.to_string())
    };
    names.iter().take(8).map(inner).collect::<Vec<_>>().join(", ")
}

/// How long a certificate is still valid.
pub fn lifetime(name: impl Into<String>, what: &str, ends: Option<i64>, now_s: i64, cure: &str) -> Check {
    let Some(ends) = ends else { return Check::ok(name, format!("{what} is valid")) };
    let left = (ends - now_s).div_euclid(DAY);
    match left {
        i64::MIN..0 => Check::wrong(name, format!("{what} ended on {}", day(ends)), cure),
        0..SOON => Check::warning(name, format!("{what} ends on {}, in {left} days", day(ends)), cure),
        _ => Check::ok(name, format!("{what} is valid until {}, {left} days", day(ends))),
    }
}

/// What it means that no certificate came to be judged.
pub fn no_handshake(address: &str, table: &str, error: &NoHandshake) -> Check {
    let name = format!("TLS {address}");
    match error {
        NoHandshake::Files(error) => Check::wrong(name, error, format!("correct the files of [{table}]")),
        NoHandshake::Failed(error) if error.contains("InvalidContentType") || error.contains("eof") => Check::wrong(
            name,
            "it does not speak TLS",
            format!("is this its port for TLS? Without TLS, take [{table}] out of the configuration"),
        ),
        NoHandshake::Failed(error) => Check::wrong(
            name,
            format!("the handshake failed: {error}"),
            format!("if it wants a certificate of us, set certificate_file and key_file in [{table}]"),
        ),
        NoHandshake::Silent => Check::wrong(
            name,
            format!("no handshake within {} s", PATIENCE.as_secs()),
            format!("is this its port for TLS? Without TLS, take [{table}] out of the configuration"),
        ),
    }
}

fn day(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(|_| "?".to_owned(), |at| at.strftime("%Y-%m-%d").to_string())
}

#[cfg(test)]
mod tests {
    use super::super::print::shown;
    use super::*;

    const NOW: i64 = 1_800_000_000;

    /// Promise 9: each verdict about a certificate, as a person reads it.
    #[test]
    fn verdicts() {
        let of = |fault, days: i64| {
            let judgement = Judgement { fault, ends: Some(NOW + days * DAY + 3_600) };
            verdict("k.example.org:9093", "k.example.org", "kafka.tls", &judgement, NOW)
        };
        let names = ["DnsName(\"other.example.org\")", "IpAddress(10.0.0.1)"].map(str::to_owned).to_vec();
        let address = "k.example.org:9093";
        let checks = vec![
            of(None, 364),
            of(None, 29),
            of(Some(Fault::Ended), -3),
            of(Some(Fault::NotYet), 30),
            of(Some(Fault::Name(names)), 30),
            of(Some(Fault::Name(Vec::new())), 30),
            of(Some(Fault::Authority), 30),
            of(Some(Fault::Other("UnhandledCriticalExtension".into())), 30),
            no_handshake(
                address,
                "kafka.tls",
                &NoHandshake::Failed("received corrupt message of type InvalidContentType".into()),
            ),
            no_handshake(address, "kafka.tls", &NoHandshake::Failed("received fatal alert: HandshakeFailure".into())),
            no_handshake(address, "kafka.tls", &NoHandshake::Silent),
            no_handshake(address, "kafka.tls", &NoHandshake::Files("/x.pem holds no certificate".into())),
            lifetime("certificate", "/etc/ssl/meter.pem", Some(NOW - DAY), NOW, "renew it"),
        ];
        insta::assert_snapshot!(shown(checks));
    }

    /// Promise 9: the end of a certificate is read from the certificate.
    #[test]
    fn the_end_of_a_certificate() {
        let file = |name| Path::new(env!("CARGO_MANIFEST_DIR")).join("src/source/testdata").join(name);
        let (server, authority) = (ends_in_file(&file("server.pem")), ends_in_file(&file("authority.pem")));
        assert_eq!(
            [server, authority].map(|ends| ends.map(day)),
            [Some("2126-10-30".to_owned()), Some("2126-10-30".to_owned())]
        );
        assert_eq!(ends_in_file(&file("server-key.pem")), None);
    }

    /// Promise 9: name, authority and end are told apart by the verifier that the sources use.
    #[test]
    fn a_chain_is_judged() {
        let file = |name| Path::new(env!("CARGO_MANIFEST_DIR")).join("src/source/testdata").join(name);
        let tls = Tls { ca_file: Some(file("authority.pem")), verify_hostname: true, ..Tls::default() };
        let chain = tls::certificates(&file("server.pem")).expect("a certificate");
        let right = tls::verifier(&tls).expect("an authority");
        let judge = |chain: &[_], verifier: &dyn ServerCertVerifier, name: &str, now| {
            judge(chain, verifier, &ServerName::try_from(name.to_owned()).expect("a name"), true, now)
        };
        assert_eq!(judge(&chain, &*right, "localhost", NOW).fault, None);
        assert_eq!(judge(&chain, &*right, "localhost", 4_000_000_000_000).fault, Some(Fault::Ended));
        assert_eq!(judge(&chain, &*right, "localhost", 0).fault, Some(Fault::NotYet));
        let Some(Fault::Name(names)) = judge(&chain, &*right, "elsewhere", NOW).fault else { panic!("another name") };
        assert_eq!(presented(&names), "localhost, 127.0.0.1, ::1");
        let others = tls::verifier_by(vec![chain[0].clone()]).expect("any certificate");
        assert_eq!(judge(&chain, &*others, "127.0.0.1", NOW).fault, Some(Fault::Authority));
        // An authority that is shown by the server itself, where a person has named it.
        let mut own = rcgen::CertificateParams::new(["meter.lan".to_owned()]).expect("a name");
        own.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let own = own.self_signed(&rcgen::KeyPair::generate().expect("a key")).expect("a certificate");
        let own = vec![own.der().clone()];
        let listed = tls::verifier_by(own.clone()).expect("an authority");
        assert_eq!(judge(&own, &*listed, "meter.lan", NOW).fault, None);
        assert!(judge(&own, &*listed, "meter.lan", NOW).ends.is_some());
        assert!(matches!(judge(&own, &*listed, "other.lan", NOW).fault, Some(Fault::Name(_))));
        assert_eq!(judge(&own, &*listed, "meter.lan", 4_000_000_000_000).fault, Some(Fault::Ended));
        assert_eq!(judge(&own, &*right, "meter.lan", NOW).fault, Some(Fault::Authority));
    }
}

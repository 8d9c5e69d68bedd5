//! Secrets, certificates and keys: found, read and looked into.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::environment::Environment;
use super::problem::{Place, Report};
use super::raw::quoted;
use super::section::{Given, Section, Taken};
use super::settings::{Login, Secret, Tls};
use super::usable;

/// Bytes of the longest file that is read for the configuration: a bundle of certificates takes a quarter of it.
pub const LONGEST_FILE: u64 = 1 << 20;

/// Where files are looked for.
#[derive(Debug, Clone, Copy)]
pub struct Around<'a> {
    pub environment: &'a Environment,
    /// The folder of the configuration file.
    pub beside: &'a Path,
}

/// The content of `path`, up to [`LONGEST_FILE`].
///
/// # Errors
///
/// As the system says it; `FileTooLarge` beyond the limit, `InvalidInput` for a folder.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let kind = std::fs::metadata(path)?.file_type();
    if kind.is_dir() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a folder"));
    }
    let mut content = Vec::new();
    File::open(path)?.take(LONGEST_FILE + 1).read_to_end(&mut content)?;
    if content.len() as u64 > LONGEST_FILE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 1 MiB"));
    }
    Ok(content)
}

/// A file that a key names: its path and content.
pub fn named(section: &mut Section, report: &mut Report, key: &str, around: Around<'_>) -> Taken<(PathBuf, Vec<u8>)> {
    let given = match section.text(report, key) {
        Taken::Value(given) => given,
        Taken::Absent => return Taken::Absent,
        Taken::Wrong => return Taken::Wrong,
    };
    let place = given.place;
    let label = format!("{} is {}", section.path_of(key), quoted(&given.value));
    if given.value.is_empty() {
        report.error(place, format!("{label}: must name a file"), "leave the key out if there is none");
        return Taken::Wrong;
    }
    let places = around.environment.places_of(Path::new(&given.value), around.beside);
    let found = places.iter().find(|path| path.exists()).unwrap_or(&places[places.len() - 1]);
    match read(found) {
        Ok(content) => {
            report.was_read(found);
            Taken::Value(Given { place, value: (found.clone(), content) })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let tried: Vec<_> = places.iter().map(|path| path.display().to_string()).collect();
            report.error(
                place,
                format!("{label}: there is no such file"),
                format!("looked for {}", tried.join(" and ")),
            );
            Taken::Wrong
        }
        Err(error) => {
            let hint = match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    "let the user that meterferry runs as read it, or use systemd's LoadCredential=".to_owned()
                }
                _ => "name a file that can be read".to_owned(),
            };
            report.error(place, format!("{label}: {} cannot be read: {error}", found.display()), hint);
            Taken::Wrong
        }
    }
}

/// A password from the file that a key names, without its trailing newline.
pub fn secret(section: &mut Section, report: &mut Report, key: &str, around: Around<'_>) -> Taken<Secret> {
    let (place, path, content) = match named(section, report, key, around) {
        Taken::Value(Given { place, value: (path, content) }) => (place, path, content),
        Taken::Absent => return Taken::Absent,
        Taken::Wrong => return Taken::Wrong,
    };
    match only_line(content) {
        Ok(secret) => Taken::Value(Given { place, value: secret }),
        Err(what) => {
            let label = format!("{}: {} {what}", section.path_of(key), path.display());
            report.error(place, label, PASSWORD_ALONE);
            Taken::Wrong
        }
    }
}

const PASSWORD_ALONE: &str = "the file must hold the secret as text, and nothing else";

/// A password from a file named on the command line, by the rules of those named in the configuration.
///
/// # Errors
///
/// What is wrong with the file, and what it should be.
pub fn password(path: &Path) -> Result<Secret, String> {
    let wrong = |what: &dyn std::fmt::Display| format!("the password file {} {what}", path.display());
    let content = read(path).map_err(|error| wrong(&format_args!("cannot be read: {error}")))?;
    only_line(content).map_err(|what| wrong(&format_args!("{what}\n  hint: {PASSWORD_ALONE}")))
}

/// The text without its trailing newline, or what is wrong with it.
fn only_line(content: Vec<u8>) -> Result<Secret, &'static str> {
    let text = String::from_utf8(content).map_err(|_| "is not UTF-8 text")?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    match text {
        "" => Err("is empty"),
        _ if text.contains(['\n', '\r', '\0']) => Err("has more than one line"),
        _ => Ok(Secret(text.to_owned())),
    }
}

/// `username` and `password_file`: both or neither.
pub fn login(section: &mut Section, report: &mut Report, around: Around<'_>) -> Taken<Login> {
    let username = section.text(report, "username");
    let password = secret(section, report, "password_file", around);
    let (user, file) = (section.path_of("username"), section.path_of("password_file"));
    // A password written out is reported as such.
    let literal = section.has("password");
    match (&username, &password) {
        (Taken::Absent, Taken::Absent) => return Taken::Absent,
        (_, Taken::Absent) if !literal => {
            report.error(
                place_of(&username, section),
                format!("{user} is set and {file} is not"),
                "password_file = \"FILE\"",
            );
        }
        (Taken::Absent, _) => {
            report.error(
                place_of(&password, section),
                format!("{file} is set and {user} is not"),
                "username = \"NAME\"",
            );
        }
        _ => {}
    }
    if let Taken::Value(given) = &username
        && given.value.is_empty()
    {
        report.error(given.place, format!("{user} is empty"), "give the name, or leave out both keys");
        return Taken::Wrong;
    }
    match (username, password) {
        (Taken::Value(Given { place, value: username }), Taken::Value(Given { value: password, .. })) => {
            Taken::Value(Given { place, value: Login { username, password } })
        }
        _ => Taken::Wrong,
    }
}

fn place_of<T>(taken: &Taken<T>, section: &Section) -> Place {
    match taken {
        Taken::Value(given) => given.place,
        Taken::Absent | Taken::Wrong => section.place(),
    }
}

/// A file with certificates in PEM.
fn certificates(section: &mut Section, report: &mut Report, key: &str, around: Around<'_>) -> Taken<PathBuf> {
    pem(section, report, key, around, "a certificate", |content| {
        let mut count = 0;
        for certificate in CertificateDer::pem_slice_iter(content) {
            certificate.map_err(|error| error.to_string())?;
            count += 1;
        }
        if count > 0 { Ok(()) } else { Err("it holds no -----BEGIN CERTIFICATE-----".to_owned()) }
    })
}

/// `ca_file` of a TLS table that has nothing else of [`tls`].
pub fn authorities(section: &mut Section, report: &mut Report, around: Around<'_>) -> Taken<PathBuf> {
    let ca = certificates(section, report, "ca_file", around);
    for (key, place, message, hint) in usable::faults(Side::Client, &ca, &Taken::Absent, &Taken::Absent) {
        report.error(place, format!("{} is {message}", section.path_of(key)), hint);
    }
    ca
}

/// A file with a private key in PEM.
fn private_key(section: &mut Section, report: &mut Report, key: &str, around: Around<'_>) -> Taken<PathBuf> {
    pem(section, report, key, around, "a private key", |content| {
        let text = String::from_utf8_lossy(content);
        if text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----") || text.contains("Proc-Type: 4,ENCRYPTED") {
            return Err("it has a passphrase; openssl pkey -in OLD -out NEW stores it without".to_owned());
        }
        PrivateKeyDer::from_pem_slice(content)
            .map(|_| ())
            .map_err(|_| "it holds no -----BEGIN PRIVATE KEY-----".to_owned())
    })
}

fn pem(
    section: &mut Section,
    report: &mut Report,
    key: &str,
    around: Around<'_>,
    what: &str,
    look: impl Fn(&[u8]) -> Result<(), String>,
) -> Taken<PathBuf> {
    match named(section, report, key, around) {
        Taken::Absent => Taken::Absent,
        Taken::Wrong => Taken::Wrong,
        Taken::Value(Given { place, value: (path, content) }) => match look(&content) {
            Ok(()) => Taken::Value(Given { place, value: path }),
            Err(error) => {
                let label = format!("{} is {}", section.path_of(key), path.display());
                report.error(
                    place,
                    format!("{label}: must be {what} in PEM, and {error}"),
                    "PEM begins with -----BEGIN; openssl makes it of other forms",
                );
                Taken::Wrong
            }
        },
    }
}

/// What a TLS table needs to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Client,
    Server,
    /// A client whose TLS is librdkafka's, with the OpenSSL in it; the others' is rustls.
    Kafka,
}

/// `ca_file`, `certificate_file` and `key_file` of a TLS table.
pub fn tls(section: &mut Section, report: &mut Report, side: Side, around: Around<'_>) -> Tls {
    let place = section.place();
    let ca = match side {
        Side::Client | Side::Kafka => certificates(section, report, "ca_file", around),
        Side::Server => Taken::Absent,
    };
    let certificate = certificates(section, report, "certificate_file", around);
    let key = private_key(section, report, "key_file", around);
    let (first, second) = (section.path_of("certificate_file"), section.path_of("key_file"));
    if side == Side::Server {
        for (name, absent) in [(&first, certificate.is_absent()), (&second, key.is_absent())] {
            if absent {
                report.error(place, format!("{name} is missing: a TLS server needs it"), "name a PEM file");
            }
        }
    } else {
        for (one, other, set, missing) in [(&certificate, &key, &first, &second), (&key, &certificate, &second, &first)]
        {
            if !one.is_absent() && other.is_absent() {
                let hint = "a client certificate needs its key: set both, or neither";
                report.error(place_of(one, section), format!("{set} is set and {missing} is not"), hint);
            }
        }
    }
    for (key, place, message, hint) in usable::faults(side, &ca, &certificate, &key) {
        report.error(place, format!("{} is {message}", section.path_of(key)), hint);
    }
    let path = |taken: Taken<PathBuf>| taken.given().map(|given| given.value);
    Tls { ca_file: path(ca), certificate_file: path(certificate), key_file: path(key), verify_hostname: true }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A password file named on the command line obeys the same rules; the message names the file and the cure.
    #[test]
    fn password_on_the_command_line() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("password");
        let said = |content: &[u8]| {
            std::fs::write(&file, content).expect("write");
            password(&file)
                .map(|secret| secret.0)
                .map_err(|error| error.replace(&*folder.path().to_string_lossy(), "/etc"))
        };
        assert_eq!(said(b" a b \r\n"), Ok(" a b ".to_owned()));
        for (content, what) in
            [(&b"\n"[..], "is empty"), (b"a\nb\n", "has more than one line"), (b"\xff", "is not UTF-8 text")]
        {
            let cure = "  hint: the file must hold the secret as text, and nothing else";
            assert_eq!(said(content), Err(format!("the password file /etc/password {what}\n{cure}")));
        }
        let error = password(folder.path()).expect_err("a folder");
        assert!(error.ends_with("cannot be read: it is a folder"), "{error}");
    }
}

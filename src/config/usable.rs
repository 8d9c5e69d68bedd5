//! Whether certificates and keys that are PEM can be used as what they are named for, by the library that will use them:
//! what only the agent's start would find is found by `check`.

use std::path::{Path, PathBuf};

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, RootCertStore};

use super::files::Side;
use super::problem::Place;
use super::section::{Given, Taken};
use super::settings::Tls;
use crate::forwarder;

/// A key of the table, where it stands, what is wrong with its file, and the cure.
pub type Fault = (&'static str, Place, String, String);

const AUTHORITY: &str = "name the PEM file of the authority that signed the server's certificate";

/// What is wrong with files that are there.
pub fn faults(side: Side, ca: &Taken<PathBuf>, certificate: &Taken<PathBuf>, key: &Taken<PathBuf>) -> Vec<Fault> {
    let given = |taken: &Taken<PathBuf>| match taken {
        Taken::Value(given) => Some(given.clone()),
        Taken::Absent | Taken::Wrong => None,
    };
    let (ca, certificate, key) = (given(ca), given(certificate), given(key));
    let own = certificate.as_ref().zip(key.as_ref());
    let mut faults = Vec::new();
    if side == Side::Kafka {
        faults.extend(ca.as_ref().and_then(kafka_authority));
        faults.extend(own.and_then(|(certificate, key)| kafka_identity(certificate, key)));
    } else {
        faults.extend(ca.as_ref().and_then(authority));
        faults.extend(own.and_then(|(certificate, key)| identity(certificate, key)));
    }
    faults
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn authority(file: &Given<PathBuf>) -> Option<Fault> {
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(&file.value).ok()?;
    let bad =
        certificates.flatten().enumerate().find_map(|(at, certificate)| Some((at, roots.add(certificate).err()?)))?;
    let message = format!("{}: certificate {} in it cannot be used: {}", shown(&file.value), bad.0 + 1, words(&bad.1));
    Some(("ca_file", file.place, message, AUTHORITY.to_owned()))
}

fn identity(certificate: &Given<PathBuf>, key: &Given<PathBuf>) -> Option<Fault> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(&certificate.value).ok()?.flatten().collect();
    let path = shown(&certificate.value);
    if let Err(error) = ParsedCertificate::try_from(chain.first()?) {
        let message = format!("{path}: its first certificate cannot be used: {}", words(&error));
        let hint = format!("openssl x509 -noout -text -in {path} shows what is in it");
        return Some(("certificate_file", certificate.place, message, hint));
    }
    let secret = PrivateKeyDer::from_pem_file(&key.value).ok()?;
    let signing = match provider().key_provider.load_private_key(secret) {
        Ok(signing) => signing,
        Err(_) => {
            let message = format!("{}: its key is of a kind that cannot be used", shown(&key.value));
            let hint = "ECDSA with P-256 or P-384, Ed25519, or RSA with 2048 bits or more";
            return Some(("key_file", key.place, message, hint.to_owned()));
        }
    };
    match CertifiedKey::new(chain, signing).keys_match() {
        Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => Some(mismatch(certificate, key)),
        _ => None,
    }
}

fn mismatch(certificate: &Given<PathBuf>, key: &Given<PathBuf>) -> Fault {
    let (file, path) = (shown(&key.value), shown(&certificate.value));
    let message = format!("{file}: it is not the key of the certificate in {path}");
    let hint = format!(
        "these must print the same: openssl pkey -pubout -in {file} and openssl x509 -noout -pubkey -in {path}, where the \
         server's own certificate stands first"
    );
    ("key_file", key.place, message, hint)
}

fn kafka_authority(file: &Given<PathBuf>) -> Option<Fault> {
    let tls = Tls { ca_file: Some(file.value.clone()), verify_hostname: true, ..Tls::default() };
    let error = forwarder::takes_tls(&tls).err()?;
    let message = format!("{}: Kafka's client cannot use it: {}", shown(&file.value), openssl(&error));
    Some(("ca_file", file.place, message, AUTHORITY.to_owned()))
}

fn kafka_identity(certificate: &Given<PathBuf>, key: &Given<PathBuf>) -> Option<Fault> {
    let files = (Some(certificate.value.clone()), Some(key.value.clone()));
    let tls = Tls { certificate_file: files.0, key_file: files.1, verify_hostname: true, ..Tls::default() };
    let error = forwarder::takes_tls(&tls).err()?;
    if error.to_lowercase().contains("mismatch") {
        return Some(mismatch(certificate, key));
    }
    let (name, given, tool) = match error.contains("ssl.key.location") {
        true => ("key_file", key, "pkey"),
        false => ("certificate_file", certificate, "x509"),
    };
    let path = shown(&given.value);
    let hint = format!("openssl {tool} -noout -text -in {path} shows what is in it");
    Some((name, given.place, format!("{path}: Kafka's client cannot use it: {}", openssl(&error)), hint))
}

/// The reason at the end of OpenSSL's words.
fn openssl(error: &str) -> &str {
    let reason = error.rsplit(": ").next().unwrap_or(error).rsplit("::").next().unwrap_or(error);
    match reason.trim_matches([':', ' ', '.']) {
        // All that it says of anything that it cannot take apart.
        "PEM lib" | "" => "it is damaged",
        other => other,
    }
}

/// What a person can do something with in rustls's words.
fn words(error: &Error) -> String {
    let text = error.to_string();
    text.strip_prefix("invalid peer certificate: ").unwrap_or(&text).to_owned()
}

/// Named explicitly: a provider installed for the whole process could be another one.
fn provider() -> CryptoProvider {
    ring::default_provider()
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use crate::config::{Environment, load};

    /// What `check` says to a table of TLS whose files hold these.
    fn said(table: &str, files: &[(&str, &str)]) -> String {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (name, content) in files {
            std::fs::write(folder.path().join(name), content).expect("write");
        }
        let file = folder.path().join("meterferry.toml");
        std::fs::write(&file, table).expect("write");
        let environment = Environment::of(folder.path(), [("STATE_DIRECTORY", folder.path())]);
        let said = load(Some(&file), &environment).map_or_else(|problems| problems.to_string(), |_| "ok".to_owned());
        said.replace(&format!("{}/", folder.path().display()), "")
    }

    /// Promise 9: files that are PEM and are of no use are found before the start, with the file and the cure, for each of
    /// the two libraries that would meet them.
    #[test]
    fn useless_contents() {
        let file = |name: &str| {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/source/testdata").join(name);
            std::fs::read_to_string(path).expect("a file of the tests")
        };
        let (authority, server, key) = (file("authority.pem"), file("server.pem"), file("server-key.pem"));
        let pem = |what: &str| format!("-----BEGIN {what}-----\nMAA=\n-----END {what}-----\n");
        let (empty, no_key) = (pem("CERTIFICATE"), pem("PRIVATE KEY"));
        let ca = "ca_file = \"a.pem\"\n";
        let own = "certificate_file = \"c.pem\"\nkey_file = \"k.pem\"\n";
        let mqtt = "[[source]]\nname = \"sma\"\ntype = \"mqtt\"\n[source.tls]\n";
        let listener = "[[source]]\nname = \"sma\"\ntype = \"mqtt-listener\"\n[source.tls]\n";
        let source = "[[source]]\nname = \"sma\"\ntype = \"mqtt\"\n";
        let kafka = |keys: &str| format!("[kafka]\nbootstrap_servers = [\"k:9093\"]\n[kafka.tls]\n{keys}{source}");
        let mut text = String::new();
        let mut show = |what: &str, table: String, files: &[(&str, &str)]| {
            let _ = write!(text, "{what}\n\n{}\n\n", said(&table, files));
        };
        let well = [("a.pem", &*authority), ("c.pem", &*server), ("k.pem", &*key)];
        show("a broker: all well", format!("{mqtt}{ca}{own}"), &well);
        show("Kafka: all well", kafka(&format!("{ca}{own}")), &well);
        let second = format!("{authority}{empty}");
        show("a broker: an authority that is none", format!("{mqtt}{ca}"), &[("a.pem", &second)]);
        show("Kafka: an authority that is none", kafka(ca), &[("a.pem", &empty)]);
        let files = [("c.pem", &*empty), ("k.pem", &*key)];
        show("a broker: a certificate that is none", format!("{mqtt}{own}"), &files);
        show("Kafka: a certificate that is none", kafka(own), &files);
        let files = [("c.pem", &*server), ("k.pem", &*no_key)];
        show("a listener: a key that is none", format!("{listener}{own}"), &files);
        show("Kafka: a key that is none", kafka(own), &files);
        let files = [("c.pem", &*authority), ("k.pem", &*key)];
        show("a listener: another certificate's key", format!("{listener}{own}"), &files);
        show("Kafka: another certificate's key", kafka(own), &files);
        insta::assert_snapshot!(text);
    }
}

//! TLS with a device that signs its certificate itself: it is known by the SHA-256 of its certificate, not by a name or
//! an authority. That the device has the key of the certificate is verified all the same, with each handshake.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use rustls::{CertificateError, ClientConfig, Error};
use sha2::{Digest, Sha256};

use super::rest_trouble::{CertificateHash, Trouble};
use super::tls::{self, TlsError};
use crate::config::settings::{Tls, Trust};

/// Sessions that are taken up again: a handshake takes a small device seconds.
const SESSIONS: usize = 4;

/// SHA-256 of a certificate.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> CertificateHash {
    Sha256::digest(certificate).into()
}

/// The TLS side of one source, for all its connections.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub config: Arc<ClientConfig>,
    /// None: the certificate is judged by authorities.
    pub pinned: Option<Arc<Pinned>>,
}

impl Client {
    /// Trusts as configured; `known` is what was shown at first use.
    ///
    /// # Errors
    ///
    /// The authorities cannot be used.
    pub(super) fn new(trust: &Trust, known: Option<CertificateHash>) -> Result<Self, TlsError> {
        let expected = match trust {
            Trust::Authorities(ca_file) => {
                let tls = Tls { ca_file: ca_file.clone(), verify_hostname: true, ..Tls::default() };
                return Ok(Self { config: tls::client(&tls)?, pinned: None });
            }
            Trust::Fingerprint(fingerprint) => Some(*fingerprint),
            Trust::FirstUse => known,
        };
        let pinned = Arc::new(Pinned(Mutex::new(Pins { expected, shown: None })));
        let mut config = (*tls::client_that_asks(&Tls::default(), pinned.clone())?).clone();
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        Ok(Self { config: Arc::new(config), pinned: Some(pinned) })
    }
}

/// Takes the certificate with one fingerprint, or any where none is expected yet.
#[derive(Debug)]
pub(super) struct Pinned(Mutex<Pins>);

#[derive(Debug, Clone, Copy)]
struct Pins {
    expected: Option<CertificateHash>,
    /// By the last handshake.
    shown: Option<CertificateHash>,
}

impl Pinned {
    fn pins(&self) -> Pins {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on only this one.
    pub(super) fn expect(&self, fingerprint: CertificateHash) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).expected = Some(fingerprint);
    }

    pub(super) fn expected(&self) -> Option<CertificateHash> {
        self.pins().expected
    }

    /// What the last handshake showed in place of what was expected.
    pub(super) fn mismatch(&self, remembered: bool) -> Option<Trouble> {
        let Pins { expected, shown } = self.pins();
        let (expected, shown) = (expected?, shown?);
        (expected != shown).then_some(Trouble::Certificate { expected, shown, remembered })
    }
}

impl tls::Judge for Pinned {
    fn judge(&self, certificate: &CertificateDer<'_>, _above: &[CertificateDer<'_>]) -> Result<(), Error> {
        let shown = fingerprint(certificate);
        let mut pins = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pins.shown = Some(shown);
        match pins.expected {
            Some(expected) if expected != shown => {
                Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rustls::ServerConfig;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{PrivateKeyDer, ServerName};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;

    fn file(name: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("src/source/testdata").join(name)
    }

    fn certificates() -> Vec<CertificateDer<'static>> {
        tls::certificates(&file("server.pem")).expect("a certificate")
    }

    /// A server that shows the test's certificate, and signs with `key`.
    async fn shaken(client: &Client, key: PrivateKeyDer<'static>) -> Result<(), String> {
        let signer = rustls::crypto::ring::sign::any_supported_type(&key).expect("a key");
        let certified = Arc::new(rustls::sign::CertifiedKey::new(certificates(), signer));
        let server = ServerConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)));
        let (ours, theirs) = tokio::io::duplex(16 << 10);
        let serving = tokio::spawn(async move {
            let mut stream = TlsAcceptor::from(Arc::new(server)).accept(theirs).await?;
            stream.write_all(b"x").await?;
            stream.shutdown().await
        });
        let name = ServerName::try_from("meter.lan").expect("a name");
        let connected = TlsConnector::from(Arc::clone(&client.config)).connect(name, ours).await;
        let outcome = match connected {
            Err(error) => Err(error.to_string()),
            Ok(mut stream) => stream.read_u8().await.map(|_| ()).map_err(|error| error.to_string()),
        };
        serving.abort();
        outcome
    }

    fn key() -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_file(file("server-key.pem")).expect("a key")
    }

    /// Promise 9: a pinned certificate is taken whatever it is called and whoever signed it, and no other is; nor is its
    /// copy in the hands of somebody who has not its key.
    #[tokio::test]
    async fn only_the_pinned_certificate_with_its_key_is_taken() {
        let right = fingerprint(&certificates()[0]);
        let pinned = |fingerprint| Client::new(&Trust::Fingerprint(fingerprint), None).expect("a client");
        assert_eq!(shaken(&pinned(right), key()).await, Ok(()));
        let wrong = pinned([7; 32]);
        assert!(shaken(&wrong, key()).await.is_err());
        let mismatch = wrong.pinned.expect("pinned").mismatch(false);
        assert_eq!(mismatch, Some(Trouble::Certificate { expected: [7; 32], shown: right, remembered: false }));
        let stranger = rcgen::KeyPair::generate().expect("a key").serialize_der();
        let stranger = PrivateKeyDer::try_from(stranger).expect("PKCS #8");
        for trust in [Trust::Fingerprint(right), Trust::FirstUse] {
            let client = Client::new(&trust, None).expect("a client");
            shaken(&client, stranger.clone_key()).await.expect_err("a certificate without its key");
        }
    }

    /// The first certificate is taken, and after it no other.
    #[tokio::test]
    async fn the_first_use_decides() {
        let client = Client::new(&Trust::FirstUse, None).expect("a client");
        let pinned = client.pinned.clone().expect("pinned");
        assert_eq!((shaken(&client, key()).await, pinned.expected()), (Ok(()), None));
        pinned.expect([7; 32]);
        assert!(shaken(&client, key()).await.is_err());
        assert!(pinned.mismatch(true).is_some());
    }
}

//! TLS of the sources, by rustls with ring.

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{VerifierBuilderError, WantsClientCert, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, Error, RootCertStore, ServerConfig,
    SignatureScheme, WantsVerifier,
};

use crate::config::settings::Tls;

/// The files of a TLS configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {what} from {path}: it must be a readable PEM file")]
    File { what: &'static str, path: PathBuf, source: pem::Error },
    #[error("{path} holds no {what}")]
    Empty { what: &'static str, path: PathBuf },
    #[error("a certificate in {path} cannot be used as a certification authority")]
    Authority { path: PathBuf, source: rustls::Error },
    #[error("the system has no root certificates: install ca-certificates, or set ca_file")]
    NoRoots,
    #[error("{missing} is missing: certificate_file and key_file are set together")]
    Half { missing: &'static str },
    #[error("certificate and key do not fit: {certificate} with {key}")]
    Identity { certificate: PathBuf, key: PathBuf, source: rustls::Error },
    #[error("this build of rustls lacks the usual protocol versions")]
    Versions(#[source] rustls::Error),
}

/// For a client: trusts `ca_file`, else the system's roots; shows a certificate of its own if there is one.
pub(super) fn client(tls: &Tls) -> Result<Arc<ClientConfig>, TlsError> {
    with_identity(tls, builder()?.dangerous().with_custom_certificate_verifier(verifier(tls)?))
}

/// Judges servers by the authorities in `ca_file`, else by the system's.
///
/// # Errors
///
/// If there are none, or they cannot be used.
pub fn verifier(tls: &Tls) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    match &tls.ca_file {
        Some(path) => {
            let listed = certificates(path)?;
            verifier_by(listed).map_err(|source| TlsError::Authority { path: path.clone(), source })
        }
        None => {
            let authorities = by_roots(system_roots()?).map_err(|_| TlsError::NoRoots)?;
            Ok(Arc::new(Listed { authorities, listed: Vec::new() }))
        }
    }
}

/// Judges servers by these authorities. One that shows one of these certificates itself is taken, too.
///
/// # Errors
///
/// If there are none, or one of them cannot be used.
pub fn verifier_by(listed: Vec<CertificateDer<'static>>) -> Result<Arc<dyn ServerCertVerifier>, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in &listed {
        roots.add(certificate.clone())?;
    }
    let authorities = by_roots(roots).map_err(|error| Error::General(error.to_string()))?;
    Ok(Arc::new(Listed { authorities, listed }))
}

fn by_roots(roots: RootCertStore) -> Result<Arc<WebPkiServerVerifier>, VerifierBuilderError> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build()
}

/// A certificate that a device made for itself (`openssl req -x509`) often says that it is an authority's. No server may
/// show such a one, by the rules of the Web; here it is what a person has put into `ca_file` byte by byte. Its dates and
/// names hold all the same. Where nobody has named it, its authority is unknown.
#[derive(Debug)]
struct Listed {
    authorities: Arc<WebPkiServerVerifier>,
    listed: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Listed {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.authorities.verify_server_cert(certificate, above, name, ocsp, now) {
            // The dates were looked at before.
            Err(Error::InvalidCertificate(CertificateError::Other(why)))
                if why.to_string().contains("CaUsedAsEndEntity") =>
            {
                if !self.listed.contains(certificate) {
                    return Err(CertificateError::UnknownIssuer.into());
                }
                verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}

/// Judges a certificate by itself, without a name or a date; that the server has its key is verified all the same.
pub trait Judge: Debug + Send + Sync {
    /// `above`: the rest of the chain that was shown.
    ///
    /// # Errors
    ///
    /// The certificate is not taken.
    fn judge(&self, certificate: &CertificateDer<'_>, above: &[CertificateDer<'_>]) -> Result<(), Error>;
}

#[derive(Debug)]
struct Judged<J>(Arc<J>);

impl<J: Judge> ServerCertVerifier for Judged<J> {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.0.judge(certificate, above).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// For a client that has `judge` judge the server; shows a certificate of its own if there is one.
///
/// # Errors
///
/// If its own files cannot be used.
pub fn client_that_asks(tls: &Tls, judge: Arc<impl Judge + 'static>) -> Result<Arc<ClientConfig>, TlsError> {
    with_identity(tls, builder()?.dangerous().with_custom_certificate_verifier(Arc::new(Judged(judge))))
}

fn builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider());
    builder.with_safe_default_protocol_versions().map_err(TlsError::Versions)
}

fn with_identity(
    tls: &Tls,
    builder: ConfigBuilder<ClientConfig, WantsClientCert>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let config = match identity(tls)? {
        None => builder.with_no_client_auth(),
        Some(identity) => builder
            .with_client_auth_cert(identity.chain, identity.key)
            .map_err(|source| misfit(identity.certificate_file, identity.key_file, source))?,
    };
    Ok(Arc::new(config))
}

/// For a server with a certificate and a key; clients need none.
pub(super) fn server(tls: &Tls) -> Result<Arc<ServerConfig>, TlsError> {
    let identity = identity(tls)?.ok_or(TlsError::Half { missing: "certificate_file" })?;
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Versions)?
        .with_no_client_auth()
        .with_single_cert(identity.chain, identity.key)
        .map_err(|source| misfit(identity.certificate_file, identity.key_file, source))?;
    Ok(Arc::new(config))
}

/// Named explicitly: a provider installed for the whole process could be another one.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn misfit(certificate: &Path, key: &Path, source: rustls::Error) -> TlsError {
    TlsError::Identity { certificate: certificate.to_owned(), key: key.to_owned(), source }
}

/// Those of the system's roots that rustls understands; old ones among them are no reason to stop.
fn system_roots() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() { Err(TlsError::NoRoots) } else { Ok(roots) }
}

struct Identity<'a> {
    certificate_file: &'a Path,
    key_file: &'a Path,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

fn identity(tls: &Tls) -> Result<Option<Identity<'_>>, TlsError> {
    let (certificate_file, key_file) = match (&tls.certificate_file, &tls.key_file) {
        (None, None) => return Ok(None),
        (Some(certificate), Some(key)) => (certificate, key),
        (None, Some(_)) => return Err(TlsError::Half { missing: "certificate_file" }),
        (Some(_), None) => return Err(TlsError::Half { missing: "key_file" }),
    };
    let key = PrivateKeyDer::from_pem_file(key_file).map_err(|source| TlsError::File {
        what: "the key",
        path: key_file.clone(),
        source,
    })?;
    Ok(Some(Identity { certificate_file, key_file, chain: certificates(certificate_file)?, key }))
}

/// The certificates in a PEM file, at least one.
///
/// # Errors
///
/// If there is none, or one cannot be read.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable = |source| TlsError::File { what: "certificates", path: path.to_owned(), source };
    let certificates =
        CertificateDer::pem_file_iter(path).map_err(unreadable)?.collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
    if certificates.is_empty() {
        return Err(TlsError::Empty { what: "certificate", path: path.to_owned() });
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made for these tests: an authority, and a certificate of its for `localhost`, `127.0.0.1` and `::1`.
    fn file(name: &str) -> Option<PathBuf> {
        Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/source/testdata").join(name))
    }

    /// Promise 5: what is wrong with the files is said before anything starts, with the file's name.
    #[test]
    fn unusable_files_are_named() {
        let whole = Tls {
            ca_file: file("authority.pem"),
            certificate_file: file("server.pem"),
            key_file: file("server-key.pem"),
            verify_hostname: true,
        };
        assert!(client(&whole).is_ok() && server(&whole).is_ok());
        let client_error = |change: fn(&mut Tls)| {
            let mut tls = whole.clone();
            change(&mut tls);
            client(&tls).expect_err("unusable").to_string()
        };
        assert!(client_error(|tls| tls.ca_file = file("missing.pem")).contains("missing.pem"));
        assert!(client_error(|tls| tls.ca_file = file("server-key.pem")).contains("holds no certificate"));
        assert!(client_error(|tls| tls.key_file = None).contains("key_file is missing"));
        assert!(client_error(|tls| tls.certificate_file = None).contains("certificate_file is missing"));
        assert!(client_error(|tls| tls.certificate_file = file("authority.pem")).contains("do not fit"));
        assert!(server(&Tls::default()).expect_err("no certificate").to_string().contains("certificate_file"));
    }
}

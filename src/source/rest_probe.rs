//! A visit to a device: what `meterferry doctor` wants to know. Nothing is remembered, and nothing is sent to a device whose
//! certificate is not the right one.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::rest_answer::{Wanted, judge};
use super::rest_link::{Link, of_tls, show_way};
use super::rest_memory::{Memory, file_of};
use super::rest_paths::Search;
use super::rest_tls::{Client, fingerprint};
use super::rest_trouble::{CertificateHash, Trouble};
use super::tls::TlsError;
use crate::config::settings::{Rest, Trust};
use crate::config::show_address;
use crate::metrics::SourceMetrics;

/// What a visit found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Path and header that the device understands.
    pub way: String,
    /// Its measurement.
    pub measurement: Bytes,
    /// What its status is, or why there is none; none where no path for it is known.
    pub status: Option<Result<Bytes, Trouble>>,
}

/// The certificate that a source of this name, whose device is remembered in `folder`, has trusted at first use.
pub async fn trusted(rest: &Rest, folder: &Path, source: &str) -> Option<CertificateHash> {
    let device = show_address(&rest.host, rest.port);
    Memory::of(file_of(folder, source), device).await.certificate()
}

/// Asks the device once, as the source would, with `known` as the certificate that was trusted at first use.
///
/// # Errors
///
/// The outer one if the TLS files cannot be used, the inner one if there is no measurement.
pub async fn visit(
    rest: &Rest,
    wanted: Wanted,
    known: Option<CertificateHash>,
) -> Result<Result<Found, Trouble>, TlsError> {
    let mut rest = rest.clone();
    if let (Some(Trust::FirstUse), Some(known)) = (&rest.trust, known) {
        rest.trust = Some(Trust::Fingerprint(known));
    }
    let memory = Memory::fleeting(show_address(&rest.host, rest.port));
    let mut link = Link::new(&rest, memory, Arc::new(SourceMetrics::default()))?;
    Ok(ask(&mut link, wanted).await)
}

async fn ask(link: &mut Link, wanted: Wanted) -> Result<Found, Trouble> {
    let mut search = Search::new(&link.configured, link.has_key(), None);
    let mut worst = None;
    while let Some(way) = search.way() {
        let path = way.measurement(&link.configured).to_owned();
        let answer = link.get(&path, way.header).await?;
        let Err(trouble) = judge(&answer, wanted, link.has_key()) else {
            let shown = show_way(&way, &link.configured, link.has_key());
            let status = match way.status(&link.configured).map(str::to_owned) {
                None => None,
                Some(path) => Some(match link.get(&path, way.header).await {
                    Ok(answer) => judge(&answer, Wanted::Status, link.has_key()).map(|()| answer.body),
                    Err(trouble) => Err(trouble),
                }),
            };
            return Ok(Found { way: shown, measurement: answer.body, status });
        };
        let Some(met) = trouble.met() else { return Err(trouble) };
        worst = Some(trouble.or_worse(worst));
        search.met(met);
    }
    Err(worst.unwrap_or(Trouble::Paths))
}

/// The certificate that a device shows at the other end of `stream`, whatever is trusted.
///
/// # Errors
///
/// There is none, or no handshake.
pub async fn shown(rest: &Rest, stream: TcpStream) -> Result<CertificateHash, Trouble> {
    let tls = |error: &dyn std::fmt::Display| Trouble::Tls(error.to_string());
    let client = Client::new(&Trust::FirstUse, None).map_err(|error| tls(&error))?;
    let name = ServerName::try_from(rest.host.clone()).map_err(|error| tls(&error))?;
    let shaken = timeout(rest.timeout, TlsConnector::from(client.config).connect(name, stream)).await;
    let stream = shaken.map_err(|_| Trouble::Silent)?.map_err(|error| of_tls(&error))?;
    let chain = stream.get_ref().1.peer_certificates();
    chain.and_then(|chain| chain.first()).map(fingerprint).ok_or_else(|| tls(&"it shows no certificate"))
}

//! The one connection to a device: TCP, TLS where it is configured, HTTP/1.1, kept alive and opened again when the device
//! has closed it. Every request has a time limit and every answer a size limit.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderName, HeaderValue, LOCATION};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::rest_answer::{Answer, shown};
use super::rest_memory::Memory;
use super::rest_paths::{Configured, Header, Way};
use super::rest_tls::{self, Client};
use super::rest_trouble::Trouble;
use super::tls::TlsError;
use crate::config::settings::{Rest, Secret, Trust};
use crate::config::show_address;
use crate::metrics::SourceMetrics;

/// Bytes of an answer's head, and of what is read ahead of a body.
const HEAD: usize = 16 << 10;

/// Headers of an answer.
const HEADERS: usize = 64;

/// A device, and the connection to it while there is one.
#[derive(Debug)]
pub(super) struct Link {
    host: String,
    port: u16,
    key: Option<Secret>,
    tls: Option<Client>,
    /// Whether a certificate is trusted at first use.
    first_use: bool,
    timeout: Duration,
    max_body_size: usize,
    pub configured: Configured,
    pub memory: Memory,
    metrics: Arc<SourceMetrics>,
    open: Option<Open>,
}

/// An open connection; dropping it closes it.
#[derive(Debug)]
struct Open {
    requests: SendRequest<Empty<Bytes>>,
    driver: AbortHandle,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Link {
    /// Not connected yet.
    ///
    /// # Errors
    ///
    /// The authorities that are to be trusted cannot be used.
    pub(super) fn new(rest: &Rest, memory: Memory, metrics: Arc<SourceMetrics>) -> Result<Self, TlsError> {
        let tls = rest.trust.as_ref().map(|trust| Client::new(trust, memory.certificate())).transpose()?;
        Ok(Self {
            host: rest.host.clone(),
            port: rest.port,
            key: rest.token.clone(),
            tls,
            first_use: rest.trust == Some(Trust::FirstUse),
            timeout: rest.timeout,
            max_body_size: rest.max_body_size,
            configured: Configured { path: rest.path.clone(), status_path: rest.status_path.clone() },
            memory,
            metrics,
            open: None,
        })
    }

    pub(super) fn has_key(&self) -> bool {
        self.key.is_some()
    }

    /// The certificate that is trusted since its first use.
    pub(super) fn trusted(&self) -> Option<&str> {
        self.memory.fingerprint().filter(|_| self.first_use)
    }

    /// Asks for `path`. A device that has closed the connection since the last answer is connected to again.
    ///
    /// # Errors
    ///
    /// There is no answer, or no whole one. The connection is closed then.
    pub(super) async fn get(&mut self, path: &str, header: Header) -> Result<Answer, Trouble> {
        let until = Instant::now() + self.timeout;
        let reused = self.open.is_some();
        let mut asked = self.ask(path, header, until).await;
        if reused && asked == Err(Trouble::Closed) {
            // It was closed while nothing was asked, and the request crossed the farewell: a device may do that.
            self.open = None;
            asked = self.ask(path, header, until).await;
        }
        if asked.is_err() {
            self.open = None;
        }
        asked
    }

    async fn ask(&mut self, path: &str, header: Header, until: Instant) -> Result<Answer, Trouble> {
        let request = self.request(path, header)?;
        if let Some(open) = &mut self.open
            && !matches!(timeout_at(until, open.requests.ready()).await, Ok(Ok(())))
        {
            self.open = None;
        }
        let open = match self.open.take() {
            Some(open) => open,
            None => timeout_at(until, self.connect()).await.map_err(|_| Trouble::Silent)??,
        };
        let open = self.open.insert(open);
        let sent = timeout_at(until, open.requests.send_request(request)).await.map_err(|_| Trouble::Silent)?;
        let response = sent.map_err(|error| of_http(&error))?;
        let read = timeout_at(until, read(response, self.max_body_size)).await.map_err(|_| Trouble::Slow)?;
        let (answer, whole) = read?;
        if !whole {
            self.open = None;
        }
        Ok(answer)
    }

    fn request(&self, path: &str, header: Header) -> Result<Request<Empty<Bytes>>, Trouble> {
        let authority = match (self.port, self.tls.is_some()) {
            (80, false) | (443, true) if self.host.contains(':') => format!("[{}]", self.host),
            (80, false) | (443, true) => self.host.clone(),
            _ => show_address(&self.host, self.port),
        };
        let mut request = Request::get(path).header(HOST, authority).header(ACCEPT, "application/json");
        if let Some((name, value)) = self.key.as_ref().and_then(|key| credentials(key, header)) {
            request = request.header(name, value);
        }
        request.body(Empty::new()).map_err(|error| Trouble::NotHttp(error.to_string()))
    }

    async fn connect(&mut self) -> Result<Open, Trouble> {
        let unreachable = |error: io::Error| Trouble::Unreachable(plain(&error));
        let stream = TcpStream::connect((&*self.host, self.port)).await.map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        let open = match &self.tls {
            None => handshake(stream).await?,
            Some(client) => {
                let client = client.clone();
                let stream = self.secured(&client, stream).await?;
                handshake(stream).await?
            }
        };
        self.metrics.connects.one();
        Ok(open)
    }

    /// Shakes hands. Of the device nothing is known before its certificate is trusted, and it is told nothing.
    async fn secured(
        &mut self,
        client: &Client,
        stream: TcpStream,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Trouble> {
        let name = ServerName::try_from(self.host.clone()).map_err(|error| Trouble::Tls(error.to_string()))?;
        let connected = TlsConnector::from(Arc::clone(&client.config)).connect(name, stream).await;
        let stream = connected.map_err(|error| {
            let mismatch = client.pinned.as_ref().and_then(|pinned| pinned.mismatch(self.first_use));
            mismatch.filter(|_| is_refusal(&error)).unwrap_or_else(|| of_tls(&error))
        })?;
        let Some(pinned) = &client.pinned else { return Ok(stream) };
        // A session that is taken up again shows nothing anew, so it is looked at here too.
        let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).map(rest_tls::fingerprint);
        match (pinned.expected(), shown) {
            (_, None) => Err(Trouble::Tls("it shows no certificate".to_owned())),
            (Some(expected), Some(shown)) if expected == shown => Ok(stream),
            (Some(expected), Some(shown)) => Err(Trouble::Certificate { expected, shown, remembered: self.first_use }),
            (None, Some(shown)) => {
                self.memory.trust(&shown).await.map_err(Trouble::Memory)?;
                pinned.expect(shown);
                Ok(stream)
            }
        }
    }
}

/// The header that carries the key; none where the key cannot stand in one, which the configuration has ruled out.
fn credentials(key: &Secret, header: Header) -> Option<(HeaderName, HeaderValue)> {
    let (name, text) = match header {
        Header::Authorization => (AUTHORIZATION, format!("TOKEN {}", key.0)),
        Header::AuthorizationToken => (HeaderName::from_static("authorizationtoken"), key.0.clone()),
    };
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some((name, value))
}

async fn handshake<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(stream: S) -> Result<Open, Trouble> {
    let mut builder = http1::Builder::new();
    // Small devices may take names of headers by the letter, and write their own as they like.
    builder.title_case_headers(true).max_buf_size(HEAD).max_headers(HEADERS);
    let (requests, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(|error| of_http(&error))?;
    let driver = tokio::spawn(async move {
        // How it ended, the request is told.
        let _ = connection.await;
    })
    .abort_handle();
    Ok(Open { requests, driver })
}

/// The whole answer, and whether the connection can be used again. Of an answer that is none anyway the body counts as
/// far as it came.
async fn read(response: Response<Incoming>, most: usize) -> Result<(Answer, bool), Trouble> {
    let text =
        |name| response.headers().get(name).map(|value: &HeaderValue| shown(value.as_bytes())).unwrap_or_default();
    let mut answer = Answer {
        status: response.status().as_u16(),
        content_type: text(CONTENT_TYPE),
        content_encoding: text(CONTENT_ENCODING),
        location: text(LOCATION),
        body: Bytes::new(),
    };
    let body = body(response.into_body(), most).await;
    match body {
        Ok(body) => answer.body = body,
        Err(trouble) if answer.status == 200 => return Err(trouble),
        Err(_) => return Ok((answer, false)),
    }
    Ok((answer, true))
}

async fn body(mut body: Incoming, most: usize) -> Result<Bytes, Trouble> {
    if body.size_hint().lower() > most as u64 {
        return Err(Trouble::TooLarge(most));
    }
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Trouble::Truncated)?.into_data() else { continue };
        if bytes.len() + data.len() > most {
            return Err(Trouble::TooLarge(most));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

fn of_http(error: &hyper::Error) -> Trouble {
    if error.is_parse_too_large() {
        Trouble::HeadTooLarge
    } else if error.is_parse() {
        Trouble::NotHttp(error.to_string())
    } else {
        Trouble::Closed
    }
}

/// Whether we refused the certificate ourselves.
fn is_refusal(error: &io::Error) -> bool {
    let refused = rustls::CertificateError::ApplicationVerificationFailure;
    matches!(of_rustls(error), Some(rustls::Error::InvalidCertificate(why)) if *why == refused)
}

pub(super) fn of_tls(error: &io::Error) -> Trouble {
    match of_rustls(error) {
        Some(rustls::Error::InvalidCertificate(why)) => Trouble::Untrusted(why.to_string()),
        Some(rustls::Error::InvalidMessage(_)) => Trouble::NotTls,
        Some(other) => Trouble::Tls(other.to_string()),
        // One that has no room for another connection, or that speaks no TLS.
        None if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => {
            Trouble::Closed
        }
        None => Trouble::Tls(plain(error)),
    }
}

/// What rustls says behind an error of a stream.
fn of_rustls(error: &io::Error) -> Option<&rustls::Error> {
    let mut next: Option<&(dyn StdError + 'static)> = error.get_ref().map(|inner| inner as _);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// Without Rust's prefix and number.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.strip_prefix("failed to lookup address information: ").unwrap_or(&text);
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

/// Where the way leads, for a person: path and header.
pub(super) fn show_way(way: &Way, configured: &Configured, has_key: bool) -> String {
    let path = way.measurement(configured);
    match (has_key, way.header) {
        (false, _) => path.to_owned(),
        (true, Header::Authorization) => format!("{path} with Authorization: TOKEN"),
        (true, Header::AuthorizationToken) => format!("{path} with AuthorizationToken"),
    }
}

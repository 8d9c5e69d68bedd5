//! A simulated adapter that is asked over HTTP: one device with key, self-signed certificate, the paths of one firmware,
//! room for three connections, and faults on demand.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, LOCATION};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::adapter::{self, Adapter};
use super::rest_fault::{Fault, FaultyBody, SLOW};
use crate::shutdown::Shutdown;
use crate::source::rest_tls::fingerprint;
use crate::source::tls::provider;

/// Connections that the device has room for (ADAPTERS.md).
pub const CONNECTIONS: usize = 3;

/// How long a handshake, and the head of a request, may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long the last answers may take once a stop is asked for.
const FAREWELL: Duration = Duration::from_secs(1);

/// Which paths and which header the device understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Firmware {
    /// /api/v1/measurement, Authorization: TOKEN
    V1,
    /// /api/v1/measurement.json, Authorization: TOKEN
    V1Json,
    /// /api/data/measurement.json, AuthorizationToken
    Old,
}

impl Firmware {
    /// Where the measurement and the status are.
    pub fn paths(self) -> (&'static str, &'static str) {
        match self {
            Self::V1 => ("/api/v1/measurement", "/api/v1/status"),
            Self::V1Json => ("/api/v1/measurement.json", "/api/v1/status.json"),
            Self::Old => ("/api/data/measurement.json", "/api/sma/status.json"),
        }
    }
}

/// A certificate could not be made.
#[derive(Debug, thiserror::Error)]
#[error("a certificate cannot be made")]
pub struct CertificateError(#[from] rcgen::Error);

/// What a device shows who it is with.
#[derive(Debug)]
pub struct Identity {
    pub certificates: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

impl Identity {
    /// A new certificate, signed with its own key, as devices make them at their first start.
    ///
    /// # Errors
    ///
    /// There is no randomness to be had.
    pub fn new() -> Result<Self, CertificateError> {
        let key = rcgen::KeyPair::generate()?;
        let mut params = rcgen::CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()])?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, "simulated adapter");
        let certificates = vec![params.self_signed(&key)?.der().clone()];
        Ok(Self { certificates, key: key.into() })
    }

    /// SHA-256 of the certificate.
    pub fn fingerprint(&self) -> Option<[u8; 32]> {
        self.certificates.first().map(fingerprint)
    }
}

/// What is simulated.
#[derive(Debug)]
pub struct Options {
    /// Port 0: any free one.
    pub listen: SocketAddr,
    /// The key that is asked for; none: everybody may ask.
    pub token: Option<String>,
    /// None: plain HTTP.
    pub identity: Option<Identity>,
    pub firmware: Firmware,
    /// From measurement to measurement of the meter; at least 1 ms.
    pub interval: Duration,
    pub seed: u64,
    /// Tells the adapters of one seed apart.
    pub index: u32,
    /// The meter's clock at the start, milliseconds since 1970.
    pub start_ms: i64,
    /// What goes wrong, and with each so-manieth request.
    pub fault: Option<(Fault, u64)>,
}

/// What happens.
#[derive(Debug)]
pub enum Event<'a> {
    Connected {
        client: SocketAddr,
    },
    Disconnected {
        client: SocketAddr,
    },
    /// A measurement is on its way to who asked for it.
    Given {
        client: SocketAddr,
        document: &'a [u8],
    },
}

/// Who is told. It must not block.
pub type Observer = Arc<dyn Fn(Event<'_>) + Send + Sync>;

/// A device that listens.
pub struct Server {
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    device: Arc<Device>,
}

/// What happened so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    pub connections: u64,
    /// Connections refused because there were [`CONNECTIONS`].
    pub turned_away: u64,
    pub requests: u64,
    /// Measurements given, without faults.
    pub measurements: u64,
}

struct Device {
    firmware: Firmware,
    token: Option<String>,
    fault: Option<(Fault, u64)>,
    adapter: Mutex<Adapter>,
    began: Instant,
    connections: AtomicU64,
    turned_away: AtomicU64,
    requests: AtomicU64,
    measurements: AtomicU64,
    observe: Observer,
}

/// Listens.
///
/// # Errors
///
/// The address cannot be had, or certificate and key do not fit.
pub async fn bind(options: Options, observe: Observer) -> io::Result<Server> {
    let acceptor = match options.identity {
        None => None,
        Some(identity) => {
            let config = ServerConfig::builder_with_provider(provider())
                .with_safe_default_protocol_versions()
                .and_then(|builder| builder.with_no_client_auth().with_single_cert(identity.certificates, identity.key))
                .map_err(io::Error::other)?;
            Some(TlsAcceptor::from(Arc::new(config)))
        }
    };
    let listener = TcpListener::bind(options.listen).await?;
    let Options { seed, index, start_ms, interval: step, .. } = options;
    let device = Device {
        firmware: options.firmware,
        token: options.token,
        fault: options.fault,
        adapter: Mutex::new(Adapter::new(&adapter::Options { seed, index, name: None, start_ms, step })),
        began: Instant::now(),
        connections: AtomicU64::new(0),
        turned_away: AtomicU64::new(0),
        requests: AtomicU64::new(0),
        measurements: AtomicU64::new(0),
        observe,
    };
    Ok(Server { listener, acceptor, device: Arc::new(device) })
}

impl Server {
    /// Where it listens.
    ///
    /// # Errors
    ///
    /// Those of the system.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until a stop is asked for.
    pub async fn run(self, shutdown: Shutdown) -> Report {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let mut open = JoinSet::new();
        loop {
            let (stream, client) = tokio::select! {
                () = shutdown.asked() => break,
                Some(_) = open.join_next() => continue,
                accepted = self.listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    // No descriptors left, most likely: some connection will end.
                    Err(_) => {
                        sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                },
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                self.device.turned_away.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            self.device.connections.fetch_add(1, Ordering::Relaxed);
            let (device, acceptor) = (Arc::clone(&self.device), self.acceptor.clone());
            let shutdown = shutdown.clone();
            open.spawn(async move {
                (device.observe)(Event::Connected { client });
                serve(Arc::clone(&device), acceptor, (stream, client), &shutdown).await;
                (device.observe)(Event::Disconnected { client });
                drop(place);
            });
        }
        // Who has asked is answered, but not waited for.
        let _ = timeout(FAREWELL, async { while open.join_next().await.is_some() {} }).await;
        open.shutdown().await;
        self.device.report()
    }
}

async fn serve(
    device: Arc<Device>,
    acceptor: Option<TlsAcceptor>,
    (stream, client): (TcpStream, SocketAddr),
    shutdown: &Shutdown,
) {
    match acceptor {
        None => answer(device, stream, client, shutdown).await,
        Some(acceptor) => {
            if let Ok(Ok(stream)) = timeout(PATIENCE, acceptor.accept(stream)).await {
                answer(device, stream, client, shutdown).await;
            }
        }
    }
}

async fn answer(
    device: Arc<Device>,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    client: SocketAddr,
    shutdown: &Shutdown,
) {
    let service = service_fn(|request: Request<Incoming>| {
        let device = Arc::clone(&device);
        async move { device.answer(&request, client).await.ok_or(Reset) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(16 << 10);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    // A client that goes away is no news.
    let gone = tokio::select! {
        _ = connection.as_mut() => true,
        () = shutdown.asked() => false,
    };
    if !gone {
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
}

/// The connection ends without an answer.
#[derive(Debug, thiserror::Error)]
#[error("as asked for")]
struct Reset;

impl Device {
    fn report(&self) -> Report {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Report {
            connections: count(&self.connections),
            turned_away: count(&self.turned_away),
            requests: count(&self.requests),
            measurements: count(&self.measurements),
        }
    }

    /// None: the connection is to end.
    async fn answer(&self, request: &Request<Incoming>, client: SocketAddr) -> Option<Response<FaultyBody>> {
        let number = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some((fault, _)) = self.fault.filter(|(_, every)| number.is_multiple_of(*every)) {
            return self.wrong(fault).await;
        }
        let (measurement, status) = self.firmware.paths();
        let path = request.uri().path();
        if request.method() != Method::GET {
            return Some(page(405, "Method Not Allowed"));
        }
        if path != measurement && path != status {
            return Some(page(404, "Not Found"));
        }
        if !self.lets_in(request) {
            return Some(page(401, "Unauthorized"));
        }
        let document = if path == measurement { self.measurement() } else { self.adapter().status() };
        if path == measurement {
            self.measurements.fetch_add(1, Ordering::Relaxed);
            (self.observe)(Event::Given { client, document: &document });
        }
        Some(json(FaultyBody::whole(document)))
    }

    fn adapter(&self) -> std::sync::MutexGuard<'_, Adapter> {
        self.adapter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn measurement(&self) -> Vec<u8> {
        self.adapter().asked(self.began.elapsed())
    }

    fn lets_in(&self, request: &Request<Incoming>) -> bool {
        let Some(token) = &self.token else { return true };
        let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        match self.firmware {
            Firmware::V1 | Firmware::V1Json => {
                header(AUTHORIZATION.as_str()).strip_prefix("TOKEN ").is_some_and(|key| key == token)
            }
            Firmware::Old => header("authorizationtoken") == token,
        }
    }

    async fn wrong(&self, fault: Fault) -> Option<Response<FaultyBody>> {
        let document = self.measurement();
        Some(match fault {
            Fault::Slow => {
                sleep(SLOW).await;
                return None;
            }
            Fault::Reset => return None,
            Fault::SlowBody => json(FaultyBody::dripping()),
            Fault::Status(status) => page(status, "As asked for"),
            Fault::Html => page(200, "Adapter"),
            Fault::BrokenJson => json(FaultyBody::whole(
                String::from_utf8_lossy(&document).replacen("\"value\":", "\"value\":nan,\"v\":", 1).into_bytes(),
            )),
            Fault::Empty => json(FaultyBody::whole("")),
            Fault::Truncated => json(FaultyBody::truncated(document)),
            Fault::Huge => json(FaultyBody::huge()),
            Fault::Endless => json(FaultyBody::endless()),
            Fault::Gzip => {
                let mut response =
                    json(FaultyBody::whole(&b"\x1f\x8b\x08\0\0\0\0\0\0\x03\xab\xae\x05\0C\xbf\xa6\xa3\x02\0\0\0"[..]));
                response.headers_mut().insert(CONTENT_ENCODING, hyper::header::HeaderValue::from_static("gzip"));
                response
            }
            Fault::Latin1 => json(FaultyBody::whole(&b"{\"name\":\"K\xfcche\",\"1-0:1.7.0\":{\"value\":40}}"[..])),
            Fault::Foreign => json(FaultyBody::whole("{\"error\":\"the meter is silent\"}")),
        })
    }
}

fn json(body: FaultyBody) -> Response<FaultyBody> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    response
}

fn page(status: u16, title: &str) -> Response<FaultyBody> {
    let page = format!("<!DOCTYPE html><html><head><title>{title}</title></head><body>{title}</body></html>");
    let mut response = Response::new(FaultyBody::whole(page));
    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("text/html"));
    if (300..400).contains(&status) {
        headers.insert(LOCATION, hyper::header::HeaderValue::from_static("https://elsewhere.example/login"));
    }
    response
}

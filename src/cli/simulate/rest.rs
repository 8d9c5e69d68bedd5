//! `meterferry simulate --interface rest`

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;

use super::Asked;
use crate::cli::terminal;
use crate::cli::units::chain;
use crate::config::{self, show_fingerprint};
use crate::shutdown::Shutdown;
use crate::simulate::rest::{self, Firmware, Identity, Options};
use crate::source::tls;

/// With `--interface rest`.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "REST")]
#[group(skip)]
pub struct Args {
    /// File with the key that is asked for; without it, everybody may ask
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// Whose paths and header it understands [default: v1]
    #[arg(long, value_enum)]
    firmware: Option<Firmware>,

    /// Plain HTTP
    #[arg(long, conflicts_with_all = ["certificate", "key"])]
    http: bool,

    /// PEM file with its certificate; without it, it makes a new one and prints its fingerprint
    #[arg(long, value_name = "FILE", requires = "key")]
    certificate: Option<PathBuf>,

    /// PEM file with the certificate's key
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
}

/// Where it listens unless told otherwise.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

impl Args {
    /// An option that was given, for a message.
    pub fn given(&self) -> Option<&'static str> {
        let given = [
            ("--token-file", self.token_file.is_some()),
            ("--firmware", self.firmware.is_some()),
            ("--http", self.http),
            ("--certificate", self.certificate.is_some()),
        ];
        given.into_iter().find(|(_, given)| *given).map(|(name, _)| name)
    }

    /// Answers until the stop.
    ///
    /// # Errors
    ///
    /// Why it cannot.
    pub async fn run(
        self,
        asked: &Asked,
        interval: Duration,
        seed: u64,
        start: Option<Timestamp>,
        shutdown: &Shutdown,
    ) -> Result<ExitCode, String> {
        let token = self.token_file.as_deref().map(config::password).transpose()?.map(|secret| secret.0);
        let identity = if self.http { None } else { Some(identity(&self)?) };
        let shown = identity.as_ref().and_then(Identity::fingerprint);
        let firmware = self.firmware.unwrap_or(Firmware::V1);
        let listen = asked.listen.unwrap_or(LISTEN);
        let options = Options {
            listen,
            token,
            identity,
            firmware,
            interval: interval.max(Duration::from_millis(1)),
            seed,
            index: 0,
            start_ms: start.unwrap_or_else(Timestamp::now).as_millisecond(),
            fault: asked.fault()?,
        };
        let cannot = |error| format!("cannot listen at {listen}: {error}");
        let server = rest::bind(options, Arc::new(|_| {})).await.map_err(cannot)?;
        let address = server.local_addr().map_err(cannot)?;
        let (measurement, status) = firmware.paths();
        let scheme = if self.http { "http" } else { "https" };
        terminal::say(format_args!("{scheme}://{address}{measurement} and {status}"));
        if let Some(fingerprint) = shown {
            terminal::say(format_args!("fingerprint = \"{}\"", show_fingerprint(&fingerprint)));
        }
        let report = server.run(shutdown.clone()).await;
        terminal::say(format_args!(
            "{} requests on {} connections, {} measurements given, {} turned away for lack of room",
            report.requests, report.connections, report.measurements, report.turned_away
        ));
        Ok(ExitCode::SUCCESS)
    }
}

fn identity(args: &Args) -> Result<Identity, String> {
    let (Some(certificate), Some(key)) = (&args.certificate, &args.key) else {
        return Identity::new().map_err(|error| chain(&error));
    };
    let certificates = tls::certificates(certificate).map_err(|error| chain(&error))?;
    let key = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| format!("{} is no private key in PEM: {}", key.display(), chain(&error)))?;
    Ok(Identity { certificates, key })
}

//! `meterferry simulate --interface rest`

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use jiff::Timestamp;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use tokio::runtime::Runtime;

use super::super::units::chain;
use super::terminal;
use crate::config::{self, show_fingerprint};
use crate::shutdown::Shutdown;
use crate::simulate::rest::{self, Firmware, Identity, Options};
use crate::simulate::rest_fault::Often;
use crate::source::tls;

/// Options of this interface.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Options of --interface rest")]
pub struct Args {
    /// Where it listens; port 0: any free one, which is printed
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0", value_parser = listen)]
    listen: SocketAddr,

    /// File with the key that is asked for; without it, everybody may ask
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// Whose paths and header it understands
    #[arg(long, value_enum, default_value_t = Firmware::V1)]
    firmware: Firmware,

    /// Plain HTTP
    #[arg(long, conflicts_with_all = ["certificate", "key"])]
    http: bool,

    /// PEM file with its certificate; without it, it makes a new one and prints its fingerprint
    #[arg(long, value_name = "FILE", requires = "key")]
    certificate: Option<PathBuf>,

    /// PEM file with the certificate's key
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,

    /// What it does wrong, and with each so-manieth request: slow, slow-body, broken-json, html, empty, truncated, huge,
    /// endless, reset, gzip, latin1, foreign-json, or a status from 300 to 599; may be given several times
    #[arg(long, value_name = "FAULT[:N]")]
    fault: Vec<Often>,
}

/// It has no user that a person chose: this machine only.
fn listen(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| "write it as 127.0.0.1:8443".to_owned())?;
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err("must be an address of this machine's loopback".to_owned())
    }
}

/// Answers until Ctrl-C.
pub fn run(
    args: Args,
    interval: Duration,
    seed: u64,
    start: Option<Timestamp>,
    runtime: &Runtime,
    shutdown: &Shutdown,
) -> Result<ExitCode, String> {
    let token = args.token_file.as_deref().map(config::password).transpose()?.map(|secret| secret.0);
    let identity = if args.http { None } else { Some(identity(&args)?) };
    let shown = identity.as_ref().and_then(Identity::fingerprint);
    let options = Options {
        listen: args.listen,
        token,
        identity,
        firmware: args.firmware,
        interval: interval.max(Duration::from_millis(1)),
        seed,
        start_ms: start.unwrap_or_else(Timestamp::now).as_millisecond(),
        faults: args.fault,
    };
    runtime.block_on(async {
        let server = rest::bind(options).await.map_err(|error| format!("cannot listen on {}: {error}", args.listen))?;
        let address = server.local_addr().map_err(|error| format!("cannot listen on {}: {error}", args.listen))?;
        let (measurement, status) = args.firmware.paths();
        let scheme = if args.http { "http" } else { "https" };
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
    })
}

fn identity(args: &Args) -> Result<Identity, String> {
    let (Some(certificate), Some(key)) = (&args.certificate, &args.key) else {
        return Identity::new().map_err(|error| format!("cannot make a certificate: {}", chain(&error)));
    };
    let certificates = tls::certificates(certificate).map_err(|error| chain(&error))?;
    let key = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| format!("{} is no private key in PEM: {}", key.display(), chain(&error)))?;
    Ok(Identity { certificates, key })
}

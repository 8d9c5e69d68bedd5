//! Is an address there: its name, and a TCP connection.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

/// The longest that one name or one connection is waited for.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Addresses of one name that are tried.
const ADDRESSES: usize = 4;

/// An address that cannot be reached, and how far one gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreached {
    /// The name means nothing here, or nobody answers what it means.
    Name(String),
    /// Nobody is at the address, or something in between says so.
    Refused { address: SocketAddr, error: String },
    /// Nothing comes back.
    Silent { address: SocketAddr },
}

impl Unreached {
    /// What was seen, behind the address.
    pub fn words(&self) -> String {
        match self {
            Self::Name(error) => format!("the name cannot be resolved: {error}"),
            Self::Refused { address, error } => format!("no connection to {address}: {error}"),
            Self::Silent { address } => format!("no answer from {address} within {} s", PATIENCE.as_secs()),
        }
    }

    /// What to look at.
    pub fn cure(&self, server: &str) -> String {
        match self {
            Self::Name(_) => {
                "is the name right, and does this machine reach its name server? Try: getent hosts NAME".into()
            }
            Self::Refused { .. } => {
                format!("does {server} run, does it listen on this address, and is the port right?")
            }
            Self::Silent { .. } => "a firewall or a wrong address: is the port open from here?".into(),
        }
    }
}

/// Resolves `host` and connects, to one of its addresses after the other.
pub async fn connect(host: &str, port: u16) -> Result<TcpStream, Unreached> {
    let found = match timeout(PATIENCE, lookup_host((host, port))).await {
        Err(_) => return Err(Unreached::Name(format!("no answer within {} s", PATIENCE.as_secs()))),
        Ok(Err(error)) => return Err(Unreached::Name(plain(&error))),
        Ok(Ok(found)) => found,
    };
    let mut last = Unreached::Name("there is no address behind it".to_owned());
    for address in found.take(ADDRESSES) {
        last = match timeout(PATIENCE, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => Unreached::Refused { address, error: plain(&error) },
            Err(_) => Unreached::Silent { address },
        };
    }
    Err(last)
}

/// Without Rust's prefix and number.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.strip_prefix("failed to lookup address information: ").unwrap_or(&text);
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

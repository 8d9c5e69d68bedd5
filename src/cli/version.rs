//! `meterferry version`

use std::env::consts::{ARCH, OS};
use std::io::{self, Write};
use std::process::ExitCode;

use super::{Global, consume};

/// Print the versions of meterferry and of what it is built with
#[derive(Debug, clap::Args)]
pub struct Args {
    /// One JSON object, for programs
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args, _global: &Global) -> ExitCode {
    let target = format!("{ARCH}-{OS}-{}", environment());
    let rows = [
        ("meterferry", env!("CARGO_PKG_VERSION").to_owned()),
        ("librdkafka", consume::librdkafka_version()),
        ("queue format", crate::queue::FORMAT.to_string()),
        ("target", target),
    ];
    // Whoever reads it may have seen enough.
    let mut out = io::stdout().lock();
    if args.json {
        let object: serde_json::Map<_, _> =
            rows.into_iter().map(|(name, version)| (name.replace(' ', "_"), version.into())).collect();
        let _ = writeln!(out, "{}", serde_json::Value::Object(object));
    } else {
        for (name, version) in rows {
            let _ = writeln!(out, "{name:<14}{version}");
        }
    }
    ExitCode::SUCCESS
}

fn environment() -> &'static str {
    if cfg!(target_env = "musl") {
        "musl"
    } else if cfg!(target_env = "gnu") {
        "gnu"
    } else {
        "unknown"
    }
}

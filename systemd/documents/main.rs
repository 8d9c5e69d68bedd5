//! Writes what the package says about the program, each from the place where it is kept true:
//!
//! - `manual`: a page for every subcommand that clap knows, from what `--help` prints, and the shells' completions;
//! - `configuration`: meterferry.toml(5), from the comments of `edge-config/meterferry.toml`;
//! - `changelog`: Debian's form of `CHANGELOG.md`;
//! - `copyright`: the licences of everything that is linked into the binary, from what cargo fetched.
//!
//! Called by `systemd/package` as `documents FOLDER METADATA`, where METADATA holds the output of `cargo metadata`.
//! `$SOURCE_DATE_EPOCH` is the date that everything bears.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use jiff::Timestamp;

mod changelog;
mod configuration;
mod copyright;
mod manual;
mod roff;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args_os().skip(1).map(PathBuf::from).collect();
    let [folder, metadata] = arguments.as_slice() else {
        eprintln!("usage: documents FOLDER METADATA");
        return ExitCode::from(2);
    };
    match write_all(folder, metadata) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("documents: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write_all(folder: &Path, metadata: &Path) -> Outcome {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = |name: &str| fs::read_to_string(root.join(name)).map_err(|error| format!("{name}: {error}"));
    let date = date()?;
    for name in ["man", "completions"] {
        fs::create_dir_all(folder.join(name))?;
    }
    manual::pages(&folder.join("man"), &date)?;
    manual::completions(&folder.join("completions"))?;
    let page = configuration::page(&source("edge-config/meterferry.toml")?, &date)?;
    fs::write(folder.join("man/meterferry.toml.5"), page)?;
    fs::write(folder.join("changelog"), changelog::debian(&source("CHANGELOG.md")?, &date)?)?;
    fs::write(folder.join("copyright"), copyright::machine_readable(&fs::read_to_string(metadata)?)?)?;
    Ok(())
}

fn date() -> Outcome<Timestamp> {
    let epoch = env::var("SOURCE_DATE_EPOCH").map_err(|_| "SOURCE_DATE_EPOCH is not set")?;
    Ok(Timestamp::from_second(epoch.parse()?)?)
}

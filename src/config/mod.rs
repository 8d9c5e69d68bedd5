//! Configuration, in three steps, the only reader of files and environment:
//!
//! 1. [`raw`]: each file's text becomes tables that remember their lines, whatever is wrong in it; the files of `conf.d`
//!    are laid over the first one.
//! 2. [`check`]: each key by its own rule, then what must fit together. Every problem is collected, with file, line, key,
//!    value, limit and a hint; nothing stops at the first.
//! 3. [`settings`]: what is left when nothing was wrong. Nothing starts on anything else.
//!
//! Where files are looked for: [`load`]. How an effective configuration is shown: [`dump`].

use std::path::{Path, PathBuf};
use std::sync::Arc;

mod check;
mod dump;
mod environment;
mod files;
mod lookup;
pub mod machine;
mod mapping;
mod names;
mod presets;
mod problem;
mod raw;
mod schema;
mod section;
pub mod settings;
mod units;
mod usable;

#[cfg(test)]
mod any_bytes;
#[cfg(test)]
mod messages;
#[cfg(test)]
mod shipped;

pub use check::zone;
pub use dump::dump;
pub use environment::Environment;
pub use files::password;
pub use names::{fingerprint as parse_fingerprint, host_and_port, is_loopback, show_address, show_fingerprint};
pub use presets::{PRESETS, Preset};
pub use problem::{Problem, Problems};
pub use units::{parse_duration, parse_size, show_duration, show_size};

use crate::decode::mapping::Mapping;
use settings::Settings;

/// A configuration that is right.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub settings: Settings,
    /// The files read, in the order of reading.
    pub files: Vec<PathBuf>,
    /// Secrets, certificates and keys that were read for it.
    pub named: Vec<PathBuf>,
    /// What is allowed and may still be a mistake.
    pub warnings: Vec<Problem>,
}

/// What holds where no file says otherwise; there are no sources.
pub fn defaults(environment: &Environment) -> Settings {
    let root = raw::Table { place: problem::Place { file: 0, line: 0 }, entries: Vec::new() };
    // That sources are missing is no problem here.
    check::check(root, files::Around { environment, beside: Path::new("") }, &mut problem::Report::default())
}

/// Whether `text` may be an agent's id.
pub fn is_agent_id(text: &str) -> bool {
    names::agent_id(text).is_ok()
}

/// Whether `text` is HOST:PORT; otherwise what it has to be.
pub fn is_server(text: &str) -> Result<(), String> {
    names::host_and_port(text).map(|_| ())
}

/// Whether `text` may be a topic of the agent or, with `{device}` in it, the topics of devices; otherwise what it has to be.
pub fn is_source_topic(text: &str) -> Result<(), String> {
    names::source_topic(text)
}

/// Whether `text` may be a topic of the agent in Kafka; otherwise what it has to be.
pub fn is_kafka_topic(text: &str) -> Result<(), String> {
    names::kafka_topic(text)
}

/// A person's own mapping, for times in `zone`.
///
/// # Errors
///
/// Everything that is wrong with the file, at once.
pub fn mapping_file(path: &Path, zone: jiff::tz::TimeZone) -> Result<Mapping, Problems> {
    let mut report = problem::Report::default();
    let Some(root) = lookup::file(path, true, &mut report) else { return Err(report.finish()) };
    let table = Arc::new(mapping::check(root, problem::Place { file: 0, line: 0 }, &mut report));
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    if report.has_errors() { Err(report.finish()) } else { Ok(Mapping { name: name.into(), table, zone }) }
}

/// Reads and checks the configuration: `explicit`, else `/etc/meterferry/meterferry.toml`, else `meterferry.toml` in the
/// user's XDG folder; then the files `conf.d/*.toml` beside it in the order of their names, which add sources and
/// override keys one by one.
///
/// # Errors
///
/// Everything that is wrong, at once.
pub fn load(explicit: Option<&Path>, environment: &Environment) -> Result<Loaded, Problems> {
    let mut report = problem::Report::default();
    let Some(main) = lookup::main_file(explicit, environment, &mut report) else { return Err(report.finish()) };
    let Some(root) = lookup::tables(&main, &mut report) else { return Err(report.finish()) };
    let beside = main.parent().unwrap_or(Path::new(""));
    let settings = check::check(root, files::Around { environment, beside }, &mut report);
    let files = report.files().to_vec();
    let named = report.named().to_vec();
    let wrong = report.has_errors();
    let problems = report.finish();
    if wrong { Err(problems) } else { Ok(Loaded { settings, files, named, warnings: problems.warnings }) }
}

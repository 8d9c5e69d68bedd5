//! Where the agent's log goes: standard error, a line an event; under systemd the journal, a field a value.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::ColorChoice;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{ParseError, Targets};
use tracing_subscriber::fmt;
use tracing_subscriber::prelude::*;

use super::Global;
use crate::config::Environment;
use crate::notify::journal::Journal;
use crate::recent::Recent;

/// Begins to log as `--log` and `--color` say. Fails with a word on standard error if the filter makes no sense.
pub fn start(global: &Global) -> Result<(), ExitCode> {
    // A bare level is about meterferry; libraries are heard from when they warn.
    let directives = match global.log.parse::<tracing::Level>() {
        Ok(level) => format!("warn,meterferry={level}"),
        Err(_) => global.log.clone(),
    };
    let wrong = |what: &str| {
        anstream::eprintln!(
            "error: --log is {:?}: {what}\n  hint: a level (error, warn, info, debug, trace) or a filter such as meterferry::queue=debug",
            global.log
        );
        ExitCode::from(2)
    };
    // To the library a bare word that is no level is a module, and all others fall silent.
    if let Some(word) = misspelt(&directives) {
        return Err(wrong(&format!("{word:?} is no level")));
    }
    // Not the library's EnvFilter, which brings a compiler of regular expressions along.
    let filter: Targets = directives.parse().map_err(|error: ParseError| wrong(&error.to_string()))?;
    let environment = Environment::of_process();
    let stream = environment.variable("JOURNAL_STREAM");
    if let Some(journal) = Journal::of_standard_error(stream.and_then(|stream| stream.to_str())) {
        let _ = tracing_subscriber::registry().with(filter).with(journal).with(Recent).try_init();
        return Ok(());
    }
    let color = match global.color {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => std::io::stderr().is_terminal(),
    };
    // A line that cannot be written is lost; to say so on the same broken stream would end the process.
    let log = fmt()
        .log_internal_errors(false)
        .with_max_level(LevelFilter::TRACE)
        .with_writer(std::io::stderr)
        .with_ansi(color)
        .with_target(false);
    // A second start in one process (a test) keeps the first one's log.
    let _ = if stream.is_some() {
        log.without_time().finish().with(Recent).with(filter).try_init()
    } else {
        log.finish().with(Recent).with(filter).try_init()
    };
    Ok(())
}

/// The first directive that is a single word and no level.
fn misspelt(directives: &str) -> Option<&str> {
    let mut words = directives.split(',').map(str::trim).filter(|word| !word.contains(['=', ':', '[']));
    words.find(|word| word.parse::<LevelFilter>().is_err())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A level that is misspelt does not silence the agent.
    #[test]
    fn bare_words_are_levels() {
        for right in ["debug", "warn,meterferry=info", "off", "meterferry::queue=debug,info", "meterferry::queue"] {
            assert_eq!(misspelt(right), None, "{right}");
        }
        assert_eq!(misspelt("debgu"), Some("debgu"));
        assert_eq!(misspelt("meterferry=debug, verbose"), Some("verbose"));
    }
}

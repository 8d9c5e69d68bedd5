//! `meterferry check`

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};

use super::{EX_CONFIG, Global, out, terminal};
use crate::config::machine::Machine;
use crate::config::settings::{Settings, Source};
use crate::config::{self, Environment, Loaded, Problem, Problems};
use crate::queue::inspect::Inspector;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meterferry check                  the configuration that the agent would use
  meterferry check meterferry.toml  this file, with conf.d beside it
  meterferry check --dump           every key as the agent sees it, secrets masked

Exit codes:
  0   it is right
  2   the command line is wrong
  78  it is not right")]
pub struct Args {
    /// Configuration file, in place of --config
    pub file: Option<PathBuf>,

    /// Print the effective configuration, secrets masked
    #[arg(long)]
    pub dump: bool,
}

/// Reports all that is wrong on standard error; the effective configuration goes to standard output.
pub fn run(args: Args, global: &Global) -> ExitCode {
    let mut errors = anstream::AutoStream::new(io::stderr(), terminal::colours(global.color));
    let file = args.file.or_else(|| global.config.clone());
    let environment = Environment::of_process().beside_service(file.as_deref());
    let written = match config::load(file.as_deref(), &environment) {
        Ok(loaded) => {
            let dumped = if args.dump { out(&config::dump(&loaded.settings)) } else { ExitCode::SUCCESS };
            let warned = report_warnings(&mut errors, &loaded.warnings);
            (warned.and_then(|()| writeln!(errors, "{GOOD}ok:{GOOD:#} {}", summary(&loaded))), dumped)
        }
        Err(problems) => (report(&mut errors, &problems), ExitCode::from(EX_CONFIG)),
    };
    let (_closed, code) = written;
    code
}

const BAD: Style = AnsiColor::Red.on_default().bold();
const WARNING: Style = AnsiColor::Yellow.on_default().bold();
const GOOD: Style = AnsiColor::Green.on_default().bold();
const HINT: Style = AnsiColor::Cyan.on_default();

/// Everything that is wrong, and a count, in colours for a stream that strips them where they are not wanted.
///
/// # Errors
///
/// Those of the stream.
pub fn report(out: &mut impl Write, problems: &Problems) -> io::Result<()> {
    for problem in &problems.errors {
        write_problem(out, BAD, "error", problem)?;
    }
    report_warnings(out, &problems.warnings)?;
    writeln!(out, "{BAD}{}{BAD:#}", problems.count())
}

/// Each warning with its hint.
///
/// # Errors
///
/// Those of the stream.
pub fn report_warnings(out: &mut impl Write, warnings: &[Problem]) -> io::Result<()> {
    warnings.iter().try_for_each(|warning| write_problem(out, WARNING, "warning", warning))
}

fn write_problem(out: &mut impl Write, style: Style, word: &str, problem: &Problem) -> io::Result<()> {
    writeln!(out, "{style}{word}:{style:#} {}", problem.text())?;
    match &problem.hint {
        Some(hint) => writeln!(out, "  {HINT}hint:{HINT:#} {hint}"),
        None => Ok(()),
    }
}

/// As the agent calls itself: what is configured, or what its queue says, or what it will be called at its first start.
pub(super) fn agent_id(settings: &Settings) -> String {
    let of_queue = || Inspector::open(&settings.queue.path).ok().map(|queue| queue.identity().agent_id.clone());
    let configured = settings.agent.id.clone();
    configured.or_else(of_queue).unwrap_or_else(|| Machine::here().default_agent_id())
}

/// Files read, the agent's id, sources, queue and cluster in one line.
fn summary(loaded: &Loaded) -> String {
    let Settings { queue, kafka, sources, .. } = &loaded.settings;
    let topics = loaded.settings.kafka_topics();
    let files: Vec<_> = loaded.files.iter().map(|file| file.display().to_string()).collect();
    let sources: Vec<_> = sources.iter().map(Source::to_string).collect();
    let kafka = match &kafka.bootstrap_servers[..] {
        [] => "no Kafka".to_owned(),
        servers => format!("Kafka {} topic {}, {}", servers.join(","), topics.join(", "), kafka.delivery.word()),
    };
    let agent = agent_id(&loaded.settings);
    let queue = queue.path.display();
    format!("{}: agent {agent}, {} -> {queue} -> {kafka}", files.join(", "), sources.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `check` prints in colours is what the Display says without.
    #[test]
    fn colours_change_no_word() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("meterferry.toml");
        std::fs::write(&file, "[queue]\nmax_size = 5\nmin_fre = \"1 GiB\"\n").expect("write");
        let environment = Environment::of(folder.path(), [("HOME", folder.path())]);
        let problems = config::load(Some(&file), &environment).expect_err("two problems");
        let mut colored = Vec::new();
        report(&mut colored, &problems).expect("a vector takes everything");
        let mut plain = anstream::StripStream::new(Vec::new());
        plain.write_all(&colored).expect("a vector takes everything");
        let plain = String::from_utf8(plain.into_inner()).expect("UTF-8");
        assert_eq!(plain, format!("{problems}\n"));
        assert!(colored.len() > plain.len());
    }

    /// A right file is told in one line: where from, who reads what, where it goes.
    #[test]
    fn summary_in_one_line() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("meterferry.toml");
        let text = "[agent]\nid = \"pi-1\"\n[kafka]\nbootstrap_servers = [\"k:9092\"]\n[[source]]\nname = \"sma\"\ntype = \"mqtt\"\nhost = \"::1\"\n";
        std::fs::write(&file, text).expect("write");
        let environment = Environment::of(folder.path(), [("STATE_DIRECTORY", "/var/lib/meterferry")]);
        let loaded = config::load(Some(&file), &environment).expect("a right file");
        let summary = summary(&loaded).replace(&*folder.path().to_string_lossy(), "/etc/meterferry");
        insta::assert_snapshot!(summary, @"/etc/meterferry/meterferry.toml: agent pi-1, sma (mqtt [::1]:1883 sma) -> /var/lib/meterferry/queue -> Kafka k:9092 topic sma-kafka, exactly-once");
    }
}

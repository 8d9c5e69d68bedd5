//! Which dead letters are meant.

use std::fmt;
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use super::letter::Place;
use super::waiting;
use crate::cli::units::count;
use crate::cli::{chain, fail, terminal};
use crate::clock::{self, Clock};
use crate::config::parse_duration;
use crate::queue::QueueError;
use crate::queue::inspect::Inspector;
use crate::queue::letters::LetterId;
use crate::reading::{Body, DeadLetter, QueueId};

/// A sequence, or a whole `ce_id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name {
    queue_id: Option<QueueId>,
    sequence: u64,
}

impl FromStr for Name {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "write a sequence, such as 31245, or a ce_id, QUEUE-SEQUENCE";
        let (queue_id, sequence) = match text.split_once('-') {
            Some((queue_id, sequence)) => (Some(queue_id.parse().map_err(|_| FORM)?), sequence),
            None => (None, text),
        };
        Ok(Self { queue_id, sequence: sequence.parse().map_err(|_| FORM)? })
    }
}

/// As it was asked for.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.queue_id {
            Some(queue_id) => write!(f, "{queue_id}-{}", self.sequence),
            None => self.sequence.fmt(f),
        }
    }
}

impl Name {
    fn is(self, id: &LetterId) -> bool {
        id.1 == self.sequence && self.queue_id.is_none_or(|queue_id| queue_id == id.0)
    }
}

/// What to look for.
#[derive(Debug, Default, clap::Args)]
pub struct Filter {
    /// Only those of this source
    #[arg(long, value_name = "NAME")]
    pub source: Option<String>,
    /// Only those whose reason holds this text
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Only those that were set aside longer ago than this, such as 30d or 12h
    #[arg(long, value_name = "TIME", value_parser = age)]
    pub older_than: Option<Duration>,
}

fn age(text: &str) -> Result<Duration, &'static str> {
    parse_duration(text).ok_or("write it as 30d, 12h or 10min")
}

impl Filter {
    pub fn is_empty(&self) -> bool {
        self.source.is_none() && self.reason.is_none() && self.older_than.is_none()
    }

    pub fn takes(&self, letter: &DeadLetter, place: Place, clock: &Clock) -> bool {
        let source = match &letter.body {
            Body::Reading(reading) => &*reading.source,
            Body::Dead(dead) => &*dead.source,
            Body::Gap(_) | Body::Daily(_) => "",
        };
        self.source.as_deref().is_none_or(|wanted| wanted == source)
            && self.reason.as_deref().is_none_or(|wanted| letter.reason.contains(wanted))
            && self
                .older_than
                .is_none_or(|limit| place == Place::SetAside && clock::age(&letter.set_aside, &clock.now()) > limit)
    }
}

/// Several by name, or by what they have in common.
#[derive(Debug, clap::Args)]
pub struct Choice {
    /// Sequences, or whole ce_ids
    #[arg(value_name = "SEQUENCE")]
    pub names: Vec<Name>,
    /// All of them
    #[arg(long, conflicts_with = "names")]
    pub all: bool,
    #[command(flatten)]
    pub filter: Filter,
}

impl Choice {
    /// Nothing is meant by default.
    pub fn is_made(&self) -> Result<(), ExitCode> {
        if self.names.is_empty() && !self.all && self.filter.is_empty() {
            terminal::fail("which ones?\n  hint: name their sequences, or --source, --reason, --older-than, or --all");
            return Err(ExitCode::from(2));
        }
        Ok(())
    }

    /// Those meant, all of them set aside.
    pub fn chosen(&self, inspector: &Inspector) -> Result<Chosen, ExitCode> {
        self.is_made()?;
        let chosen = chosen(inspector, &self.names, &self.filter)?;
        if let Some(letter) = chosen.waiting.first() {
            let sequence = letter.sequence;
            terminal::fail(format_args!(
                "dead letter {sequence} waits in the queue and is not set aside yet\n  hint: the agent sets it aside once it has \
                 reached Kafka; until then meterferry dead-letters show {sequence} shows it"
            ));
            return Err(ExitCode::FAILURE);
        }
        Ok(chosen)
    }
}

/// What is meant.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Chosen {
    /// Set aside, the oldest first.
    pub ids: Vec<LetterId>,
    /// Named, and still in the queue.
    pub waiting: Vec<DeadLetter>,
    /// All that are set aside, chosen or not.
    pub all: Vec<LetterId>,
}

impl Chosen {
    /// That nothing is chosen, of those that are set aside.
    pub fn none(&self) -> String {
        none_of(self.all.len() as u64, "No dead letter is set aside.\n")
    }
}

/// That none of `all` fits; `otherwise` where there is none.
pub fn none_of(all: u64, otherwise: &str) -> String {
    match all {
        0 => otherwise.to_owned(),
        1 => "The only dead letter does not fit.\n".to_owned(),
        all => format!("None of the {} dead letters fits.\n", count(all)),
    }
}

/// Says what is wrong with the file, and the cure.
fn unreadable(error: &QueueError) -> ExitCode {
    if !error.is_damage() {
        return fail(error);
    }
    terminal::fail(format_args!(
        "{}\n  hint: the agent keeps what can be read of it at its next start; with the agent stopped, meterferry queue repair \
         does so now",
        chain(error)
    ));
    ExitCode::FAILURE
}

/// Those of `names`, or all that are set aside, as far as `filter` takes them.
///
/// # Errors
///
/// One that is named is not there, or is there under several queue ids.
pub fn chosen(inspector: &Inspector, names: &[Name], filter: &Filter) -> Result<Chosen, ExitCode> {
    let all = inspector.letter_ids().map_err(|error| unreadable(&error))?;
    let mut chosen = Chosen { ids: if names.is_empty() { all.clone() } else { Vec::new() }, ..Chosen::default() };
    for name in names {
        let found: Vec<_> = all.iter().copied().filter(|id| name.is(id)).collect();
        match found[..] {
            [id] if !chosen.ids.contains(&id) => chosen.ids.push(id),
            [_] => {}
            [] => match in_queue(inspector, *name)? {
                Some(letter) if !chosen.waiting.contains(&letter) => chosen.waiting.push(letter),
                Some(_) => {}
                None => {
                    terminal::fail(missing(*name));
                    return Err(ExitCode::FAILURE);
                }
            },
            [first, ..] => {
                terminal::fail(format_args!(
                    "there are {} dead letters {name}: the queue was forked\n  hint: write the whole ce_id, such as {}-{}",
                    found.len(),
                    first.0,
                    first.1
                ));
                return Err(ExitCode::FAILURE);
            }
        }
    }
    chosen.all = all;
    if filter.is_empty() {
        return Ok(chosen);
    }
    let (mut ids, clock) = (Vec::new(), Clock::new());
    let looked = inspector.visit_letters(&chosen.ids, |letter| {
        if filter.takes(&letter, Place::SetAside, &clock) {
            ids.push((letter.queue_id, letter.sequence));
        }
        ControlFlow::Continue(())
    });
    looked.map_err(|error| fail(&error))?;
    chosen.ids = ids;
    chosen.waiting.retain(|letter| filter.takes(letter, Place::Queue, &clock));
    Ok(chosen)
}

/// The one that is named, if it waits in the queue.
fn in_queue(inspector: &Inspector, name: Name) -> Result<Option<DeadLetter>, ExitCode> {
    let letter = inspector.waiting_letter(waiting::released(inspector), name.sequence).map_err(|error| fail(&error))?;
    Ok(letter.filter(|letter| name.is(&(letter.queue_id, letter.sequence))))
}

fn missing(name: Name) -> String {
    format!("there is no dead letter {name}\n  hint: meterferry dead-letters list shows those that are there")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A letter is named as every listing shows it.
    #[test]
    fn names() {
        let plain: Name = "31245".parse().expect("a name");
        assert!(plain.is(&(QueueId(7), 31_245)) && !plain.is(&(QueueId(7), 31_246)));
        let whole: Name = format!("{}-5", QueueId(7)).parse().expect("a name");
        assert!(whole.is(&(QueueId(7), 5)) && !whole.is(&(QueueId(8), 5)));
        for wrong in ["", "x", "-5", "5-", "7-x"] {
            assert!(wrong.parse::<Name>().is_err(), "{wrong:?}");
        }
    }

    /// Promise 9: what is not there is named as it was asked for, and what does not fit is not said not to be there.
    #[test]
    fn misses_in_words() {
        let whole: Name = "00000000000000000000000000000007-5".parse().expect("a name");
        insta::assert_snapshot!(missing(whole), @r"
        there is no dead letter 00000000000000000000000000000007-5
          hint: meterferry dead-letters list shows those that are there
        ");
        assert_eq!(missing("5".parse().expect("a name")).lines().next(), Some("there is no dead letter 5"));
        let words = [0, 1, 12].map(|all| none_of(all, "There are no dead letters.\n")).concat();
        insta::assert_snapshot!(words, @r"
        There are no dead letters.
        The only dead letter does not fit.
        None of the 12 dead letters fits.
        ");
    }
}

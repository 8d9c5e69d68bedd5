//! Which dead letters are meant.

use std::ops::ControlFlow;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use crate::cli::{fail, terminal};
use crate::clock::{self, Clock};
use crate::config::parse_duration;
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

    fn takes(&self, letter: &DeadLetter, clock: &Clock) -> bool {
        let source = match &letter.body {
            Body::Reading(reading) => &*reading.source,
            Body::Dead(dead) => &*dead.source,
            Body::Gap(_) | Body::Daily(_) => "",
        };
        self.source.as_deref().is_none_or(|wanted| wanted == source)
            && self.reason.as_deref().is_none_or(|wanted| letter.reason.contains(wanted))
            && self.older_than.is_none_or(|limit| clock::age(&letter.set_aside, &clock.now()) > limit)
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
    /// The ids meant; nothing is meant by default.
    pub fn ids(&self, inspector: &Inspector) -> Result<Vec<LetterId>, ExitCode> {
        if self.names.is_empty() && !self.all && self.filter.is_empty() {
            terminal::fail("which ones?\n  hint: name their sequences, or --source, --reason, --older-than, or --all");
            return Err(ExitCode::from(2));
        }
        ids(inspector, &self.names, &self.filter)
    }
}

/// The ids of `names`, or all, as far as `filter` takes them.
///
/// # Errors
///
/// One that is named is not there, or is there under several queue ids.
pub fn ids(inspector: &Inspector, names: &[Name], filter: &Filter) -> Result<Vec<LetterId>, ExitCode> {
    let all = inspector.letter_ids().map_err(|error| fail(&error))?;
    let mut ids = if names.is_empty() { all.clone() } else { Vec::new() };
    for name in names {
        let found: Vec<_> = all.iter().copied().filter(|id| name.is(id)).collect();
        match found[..] {
            [id] if !ids.contains(&id) => ids.push(id),
            [_] => {}
            [] => {
                terminal::fail(format_args!(
                    "there is no dead letter {}\n  hint: meterferry dead-letters list shows those that are there",
                    name.sequence
                ));
                return Err(ExitCode::FAILURE);
            }
            [first, ..] => {
                terminal::fail(format_args!(
                    "there are {} dead letters {}: the queue was forked\n  hint: write the whole ce_id, such as {}-{}",
                    found.len(),
                    name.sequence,
                    first.0,
                    first.1
                ));
                return Err(ExitCode::FAILURE);
            }
        }
    }
    if filter.is_empty() {
        return Ok(ids);
    }
    let (mut chosen, clock) = (Vec::new(), Clock::new());
    let looked = inspector.visit_letters(&ids, |letter| {
        if filter.takes(&letter, &clock) {
            chosen.push((letter.queue_id, letter.sequence));
        }
        ControlFlow::Continue(())
    });
    looked.map_err(|error| fail(&error))?;
    Ok(chosen)
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
}

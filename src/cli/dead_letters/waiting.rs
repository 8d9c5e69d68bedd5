//! Dead letters that wait in the queue: as long as Kafka is away the forwarder does not come to them.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::process::ExitCode;

use super::choice::Filter;
use super::letter::Place;
use crate::agent::live;
use crate::cli::progress::{Progress, Unit};
use crate::cli::units::count;
use crate::cli::{fail, terminal};
use crate::clock::Clock;
use crate::queue::inspect::Inspector;
use crate::queue::letters::LetterId;
use crate::queue::waiting;
use crate::reading::DeadLetter;

/// Records that are looked through unasked: a matter of seconds on a small machine. A message that the log has just told of
/// is among the newest.
const NEWEST: u64 = 50_000;

/// How far the queue is looked through.
#[derive(Debug, Default, clap::Args)]
pub struct Reach {
    /// Look through all that waits in the queue, not only through its newest 50,000 records
    #[arg(long)]
    pub waiting: bool,
}

/// From where on records wait, as far as a running agent knows better than the disk.
pub fn released(inspector: &Inspector) -> u64 {
    live::ask(inspector.folder()).map_or(0, |live| live.release_point)
}

/// A look through what waits in the queue. To be begun before those that are set aside are listed, so that one which is set
/// aside meanwhile is in one of the two.
pub struct Search<'f> {
    waiting: waiting::Waiting,
    filter: &'f Filter,
    /// Found, whether they fit the filter or not.
    pub seen: u64,
}

impl<'f> Search<'f> {
    pub fn begin(inspector: &Inspector, reach: &Reach, filter: &'f Filter) -> Result<Self, ExitCode> {
        let most = if reach.waiting { u64::MAX } else { NEWEST };
        let waiting = inspector.waiting_letters(released(inspector), most).map_err(|error| fail(&error))?;
        Ok(Self { waiting, filter, seen: 0 })
    }

    /// Shows `visit` those that fit, but for `set_aside`, which were written already.
    pub fn visit(
        &mut self,
        set_aside: &[LetterId],
        mut visit: impl FnMut(&DeadLetter) -> ControlFlow<()>,
    ) -> Result<(), ExitCode> {
        let (known, clock): (BTreeSet<&LetterId>, _) = (set_aside.iter().collect(), Clock::new());
        let (total, seen, filter) = (self.waiting.left(), &mut self.seen, self.filter);
        let mut progress = Progress::new("looking through the queue", total, Unit::Records);
        let looked = self.waiting.visit(
            |left| progress.at(total.saturating_sub(left)),
            |letter| {
                if known.contains(&(letter.queue_id, letter.sequence)) {
                    return ControlFlow::Continue(());
                }
                *seen += 1;
                if filter.takes(&letter, Place::Queue, &clock) { visit(&letter) } else { ControlFlow::Continue(()) }
            },
        );
        drop(progress);
        looked.map_err(|error| fail(&error))
    }

    /// Says what was not looked through, if anything.
    pub fn say_passed_over(&self) {
        if self.waiting.passed_over() > 0 {
            terminal::say(passed_over(self.waiting.passed_over()));
        }
    }
}

fn passed_over(records: u64) -> String {
    format!("{} older records that wait were not looked through: --waiting does that", count(records))
}

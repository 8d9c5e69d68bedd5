//! How far a command is that takes its time: a bar in a terminal, a line now and then elsewhere, nothing where it is
//! done within a second.

use std::time::{Duration, Instant};

use anstream::stream::IsTerminal;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::terminal;
use super::units::count;

/// What is over within this shows nothing.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// The progress of one task, on standard error.
pub(super) struct Progress {
    /// What is counted, such as "records".
    what: &'static str,
    total: u64,
    terminal: bool,
    bar: Option<ProgressBar>,
    next: Instant,
}

impl Progress {
    pub(super) fn new(what: &'static str, total: u64) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let first = if terminal { PATIENCE } else { LINE_EVERY };
        Self { what, total, terminal, bar: None, next: Instant::now() + first }
    }

    /// So many are done.
    pub(super) fn set(&mut self, done: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            return;
        }
        let now = Instant::now();
        if now < self.next {
            return;
        }
        if self.terminal {
            self.bar = Some(bar(self.what, self.total, done));
        } else {
            terminal::say(format_args!("{} of {} {}", count(done), count(self.total), self.what));
            self.next = now + LINE_EVERY;
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(what: &'static str, total: u64, done: u64) -> ProgressBar {
    let template = "{bar:24} {human_pos} of {human_len} {msg}, {eta} left";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(10)).with_style(style);
    bar.set_message(what);
    bar.reset_eta();
    bar.set_position(done);
    bar
}

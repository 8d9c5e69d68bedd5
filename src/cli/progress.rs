//! How far a long command is: a bar on standard error, where that is a terminal, and only once it has taken a second.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Before this a bar would only flicker.
const PATIENCE: Duration = Duration::from_secs(1);

/// One command's bar. Dropped, it is wiped.
pub(super) struct Progress {
    bar: ProgressBar,
    started: Instant,
    shown: bool,
}

/// What is counted.
#[derive(Debug, Clone, Copy)]
pub(super) enum Unit {
    Bytes,
    Records,
    Seconds,
}

impl Progress {
    /// Of `total` units; `what` stands before the bar.
    pub fn new(what: &str, total: u64, unit: Unit) -> Self {
        let template = match unit {
            Unit::Bytes => "{msg} {wide_bar} {binary_bytes} of {binary_total_bytes}, {eta} left",
            Unit::Records => "{msg} {wide_bar} {human_pos} of {human_len}, {eta} left",
            // What is waited for may come any moment.
            Unit::Seconds => "{msg} {wide_bar} {pos} s",
        };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden()).with_style(style);
        bar.set_message(what.to_owned());
        Self { bar, started: Instant::now(), shown: false }
    }

    /// So much is done.
    pub fn at(&mut self, position: u64) {
        self.bar.set_position(position);
        if !self.shown && self.started.elapsed() >= PATIENCE {
            self.shown = true;
            if io::stderr().is_terminal() {
                self.bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(8));
            }
        }
    }

    /// So much was done before, or came by itself: how long the rest takes is told by what comes now.
    pub fn begins_at(&mut self, position: u64) {
        self.bar.set_position(position);
        self.bar.reset_eta();
    }

    /// What is done now.
    pub fn says(&self, what: &str) {
        self.bar.set_message(what.to_owned());
    }

    /// The total turned out to be another one.
    pub fn of(&self, total: u64) {
        self.bar.set_length(total);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

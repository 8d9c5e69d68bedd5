//! How the demo is shown: a picture in a terminal, plain lines elsewhere.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use anstream::{AutoStream, ColorChoice};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};

use super::board::Figures;
use super::picture::{self, Caption};
use crate::cli::terminal;
use crate::cli::units::{count, duration};

/// From one line of figures to the next, where there is no picture.
const FIGURES: Duration = Duration::from_secs(2);

/// An alternate screen without a cursor, and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

/// Shows the figures.
pub enum Screen {
    Live(Live),
    Plain(Plain),
}

impl Screen {
    /// A picture if standard output is a terminal that it fits into, and `plain` is not asked for.
    pub fn new(plain: bool, color: clap::ColorChoice, caption: Caption) -> Self {
        let out = AutoStream::new(io::stdout(), terminal::colours(color));
        let fits = size().is_some_and(|(width, height)| width >= picture::SMALLEST.0 && height >= picture::SMALLEST.1);
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        if plain || dumb || !io::stdout().is_terminal() || !fits {
            return Self::Plain(Plain { out, said: 0, figures: Instant::now() });
        }
        Self::Live(Live::new(out.current_choice() != ColorChoice::Never, caption))
    }

    /// Shows where it stands.
    ///
    /// # Errors
    ///
    /// Standard output cannot be written to.
    pub fn show(&mut self, figures: &Figures) -> io::Result<()> {
        match self {
            Self::Live(live) => live.draw(figures),
            Self::Plain(plain) => plain.say(figures, false),
        }
    }

    /// Leaves the picture behind; what is printed from now on stands below it.
    pub fn finish(self, figures: &Figures) -> io::Result<()> {
        match self {
            Self::Live(live) => live.leave(figures),
            Self::Plain(mut plain) => plain.say(figures, true),
        }
    }
}

/// Columns and rows of the terminal.
fn size() -> Option<(usize, usize)> {
    let (terminal_size::Width(width), terminal_size::Height(height)) = terminal_size::terminal_size()?;
    Some((usize::from(width), usize::from(height)))
}

/// A picture, drawn anew each time. The terminal is as it was when this is dropped.
pub struct Live {
    colours: bool,
    caption: Caption,
    beat: usize,
    /// How the terminal was before typing was hidden.
    before: Option<Termios>,
    left: bool,
}

impl Live {
    fn new(colours: bool, caption: Caption) -> Self {
        let before = tcgetattr(io::stdin()).ok();
        if let Some(mut quiet) = before.clone() {
            quiet.local_flags.remove(LocalFlags::ECHO | LocalFlags::ICANON);
            let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &quiet);
        }
        let _ = print(ENTER);
        Self { colours, caption, beat: 0, before, left: false }
    }

    fn draw(&mut self, figures: &Figures) -> io::Result<()> {
        let size = size().unwrap_or(picture::SMALLEST);
        let canvas = picture::draw(figures, &self.caption, size, self.beat);
        self.beat += 1;
        let rows = canvas.rows(self.colours);
        let shown = rows.len().min(size.1);
        let mut text = String::from(HOME);
        for (index, row) in rows[..shown].iter().enumerate() {
            if index > 0 {
                text.push_str("\r\n");
            }
            text.push_str(row);
            text.push_str(CLEAR_LINE);
        }
        text.push_str(CLEAR_BELOW);
        print(&text)
    }

    fn leave(mut self, figures: &Figures) -> io::Result<()> {
        self.restore();
        let canvas = picture::draw(figures, &self.caption, picture::SMALLEST, self.beat);
        let rows = canvas.rows(self.colours);
        // The last row says how to end it.
        print(&format!("{}\n", rows[..rows.len() - 1].join("\n")))
    }

    fn restore(&mut self) {
        if std::mem::replace(&mut self.left, true) {
            return;
        }
        let _ = print(LEAVE);
        if let Some(before) = &self.before {
            let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, before);
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.restore();
    }
}

/// In one piece, so that no half picture is seen.
fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// A line an event, and the figures now and then.
pub struct Plain {
    out: AutoStream<io::Stdout>,
    /// News said so far.
    said: usize,
    /// When the figures were last said.
    figures: Instant,
}

impl Plain {
    fn say(&mut self, figures: &Figures, last: bool) -> io::Result<()> {
        for (at, text) in &figures.news[self.said..] {
            writeln!(self.out, "{:5.1} s  {text}", at.as_secs_f64())?;
        }
        self.said = figures.news.len();
        if last || self.figures.elapsed() >= FIGURES {
            self.figures = Instant::now();
            let oldest = match figures.depth.waiting {
                0 => String::new(),
                _ => format!(", the oldest for {}", duration(figures.depth.oldest)),
            };
            writeln!(
                self.out,
                "{:5.1} s    {} safe, {} waiting on the disk{oldest}, {} delivered",
                figures.began.elapsed().as_secs_f64(),
                count(figures.safe_so_far()),
                count(figures.depth.waiting),
                count(figures.delivered),
            )?;
        }
        self.out.flush()
    }
}

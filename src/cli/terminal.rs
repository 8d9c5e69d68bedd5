//! How things look in a terminal: colours where they are wanted, and nothing that a device sends may steer it.

use std::fmt::{Display, Write as _};
use std::io::Write as _;

use anstream::ColorChoice;
use anstyle::{AnsiColor, Style};

pub(super) const HEADER: Style = Style::new().bold().underline();
pub(super) const DIM: Style = Style::new().dimmed();
pub(super) const IN: Style = AnsiColor::Yellow.on_default();
pub(super) const OUT: Style = AnsiColor::Green.on_default();
pub(super) const WARNING: Style = AnsiColor::Yellow.on_default().bold();
const ERROR: Style = AnsiColor::Red.on_default().bold();

/// What `--color` asks for. Auto: where it is a terminal and neither `NO_COLOR` nor `TERM=dumb` speaks against it.
pub(super) fn colours(choice: clap::ColorChoice) -> ColorChoice {
    match choice {
        clap::ColorChoice::Auto => ColorChoice::Auto,
        clap::ColorChoice::Always => ColorChoice::Always,
        clap::ColorChoice::Never => ColorChoice::Never,
    }
}

/// A line for the person in front of it, beside the output. Nobody may be listening (`2>&1 | head`), which is no failure.
pub(super) fn say(line: impl Display) {
    let _ = writeln!(anstream::stderr(), "{line}");
}

/// The line that ends a command that failed.
pub(super) fn fail(message: impl Display) {
    say(format_args!("{ERROR}error{ERROR:#}: {message}"));
}

/// `text` in at most `width` characters, with what is not printable spelt out: a device's name is anybody's text.
pub(super) fn printable(text: &str, width: usize) -> String {
    let mut shown = String::new();
    for character in text.chars() {
        if character.is_control() || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
            let _ = write!(shown, "{}", character.escape_default());
        } else {
            shown.push(character);
        }
    }
    match shown.char_indices().nth(width) {
        None => shown,
        Some(_) => shown.chars().take(width.saturating_sub(1)).chain(['…']).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Promise 5: no name that a device gives itself writes over the screen or takes more room than it has.
        #[test]
        fn no_text_steers_the_terminal(text: String, width in 1usize..40) {
            let shown = printable(&text, width);
            prop_assert!(shown.chars().count() <= width);
            prop_assert!(!shown.chars().any(char::is_control));
        }
    }
}

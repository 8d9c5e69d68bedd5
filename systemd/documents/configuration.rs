//! meterferry.toml(5), from the comments of the file that explains every key.
//!
//! There, a comment has a space behind its `#` and stands above its key or table; a key behind a bare `#` shows its
//! default, or an example where its comment ends with "An example:".

use jiff::Timestamp;

use crate::Outcome;
use crate::roff::{self, plain};

/// Fewer keys than this, and the file was not understood.
const FEWEST_KEYS: usize = 40;

/// What is true of the file only, and of the page.
const IN_A_FILE: &str =
    "A key behind a # shows its default, or an example where it says so; take the # away to set it.";
const IN_A_PAGE: &str = "The value shown with a key is its default, where nothing else is said.";

/// In place of "An example:" above a value.
const EXAMPLE: &str = "The value shown is an example.";

/// The page; an error if `text` does not look as described above.
pub fn page(text: &str, date: &Timestamp) -> Outcome<String> {
    let mut out = roff::title("meterferry.toml", 5, date);
    out += ".SH NAME\nmeterferry.toml \\- configuration of meterferry\n";
    out += ".SH SYNOPSIS\n.I /etc/meterferry/meterferry.toml\n.br\n.I /etc/meterferry/conf.d/*.toml\n";
    out += ".SH DESCRIPTION\n";
    let (mut keys, mut comment, mut begun) = (0, Vec::new(), false);
    for line in text.replace(IN_A_FILE, IN_A_PAGE).lines() {
        if line.is_empty() || line == "#" {
            if !begun {
                // The file's own introduction.
                out += &filled(&std::mem::take(&mut comment));
                out += ".PP\n";
                begun = line.is_empty();
            }
        } else if let Some(text) = line.strip_prefix("# ") {
            comment.push(text);
        } else {
            let set = line.strip_prefix('#').unwrap_or(line);
            if set.starts_with('[') {
                out += &format!(".SH {}\n", plain(set));
                out += &filled(&std::mem::take(&mut comment));
            } else {
                let (key, value) = set.split_once(" = ").ok_or_else(|| format!("not a key: {line}"))?;
                out += &format!(".TP\n\\fB{}\\fP = {}\n", plain(key), plain(value));
                out += &filled(&explained(&std::mem::take(&mut comment), line.starts_with('#')));
                keys += 1;
            }
        }
    }
    if keys < FEWEST_KEYS {
        return Err(format!("only {keys} keys found in the explained configuration").into());
    }
    out += ".SH FILES\n.TP\n.I /usr/share/doc/meterferry/meterferry.toml\nThe same text as a file to copy from.\n";
    out += ".TP\n.I /usr/share/doc/meterferry/examples\nWhole configurations, for Mosquitto and Kafka too.\n";
    out += ".SH SEE ALSO\n.BR meterferry (1),\n.BR meterferry\\-check (1)\n";
    Ok(out)
}

/// In the file an example is announced by the comment's last words; what is set in it has no default.
fn explained<'a>(comment: &[&'a str], unset: bool) -> Vec<&'a str> {
    let mut lines = comment.to_vec();
    let last = lines.pop().unwrap_or(if unset { "As above." } else { "Needed." });
    let announced = ["An example:", "Examples:"].into_iter().find_map(|words| last.strip_suffix(words));
    match announced {
        Some(before) => lines.extend([before.trim_end(), EXAMPLE]),
        None => lines.push(last),
    }
    lines.retain(|line| !line.is_empty());
    lines
}

fn filled(lines: &[&str]) -> String {
    lines.iter().map(|line| plain(line) + "\n").collect()
}

//! Where to begin reading.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;

/// `--from`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    Beginning,
    End,
    /// The first record that Kafka dates at or after it.
    Time(Timestamp),
    /// In every partition.
    Offset(i64),
}

impl FromStr for From {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "beginning" => return Ok(Self::Beginning),
            "end" => return Ok(Self::End),
            _ => {}
        }
        if let Ok(offset) = text.parse::<i64>() {
            return if offset >= 0 { Ok(Self::Offset(offset)) } else { Err("an offset is 0 or more".to_owned()) };
        }
        text.parse()
            .map(Self::Time)
            .map_err(|_| "write beginning, end, a time such as 2026-06-21T06:00:00+02:00, or an offset".to_owned())
    }
}

impl fmt::Display for From {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Beginning => f.write_str("the beginning"),
            Self::End => f.write_str("the end"),
            Self::Time(time) => write!(f, "{time}"),
            Self::Offset(offset) => write!(f, "offset {offset}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each way to say where to begin is understood, and what is none is refused.
    #[test]
    fn places_to_begin() {
        for (text, shown) in [
            ("beginning", "the beginning"),
            ("end", "the end"),
            ("17", "offset 17"),
            ("2026-06-21T06:00:00+02:00", "2026-06-21T04:00:00Z"),
        ] {
            assert_eq!(text.parse::<From>().map(|from| from.to_string()), Ok(shown.to_owned()));
        }
        for text in ["", "-1", "yesterday", "2026-06-21", "1.5"] {
            assert!(text.parse::<From>().is_err(), "{text}");
        }
    }
}

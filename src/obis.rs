//! OBIS codes (IEC 62056-61): what a measurement measures.
//!
//! Read in every notation that readers of meters use, written in one: `A-B:C.D.E*F`, where a group that was not given
//! stays away (`1.8.0` does not become `1-0:1.8.0`: which medium and channel it is of was not said), and F stays away
//! when it is 255, "not used". Every group has its own separator, so the short forms stay unambiguous.

use std::fmt;
use std::str::FromStr;

mod meaning;
mod name;

pub use meaning::{Kind, Meaning, Quantity};

/// "Not used" in group F.
const UNUSED: u8 = 255;

/// The highest medium (group A) the standard allows; keeps other numbers, written in hexadecimal, from passing for codes.
const MAX_MEDIUM: u8 = 15;

/// What SML puts before a code in hexadecimal: an octet string of 7 bytes whose first is 7.
const SML_PREFIX: &str = "7707";

/// One OBIS code. Two notations of one code are equal; a short form and its long form are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Obis {
    medium: Option<u8>,
    channel: Option<u8>,
    quantity: u8,
    kind: u8,
    tariff: Option<u8>,
    storage: Option<u8>,
}

/// Why a text is not an OBIS code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ObisError {
    #[error("an OBIS code has 2 to 6 groups, such as 1-0:1.8.0")]
    Groups,
    #[error("a group of an OBIS code is a number from 0 to 255, or C, F, L or P in its third or fourth group")]
    Group,
    #[error("the first group of an OBIS code, the medium, is a number from 0 to {MAX_MEDIUM}")]
    Medium,
}

impl Obis {
    /// The code with all of A to E, and F where it is used.
    ///
    /// # Errors
    ///
    /// [`ObisError::Medium`] where `a` is above 15.
    pub fn new([a, b, c, d, e, f]: [u8; 6]) -> Result<Self, ObisError> {
        Self { medium: Some(a), channel: Some(b), quantity: c, kind: d, tariff: Some(e), storage: Some(f) }.checked()
    }

    /// Group A: 0 abstract, 1 electricity.
    pub fn a(&self) -> Option<u8> {
        self.medium
    }

    /// Group B: the channel.
    pub fn b(&self) -> Option<u8> {
        self.channel
    }

    /// Group C: the quantity.
    pub fn c(&self) -> u8 {
        self.quantity
    }

    /// Group D: the kind of value.
    pub fn d(&self) -> u8 {
        self.kind
    }

    /// Group E: the tariff.
    pub fn e(&self) -> Option<u8> {
        self.tariff
    }

    /// Group F: the billing period; none where it is not given or 255.
    pub fn f(&self) -> Option<u8> {
        self.storage
    }

    /// Whether this is C.D.E of the main channel, whatever the notation leaves out.
    pub fn is(&self, c: u8, d: u8, e: u8) -> bool {
        (self.quantity, self.kind, self.tariff.unwrap_or(0)) == (c, d, e)
            && self.channel.unwrap_or(0) == 0
            && self.storage.is_none()
    }

    fn checked(mut self) -> Result<Self, ObisError> {
        if self.medium.is_some_and(|medium| medium > MAX_MEDIUM) {
            return Err(ObisError::Medium);
        }
        self.storage = self.storage.filter(|storage| *storage != UNUSED);
        Ok(self)
    }

    /// Two hexadecimal digits a group, A to E or A to F, or with SML's length before them.
    fn from_hex(text: &str) -> Result<Self, ObisError> {
        let digits = if text.len() == 16 { text.strip_prefix(SML_PREFIX).ok_or(ObisError::Group)? } else { text };
        let mut groups = [UNUSED; 6];
        for (group, pair) in groups.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| ObisError::Group)?;
            *group = u8::from_str_radix(pair, 16).map_err(|_| ObisError::Group)?;
        }
        Self::new(groups)
    }
}

impl fmt::Display for Obis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(medium) = self.medium {
            write!(f, "{medium}-")?;
        }
        if let Some(channel) = self.channel {
            write!(f, "{channel}:")?;
        }
        write!(f, "{}.{}", self.quantity, self.kind)?;
        if let Some(tariff) = self.tariff {
            write!(f, ".{tariff}")?;
        }
        if let Some(storage) = self.storage {
            write!(f, "*{storage}")?;
        }
        Ok(())
    }
}

impl FromStr for Obis {
    type Err = ObisError;

    /// Reads `1.8`, `1.8.0`, `1-0:1.8.0`, `1-0:1.8.0*255`, `1-0:1.8.0&255`, `1-0:1.8.0.255`, `1_8_0`, `1.0.1.8.0.255`,
    /// `C.1.0`, `0100010800`, `0100010800FF` and `77070100010800FF`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim_ascii();
        if matches!(text.len(), 10 | 12 | 16) && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Self::from_hex(text);
        }
        let (medium, rest) = before(text, '-')?;
        let (channel, rest) = before(rest, ':')?;
        let (rest, storage) = match rest.split_once(['*', '&']) {
            Some((rest, storage)) => (rest, Some(number(storage)?)),
            None => (rest, None),
        };
        let mut groups = [""; 6];
        let mut count = 0;
        for group in rest.split(['.', '_']) {
            *groups.get_mut(count).ok_or(ObisError::Groups)? = group;
            count += 1;
        }
        let bare = medium.is_none() && channel.is_none() && storage.is_none();
        let (medium, channel, groups, storage) = match (count, storage) {
            (6, None) if bare => {
                (Some(number(groups[0])?), Some(number(groups[1])?), &groups[2..5], Some(number(groups[5])?))
            }
            (4, None) => (medium, channel, &groups[..3], Some(number(groups[3])?)),
            (2 | 3, storage) => (medium, channel, &groups[..count], storage),
            _ => return Err(ObisError::Groups),
        };
        let tariff = groups.get(2).map(|group| number(group)).transpose()?;
        Self { medium, channel, quantity: letter(groups[0])?, kind: letter(groups[1])?, tariff, storage }.checked()
    }
}

/// The group that ends at `separator`, if there is one, and what comes after it.
fn before(text: &str, separator: char) -> Result<(Option<u8>, &str), ObisError> {
    match text.split_once(separator) {
        Some((group, rest)) => Ok((Some(number(group)?), rest)),
        None => Ok((None, text)),
    }
}

fn number(group: &str) -> Result<u8, ObisError> {
    // `parse` alone would take a sign.
    let digits = matches!(group.len(), 1..=3) && group.bytes().all(|byte| byte.is_ascii_digit());
    if digits { group.parse().map_err(|_| ObisError::Group) } else { Err(ObisError::Group) }
}

/// A group that displays may show as a letter (IEC 62056-21, annex C).
fn letter(group: &str) -> Result<u8, ObisError> {
    match group {
        "C" => Ok(96),
        "F" => Ok(97),
        "L" => Ok(98),
        "P" => Ok(99),
        _ => number(group),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn canonical(text: &str) -> String {
        text.parse::<Obis>().map_or_else(|error| error.to_string(), |code| code.to_string())
    }

    /// Promise 5: one code has one spelling here, in whatever notation the device sends it.
    #[test]
    fn every_notation_has_one_canonical_form() {
        for (text, expected) in [
            ("1.8", "1.8"),
            ("1.8.0", "1.8.0"),
            ("1_8_0", "1.8.0"),
            ("1-0:1.8.0", "1-0:1.8.0"),
            ("1-1:1.8.0", "1-1:1.8.0"),
            ("1-0:1.8.0*255", "1-0:1.8.0"),
            ("1-0:1.8.0&255", "1-0:1.8.0"),
            ("1-0:1.8.0.255", "1-0:1.8.0"),
            ("1.8.0.255", "1.8.0"),
            ("1.0.1.8.0.255", "1-0:1.8.0"),
            ("1-0:1.8.0*01", "1-0:1.8.0*1"),
            ("1-0:1.8.0&3", "1-0:1.8.0*3"),
            ("0100010800", "1-0:1.8.0"),
            ("0100010800FF", "1-0:1.8.0"),
            ("0100010800ff", "1-0:1.8.0"),
            ("010001080003", "1-0:1.8.0*3"),
            ("77070100010800FF", "1-0:1.8.0"),
            ("C.1.0", "96.1.0"),
            ("0-0:C.1.0", "0-0:96.1.0"),
            ("F.F", "97.97"),
            ("L.1.0", "98.1.0"),
            ("P.01", "99.1"),
            ("0.0.1", "0.0.1"),
            (" 1-0:16.7.0 ", "1-0:16.7.0"),
            ("1:1.8.0", "1:1.8.0"),
            ("1-1.8.0", "1-1.8.0"),
        ] {
            assert_eq!(canonical(text), expected, "{text}");
        }
    }

    /// Promise 5: a key that is no code stays what it is; it is not bent into one.
    #[test]
    fn what_is_no_code_is_refused() {
        for text in [
            "",
            "1",
            ".",
            "..",
            "1.",
            "1..0",
            "1.8.0.0.0",
            "1.8.0.0.0.0.0",
            "256.8.0",
            "1-0:1.8.+0",
            "-1.8.0",
            "16-0:1.8.0",
            "1.8.0*",
            "1.8.0*1*2",
            "1.8.C",
            "c.1.0",
            "1-0:1.8.0*C",
            "api_version",
            "name",
            "sma_time",
            "9029685712",
            "78070100010800FF",
            "1.8.0.255*255",
            "١.٨.٠",
            "1.8.0\0",
            "0001.8.0",
        ] {
            assert!(text.parse::<Obis>().is_err(), "{text:?} is {}", canonical(text));
        }
    }

    /// The main channel's register is found in any of its notations.
    #[test]
    fn a_register_is_found_whatever_was_left_out() {
        for text in ["1.8", "1.8.0", "1-0:1.8.0", "0100010800FF"] {
            assert!(text.parse::<Obis>().is_ok_and(|code| code.is(1, 8, 0)), "{text}");
        }
        for text in ["1.8.1", "1-1:1.8.0", "1-0:1.8.0*3", "2.8.0"] {
            assert!(text.parse::<Obis>().is_ok_and(|code| !code.is(1, 8, 0)), "{text}");
        }
    }

    fn any_code() -> impl Strategy<Value = Obis> {
        let group = || proptest::option::of(any::<u8>());
        (
            proptest::option::of(0..=MAX_MEDIUM),
            group(),
            any::<u8>(),
            any::<u8>(),
            group(),
            proptest::option::of(0..UNUSED),
        )
            .prop_map(|(medium, channel, quantity, kind, tariff, storage)| Obis {
                medium,
                channel,
                quantity,
                kind,
                tariff,
                storage,
            })
    }

    proptest! {
        /// Promise 5: the canonical form loses nothing.
        #[test]
        fn display_reads_back_as_the_same_code(code in any_code()) {
            prop_assert_eq!(code.to_string().parse::<Obis>(), Ok(code));
        }

        /// Promise 5: every way to write a full code is the same code.
        #[test]
        fn notations_of_one_code_are_equal(
            a in 0..=MAX_MEDIUM, b in any::<u8>(), c in any::<u8>(), d in any::<u8>(), e in any::<u8>(), f in any::<u8>(),
        ) {
            let code = Obis::new([a, b, c, d, e, f]).expect("a medium within the limit");
            for text in [
                format!("{a}-{b}:{c}.{d}.{e}*{f}"),
                format!("{a}-{b}:{c}.{d}.{e}&{f}"),
                format!("{a}-{b}:{c}.{d}.{e}.{f}"),
                format!("{a}-{b}:{c}_{d}_{e}*{f}"),
                format!("{a}.{b}.{c}.{d}.{e}.{f}"),
                format!("{a:02x}{b:02x}{c:02x}{d:02x}{e:02x}{f:02x}"),
                format!("7707{a:02X}{b:02X}{c:02X}{d:02X}{e:02X}{f:02X}"),
            ] {
                prop_assert_eq!(text.parse::<Obis>(), Ok(code), "{}", text);
            }
        }

        /// Promise 5: no text makes it panic, and what it takes, it takes for good.
        #[test]
        fn any_text_is_a_code_or_an_error(text in "(\\PC{0,20}|[0-9A-F.:*&_-]{0,20})") {
            if let Ok(code) = text.parse::<Obis>() {
                prop_assert_eq!(code.to_string().parse::<Obis>(), Ok(code));
                let _ = code.meaning();
            }
        }
    }
}

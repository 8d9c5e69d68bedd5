//! Sizes and times as people write them: `2 GiB`, `500ms`, `1h30min`.

use std::time::Duration;

const SIZES: &[(&str, u128)] = &[
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// In milliseconds. `m` is left out: minutes to some, months to others.
const TIMES: &[(&str, u128)] = &[("ms", 1), ("s", 1_000), ("min", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Longest text looked at; longer ones are no number of anything.
const LONGEST: usize = 64;

/// Bytes, from a number (a fraction is allowed) and a unit: B, KiB, MiB, GiB, TiB, kB, MB, GB or TB.
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let (amount, rest) = term(text, SIZES)?;
    rest.is_empty().then_some(())?;
    u64::try_from(amount).ok()
}

/// A time of whole milliseconds, from one or more numbers with units: ms, s, min, h or d.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total = 0_u128;
    loop {
        let (amount, after) = term(rest, TIMES)?;
        total = total.checked_add(amount)?;
        rest = after.trim_start();
        if rest.is_empty() {
            return u64::try_from(total).ok().map(Duration::from_millis);
        }
    }
}

/// One number with its unit at the start of `text`, in the smallest unit, and what follows it. None where it is not a
/// whole number of the smallest unit.
fn term<'t>(text: &'t str, units: &[(&str, u128)]) -> Option<(u128, &'t str)> {
    if text.len() > LONGEST {
        return None;
    }
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let whole: u128 = text[..digits].parse().ok()?;
    let mut rest = &text[digits..];
    let (mut numerator, mut denominator) = (0_u128, 1_u128);
    if let Some(fraction) = rest.strip_prefix('.') {
        let end = fraction.find(|c: char| !c.is_ascii_digit()).unwrap_or(fraction.len());
        if end == 0 || end > 9 {
            return None;
        }
        numerator = fraction[..end].parse().ok()?;
        denominator = 10_u128.pow(u32::try_from(end).ok()?);
        rest = &fraction[end..];
    }
    let rest = rest.trim_start();
    let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
    let (_, factor) = units.iter().find(|(unit, _)| *unit == &rest[..end])?;
    let part = numerator.checked_mul(*factor)?;
    if part % denominator != 0 {
        return None;
    }
    Some((whole.checked_mul(*factor)?.checked_add(part / denominator)?, &rest[end..]))
}

/// In the largest binary unit that holds it without a fraction.
pub fn show_size(bytes: u64) -> String {
    largest(u128::from(bytes), SIZES[..5].iter().rev(), " ")
}

/// In the largest unit that holds it without a fraction.
pub fn show_duration(time: Duration) -> String {
    largest(time.as_millis(), TIMES.iter().rev(), "")
}

fn largest<'u>(amount: u128, mut units: impl Iterator<Item = &'u (&'u str, u128)>, space: &str) -> String {
    let fits = |(_, factor): &&(&str, u128)| amount > 0 && amount.is_multiple_of(*factor);
    match units.find(fits) {
        Some((unit, factor)) => format!("{}{space}{unit}", amount / factor),
        // Nothing at all is shown in the unit that people expect first.
        None => format!("{amount}{space}{}", if space.is_empty() { "s" } else { "B" }),
    }
}

/// What a person who wrote `text` may have meant: the same number with the unit spelt right.
pub fn nearest_size(text: &str) -> Option<String> {
    nearest(text, SIZES, |unit| match unit {
        "k" | "kb" | "kib" | "kbyte" | "kilobyte" | "kilobytes" => Some("KiB"),
        "m" | "mb" | "mib" | "mbyte" | "megabyte" | "megabytes" => Some("MiB"),
        "g" | "gb" | "gib" | "gbyte" | "gigabyte" | "gigabytes" => Some("GiB"),
        "t" | "tb" | "tib" => Some("TiB"),
        "b" | "byte" | "bytes" => Some("B"),
        _ => None,
    })
    .map(|(number, unit)| format!("{number} {unit}"))
}

/// Like [`nearest_size`].
pub fn nearest_duration(text: &str) -> Option<String> {
    nearest(text, TIMES, |unit| match unit {
        "sec" | "secs" | "second" | "seconds" | "s" => Some("s"),
        "msec" | "millis" | "millisecond" | "milliseconds" => Some("ms"),
        "m" | "mins" | "min" | "minute" | "minutes" => Some("min"),
        "hr" | "hrs" | "h" | "hour" | "hours" => Some("h"),
        "day" | "days" | "d" => Some("d"),
        _ => None,
    })
    .map(|(number, unit)| format!("{number}{unit}"))
}

fn nearest<'t>(
    text: &'t str,
    units: &[(&str, u128)],
    meant: impl Fn(&str) -> Option<&'static str>,
) -> Option<(&'t str, &'static str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').filter(|end| *end > 0)?;
    let unit = text[end..].trim();
    if units.iter().any(|(known, _)| *known == unit) {
        return None;
    }
    Some((&text[..end], meant(&unit.to_ascii_lowercase())?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Promise 6: a limit means what was written.
    #[test]
    fn sizes_and_times_as_written() {
        for (text, bytes) in
            [("2 GiB", 2_147_483_648), ("2GiB", 2_147_483_648), ("1.5 MiB", 1_572_864), ("16 kB", 16_000), ("0 B", 0)]
        {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in ["", "2", "GiB", "2 GB/s", "-2 GiB", "1 GiB 1 MiB", "2 gib", "1.5 B", "99999999999 TiB", "1e3 B"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
        for (text, millis) in
            [("500ms", 500), ("1h30min", 5_400_000), ("1 h 30 min", 5_400_000), ("1.5s", 1500), ("7d", 604_800_000)]
        {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "5", "5 m", "s", "1h-3min", "0.1ms", "9999999999999999999d", "1..5s"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    /// A near miss is named with its right spelling.
    #[test]
    fn near_misses() {
        assert_eq!(nearest_size("2 gb").as_deref(), Some("2 GiB"));
        assert_eq!(nearest_size("2 GiB"), None);
        assert_eq!(nearest_size("2 parsec"), None);
        assert_eq!(nearest_duration("5 m").as_deref(), Some("5min"));
        assert_eq!(nearest_duration("10 seconds").as_deref(), Some("10s"));
    }

    proptest! {
        /// What `check --dump` shows is what the agent reads back.
        #[test]
        fn shown_is_read_back(bytes: u64, millis: u64) {
            prop_assert_eq!(parse_size(&show_size(bytes)), Some(bytes));
            let time = Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&show_duration(time)), Some(time));
        }

        /// No text makes the reader of units panic.
        #[test]
        fn any_text(text: String) {
            let _ = (parse_size(&text), parse_duration(&text), nearest_size(&text), nearest_duration(&text));
        }
    }
}

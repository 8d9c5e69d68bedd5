//! Sizes, times and causes as people read them.

use std::error::Error;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// 1,536 → "1.5 KiB".
pub fn bytes(n: u64) -> String {
    scaled(n, 1024, ["KiB", "MiB", "GiB", "TiB", "PiB"])
}

/// 1,500,000 → "1.5 MB": powers of a thousand, as cards are sold.
pub fn decimal(n: u64) -> String {
    scaled(n, 1000, ["kB", "MB", "GB", "TB", "PB"])
}

fn scaled(n: u64, base: u32, units: [&str; 5]) -> String {
    if n < u64::from(base) {
        return format!("{n} B");
    }
    let base = f64::from(base);
    let mut value = n as f64 / base;
    let mut unit = 0;
    // What would be rounded up to a whole unit is shown as one.
    while value >= base - 0.05 && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    format!("{value:.1} {}", units[unit])
}

/// 1234567 → "1,234,567".
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// 1, "reading" → "1 reading"; 1234 → "1,234 readings".
pub fn counted(n: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(n), if n == 1 { "" } else { "s" })
}

/// The two largest units: "3 d 4 h", "5 min 6 s".
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// Milliseconds since 1970 in local time, to the second.
pub fn local_time(milliseconds: i64) -> String {
    Timestamp::from_millisecond(milliseconds)
        .map_or_else(|_| "?".to_owned(), |at| at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string())
}

/// Milliseconds since 1970 as RFC 3339, UTC.
pub fn rfc3339(milliseconds: i64) -> String {
    Timestamp::from_millisecond(milliseconds)
        .map_or_else(|_| "?".to_owned(), |at| at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
}

/// An error with its causes, each once.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            // A hint belongs at the end, after the causes.
            match text.split_once("\n  hint:") {
                Some((head, hint)) => text = format!("{head}: {cause_text}\n  hint:{hint}"),
                None => text = format!("{text}: {cause_text}"),
            }
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Promise 9: figures are shown as they are, in units that people know.
    #[test]
    fn figures() {
        assert_eq!(
            [bytes(0), bytes(1023), bytes(1536), bytes(1 << 20), bytes(u64::MAX)].join(" "),
            "0 B 1023 B 1.5 KiB 1.0 MiB 16384.0 PiB"
        );
        assert_eq!([decimal(999), decimal(1_500_000), decimal(197_000_000_000)].join(" "), "999 B 1.5 MB 197.0 GB");
        assert_eq!([count(0), count(999), count(1000), count(1_234_567)].join(" "), "0 999 1,000 1,234,567");
        let of = |seconds| duration(Duration::from_secs(seconds));
        assert_eq!([of(59), of(61), of(3_700), of(90_000)].join(" | "), "59 s | 1 min 1 s | 1 h 1 min | 1 d 1 h");
        assert_eq!(rfc3339(1_697_623_015_000), "2023-10-18T09:56:55.000Z");
    }
}

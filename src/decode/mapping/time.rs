//! Times as readers write them.
//!
//! A local time without zone is read in the configured one. In spring an hour is left out: who names a time in it has a
//! clock that was not put forward yet, and is read so. In autumn an hour comes twice: then both instants are given, and
//! [`crate::decode::Folds`] chooses, with the device's last time at hand.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};

use crate::decode::decimal::Decimal;

/// Milliseconds from 1970 to the year 10000: what is later is no time at all.
const END_OF_TIME: i64 = 253_402_300_800_000;

/// No zone is further from UTC.
const DAY_MS: i64 = 86_400_000;

/// How a time is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeFormat {
    /// Seconds since 1970, also with a fraction.
    UnixSeconds,
    /// Milliseconds since 1970.
    UnixMilliseconds,
    /// With `Z` or an offset.
    Rfc3339,
    /// The same without either, then in the configured zone.
    Local,
}

impl TimeFormat {
    /// As tables write it.
    pub const ALL: [(&'static str, Self); 4] = [
        ("unix-s", Self::UnixSeconds),
        ("unix-ms", Self::UnixMilliseconds),
        ("rfc3339", Self::Rfc3339),
        ("local", Self::Local),
    ];
}

/// An instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeRead {
    /// Milliseconds since 1970.
    pub ms: i64,
    /// The same local time once more, after the clocks were put back.
    pub again_ms: Option<i64>,
}

impl TimeFormat {
    /// The time that `text` says in this format; none where it says none, or 0, or one that no clock shows.
    pub fn read(self, text: &str, zone: &TimeZone) -> Option<TimeRead> {
        let text = text.trim_ascii();
        let once = |ms: i64| TimeRead { ms, again_ms: None };
        let read = match self {
            Self::UnixSeconds => once(text.parse::<Decimal>().ok()?.times(&Decimal::power_of_ten(3))?.trunc()?),
            Self::UnixMilliseconds => once(text.parse::<Decimal>().ok()?.trunc()?),
            Self::Rfc3339 => once(text.parse::<Timestamp>().ok()?.as_millisecond()),
            Self::Local => match text.parse::<Timestamp>() {
                Ok(timestamp) => once(timestamp.as_millisecond()),
                Err(_) => local(text.parse().ok()?, zone)?,
            },
        };
        // A clock that has not been set since it began to run shows 1970, in its own zone; a number of that says none.
        let begin = match self {
            Self::UnixSeconds | Self::UnixMilliseconds => 1,
            Self::Rfc3339 | Self::Local => -DAY_MS,
        };
        (begin..END_OF_TIME).contains(&read.ms).then_some(read)
    }
}

fn local(time: DateTime, zone: &TimeZone) -> Option<TimeRead> {
    let ms = |offset: jiff::tz::Offset| offset.to_timestamp(time).ok().map(Timestamp::as_millisecond);
    Some(match zone.to_ambiguous_timestamp(time).offset() {
        AmbiguousOffset::Unambiguous { offset } => TimeRead { ms: ms(offset)?, again_ms: None },
        AmbiguousOffset::Gap { before, .. } => TimeRead { ms: ms(before)?, again_ms: None },
        AmbiguousOffset::Fold { before, after } => TimeRead { ms: ms(before)?, again_ms: ms(after) },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(format: TimeFormat, text: &str) -> Option<(String, Option<String>)> {
        let vienna = TimeZone::get("Europe/Vienna").expect("the zone is known");
        let told = |ms| Timestamp::from_millisecond(ms).expect("a time").to_string();
        format.read(text, &vienna).map(|read| (told(read.ms), read.again_ms.map(told)))
    }

    /// Promise 8: each way to write a time is the same instant, and what is none stays none.
    #[test]
    fn times_as_they_are_written() {
        use TimeFormat::*;
        for (format, text, time) in [
            (UnixSeconds, "1697623015", Some("2023-10-18T09:56:55Z")),
            (UnixSeconds, "1697623015.25", Some("2023-10-18T09:56:55.25Z")),
            (UnixSeconds, "0", None),
            (UnixSeconds, "-5", None),
            (UnixSeconds, "1e300", None),
            (UnixMilliseconds, "1697623015250", Some("2023-10-18T09:56:55.25Z")),
            (UnixMilliseconds, "noon", None),
            (Rfc3339, "2017-04-15T00:00:00+02:00", Some("2017-04-14T22:00:00Z")),
            (Rfc3339, "2023-10-18T09:56:55.250Z", Some("2023-10-18T09:56:55.25Z")),
            (Rfc3339, "2023-10-18T09:56:55", None),
            (Local, "2022-07-07T13:01:11", Some("2022-07-07T11:01:11Z")),
            (Local, "2022-01-07 13:01:11", Some("2022-01-07T12:01:11Z")),
            (Local, "2022-07-07T13:01:11Z", Some("2022-07-07T13:01:11Z")),
            (Local, "2022-07-07T13:01:11+05:00", Some("2022-07-07T08:01:11Z")),
            (Local, "2022-13-07T13:01:11", None),
            (Local, "1970-01-01T00:00:03", Some("1969-12-31T23:00:03Z")),
            (Local, "1969-12-30T00:00:03", None),
            (Local, "", None),
        ] {
            assert_eq!(read(format, text), time.map(|time| (time.to_owned(), None)), "{text}");
        }
    }

    /// Promise 4: where the clocks change, local times go on without a step back: the hour left out is read as if they
    /// had not changed yet, the hour that comes twice is given twice.
    #[test]
    fn clocks_put_forward_and_back() {
        let local = |text| read(TimeFormat::Local, text).expect("a time");
        assert_eq!(local("2024-03-31T01:59:59").0, "2024-03-31T00:59:59Z");
        assert_eq!(local("2024-03-31T02:30:00"), ("2024-03-31T01:30:00Z".to_owned(), None));
        assert_eq!(local("2024-03-31T03:00:00").0, "2024-03-31T01:00:00Z");
        assert_eq!(local("2024-10-27T01:59:59"), ("2024-10-26T23:59:59Z".to_owned(), None));
        let twice = ("2024-10-27T00:30:00Z".to_owned(), Some("2024-10-27T01:30:00Z".to_owned()));
        assert_eq!(local("2024-10-27T02:30:00"), twice);
        assert_eq!(local("2024-10-27T03:00:00"), ("2024-10-27T02:00:00Z".to_owned(), None));
    }
}

//! A line that comes and goes: its outages are said so often an hour, and then counted. Pure: the caller brings the time.

use std::time::{Duration, Instant};

/// Outages that are said in an hour; more tell nobody anything new.
const SAID: u32 = 6;
const HOUR: Duration = Duration::from_secs(3600);

/// The outages of one line.
#[derive(Debug, Clone, Default)]
pub struct Flapping {
    hour: Option<Instant>,
    count: u32,
}

/// What is said of an outage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// All there is to say.
    Said,
    /// The same, and that the next ones are counted only.
    Last,
    /// Nothing above debug.
    Counted,
}

impl Flapping {
    /// An outage begins.
    pub fn outage(&mut self, now: Instant) -> Word {
        if self.hour.is_none_or(|hour| now.saturating_duration_since(hour) >= HOUR) {
            *self = Self { hour: Some(now), count: 0 };
        }
        self.count = self.count.saturating_add(1);
        match self.count {
            ..SAID => Word::Said,
            SAID => Word::Last,
            _ => Word::Counted,
        }
    }
}

/// What happens again and again: said at once, then counted, and said at most once an hour.
#[derive(Debug, Clone, Default)]
pub struct Reminder {
    said: Option<Instant>,
    unsaid: u64,
}

impl Reminder {
    /// It happened `times`. How often it had happened unsaid, where it is to be said now.
    pub fn note(&mut self, times: u64, now: Instant) -> Option<u64> {
        if self.said.is_some_and(|said| now.saturating_duration_since(said) < HOUR) {
            self.unsaid += times;
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Promise 5, never silent: the first time is said at once, a flood once an hour, with how many there were.
    #[test]
    fn a_flood_is_said_once_an_hour() {
        let (mut reminder, start) = (Reminder::default(), Instant::now());
        let said: Vec<_> =
            (0..7_200).filter_map(|second| reminder.note(1, start + Duration::from_secs(second))).collect();
        assert_eq!(said, [0, 3_599]);
    }

    /// Promise 5: never silent for an hour, and never a flood: a day of an outage every 20 s is said 6 times an hour.
    #[test]
    fn a_day_of_flapping() {
        let (mut flapping, start) = (Flapping::default(), Instant::now());
        let words: Vec<_> = (0..24 * 180).map(|n| flapping.outage(start + Duration::from_secs(20 * n))).collect();
        let count = |word| words.iter().filter(|said| **said == word).count();
        assert_eq!((count(Word::Said), count(Word::Last)), (24 * 5, 24));
    }
}

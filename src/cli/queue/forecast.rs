//! When the queue will be full, as a person says it. Pure but for the time zone.

use std::time::Duration;

use jiff::{SignedDuration, Zoned};

use crate::cli::units::duration;

/// What is not worth a date.
const FAR: Duration = Duration::from_secs(10 * 365 * 86_400);

/// What the queue's growth is made of.
#[derive(Debug, Clone, Copy)]
pub struct Growth {
    /// Records a second that come in and go out.
    pub inflow: f64,
    pub outflow: f64,
    /// Bytes that one record takes on the disk.
    pub record: f64,
    /// Bytes until the queue is full.
    pub room: u64,
}

impl Growth {
    /// Until it is full if nothing is sent; none where nothing comes in.
    pub fn room_for(&self) -> Option<Duration> {
        time(self.room, self.inflow * self.record)
    }

    /// Until it is full at the present rates; none where it does not grow.
    pub fn full_in(&self) -> Option<Duration> {
        // Both are measured over different times: what differs by less than a twentieth is even.
        let net = self.inflow - self.outflow;
        if net <= self.inflow / 20.0 { None } else { time(self.room, net * self.record) }
    }

    /// A line for a person.
    pub fn words(&self, now: &Zoned) -> String {
        let Some(room_for) = self.room_for() else { return "nothing comes in".to_owned() };
        let room = |text: &str| match room_for {
            long if long >= FAR => format!("{text} for years"),
            room => format!("{text} for {}", duration(room)),
        };
        if self.room == 0 {
            return "it is full".to_owned();
        }
        match self.full_in() {
            None => format!("not at this rate; there is room {}", room("without Kafka").trim_start()),
            Some(after) if after >= FAR => "not within ten years at this rate".to_owned(),
            Some(after) => format!("{} at this rate, in {}", day(now, after), duration(after)),
        }
    }
}

fn time(room: u64, rate: f64) -> Option<Duration> {
    (rate > 0.0).then(|| Duration::try_from_secs_f64(room as f64 / rate).unwrap_or(Duration::MAX))
}

/// "today at 17:40", "tomorrow at 03:10", "on 14 June", "on 14 June 2027".
fn day(now: &Zoned, after: Duration) -> String {
    let Some(then) = SignedDuration::try_from(after).ok().and_then(|after| now.checked_add(after).ok()) else {
        return "in a very long time".to_owned();
    };
    let days = now.date().until(then.date()).map_or(i32::MAX, |span| span.get_days());
    let format = match days {
        0 => "today at %H:%M",
        1 => "tomorrow at %H:%M",
        _ if then.year() == now.year() => "on %-d %B",
        _ => "on %-d %B %Y",
    };
    then.strftime(format).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(inflow: f64, outflow: f64, room: u64) -> String {
        let now: Zoned = "2026-05-30T12:00:00+02:00[Europe/Vienna]".parse().expect("a time");
        Growth { inflow, outflow, record: 700.0, room }.words(&now)
    }

    /// Promise 9: a number that a person can use.
    #[test]
    fn full_when() {
        const GIB: u64 = 1 << 30;
        let cases = [
            (1.0, 0.0, 860 << 20),
            (1.0, 0.5, 2 * GIB),
            (1.0, 0.0, 20 * GIB),
            (20.0, 0.0, 200 << 20),
            (10.0, 0.0, 400 << 20),
            (1.0, 0.97, GIB),
            (1.0, 3_000.0, GIB),
            (0.0, 0.0, GIB),
            (1.0, 0.0, 0),
            (0.001, 0.0, GIB),
            (1e-300, 0.0, u64::MAX),
        ];
        let lines: Vec<_> = cases.iter().map(|(inflow, outflow, room)| words(*inflow, *outflow, *room)).collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
        on 14 June at this rate, in 14 d 21 h
        on 9 August at this rate, in 71 d 0 h
        on 20 May 2027 at this rate, in 355 d 1 h
        today at 16:09 at this rate, in 4 h 9 min
        tomorrow at 04:38 at this rate, in 16 h 38 min
        not at this rate; there is room without Kafka for 17 d 18 h
        not at this rate; there is room without Kafka for 17 d 18 h
        nothing comes in
        it is full
        not within ten years at this rate
        not within ten years at this rate
        ");
    }
}

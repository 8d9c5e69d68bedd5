//! One device's day as a chart: what flowed in stands above the line, what flowed out hangs below it.

use std::collections::BTreeSet;
use std::fmt::Write;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

use super::super::audit::reader::{ReadError, Reader};
use super::super::cluster::Address;
use super::super::terminal::{DIM, HEADER, IN, OUT, printable};
use super::flows;
use super::record::{Content, Record};
use crate::cli::progress::{Progress, Unit};
use crate::cli::units::counted;
use crate::decode::Decoded;
use crate::shutdown::Shutdown;

/// Rows of the chart, above and below the line together.
const ROWS: usize = 14;
/// Other devices that are named where there is nothing of the one asked for.
const OTHERS: usize = 10;
/// Columns of the labels on the left.
const LABEL: usize = 9;
/// A day's columns: each stands for at least ten minutes, at most an hour.
const COLUMNS: std::ops::RangeInclusive<usize> = 24..=144;
/// Late readings are dated later than they were measured; Kafka has them behind their day. Nobody waits for older ones.
const LATE: i64 = 40;

/// A day of one device.
#[derive(Debug)]
pub(super) struct Day {
    device: String,
    date: Date,
    begin: Timestamp,
    end: Timestamp,
    /// Sum and number of the net powers in W, in each column.
    columns: Vec<(f64, u64)>,
    readings: u64,
    /// First and last of the registers in Wh: import, export.
    registers: [Option<(f64, f64)>; 2],
    /// Devices that there are readings of on this day.
    others: BTreeSet<String>,
}

impl Day {
    /// `date` in `zone`; none where the calendar has no such day. `width` is the terminal's.
    fn new(device: &str, date: Date, zone: &TimeZone, width: usize) -> Option<Self> {
        let begin = date.to_zoned(zone.clone()).ok()?.timestamp();
        let end = date.checked_add(1.day()).ok()?.to_zoned(zone.clone()).ok()?.timestamp();
        let columns = width.saturating_sub(LABEL).clamp(*COLUMNS.start(), *COLUMNS.end()) / 24 * 24;
        Some(Self {
            device: device.to_owned(),
            date,
            begin,
            end,
            columns: vec![(0.0, 0); columns],
            readings: 0,
            registers: [None; 2],
            others: BTreeSet::new(),
        })
    }

    fn take(&mut self, record: &Record) {
        let Some(time) = record.time().filter(|time| (self.begin..self.end).contains(time)) else { return };
        if record.key.as_deref() != Some(self.device.as_bytes()) {
            self.note_other(record);
            return;
        }
        if let Content::Reading(reading) = record.content()
            && !reading.measurements.is_empty()
        {
            self.add(time, &reading);
        }
    }

    fn note_other(&mut self, record: &Record) {
        let name = String::from_utf8_lossy(record.key.as_deref().unwrap_or_default());
        if !matches!(record.content(), Content::Reading(_)) {
            return;
        }
        if self.others.len() < OTHERS && !name.is_empty() && !self.others.contains(&*name) {
            self.others.insert(name.into_owned());
        }
    }

    fn add(&mut self, time: Timestamp, reading: &Decoded) {
        self.readings += 1;
        for (register, c) in self.registers.iter_mut().zip([1, 2]) {
            if let Some(now) = flows::energy(reading, c) {
                *register = Some(register.map_or((now, now), |(first, _)| (first, now)));
            }
        }
        let Some(net) = flows::net(reading) else { return };
        let length = self.end.as_millisecond() - self.begin.as_millisecond();
        let place = (time.as_millisecond() - self.begin.as_millisecond()) * self.columns.len() as i64 / length;
        if let Some((sum, count)) = usize::try_from(place).ok().and_then(|place| self.columns.get_mut(place)) {
            *sum += net;
            *count += 1;
        }
    }

    /// The mean of each column; none where nothing was measured.
    fn means(&self) -> Vec<Option<f64>> {
        self.columns.iter().map(|(sum, count)| (*count > 0).then(|| sum / *count as f64)).collect()
    }

    /// # Errors
    ///
    /// There is nothing to draw; in words.
    fn draw(&self) -> Result<String, String> {
        if self.readings == 0 {
            return Err(self.nothing());
        }
        let means = self.means();
        let largest = |sign: f64| means.iter().flatten().map(|mean| mean * sign).fold(0.0_f64, f64::max);
        let (above, below) = (largest(1.0), largest(-1.0));
        let mut text = format!("{HEADER}{}, {}{HEADER:#}\n", printable(&self.device, 60), self.date);
        if means.iter().all(Option::is_none) {
            let _ = writeln!(text, "no power in its readings\n{DIM}{}{DIM:#}", self.sums());
            return Ok(text);
        }
        let step = ((above + below) / ROWS as f64).max(f64::MIN_POSITIVE);
        let up = ((above / step).ceil() as usize).clamp(usize::from(below == 0.0), ROWS);
        let down = ((below / step).ceil() as usize).min(ROWS);
        for row in (0..up).rev() {
            let label = if row + 1 == up { power(above) } else { String::new() };
            let cells = means.iter().map(|mean| mean.map_or(' ', |mean| filled(mean / step - row as f64, &RISING)));
            let _ = writeln!(text, "{label:>7} ┤{IN}{}{IN:#}", trimmed(cells));
        }
        let line = means.iter().map(|mean| if mean.is_some() { '─' } else { '·' });
        let _ = writeln!(text, "{:>7} ┼{}", "0 W", line.collect::<String>());
        for row in 0..down {
            let label = if row + 1 == down { power(-below) } else { String::new() };
            let cells = means.iter().map(|mean| mean.map_or(' ', |mean| filled(-mean / step - row as f64, &HANGING)));
            let _ = writeln!(text, "{label:>7} ┤{OUT}{}{OUT:#}", trimmed(cells));
        }
        let quarter = means.len() / 4;
        let _ = writeln!(text, "{:>LABEL$}{:<quarter$}{:<quarter$}{:<quarter$}18", "", "00", "06", "12");
        let _ = writeln!(text, "{DIM}{}{DIM:#}", self.sums());
        Ok(text)
    }

    fn nothing(&self) -> String {
        let there: Vec<String> = self.others.iter().map(|name| printable(name, 60).to_string()).collect();
        let others = match there.len() {
            0 => "nor of any other device".to_owned(),
            OTHERS.. => format!("there are readings of {} and others", there.join(", ")),
            _ => format!("there are readings of {}", there.join(", ")),
        };
        format!("no reading of {} on {}; {others}", printable(&self.device, 60), self.date)
    }

    fn sums(&self) -> String {
        let mut sums = counted(self.readings, "reading");
        for (register, word) in self.registers.iter().zip(["in", "out"]) {
            if let Some((first, last)) = register {
                let _ = write!(sums, ", {:.3} kWh {word}", (last - first) / 1000.0);
            }
        }
        sums
    }
}

/// From empty to full.
const RISING: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const HANGING: [char; 9] = [' ', '▔', '▔', '▔', '▀', '▀', '▀', '▀', '█'];

/// The character of which so much is filled.
fn filled(part: f64, of: &[char; 9]) -> char {
    of[(part.clamp(0.0, 1.0) * 8.0).round() as usize]
}

fn trimmed(cells: impl Iterator<Item = char>) -> String {
    let mut row: String = cells.collect();
    row.truncate(row.trim_end().len());
    row
}

fn power(watts: f64) -> String {
    // No -0.
    let watts = if watts.abs() < 0.5 { 0.0 } else { watts };
    if watts.abs() >= 10_000.0 { format!("{:.1} kW", watts / 1000.0) } else { format!("{watts:.0} W") }
}

/// Reads the day's records and draws them. `date`: today where it is not said.
pub(super) fn chart(
    address: &Address,
    device: &str,
    date: Option<Date>,
    width: usize,
    shutdown: &Shutdown,
) -> Result<String, String> {
    let zone = TimeZone::system();
    let today = || Timestamp::now().to_zoned(zone.clone()).date();
    let mut day = Day::new(device, date.unwrap_or_else(today), &zone, width).ok_or("there is no such day")?;
    let failed = |error: ReadError| error.to_string();
    let mut reader = Reader::open(address, Some(day.begin), shutdown).map_err(failed)?;
    let mut bar = Progress::new("reading", reader.left(), Unit::Records);
    let (mut done, last) = (0, day.end.as_millisecond().saturating_add(LATE * 86_400_000));
    reader
        .read(|record, _| {
            done += 1;
            bar.at(done);
            if record.timestamp_ms.is_none_or(|ms| ms <= last) {
                day.take(record);
            }
            Ok::<(), ReadError>(())
        })
        .map_err(failed)?;
    drop(bar);
    day.draw()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::consume::record::tests::record;
    use crate::reading::CE_TYPE_READING;

    fn drawn(width: usize, power: impl Fn(i64) -> Option<i64>) -> String {
        let date = "2026-06-21".parse().expect("a day");
        let zone = TimeZone::UTC;
        let mut day = Day::new("garage", date, &zone, width).expect("a day");
        for minute in 0..1440 {
            let Some(power) = power(minute) else { continue };
            let (import, export) = (power.max(0), (-power).max(0));
            let value = format!(
                r#"{{"1-0:1.7.0":{{"value":{import}}},"1-0:2.7.0":{{"value":{export}}},"1-0:1.8.0":{{"value":{minute}}},"name":"garage"}}"#
            );
            let time = (day.begin + minute.minutes()).to_string();
            day.take(&record("garage", &value, &[("ce_type", CE_TYPE_READING), ("ce_time", &time)]));
            day.take(&record("cellar", &value, &[("ce_type", CE_TYPE_READING), ("ce_time", &time)]));
        }
        let drawn = day.draw().unwrap_or_else(|nothing| nothing);
        anstream::adapter::strip_str(&drawn).to_string()
    }

    /// A summer's day: an evening of cooking, the sun around noon, an hour without readings.
    #[test]
    fn a_day_of_a_house() {
        let power = |minute: i64| match minute {
            180..=239 => None,
            600..=899 => Some(-4000 + (minute - 750).abs() * 20),
            1080..=1199 => Some(2500),
            _ => Some(300),
        };
        let chart = drawn(80, power);
        assert!(chart.lines().all(|line| line.chars().count() <= 80), "{chart}");
        insta::assert_snapshot!(chart);
    }

    /// A day without readings, and one where nothing flows.
    #[test]
    fn days_without_flow() {
        insta::assert_snapshot!(drawn(80, |_| None), @"
        no reading of garage on 2026-06-21; nor of any other device
        ");
        assert!(drawn(200, |_| Some(0)).contains("1,440 readings, 1.439 kWh in"));
        assert!(drawn(10, |_| Some(5)).contains("5 W"), "a narrow terminal");
    }
}

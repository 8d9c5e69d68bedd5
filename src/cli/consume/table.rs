//! A table that a person reads.

use std::io::{self, Write};

use jiff::tz::TimeZone;

use super::super::terminal::{DIM, HEADER, IN, OUT, WARNING, printable};
use super::flows;
use super::record::{Content, Gap, Record};
use crate::daily::DailyReceipt;
use crate::decode::Decoded;

/// Rows after which a terminal shows the header again.
const PAGE: u32 = 30;

/// Characters of a device's name: the column begins with the first and grows up to the second.
const DEVICE: (usize, usize) = (12, 32);

/// Characters of a foreign value that are shown.
const SNIPPET: usize = 60;

/// What a row shows; a narrow terminal gets less of it, and no row is broken.
#[derive(Debug, Clone, Copy)]
struct Layout {
    /// As strftime(3) writes it, and its characters.
    time: (&'static str, usize),
    energy: bool,
    /// Characters that a device's name may take.
    device: usize,
}

impl Layout {
    /// For a terminal of so many columns; none: for a file.
    fn of(columns: Option<usize>) -> Self {
        const CHOICES: [(&str, usize, bool); 4] = [
            ("%Y-%m-%d %H:%M:%S", 19, true),
            ("%m-%d %H:%M:%S", 14, true),
            ("%H:%M:%S", 8, true),
            ("%H:%M:%S", 8, false),
        ];
        let columns = columns.unwrap_or(usize::MAX);
        // Two power columns, then two of energy, each with its distance; and the distance of the device.
        let rest = |width: usize, energy: bool| width + 2 + 22 + if energy { 28 } else { 0 };
        let fits = |(_, width, energy): &&(&str, usize, bool)| rest(*width, *energy) + DEVICE.0 <= columns;
        let &(time, width, energy) = CHOICES.iter().find(fits).unwrap_or(&CHOICES[CHOICES.len() - 1]);
        let device = columns.saturating_sub(rest(width, energy)).clamp(1, DEVICE.1);
        Self { time: (time, width), energy, device }
    }
}

#[derive(Debug)]
pub(super) struct Table {
    zone: TimeZone,
    layout: Layout,
    columns: Option<usize>,
    device_width: usize,
    /// Whether the header comes again.
    paged: bool,
    rows: u32,
}

impl Table {
    /// Times are local. A terminal of so many `columns` gets rows that fit and the header again and again.
    pub(super) fn new(columns: Option<usize>) -> Self {
        Self::with_zone(TimeZone::system(), columns)
    }

    fn with_zone(zone: TimeZone, columns: Option<usize>) -> Self {
        let layout = Layout::of(columns);
        let device_width = DEVICE.0.min(layout.device);
        Self { zone, layout, columns, device_width, paged: columns.is_some(), rows: 0 }
    }

    pub(super) fn write(&mut self, out: &mut impl Write, record: &Record, content: &Content) -> io::Result<()> {
        let device = String::from_utf8_lossy(record.key.as_deref().unwrap_or(b"-"));
        let device = printable(&device, self.layout.device);
        let wider = device.chars().count() > self.device_width;
        self.device_width = self.device_width.max(device.chars().count());
        if self.rows == 0 || (self.paged && (wider || self.rows.is_multiple_of(PAGE))) {
            self.header(out)?;
            self.rows = 0;
        }
        self.rows += 1;
        let time = self.time(record);
        match content {
            Content::Reading(reading) => self.reading(out, &time, &device, reading),
            Content::Gap(gap) => writeln!(out, "{time}  {WARNING}{}{WARNING:#}", self.cut(missing(gap), 0)),
            Content::Receipt(receipt) => writeln!(out, "{time}  {DIM}{}{DIM:#}", self.cut(covered(receipt), 0)),
            Content::Other => self.other(out, &time, &device, record),
        }
    }

    fn header(&self, out: &mut impl Write) -> io::Result<()> {
        let (width, time) = (self.device_width, self.layout.time.1);
        let energy = if self.layout.energy { format!("  {:>12}  {:>12}", "in kWh", "out kWh") } else { String::new() };
        let (device, import, export) = ("device", "in W", "out W");
        writeln!(out, "{HEADER}{:<time$}  {device:<width$}  {import:>9}  {export:>9}{energy}{HEADER:#}", "time")
    }

    /// What stands behind the time, and `taken` more characters, in the room that is left.
    fn cut(&self, text: String, taken: usize) -> String {
        match self.columns {
            None => text,
            Some(columns) => printable(&text, columns.saturating_sub(self.layout.time.1 + 2 + taken).max(1)),
        }
    }

    fn time(&self, record: &Record) -> String {
        match record.time() {
            Some(time) => time.to_zoned(self.zone.clone()).strftime(self.layout.time.0).to_string(),
            None => format!("{:<width$}", "-", width = self.layout.time.1),
        }
    }

    fn reading(&self, out: &mut impl Write, time: &str, device: &str, reading: &Decoded) -> io::Result<()> {
        let [import, export] = flows::powers(reading);
        let energy = |c| cell(flows::energy(reading, c).map(|wh| wh / 1000.0), 3);
        let energy = if self.layout.energy { format!("  {:>12}  {:>12}", energy(1), energy(2)) } else { String::new() };
        let (import_style, export_style) = (style(import, IN), style(export, OUT));
        writeln!(
            out,
            "{time}  {device:<width$}  {import_style}{:>9}{import_style:#}  {export_style}{:>9}{export_style:#}{energy}",
            cell(import, 0),
            cell(export, 0),
            width = self.device_width
        )
    }

    fn other(&self, out: &mut impl Write, time: &str, device: &str, record: &Record) -> io::Result<()> {
        let width = self.device_width;
        let Some(value) = &record.value else {
            return writeln!(out, "{time}  {device:<width$}  {DIM}no value (a tombstone){DIM:#}");
        };
        let text = match std::str::from_utf8(value) {
            Ok(text) if !text.is_empty() => format!(": {}", printable(text, SNIPPET)),
            _ => String::new(),
        };
        let text = self.cut(format!("{} bytes{text}", value.len()), width + 2);
        writeln!(out, "{time}  {device:<width$}  {DIM}{text}{DIM:#}")
    }
}

/// What does not flow stays in the background.
fn style(value: Option<f64>, flowing: anstyle::Style) -> anstyle::Style {
    if value.is_some_and(|value| value > 0.0) { flowing } else { DIM }
}

fn cell(value: Option<f64>, decimals: usize) -> String {
    match value {
        None => "-".to_owned(),
        // Nobody measures so much: the row stays a row.
        Some(value) if value.abs() >= 1e12 => format!("{value:.2e}"),
        Some(value) => format!("{value:.decimals$}"),
    }
}

fn covered(receipt: &DailyReceipt) -> String {
    let missing = receipt.gaps.iter().map(|gap| gap.count).sum::<u64>();
    format!("receipt of {}: {} readings, {missing} missing", receipt.day, receipt.count)
}

fn missing(gap: &Gap) -> String {
    let reason = printable(&gap.reason, 200);
    if gap.count == 1 {
        format!("1 reading is missing (sequence {}): {reason}", gap.first)
    } else {
        format!("{} readings are missing (sequences {} to {}): {reason}", gap.count, gap.first, gap.last)
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::record;
    use super::*;
    use crate::reading::{CE_TYPE_GAP, CE_TYPE_READING, CE_TYPE_RECEIPT};

    const DOCUMENT: &str = concat!(
        r#"{"0-0:96.1.0":{"value":"90296857"},"1-0:1.8.0":{"value":83403,"time":1697623015},"#,
        r#""1-0:2.8.0":{"value":16564,"time":1697623015},"1-0:1.7.0":{"value":40,"time":1697623015},"#,
        r#""1-0:2.7.0":{"value":0,"time":1697623015},"name":"90296857","sma_time":2435.7}"#
    );

    fn shown(records: &[Record], columns: Option<usize>) -> String {
        let mut table = Table::with_zone(TimeZone::fixed(jiff::tz::offset(2)), columns);
        let mut out = anstream::StripStream::new(Vec::new());
        for record in records {
            table.write(&mut out, record, &record.content()).expect("written");
        }
        String::from_utf8(out.into_inner()).expect("UTF-8")
    }

    /// What a person sees of readings (of `payload = "any"` too), gaps and what somebody else wrote.
    #[test]
    fn a_table_that_a_person_reads() {
        let headers = [("ce_type", CE_TYPE_READING), ("ce_time", "2023-10-18T09:56:55Z")];
        let gap = [("ce_type", CE_TYPE_GAP), ("ce_time", "2023-10-18T09:57:01Z")];
        let receipt = [("ce_type", CE_TYPE_RECEIPT), ("ce_time", "2023-10-18T00:00:01Z")];
        let records = [
            record("90296857", DOCUMENT, &headers),
            record("the flat on the third floor, left of the lift", r#"{"16.7.0":{"value":"-894.4"}}"#, &headers),
            record("cellar/temperature", "21.5 °C", &headers),
            record("pi-1", r#"{"first":7,"last":9,"count":3,"reason":"a damaged segment"}"#, &gap),
            record("pi-1", r#"{"first":7,"last":7,"count":1,"reason":"not\nJSON"}"#, &gap),
            record(
                "pi-1",
                r#"{"day":"2023-10-17","first":1,"last":9,"count":6,"gaps":[{"first":7,"last":9,"count":3,"reason":"x"}]}"#,
                &receipt,
            ),
            record("plug\x1b[2J", "ON\r\n", &[]),
            Record { key: None, value: None, timestamp_ms: None, ..record("", "", &[]) },
            Record { value: Some(vec![0xff; 3]), ..record("90296857", "", &[]) },
        ];
        insta::assert_snapshot!(shown(&records, None), @r"
        time                 device             in W      out W        in kWh       out kWh
        2023-10-18 11:56:55  90296857             40          0        83.403        16.564
        2023-10-18 11:56:55  the flat on the third floor, le…          0        894             -             -
        2023-10-18 11:56:55  cellar/temperature                        -          -             -             -
        2023-10-18 11:57:01  3 readings are missing (sequences 7 to 9): a damaged segment
        2023-10-18 11:57:01  1 reading is missing (sequence 7): not\nJSON
        2023-10-18 02:00:01  receipt of 2023-10-17: 6 readings, 3 missing
        2023-10-18 11:57:00  plug\u{1b}[2J                     4 bytes: ON\r\n
        -                    -                                 no value (a tombstone)
        2023-10-18 11:57:00  90296857                          3 bytes
        ");
    }

    /// The header comes again on a terminal only.
    #[test]
    fn a_terminal_gets_the_header_again() {
        let records = vec![record("k", DOCUMENT, &[]); 61];
        assert_eq!(shown(&records, Some(120)).matches("in kWh").count(), 3);
        assert_eq!(shown(&records, None).matches("in kWh").count(), 1);
    }

    /// However narrow the terminal is, no row is wider; the usual ones lose neither power nor energy.
    #[test]
    fn no_row_is_broken() {
        let headers = [("ce_type", CE_TYPE_READING), ("ce_time", "2023-10-18T09:56:55Z")];
        let gap = [("ce_type", CE_TYPE_GAP), ("ce_time", "2023-10-18T09:57:01Z")];
        let reason = format!(r#"{{"first":7,"last":9,"count":3,"reason":"{}"}}"#, "x".repeat(300));
        let records = [
            record("the flat on the third floor, left of the lift", DOCUMENT, &headers),
            record("plug", &"ON ".repeat(100), &[]),
            record("pi-1", &reason, &gap),
        ];
        for columns in 44..160 {
            let text = shown(&records, Some(columns));
            let widest = text.lines().map(|line| line.chars().count()).max();
            assert!(widest <= Some(columns), "{columns} columns:\n{text}");
        }
        assert!(shown(&records, Some(80)).contains("83.403"), "{}", shown(&records, Some(80)));
    }
}

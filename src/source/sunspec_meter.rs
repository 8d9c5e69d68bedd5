//! The points of SunSpec's meter models 201 to 204 (integers with scale factors) and 211 to 214 (32-bit floats), and the
//! OBIS codes that they are. Pure.
//!
//! All eight models have the same quantities in the same order. Integers: 16 bits a value, 32 bits a counter, and a scale
//! factor behind each kind of quantity; floats: 32 bits each, no scale factors. What a model's kind of connection does not
//! have is marked as not implemented: 0x8000, NaN, and 0 for a counter that the model leaves open.

use crate::source::measured::{Measured, Picture};
use crate::source::scaled::Scaled;

/// Registers of a model of integers that are read, id and length not counted.
pub const INTEGER_LENGTH: u16 = 105;

/// The same of a model of floats.
pub const FLOAT_LENGTH: u16 = 124;

/// Not implemented, of a value and of a scale factor.
const NOT_IMPLEMENTED: u16 = 0x8000;

/// What a scale factor may be.
const SCALES: std::ops::RangeInclusive<i16> = -10..=10;

/// How a kind of quantity is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// As it is.
    Plain,
    /// Volts.
    Voltage,
    /// Hertz.
    Frequency,
    /// -1 to 1; the models of integers have percent.
    PowerFactor,
    /// Import above and export below zero, which are two codes: this one and the next C.
    Reactive,
    /// A counter that every meter has: 0 is a value.
    Counter,
    /// A counter that a meter may have: 0 where it has not.
    OptionalCounter,
}

/// A quantity: its points by SunSpec's names (A, B and C are the phases), each with its code.
#[derive(Debug)]
pub struct Quantity {
    pub kind: Kind,
    pub points: &'static [(&'static str, &'static str)],
    /// A scale factor follows in the models of integers.
    pub scale: Option<&'static str>,
}

const fn quantity(
    kind: Kind,
    scale: Option<&'static str>,
    points: &'static [(&'static str, &'static str)],
) -> Quantity {
    Quantity { kind, points, scale }
}

/// In the models' order. `PPV`, the mean of the voltages between the phases, has no code of its own.
pub const QUANTITIES: [Quantity; 15] = [
    quantity(
        Kind::Plain,
        Some("A_SF"),
        &[("A", "1-0:90.7.0"), ("AphA", "1-0:31.7.0"), ("AphB", "1-0:51.7.0"), ("AphC", "1-0:71.7.0")],
    ),
    quantity(
        Kind::Voltage,
        Some("V_SF"),
        &[
            ("PhV", "1-0:12.7.0"),
            ("PhVphA", "1-0:32.7.0"),
            ("PhVphB", "1-0:52.7.0"),
            ("PhVphC", "1-0:72.7.0"),
            ("PPV", "PPV"),
            ("PhVphAB", "1-0:124.7.0"),
            ("PhVphBC", "1-0:125.7.0"),
            ("PhVphCA", "1-0:126.7.0"),
        ],
    ),
    quantity(Kind::Frequency, Some("Hz_SF"), &[("Hz", "1-0:14.7.0")]),
    quantity(
        Kind::Plain,
        Some("W_SF"),
        &[("W", "1-0:16.7.0"), ("WphA", "1-0:36.7.0"), ("WphB", "1-0:56.7.0"), ("WphC", "1-0:76.7.0")],
    ),
    quantity(
        Kind::Plain,
        Some("VA_SF"),
        &[("VA", "1-0:9.7.0"), ("VAphA", "1-0:29.7.0"), ("VAphB", "1-0:49.7.0"), ("VAphC", "1-0:69.7.0")],
    ),
    quantity(
        Kind::Reactive,
        Some("VAR_SF"),
        &[("VAR", "1-0:3.7.0"), ("VARphA", "1-0:23.7.0"), ("VARphB", "1-0:43.7.0"), ("VARphC", "1-0:63.7.0")],
    ),
    quantity(
        Kind::PowerFactor,
        Some("PF_SF"),
        &[("PF", "1-0:13.7.0"), ("PFphA", "1-0:33.7.0"), ("PFphB", "1-0:53.7.0"), ("PFphC", "1-0:73.7.0")],
    ),
    quantity(
        Kind::Counter,
        None,
        &[
            ("TotWhExp", "1-0:2.8.0"),
            ("TotWhExpPhA", "1-0:22.8.0"),
            ("TotWhExpPhB", "1-0:42.8.0"),
            ("TotWhExpPhC", "1-0:62.8.0"),
        ],
    ),
    quantity(
        Kind::Counter,
        Some("TotWh_SF"),
        &[
            ("TotWhImp", "1-0:1.8.0"),
            ("TotWhImpPhA", "1-0:21.8.0"),
            ("TotWhImpPhB", "1-0:41.8.0"),
            ("TotWhImpPhC", "1-0:61.8.0"),
        ],
    ),
    quantity(
        Kind::OptionalCounter,
        None,
        &[
            ("TotVAhExp", "1-0:10.8.0"),
            ("TotVAhExpPhA", "1-0:30.8.0"),
            ("TotVAhExpPhB", "1-0:50.8.0"),
            ("TotVAhExpPhC", "1-0:70.8.0"),
        ],
    ),
    quantity(
        Kind::OptionalCounter,
        Some("TotVAh_SF"),
        &[
            ("TotVAhImp", "1-0:9.8.0"),
            ("TotVAhImpPhA", "1-0:29.8.0"),
            ("TotVAhImpPhB", "1-0:49.8.0"),
            ("TotVAhImpPhC", "1-0:69.8.0"),
        ],
    ),
    quantity(
        Kind::OptionalCounter,
        None,
        &[
            ("TotVArhImpQ1", "1-0:5.8.0"),
            ("TotVArhImpQ1PhA", "1-0:25.8.0"),
            ("TotVArhImpQ1PhB", "1-0:45.8.0"),
            ("TotVArhImpQ1PhC", "1-0:65.8.0"),
        ],
    ),
    quantity(
        Kind::OptionalCounter,
        None,
        &[
            ("TotVArhImpQ2", "1-0:6.8.0"),
            ("TotVArhImpQ2PhA", "1-0:26.8.0"),
            ("TotVArhImpQ2PhB", "1-0:46.8.0"),
            ("TotVArhImpQ2PhC", "1-0:66.8.0"),
        ],
    ),
    quantity(
        Kind::OptionalCounter,
        None,
        &[
            ("TotVArhExpQ3", "1-0:7.8.0"),
            ("TotVArhExpQ3PhA", "1-0:27.8.0"),
            ("TotVArhExpQ3PhB", "1-0:47.8.0"),
            ("TotVArhExpQ3PhC", "1-0:67.8.0"),
        ],
    ),
    quantity(
        Kind::OptionalCounter,
        Some("TotVArh_SF"),
        &[
            ("TotVArhExpQ4", "1-0:8.8.0"),
            ("TotVArhExpQ4PhA", "1-0:28.8.0"),
            ("TotVArhExpQ4PhB", "1-0:48.8.0"),
            ("TotVArhExpQ4PhC", "1-0:68.8.0"),
        ],
    ),
];

/// Reactive energy by direction is the sum of two quadrants: import Q1 and Q2, export Q3 and Q4 (IEC 62056-61).
pub const SUMS: [(&str, &str, &str); 8] = [
    ("1-0:3.8.0", "1-0:5.8.0", "1-0:6.8.0"),
    ("1-0:23.8.0", "1-0:25.8.0", "1-0:26.8.0"),
    ("1-0:43.8.0", "1-0:45.8.0", "1-0:46.8.0"),
    ("1-0:63.8.0", "1-0:65.8.0", "1-0:66.8.0"),
    ("1-0:4.8.0", "1-0:7.8.0", "1-0:8.8.0"),
    ("1-0:24.8.0", "1-0:27.8.0", "1-0:28.8.0"),
    ("1-0:44.8.0", "1-0:47.8.0", "1-0:48.8.0"),
    ("1-0:64.8.0", "1-0:67.8.0", "1-0:68.8.0"),
];

/// The export code of each net reactive power.
const REACTIVE_EXPORT: [(&str, &str); 4] = [
    ("1-0:3.7.0", "1-0:4.7.0"),
    ("1-0:23.7.0", "1-0:24.7.0"),
    ("1-0:43.7.0", "1-0:44.7.0"),
    ("1-0:63.7.0", "1-0:64.7.0"),
];

/// The event flags of either kind: the error register.
const EVENTS: &str = "0-0:97.97.0";

/// Where a point of a model stands, counted from the first register after id and length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    pub name: &'static str,
    pub code: &'static str,
    pub kind: Kind,
    pub offset: u16,
    /// Where its scale factor stands; none in a model of floats.
    pub scale: Option<u16>,
}

/// All points of a meter model but the scale factors and the events, in the model's order.
pub fn points(floats: bool) -> Vec<Point> {
    let mut points: Vec<Point> = Vec::new();
    let (mut offset, mut unscaled) = (0, 0);
    for Quantity { kind, points: named, scale } in &QUANTITIES {
        let counts = matches!(kind, Kind::Counter | Kind::OptionalCounter);
        for (index, (name, code)) in named.iter().enumerate() {
            // Of the counters that a meter must have, it must have the total only.
            let kind = if *kind == Kind::Counter && index > 0 { Kind::OptionalCounter } else { *kind };
            points.push(Point { name, code, kind, offset, scale: None });
            offset += if floats || counts { 2 } else { 1 };
        }
        if scale.is_some() && !floats {
            points[unscaled..].iter_mut().for_each(|point| point.scale = Some(offset));
            unscaled = points.len();
            offset += 1;
        }
    }
    points
}

/// Where the event flags stand, 2 registers.
pub fn events_offset(floats: bool) -> u16 {
    if floats { 122 } else { 103 }
}

/// What a meter model's registers say; `registers` begin after id and length, and may be fewer than the model has.
pub fn read(id: u16, registers: &[u16]) -> Picture {
    let floats = id >= 211;
    let mut picture = Picture::default();
    for point in points(floats) {
        match point.scale {
            None => float(&point, registers, &mut picture),
            Some(scale) => integer(&point, scale, registers, &mut picture),
        }
    }
    for (sum, one, other) in SUMS {
        add(sum, one, other, &mut picture);
    }
    if let Some(events) = wide(registers, events_offset(floats)).filter(|events| *events != u32::MAX) {
        picture.measured.push(Measured::new(EVENTS, Scaled::new(events.into(), 0)));
    }
    picture
}

fn word(registers: &[u16], offset: u16) -> Option<u16> {
    registers.get(usize::from(offset)).copied()
}

fn wide(registers: &[u16], offset: u16) -> Option<u32> {
    Some(u32::from(word(registers, offset)?) << 16 | u32::from(word(registers, offset + 1)?))
}

fn integer(point: &Point, scale: u16, registers: &[u16], picture: &mut Picture) {
    let Some(scale) = word(registers, scale).filter(|scale| *scale != NOT_IMPLEMENTED) else { return };
    let scale = scale.cast_signed();
    let counter = matches!(point.kind, Kind::Counter | Kind::OptionalCounter);
    let number: Option<i128> = if counter {
        wide(registers, point.offset).map(i128::from)
    } else {
        let value = word(registers, point.offset).filter(|value| *value != NOT_IMPLEMENTED);
        value.map(|value| value.cast_signed().into())
    };
    let Some(number) = number else { return };
    if !SCALES.contains(&scale) {
        // Nobody knows what the value is: a scale factor out of its limits scales nothing.
        if number != 0 {
            picture.left_out.push(point.code.into());
        }
        return;
    }
    let mut exponent = i32::from(scale);
    // With three places or more, 16 bits do not reach 100 %: such a device means a ratio, whatever the model says.
    if point.kind == Kind::PowerFactor && exponent > -3 {
        exponent -= 2;
    }
    let mut measured = Measured::new(point.code, Scaled::new(number, exponent));
    if counter {
        measured.counts = true;
        measured.turns_over_at = Some(Scaled::new(1 << 32, exponent));
        measured.zero_is_nothing = point.kind == Kind::OptionalCounter;
    }
    push(point, measured, picture);
}

fn float(point: &Point, registers: &[u16], picture: &mut Picture) {
    let Some(value) = wide(registers, point.offset).map(f32::from_bits) else { return };
    if value.is_nan() {
        // Not implemented.
        return;
    }
    let Some(scaled) = Scaled::of_f32(value) else {
        picture.left_out.push(point.code.into());
        return;
    };
    let mut measured = Measured::new(point.code, scaled);
    measured.counts = matches!(point.kind, Kind::Counter | Kind::OptionalCounter);
    push(point, measured, picture);
}

fn push(point: &Point, mut measured: Measured, picture: &mut Picture) {
    measured.absurd = match point.kind {
        Kind::PowerFactor => measured.value.magnitude() > Scaled::ONE,
        Kind::Voltage => measured.value.is_negative() || measured.value > Scaled::new(1_000, 0),
        // A meter without voltage has no frequency.
        Kind::Frequency => {
            measured.value != Scaled::ZERO && !(Scaled::new(40, 0)..=Scaled::new(70, 0)).contains(&measured.value)
        }
        Kind::Counter | Kind::OptionalCounter => measured.value.is_negative(),
        Kind::Plain | Kind::Reactive => false,
    };
    if point.kind == Kind::Reactive {
        let export = REACTIVE_EXPORT.iter().find(|(import, _)| *import == point.code).map(|(_, export)| *export);
        let magnitude = measured.value.magnitude();
        let (import, exported) =
            if measured.value.is_negative() { (Scaled::ZERO, magnitude) } else { (magnitude, Scaled::ZERO) };
        picture.measured.push(Measured::new(point.code, import));
        picture.measured.extend(export.map(|code| Measured::new(code, exported)));
        return;
    }
    picture.measured.push(measured);
}

/// Where both quadrants are counted.
fn add(sum: &'static str, one: &str, other: &str, picture: &mut Picture) {
    let find = |code: &str| picture.measured.iter().find(|measured| measured.code == code).cloned();
    let (Some(one), Some(other)) = (find(one), find(other)) else { return };
    let Some(value) = one.value.plus(other.value).filter(|_| !one.absurd && !other.absurd) else { return };
    // It falls by as much as one of the two when that turns over.
    picture.measured.push(Measured { value, code: sum.into(), absurd: false, ..one });
}

#[cfg(test)]
mod tests;

//! The tables against the SunSpec Alliance's own model definitions, and what registers of each kind come to.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::decode::{Code, decode};
use crate::source::measured::{Counters, document};

/// Model, offset, name, type, scale factor, unit, mandatory; see the file's head.
const FACTS: &str = include_str!("../testdata/sunspec-models.txt");

#[derive(Debug)]
struct Fact {
    name: &'static str,
    kind: &'static str,
    scale: &'static str,
    unit: &'static str,
    mandatory: bool,
}

/// The facts of a model by their offset.
fn facts(model: u16) -> BTreeMap<u16, Fact> {
    let lines = FACTS.lines().filter(|line| !line.starts_with('#'));
    let fields = lines.map(|line| line.split(' ').collect::<Vec<_>>());
    let own = fields.filter(|fields| fields[0] == model.to_string());
    own.map(|fields| {
        let fact =
            Fact { name: fields[2], kind: fields[3], scale: fields[4], unit: fields[5], mandatory: fields[6] == "M" };
        (fields[1].parse().expect("an offset"), fact)
    })
    .collect()
}

const INTEGERS: [u16; 4] = [201, 202, 203, 204];
const FLOATS: [u16; 4] = [211, 212, 213, 214];

/// The same name in the spellings of the eight models.
fn plain(name: &str) -> String {
    name.to_lowercase().replace("ppvph", "phvph")
}

/// Promise 9: every point stands where the definition says, with its type, its scale factor and its unit, and none is missing.
#[test]
fn points_are_those_of_the_definitions() {
    for (models, floats) in [(INTEGERS, false), (FLOATS, true)] {
        for model in models {
            let mut facts = facts(model);
            assert!(facts.len() > 60, "{model}");
            for point in points(floats) {
                let fact = facts.remove(&point.offset).unwrap_or_else(|| panic!("{model} {point:?}"));
                assert_eq!(plain(fact.name), plain(point.name), "{model}");
                let counts = matches!(point.kind, Kind::Counter | Kind::OptionalCounter);
                assert_eq!(
                    fact.kind,
                    if floats {
                        "float32"
                    } else if counts {
                        "acc32"
                    } else {
                        "int16"
                    },
                    "{model} {fact:?}"
                );
                if counts && !floats {
                    assert_eq!(fact.mandatory, point.kind == Kind::Counter, "{model} {fact:?}");
                }
                let scale = point.scale.map_or("-", |offset| super::tests::facts(model)[&offset].name);
                assert_eq!(fact.scale, scale, "{model} {fact:?}");
                assert_eq!(fact.unit, unit(&point, floats), "{model} {fact:?}");
            }
            let events = facts.remove(&events_offset(floats)).expect("events");
            assert_eq!((events.name, events.kind), ("Evt", "bitfield32"));
            // What is left are the scale factors.
            assert!(facts.values().all(|fact| fact.kind == "sunssf"), "{model}: {facts:?}");
            assert_eq!(facts.len(), if floats { 0 } else { 10 });
        }
    }
    let common = facts(1);
    for (offset, name) in [(0, "Mn"), (16, "Md"), (40, "Vr"), (48, "SN"), (64, "DA")] {
        assert_eq!(common[&offset].name, name);
    }
}

/// The definition's unit, from the code's meaning where it has one.
fn unit(point: &Point, floats: bool) -> &'static str {
    let code = point.code.parse::<crate::obis::Obis>().ok().and_then(|code| code.meaning());
    match point.kind {
        Kind::PowerFactor if floats => "PF",
        Kind::PowerFactor => "Pct",
        Kind::Voltage => "V",
        _ => code.and_then(|code| code.unit()).unwrap_or("-"),
    }
}

/// Promise 9: no code stands for two points.
#[test]
fn codes_are_unique() {
    let mut codes: Vec<_> = points(false).iter().map(|point| point.code).collect();
    codes.extend(SUMS.iter().map(|(sum, ..)| *sum));
    codes.extend(REACTIVE_EXPORT.iter().map(|(_, export)| *export));
    let count = codes.len();
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(codes.len(), count);
    assert!(
        codes.iter().all(
            |code| *code == "PPV" || code.parse::<crate::obis::Obis>().is_ok_and(|read| read.to_string() == **code)
        )
    );
}

/// Registers of a model of integers in which nothing is implemented.
fn nothing() -> Vec<u16> {
    let mut registers = vec![NOT_IMPLEMENTED; INTEGER_LENGTH.into()];
    for point in points(false).iter().filter(|point| matches!(point.kind, Kind::Counter | Kind::OptionalCounter)) {
        registers[usize::from(point.offset)] = 0;
        registers[usize::from(point.offset) + 1] = 0;
    }
    registers[103] = 0xffff;
    registers[104] = 0xffff;
    registers
}

fn at(name: &str) -> (usize, usize) {
    let point = points(false).into_iter().find(|point| point.name == name).expect("a point");
    (point.offset.into(), point.scale.expect("scaled").into())
}

fn text(registers: &[u16]) -> String {
    let mut picture = read(203, registers);
    Counters::default().judge(&mut picture);
    String::from_utf8(document(None, None, &picture)).expect("UTF-8")
}

/// Promise 9: values in their units, exact; what is not implemented is not there.
#[test]
fn what_a_meter_says() {
    let mut registers = nothing();
    assert_eq!(text(&registers), "{}");
    let mut set = |name: &str, value: u32, scale: i16| {
        let (offset, factor) = at(name);
        if name.starts_with("Tot") {
            registers[offset] = (value >> 16) as u16;
            registers[offset + 1] = value as u16;
        } else {
            registers[offset] = value as u16;
        }
        registers[factor] = scale.cast_unsigned();
    };
    set("PhVphA", 2_304, -1);
    set("W", (-1_661_i16).cast_unsigned().into(), 0);
    set("VAR", (-415_i16).cast_unsigned().into(), 1);
    set("PF", (-97_i16).cast_unsigned().into(), 0);
    set("TotWhImp", 4_000_000_001, -1);
    set("TotVArhImpQ1", 7, 2);
    set("TotVArhImpQ2", 5, 2);
    set("Hz", 4_998, -2);
    assert_eq!(
        text(&registers),
        concat!(
            r#"{"1-0:32.7.0":{"value":230.4},"1-0:14.7.0":{"value":49.98},"1-0:16.7.0":{"value":-1661},"#,
            r#""1-0:3.7.0":{"value":0},"1-0:4.7.0":{"value":4150},"1-0:13.7.0":{"value":-0.97},"1-0:2.8.0":{"value":0},"#,
            r#""1-0:1.8.0":{"value":400000000.1},"1-0:5.8.0":{"value":700},"1-0:6.8.0":{"value":500},"1-0:3.8.0":{"value":1200}}"#
        )
    );
}

/// Promise 5: a power factor with so many places that 16 bits do not reach 100 % is a ratio; one above 1 is kept and flagged,
/// as is a voltage that no house has.
#[test]
fn absurd_values_are_flagged() {
    let one = |name: &str, value: i16, scale: i16| {
        let mut registers = nothing();
        let (offset, factor) = at(name);
        registers[offset] = value.cast_unsigned();
        registers[factor] = scale.cast_unsigned();
        text(&registers)
    };
    assert_eq!(one("PF", 970, -3), r#"{"1-0:13.7.0":{"value":0.97}}"#);
    assert_eq!(one("PF", 9_700, -2), r#"{"1-0:13.7.0":{"value":0.97}}"#);
    assert_eq!(one("PF", 150, 0), r#"{"1-0:13.7.0":{"value":1.5,"flag":"absurd"}}"#);
    assert_eq!(one("PhV", -1, 0), r#"{"1-0:12.7.0":{"value":-1,"flag":"absurd"}}"#);
    assert_eq!(one("PhV", 23, 4), r#"{"1-0:12.7.0":{"value":230000,"flag":"absurd"}}"#);
    assert_eq!(one("Hz", 0, 0), r#"{"1-0:14.7.0":{"value":0}}"#);
    assert_eq!(one("Hz", 5_000, 0), r#"{"1-0:14.7.0":{"value":5000,"flag":"absurd"}}"#);
    assert_eq!(one("W", 5, 11), "{}", "a scale factor beyond its limits scales nothing");
}

/// Promise 5: floats that are no number are left out, and those that are none of a meter's counted.
#[test]
fn floats() {
    let mut registers: Vec<u16> = [0x7fc0, 0].repeat(62);
    registers[122] = 0xffff;
    registers[123] = 0xffff;
    assert_eq!(read(213, &registers), Picture::default());
    let mut set = |offset: usize, value: f32| {
        let bits = value.to_bits();
        registers[offset] = (bits >> 16) as u16;
        registers[offset + 1] = bits as u16;
    };
    set(0, f32::INFINITY);
    set(10, 230.4);
    set(50, -0.97);
    let picture = read(213, &registers);
    assert_eq!(picture.left_out, ["1-0:90.7.0"]);
    let text = String::from_utf8(document(None, None, &picture)).expect("UTF-8");
    assert_eq!(text, r#"{"1-0:32.7.0":{"value":230.4},"1-0:13.7.0":{"value":-0.97}}"#);
}

proptest! {
    /// Promise 5: any registers of any model, as many as there may be, come to a document that is decoded with as many values.
    #[test]
    fn any_registers(model in prop::sample::select([INTEGERS, FLOATS].concat()), registers in proptest::collection::vec(any::<u16>(), 0..130)) {
        let mut picture = read(model, &registers);
        let mut counters = Counters::default();
        counters.judge(&mut picture);
        prop_assume!(!picture.measured.is_empty());
        let bytes = document(Some("1"), Some("meter"), &picture);
        let decoded = decode(&crate::config::settings::Payload::Sma, "house", "", &bytes).expect("the adapter's document");
        prop_assert_eq!(decoded.device.as_str(), "meter");
        prop_assert_eq!(decoded.measurements.len(), picture.measured.len() + 1);
        for (read, written) in decoded.measurements[1..].iter().zip(&picture.measured) {
            let code = match &read.code {
                Code::Obis(code) => code.to_string(),
                Code::Other(code) => code.clone(),
            };
            prop_assert_eq!(code.as_str(), &*written.code);
            prop_assert_eq!(read.flag.map(|flag| flag.name()), written.flag.map(|flag| flag.word()));
        }
    }
}

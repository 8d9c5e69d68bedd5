//! `[[source]]` with `type = "modbus"`

use super::source::Found;
use super::{DAY, HOUR, MILLISECOND, MINUTE, SECOND, mqtt};
use crate::config::names;
use crate::config::problem::{Place, Report};
use crate::config::raw::{Value, quoted};
use crate::config::section::{Section, Taken};
use crate::config::settings::{Function, Interface, Modbus, Register, RegisterType, WordOrder};
use crate::obis::Obis;
use crate::source::registers::words;
use crate::source::scaled::Scaled;

/// `source.registers.function`, as written.
pub const FUNCTIONS: &[(&str, Function)] = &[("holding", Function::Holding), ("input", Function::Input)];

/// `source.registers.type`, as written.
pub const TYPES: &[(&str, RegisterType)] = &[
    ("u16", RegisterType::U16),
    ("i16", RegisterType::I16),
    ("u32", RegisterType::U32),
    ("i32", RegisterType::I32),
    ("u64", RegisterType::U64),
    ("i64", RegisterType::I64),
    ("f32", RegisterType::F32),
    ("f64", RegisterType::F64),
];

/// `source.registers.word_order`, as written.
pub const ORDERS: &[(&str, WordOrder)] = &[("high-first", WordOrder::HighFirst), ("low-first", WordOrder::LowFirst)];

/// Values of one device.
const MOST: usize = 200;

/// The longest name of a device, in bytes: it is the key in Kafka.
const LONGEST: usize = 256;

pub fn check(section: &mut Section, report: &mut Report) -> Modbus {
    let host = mqtt::host(section, report);
    let port = section.count(report, "port", 1..=65_535).or(502);
    let unit = section.count(report, "unit", 0..=255).or(1);
    let interval = section.duration(report, "interval", SECOND..=DAY, 5 * SECOND).or(5 * SECOND);
    let timeout = section.duration(report, "timeout", 100 * MILLISECOND..=MINUTE, 3 * SECOND).or(3 * SECOND);
    let reconnect_max_delay = section.duration(report, "reconnect_max_delay", SECOND..=HOUR, MINUTE).or(MINUTE);
    let device = super::legal("source.device", section.text(report, "device"), report, |name| {
        let fits =
            (1..=LONGEST).contains(&name.len()) && !name.chars().any(char::is_control) && !name.trim().is_empty();
        if fits { Ok(()) } else { Err(format!("must have 1 to {LONGEST} bytes and no control characters")) }
    });
    let base = section.count(report, "base", 0..=65_533);
    let listed = section.has("registers");
    if let (Taken::Value(given), true) = (&base, listed) {
        report.error(
            given.place,
            format!(
                "source.base is {}: there are [[source.registers]], so that SunSpec is not looked for",
                given.value
            ),
            "remove the one or the other",
        );
    }
    Modbus {
        host,
        port: u16::try_from(port).unwrap_or(502),
        unit: u8::try_from(unit).unwrap_or(1),
        interval,
        timeout,
        reconnect_max_delay,
        device,
        base: base.given().and_then(|given| u16::try_from(given.value).ok()),
        registers: registers(section, report),
    }
}

/// Sources that would read the same meter: each reading would be stored twice. Tables of registers may share a device.
pub fn together(found: &[Found], report: &mut Report) {
    let meters: Vec<(Place, &Modbus)> = found
        .iter()
        .filter_map(|found| match &found.source.interface {
            Interface::Modbus(modbus) if modbus.registers.is_empty() => Some((found.place, modbus)),
            _ => None,
        })
        .collect();
    for (index, (place, later)) in meters.iter().enumerate() {
        let same = |other: &Modbus| {
            names::same_host(&other.host, &later.host)
                && (other.port, other.unit, other.base) == (later.port, later.unit, later.base)
        };
        if let Some((first, _)) = meters[..index].iter().find(|(_, other)| same(other)) {
            let message =
                format!("source.unit is {}: the source at {} reads the same meter", later.unit, report.name(*first));
            report.error(
                *place,
                message,
                "each reading would be stored twice; correct host, port or unit, or remove one",
            );
        }
    }
}

fn registers(section: &mut Section, report: &mut Report) -> Vec<Register> {
    let mut registers: Vec<(Place, Register)> = Vec::new();
    for (index, table) in section.tables(report, "registers", "source.registers").into_iter().enumerate() {
        let place = table.place();
        if index == MOST {
            let message = format!("[[source.registers]] is one too many: at most {MOST} of one source");
            report.error(place, message, "a second source may ask the same device for more");
            break;
        }
        let Some(register) = register(table, report) else { continue };
        if let Some((first, _)) = registers.iter().find(|(_, other)| other.code == register.code) {
            let message = format!(
                "source.registers.code is {}: the register at {} has it too",
                quoted(&register.code.to_string()),
                report.name(*first)
            );
            report.error(place, message, "a reading holds each code once; give it another one");
        }
        registers.push((place, register));
    }
    registers.into_iter().map(|(_, register)| register).collect()
}

fn register(mut table: Section, report: &mut Report) -> Option<Register> {
    let place = table.place();
    let missing = |taken_is_absent: bool, report: &mut Report, key: &str, hint: &str| {
        if taken_is_absent {
            report.error(place, format!("source.registers.{key} is missing: every register needs it"), hint);
        }
    };
    let address = table.count(report, "address", 0..=65_535);
    missing(address.is_absent(), report, "address", "for example address = 40000, counted from 0");
    let function = table.choice(report, "function", FUNCTIONS).or(Function::Holding);
    let kind = table.choice(report, "type", TYPES);
    missing(kind.is_absent(), report, "type", "for example type = \"u32\"");
    let order = table.choice(report, "word_order", ORDERS).or(WordOrder::HighFirst);
    let factor = factor(&mut table, report).or(Scaled::ONE);
    let code = table.text(report, "code");
    missing(code.is_absent(), report, "code", "for example code = \"1-0:1.8.0\"");
    table.finish(report, |_| None);

    let code = code.given().and_then(|given| match given.value.parse::<Obis>() {
        Ok(code) => Some(code),
        Err(error) => {
            let message = format!("source.registers.code is {}: {error}", quoted(&given.value));
            report.error(given.place, message, "for example code = \"1-0:1.8.0\", active energy from the grid");
            None
        }
    });
    let (address, kind) = (address.given()?, kind.given()?.value);
    let number = u16::try_from(address.value).ok()?;
    if address.value + i64::from(words(kind)) > 65_536 {
        let message =
            format!("source.registers.address is {number}: a value of {} registers ends behind 65535", words(kind));
        report.error(address.place, message, "lower the address, or correct the type");
    }
    Some(Register { address: number, function, kind, order, factor, code: code? })
}

/// A decimal number, in quotes or not: as written, never as a binary fraction.
fn factor(table: &mut Section, report: &mut Report) -> Taken<Scaled> {
    table.read(report, "factor", |value| {
        let text = match value {
            Value::Text(text) | Value::Float(text) | Value::Integer(text, Some(_)) => text.replace('_', ""),
            _ => return Err(("must be a decimal number".to_owned(), "for example factor = \"0.1\"".to_owned())),
        };
        match text.parse::<Scaled>() {
            Ok(Scaled::ZERO) => Err(("must not be 0".to_owned(), "leave it out for 1".to_owned())),
            Ok(factor) => Ok(factor),
            Err(error) => Err((error.to_string(), "for example factor = \"0.1\"".to_owned())),
        }
    })
}

//! What the known codes of electricity meters mean, and in which base unit (IEC 62056-61, and what devices really send).

use std::fmt;

use super::Obis;

/// Medium 1, or not said: every reader that leaves the medium out reads electricity meters.
pub(super) const ELECTRICITY: u8 = 1;
pub(super) const ABSTRACT: u8 = 0;

/// What a code means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meaning {
    pub quantity: Quantity,
    pub kind: Kind,
    /// 1 to 3; none for the sum of the phases.
    pub phase: Option<u8>,
    /// None for the total.
    pub tariff: Option<u8>,
}

/// Group C, reduced to one phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantity {
    ActiveImport,
    ActiveExport,
    ReactiveImport,
    ReactiveExport,
    /// By quadrant: import of active with import of reactive, export with import, export with export, import with export.
    ReactiveQ1,
    ReactiveQ2,
    ReactiveQ3,
    ReactiveQ4,
    ApparentImport,
    ApparentExport,
    Current,
    /// The phases' currents added up.
    CurrentOfPhases,
    Voltage,
    /// Between two phases.
    VoltageL1L2,
    VoltageL2L3,
    VoltageL3L1,
    PowerFactor,
    Frequency,
    /// Import less export.
    ActiveNet,
    Clock,
    MeterNumber,
    DeviceName,
    Fault,
    PowerFailures,
    Tariff,
}

/// Group D, as far as it tells what is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The value of this moment.
    Now,
    /// A register that adds up over time.
    Register,
    /// The highest average of a measuring period.
    Maximum,
    /// Not a measurement over time: a name, a number, a state.
    State,
}

impl Meaning {
    /// The base unit of the value: W, Wh, var, varh, VA, VAh, V, A or Hz; none for plain numbers and texts.
    pub fn unit(&self) -> Option<&'static str> {
        use Quantity::*;
        let (power, energy) = match self.quantity {
            ActiveImport | ActiveExport | ActiveNet => ("W", "Wh"),
            ReactiveImport | ReactiveExport | ReactiveQ1 | ReactiveQ2 | ReactiveQ3 | ReactiveQ4 => ("var", "varh"),
            ApparentImport | ApparentExport => ("VA", "VAh"),
            Current | CurrentOfPhases => ("A", "Ah"),
            Voltage | VoltageL1L2 | VoltageL2L3 | VoltageL3L1 => return Some("V"),
            Frequency => return Some("Hz"),
            PowerFactor | Clock | MeterNumber | DeviceName | Fault | PowerFailures | Tariff => return None,
        };
        Some(if self.kind == Kind::Register { energy } else { power })
    }
}

impl fmt::Display for Meaning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(words(self.quantity, self.kind))?;
        if self.kind == Kind::Maximum {
            f.write_str(", maximum")?;
        }
        if let Some(phase) = self.phase {
            write!(f, ", phase {phase}")?;
        }
        if let Some(tariff) = self.tariff {
            write!(f, ", tariff {tariff}")?;
        }
        Ok(())
    }
}

fn words(quantity: Quantity, kind: Kind) -> &'static str {
    use Quantity::*;
    match (quantity, kind == Kind::Register) {
        (ActiveImport, false) => "active power, import",
        (ActiveImport, true) => "active energy, import",
        (ActiveExport, false) => "active power, export",
        (ActiveExport, true) => "active energy, export",
        (ReactiveImport, false) => "reactive power, import",
        (ReactiveImport, true) => "reactive energy, import",
        (ReactiveExport, false) => "reactive power, export",
        (ReactiveExport, true) => "reactive energy, export",
        (ReactiveQ1, false) => "reactive power, quadrant 1",
        (ReactiveQ1, true) => "reactive energy, quadrant 1",
        (ReactiveQ2, false) => "reactive power, quadrant 2",
        (ReactiveQ2, true) => "reactive energy, quadrant 2",
        (ReactiveQ3, false) => "reactive power, quadrant 3",
        (ReactiveQ3, true) => "reactive energy, quadrant 3",
        (ReactiveQ4, false) => "reactive power, quadrant 4",
        (ReactiveQ4, true) => "reactive energy, quadrant 4",
        (ApparentImport, false) => "apparent power, import",
        (ApparentImport, true) => "apparent energy, import",
        (ApparentExport, false) => "apparent power, export",
        (ApparentExport, true) => "apparent energy, export",
        (ActiveNet, false) => "active power, import less export",
        (ActiveNet, true) => "active energy, import less export",
        (Current, false) => "current",
        (Current, true) => "charge",
        (CurrentOfPhases, false) => "current of all phases",
        (CurrentOfPhases, true) => "charge of all phases",
        (Voltage, _) => "voltage",
        (VoltageL1L2, _) => "voltage between phases 1 and 2",
        (VoltageL2L3, _) => "voltage between phases 2 and 3",
        (VoltageL3L1, _) => "voltage between phases 3 and 1",
        (PowerFactor, _) => "power factor",
        (Frequency, _) => "frequency",
        (Clock, _) => "the meter's clock",
        (MeterNumber, _) => "meter number",
        (DeviceName, _) => "device name",
        (Fault, _) => "fault",
        (PowerFailures, _) => "power failures",
        (Tariff, _) => "tariff in force",
    }
}

impl Obis {
    /// What this code means; none where it is unknown or a maker's own.
    pub fn meaning(&self) -> Option<Meaning> {
        match self.a() {
            Some(ABSTRACT) => state(self),
            Some(ELECTRICITY) => electricity(self).or_else(|| state(self)),
            None => electricity(self).or_else(|| state(self)),
            Some(_) => None,
        }
    }
}

fn electricity(code: &Obis) -> Option<Meaning> {
    use Quantity::*;
    let (group, phase) = match code.c() {
        c @ 1..=20 => (c, None),
        // 21 to 80: the same quantities, twenty numbers a phase.
        c @ 21..=80 => ((c - 1) % 20 + 1, Some((c - 1) / 20)),
        c @ (90 | 124..=126) => (c, None),
        _ => return None,
    };
    let quantity = match group {
        1 => ActiveImport,
        2 => ActiveExport,
        3 => ReactiveImport,
        4 => ReactiveExport,
        5 => ReactiveQ1,
        6 => ReactiveQ2,
        7 => ReactiveQ3,
        8 => ReactiveQ4,
        9 => ApparentImport,
        10 => ApparentExport,
        11 => Current,
        12 => Voltage,
        13 => PowerFactor,
        14 => Frequency,
        16 => ActiveNet,
        90 => CurrentOfPhases,
        124 => VoltageL1L2,
        125 => VoltageL2L3,
        126 => VoltageL3L1,
        _ => return None,
    };
    let kind = match code.d() {
        6 => Kind::Maximum,
        7 => Kind::Now,
        8 => Kind::Register,
        _ => return None,
    };
    let sums = matches!(group, 1..=11 | 16 | 90);
    if kind == Kind::Register && !sums {
        return None;
    }
    let tariff = match code.e() {
        None | Some(0) => None,
        // AMIS meters call the totals of their reactive registers 3.8.1 and 4.8.1.
        Some(1) if matches!(code.c(), 3 | 4) && kind == Kind::Register => None,
        // Above 63: harmonics and makers' own.
        Some(tariff @ 1..=63) if kind != Kind::Now => Some(tariff),
        Some(_) => return None,
    };
    Some(Meaning { quantity, kind, phase, tariff })
}

fn state(code: &Obis) -> Option<Meaning> {
    let quantity = match (code.c(), code.d(), code.e()) {
        (1, 0, Some(0)) => Quantity::Clock,
        (96, 1, _) | (0, 0, Some(0 | 1)) => Quantity::MeterNumber,
        (42, 0, Some(0)) => Quantity::DeviceName,
        (97, 97, _) => Quantity::Fault,
        (96, 7, _) => Quantity::PowerFailures,
        (96, 14, _) => Quantity::Tariff,
        _ => return None,
    };
    Some(Meaning { quantity, kind: Kind::State, phase: None, tariff: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> String {
        let Some(meaning) = text.parse::<Obis>().ok().and_then(|code| code.meaning()) else {
            return "unknown".to_owned();
        };
        format!("{meaning} [{}]", meaning.unit().unwrap_or("-"))
    }

    /// Promise 5: each known code says what it is and in which unit, each unknown one that it is unknown.
    #[test]
    fn known_codes_have_meaning_and_unit() {
        for (text, expected) in [
            ("1-0:1.8.0", "active energy, import [Wh]"),
            ("1-1:1.8.0", "active energy, import [Wh]"),
            ("1.8.1", "active energy, import, tariff 1 [Wh]"),
            ("2.8.0", "active energy, export [Wh]"),
            ("1-0:1.7.0", "active power, import [W]"),
            ("1-0:2.7.0", "active power, export [W]"),
            ("16.7.0", "active power, import less export [W]"),
            ("1-0:1.6.0", "active power, import, maximum [W]"),
            ("3.8.1", "reactive energy, import [varh]"),
            ("4.8.1", "reactive energy, export [varh]"),
            ("3.7.0", "reactive power, import [var]"),
            ("9.8.0", "apparent energy, import [VAh]"),
            ("10.7.0", "apparent power, export [VA]"),
            ("5.8.0", "reactive energy, quadrant 1 [varh]"),
            ("28.8.0", "reactive energy, quadrant 4, phase 1 [varh]"),
            ("90.7.0", "current of all phases [A]"),
            ("126.7.0", "voltage between phases 3 and 1 [V]"),
            ("13.7.0", "power factor [-]"),
            ("14.7.0", "frequency [Hz]"),
            ("21.7.0", "active power, import, phase 1 [W]"),
            ("62.7.0", "active power, export, phase 3 [W]"),
            ("31.7.0", "current, phase 1 [A]"),
            ("52.7.0", "voltage, phase 2 [V]"),
            ("71.7.0", "current, phase 3 [A]"),
            ("0-0:1.0.0", "the meter's clock [-]"),
            ("0-0:96.1.0", "meter number [-]"),
            ("0-0:C.1.0", "meter number [-]"),
            ("0.0.1", "meter number [-]"),
            ("F.F", "fault [-]"),
            ("1.128.0", "unknown"),
            ("0-0:2.0.0", "unknown"),
            ("7-0:3.1.0", "unknown"),
            ("1-0:1.7.124", "unknown"),
        ] {
            assert_eq!(told(text), expected, "{text}");
        }
    }
}

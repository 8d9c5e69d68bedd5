//! Units that readers use, and how they become the base units of [`crate::obis::Meaning::unit`].

use crate::decode::decimal::Decimal;

/// A unit of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unit {
    /// As tables write it.
    pub name: &'static str,
    /// What values are shown in; none for plain numbers.
    pub base: Option<&'static str>,
    /// The power of ten that leads there.
    power: i16,
}

/// All that are known. A watt minute is none of them: a sixtieth has no end in digits.
pub const UNITS: &[Unit] = &[
    unit("W", Some("W"), 0),
    unit("kW", Some("W"), 3),
    unit("MW", Some("W"), 6),
    unit("Wh", Some("Wh"), 0),
    unit("kWh", Some("Wh"), 3),
    unit("MWh", Some("Wh"), 6),
    unit("var", Some("var"), 0),
    unit("kvar", Some("var"), 3),
    unit("varh", Some("varh"), 0),
    unit("kvarh", Some("varh"), 3),
    unit("VA", Some("VA"), 0),
    unit("kVA", Some("VA"), 3),
    unit("VAh", Some("VAh"), 0),
    unit("kVAh", Some("VAh"), 3),
    unit("V", Some("V"), 0),
    unit("mV", Some("V"), -3),
    unit("kV", Some("V"), 3),
    unit("A", Some("A"), 0),
    unit("mA", Some("A"), -3),
    unit("Hz", Some("Hz"), 0),
    unit("mHz", Some("Hz"), -3),
    unit("%", None, -2),
    unit("1", None, 0),
    unit("m3", Some("m3"), 0),
    unit("l", Some("m3"), -3),
    unit("°C", Some("°C"), 0),
];

const fn unit(name: &'static str, base: Option<&'static str>, power: i16) -> Unit {
    Unit { name, base, power }
}

impl Unit {
    pub fn named(name: &str) -> Option<Self> {
        UNITS.iter().find(|unit| unit.name == name).copied()
    }

    /// The base unit that is called so.
    pub fn base_named(name: &str) -> Option<&'static str> {
        UNITS.iter().find_map(|unit| unit.base.filter(|base| *base == name))
    }

    /// What a number is multiplied by to be in the base unit.
    pub fn factor(&self) -> Decimal {
        Decimal::power_of_ten(self.power)
    }
}

//! A name for each code that SQL, Elasticsearch and ksqlDB take as a column: a lower-case letter, then lower-case letters,
//! digits and `_`. It follows from the code alone, so it never changes, and no two codes share one.

use std::fmt::Write;

use super::Obis;
use super::meaning::{ABSTRACT, ELECTRICITY, Kind, Meaning, Quantity};

impl Obis {
    /// The code with the groups that its notation left out, where it is known what they are: the main channel of an
    /// electricity meter, and the total.
    pub fn canonical(&self) -> Self {
        let Some(meaning) = self.meaning() else { return *self };
        let medium = if meaning.kind == Kind::State { ABSTRACT } else { ELECTRICITY };
        Self {
            medium: self.medium.or(Some(medium)),
            channel: self.channel.or(Some(0)),
            tariff: self.tariff.or(Some(0)),
            ..*self
        }
    }

    /// The name of the canonical code; `obis_` and its groups where it is unknown.
    pub fn name(&self) -> String {
        let code = self.canonical();
        match code.meaning() {
            Some(meaning) => known(&code, meaning),
            None => unknown(&code),
        }
    }
}

fn known(code: &Obis, meaning: Meaning) -> String {
    let mut name = stem(meaning.quantity, meaning.kind).to_owned();
    if let Some(phase) = meaning.phase {
        add(&mut name, "l", phase);
    } else if meaning.quantity == Quantity::Current {
        // CURRENT alone is a word of SQL.
        name.push_str("_sum");
    }
    if meaning.kind == Kind::Maximum {
        name.push_str("_max");
    }
    if meaning.kind == Kind::State {
        state(&mut name, code, meaning.quantity);
    } else {
        code.e().filter(|tariff| *tariff != 0).into_iter().for_each(|tariff| add(&mut name, "t", tariff));
        code.a().filter(|medium| *medium != ELECTRICITY).into_iter().for_each(|medium| add(&mut name, "a", medium));
    }
    code.b().filter(|channel| *channel != 0).into_iter().for_each(|channel| add(&mut name, "ch", channel));
    code.f().into_iter().for_each(|storage| add(&mut name, "f", storage));
    name
}

/// Several codes say the same of a device: all but the usual one of each carry their numbers.
fn state(name: &mut String, code: &Obis, quantity: Quantity) {
    if quantity == Quantity::MeterNumber && code.c() == 0 {
        name.push_str("_old");
    }
    code.e().filter(|number| *number != 0).into_iter().for_each(|number| add(name, "e", number));
    code.a().filter(|medium| *medium != ABSTRACT).into_iter().for_each(|medium| add(name, "a", medium));
}

fn unknown(code: &Obis) -> String {
    let mut name = "obis".to_owned();
    code.a().into_iter().for_each(|group| add(&mut name, "a", group));
    code.b().into_iter().for_each(|group| add(&mut name, "b", group));
    add(&mut name, "", code.c());
    add(&mut name, "", code.d());
    code.e().into_iter().for_each(|group| add(&mut name, "", group));
    code.f().into_iter().for_each(|group| add(&mut name, "f", group));
    name
}

fn add(name: &mut String, letter: &str, number: u8) {
    // Writing to a String does not fail.
    let _ = write!(name, "_{letter}{number}");
}

fn stem(quantity: Quantity, kind: Kind) -> &'static str {
    use Quantity::*;
    match (quantity, kind == Kind::Register) {
        (ActiveImport, false) => "active_power_import",
        (ActiveImport, true) => "active_energy_import",
        (ActiveExport, false) => "active_power_export",
        (ActiveExport, true) => "active_energy_export",
        (ActiveNet, false) => "active_power_net",
        (ActiveNet, true) => "active_energy_net",
        (ReactiveImport, false) => "reactive_power_import",
        (ReactiveImport, true) => "reactive_energy_import",
        (ReactiveExport, false) => "reactive_power_export",
        (ReactiveExport, true) => "reactive_energy_export",
        (ReactiveQ1, false) => "reactive_power_q1",
        (ReactiveQ1, true) => "reactive_energy_q1",
        (ReactiveQ2, false) => "reactive_power_q2",
        (ReactiveQ2, true) => "reactive_energy_q2",
        (ReactiveQ3, false) => "reactive_power_q3",
        (ReactiveQ3, true) => "reactive_energy_q3",
        (ReactiveQ4, false) => "reactive_power_q4",
        (ReactiveQ4, true) => "reactive_energy_q4",
        (ApparentImport, false) => "apparent_power_import",
        (ApparentImport, true) => "apparent_energy_import",
        (ApparentExport, false) => "apparent_power_export",
        (ApparentExport, true) => "apparent_energy_export",
        (Current, false) => "current",
        (Current, true) => "charge",
        (CurrentOfPhases, false) => "current_of_phases",
        (CurrentOfPhases, true) => "charge_of_phases",
        (Voltage, _) => "voltage",
        (VoltageL1L2, _) => "voltage_l1_l2",
        (VoltageL2L3, _) => "voltage_l2_l3",
        (VoltageL3L1, _) => "voltage_l3_l1",
        (PowerFactor, _) => "power_factor",
        (Frequency, _) => "frequency",
        (Clock, _) => "meter_clock",
        (MeterNumber, _) => "meter_number",
        (DeviceName, _) => "device_name",
        (Fault, _) => "fault",
        (PowerFailures, _) => "power_failures",
        (Tariff, _) => "tariff",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn name(text: &str) -> String {
        text.parse::<Obis>().map_or_else(|error| error.to_string(), |code| code.name())
    }

    /// Names are a promise to everybody's tables.
    #[test]
    fn names_stay() {
        for (text, expected) in [
            ("1-0:1.8.0", "active_energy_import"),
            ("1.8.0", "active_energy_import"),
            ("1.8", "active_energy_import"),
            ("1-0:1.8.2", "active_energy_import_t2"),
            ("1-1:1.8.0", "active_energy_import_ch1"),
            ("1-0:1.8.0*3", "active_energy_import_f3"),
            ("16.7.0", "active_power_net"),
            ("1-0:1.6.0", "active_power_import_max"),
            ("3.8.1", "reactive_energy_import_t1"),
            ("31.7.0", "current_l1"),
            ("11.7.0", "current_sum"),
            ("90.7.0", "current_of_phases"),
            ("52.7.0", "voltage_l2"),
            ("124.7.0", "voltage_l1_l2"),
            ("65.8.0", "reactive_energy_q1_l3"),
            ("13.7.0", "power_factor"),
            ("0-0:96.1.0", "meter_number"),
            ("0.0.1", "meter_number_old_e1"),
            ("0-0:1.0.0", "meter_clock"),
            ("1-0:1.128.0", "obis_a1_b0_1_128_0"),
            ("1.128", "obis_1_128"),
        ] {
            assert_eq!(name(text), expected, "{text}");
        }
    }

    /// Promise 3: no two codes of a document end up in one column, whatever the device sends.
    #[test]
    fn no_two_codes_share_a_name() {
        let mut names: HashMap<String, Obis> = HashMap::new();
        let groups = [None, Some(0), Some(1), Some(2), Some(64)];
        for (a, b, e, f) in groups.iter().flat_map(|a| groups.map(|b| (*a, b))).flat_map(|(a, b)| {
            groups.into_iter().flat_map(move |e| groups.map(move |f| (a.filter(|a| *a < 16), b, e, f)))
        }) {
            for (c, d) in (0..=255).flat_map(|c| [0, 1, 6, 7, 8, 14, 97, 128].map(|d| (c, d))) {
                let code = Obis { medium: a, channel: b, quantity: c, kind: d, tariff: e, storage: f };
                let name = code.name();
                assert!(name.starts_with(|c: char| c.is_ascii_lowercase()), "{name}");
                assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{name}");
                let other = names.entry(name.clone()).or_insert(code.canonical());
                assert_eq!(*other, code.canonical(), "{name}");
            }
        }
    }
}

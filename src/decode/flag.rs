//! Values that are kept although something about them is odd.

use std::fmt;
use std::str::FromStr;

use super::{Code, Measurement};
use crate::obis::{Kind, Quantity};

/// What is odd about a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flag {
    /// A counter began anew after its highest value.
    TurnedOver,
    /// A register that only adds up shows less than before.
    WentBack,
    /// Nothing in a house has such a value.
    Absurd,
}

impl Flag {
    const ALL: [Self; 3] = [Self::TurnedOver, Self::WentBack, Self::Absurd];

    /// As documents write it beside `value`.
    pub fn name(self) -> &'static str {
        match self {
            Self::TurnedOver => "turned-over",
            Self::WentBack => "went-back",
            Self::Absurd => "absurd",
        }
    }
}

impl fmt::Display for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that names no flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not turned-over, went-back or absurd")]
pub struct UnknownFlag;

impl FromStr for Flag {
    type Err = UnknownFlag;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|flag| flag.name() == text).ok_or(UnknownFlag)
    }
}

impl Measurement {
    /// The flag that came with the value, else [`Flag::Absurd`] where the value is beyond what a connection of some
    /// megawatts can have: what a damaged transmission or a wrong factor makes.
    pub fn judged(&self) -> Option<Flag> {
        self.flag.or_else(|| self.is_absurd().then_some(Flag::Absurd))
    }

    fn is_absurd(&self) -> bool {
        let Code::Obis(code) = &self.code else { return false };
        let Some(meaning) = code.meaning().filter(|meaning| meaning.kind != Kind::State) else { return false };
        let Some(value) = self.value.decimal() else { return true };
        let register = meaning.kind == Kind::Register;
        let below_zero = match meaning.quantity {
            Quantity::Voltage
            | Quantity::VoltageL1L2
            | Quantity::VoltageL2L3
            | Quantity::VoltageL3L1
            | Quantity::Frequency => true,
            Quantity::ActiveNet => false,
            _ => register,
        };
        (below_zero && value.is_negative())
            || value.magnitude().is_some_and(|places| places > most(meaning.quantity, register))
    }
}

/// The most places that a value has before its point.
fn most(quantity: Quantity, register: bool) -> i32 {
    match quantity {
        // A terawatt hour: a thousand megawatts for forty days.
        _ if register => 12,
        // 110 kV, measured through transformers.
        Quantity::Voltage | Quantity::VoltageL1L2 | Quantity::VoltageL2L3 | Quantity::VoltageL3L1 => 6,
        Quantity::Current | Quantity::CurrentOfPhases => 5,
        Quantity::Frequency => 2,
        // Some devices write percent.
        Quantity::PowerFactor => 3,
        _ => 9,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::Value;

    fn judged(code: &str, value: &str, flag: Option<Flag>) -> Option<Flag> {
        let code = code.parse().map_or_else(|_| Code::Other(code.to_owned()), Code::Obis);
        Measurement { flag, ..Measurement::new(code, Value::Text(value.to_owned())) }.judged()
    }

    /// Promise 5: what cannot be is kept and marked, what is only unusual is left alone.
    #[test]
    fn absurd_values() {
        for (code, value) in [
            ("1-0:1.8.0", "-1"),
            ("1-0:1.8.0", "1000000000000"),
            ("1-0:1.8.0", "nan"),
            ("1-0:1.7.0", "4294967295"),
            ("32.7.0", "-230"),
            ("14.7.0", "5000"),
            ("16.7.0", "1e30"),
        ] {
            assert_eq!(judged(code, value, None), Some(Flag::Absurd), "{code} {value}");
        }
        for (code, value) in [
            ("1-0:1.8.0", "999999999999.9"),
            ("16.7.0", "-60.2"),
            ("36.7.0", "-60.2"),
            ("16.8.0", "-5"),
            ("1.7.0", "-894"),
            ("31.7.0", "-0.5"),
            ("32.7.0", "0"),
            ("13.7.0", "-99"),
            ("0-0:96.1.0", "AB12"),
            ("gas", "1e99"),
            ("1.128.0", "1e99"),
        ] {
            assert_eq!(judged(code, value, None), None, "{code} {value}");
        }
        assert_eq!(
            judged("1-0:1.8.0", "-1", Some(Flag::WentBack)),
            Some(Flag::WentBack),
            "what the source saw goes first"
        );
        for flag in Flag::ALL {
            assert_eq!(flag.name().parse(), Ok(flag));
        }
        assert_eq!("strange".parse::<Flag>(), Err(UnknownFlag));
    }
}

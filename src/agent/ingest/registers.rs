//! Registers only add up: one that shows less than before is flagged, and kept.

use std::collections::BTreeMap;

use crate::decode::decimal::Decimal;
use crate::decode::{Code, Decoded, Flag};
use crate::obis::{Kind, Obis};

/// Devices that are remembered; those beyond are not judged. A device's name may come from anybody.
const DEVICES: usize = 1_000;

/// Registers of one device that are remembered.
const REGISTERS: usize = 100;

/// Digits of a display at least that turns over from nines to zeros.
const DIGITS: i32 = 6;

/// How near its end a register that turned over was, and how near its beginning it is.
const NEAR: f64 = 0.01;

/// What the registers of each device showed last.
#[derive(Debug, Default)]
pub struct Registers(BTreeMap<String, Device>);

#[derive(Debug, Default)]
struct Device {
    measured_ms: Option<i64>,
    shown: BTreeMap<Obis, Decimal>,
}

impl Registers {
    /// Flags what fell; what the device itself has flagged stays as it is. A reading that is older than the last one says
    /// nothing of what came after.
    pub fn judge(&mut self, decoded: &mut Decoded) {
        let known = self.0.contains_key(&decoded.device);
        if !known && self.0.len() >= DEVICES {
            return;
        }
        let device = self.0.entry(decoded.device.clone()).or_default();
        if decoded.measured_ms < device.measured_ms {
            return;
        }
        device.measured_ms = decoded.measured_ms;
        for measurement in &mut decoded.measurements {
            let Code::Obis(code) = &measurement.code else { continue };
            let is_register = code.meaning().is_some_and(|meaning| meaning.kind == Kind::Register);
            let Some(now) = measurement.value.decimal().filter(|_| is_register) else { continue };
            // What cannot be is no beginning for what comes.
            if measurement.flag.is_none() && measurement.judged().is_some() {
                continue;
            }
            let code = code.canonical();
            if !device.shown.contains_key(&code) && device.shown.len() >= REGISTERS {
                continue;
            }
            let Some(before) = device.shown.insert(code, now) else { continue };
            if measurement.flag.is_none() {
                measurement.flag = fell(&before, &now);
            }
        }
    }
}

/// How a register fell from `before` to `now`, if it did.
fn fell(before: &Decimal, now: &Decimal) -> Option<Flag> {
    if !now.minus(before)?.is_negative() {
        return None;
    }
    let (before_f, now_f) = (before.to_f64(), now.to_f64());
    let nines = before.magnitude().filter(|digits| *digits >= DIGITS).map(|digits| 10_f64.powi(digits));
    let ends = nines.into_iter().chain([f64::from(u32::MAX) + 1.0]);
    let turned = |end: f64| before_f < end && before_f >= end * (1.0 - NEAR) && now_f >= 0.0 && now_f <= end * NEAR;
    Some(if ends.into_iter().any(turned) { Flag::TurnedOver } else { Flag::WentBack })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::Payload;
    use crate::decode;

    fn flags(values: &[(i64, &str)]) -> Vec<Option<Flag>> {
        let mut registers = Registers::default();
        let judge = |(time, value): &(i64, &str)| {
            let document = format!(
                r#"{{"1-0:1.8.0":{{"value":{value},"time":{time}}},"1-0:1.7.0":{{"value":{value}}},"name":"a"}}"#
            );
            let mut decoded = decode::decode(&Payload::Sma, "s", "t", document.as_bytes()).expect("a reading");
            registers.judge(&mut decoded);
            assert_eq!(decoded.measurements[1].flag, None, "a power may fall");
            decoded.measurements[0].flag
        };
        values.iter().map(judge).collect()
    }

    /// Promise 5: a register that begins again is told from one that goes back, and each is told once.
    #[test]
    fn registers_that_fall() {
        let (over, back) = (Some(Flag::TurnedOver), Some(Flag::WentBack));
        assert_eq!(flags(&[(1, "100"), (2, "50"), (3, "51")]), [None, back, None]);
        assert_eq!(flags(&[(1, "999990"), (2, "3"), (3, "4")]), [None, over, None]);
        assert_eq!(flags(&[(1, "4294967290"), (2, "5")]), [None, over]);
        assert_eq!(flags(&[(1, "100.5"), (2, "100.50"), (3, "100.49")]), [None, None, back]);
        assert_eq!(flags(&[(2, "100"), (1, "50"), (2, "100")]), [None, None, None], "older ones come late");
        assert_eq!(
            flags(&[(1, "100"), (2, "1e300"), (3, "101")]),
            [None, None, None],
            "one absurd value spoils nothing"
        );
    }

    /// What a stranger says does not fill the memory.
    #[test]
    fn memory_has_a_limit() {
        let mut registers = Registers::default();
        for number in 0..2 * DEVICES {
            let document = format!(r#"{{"1-0:1.8.0":{{"value":1}},"name":"{number}"}}"#);
            registers.judge(&mut decode::decode(&Payload::Sma, "s", "t", document.as_bytes()).expect("a reading"));
        }
        assert_eq!(registers.0.len(), DEVICES);
    }
}

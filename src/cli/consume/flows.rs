//! What flowed in and out of a house, as far as a reading tells it.

use crate::decode::Decoded;

/// C of what L1 takes, gives, and of their difference; those of L2 and L3 are 20 and 40 higher.
const PHASE: [u8; 3] = [21, 22, 36];

/// E of the tariffs.
const TARIFFS: std::ops::RangeInclusive<u8> = 1..=9;

/// Power taken from the grid and given to it, in W: as it is told, else from the net power, else from the phases'.
pub(super) fn powers(reading: &Decoded) -> [Option<f64>; 2] {
    let (import, export) = (reading.number(1, 7, 0), reading.number(2, 7, 0));
    if import.is_some() || export.is_some() {
        let net = reading.number(16, 7, 0);
        return [import.or(net.map(taken)), export.or(net.map(given))];
    }
    let net = reading.number(16, 7, 0).or_else(|| phases(reading));
    [net.map(taken), net.map(given)]
}

/// Power taken less power given, in W.
pub(super) fn net(reading: &Decoded) -> Option<f64> {
    let told = reading.number(16, 7, 0);
    told.or_else(|| match powers(reading) {
        [None, None] => None,
        [import, export] => Some(import.unwrap_or(0.0) - export.unwrap_or(0.0)),
    })
}

/// The register of energy taken (C = 1) or given (C = 2) in Wh; where there is no total, the sum of the tariffs.
pub(super) fn energy(reading: &Decoded, c: u8) -> Option<f64> {
    let tariffs = || TARIFFS.filter_map(|e| reading.number(c, 8, e)).reduce(|sum, wh| sum + wh);
    reading.number(c, 8, 0).or_else(tariffs)
}

fn phases(reading: &Decoded) -> Option<f64> {
    let phase = |above: u8| {
        let [import, export, net] = PHASE.map(|c| reading.number(c + above, 7, 0));
        net.or_else(|| (import.is_some() || export.is_some()).then(|| import.unwrap_or(0.0) - export.unwrap_or(0.0)))
    };
    [0, 20, 40].into_iter().filter_map(phase).reduce(|sum, watts| sum + watts)
}

fn taken(net: f64) -> f64 {
    net.max(0.0)
}

fn given(net: f64) -> f64 {
    (-net).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::Payload;
    use crate::decode::decode;

    fn reading(document: &str) -> Decoded {
        decode(&Payload::Sma, "s", "sma", document.as_bytes()).expect("a reading")
    }

    /// Promise 9: a meter that tells its phases or tariffs only is shown like one that tells their sums.
    #[test]
    fn sums_of_phases_and_tariffs() {
        for (document, expected) in [
            (r#"{"1.7.0":{"value":40},"2.7.0":{"value":0}}"#, [Some(40.0), Some(0.0)]),
            (r#"{"2.7.0":{"value":7},"16.7.0":{"value":-7}}"#, [Some(0.0), Some(7.0)]),
            (r#"{"16.7.0":{"value":-894.5}}"#, [Some(0.0), Some(894.5)]),
            (r#"{"36.7.0":{"value":100},"56.7.0":{"value":-30},"76.7.0":{"value":5}}"#, [Some(75.0), Some(0.0)]),
            (r#"{"21.7.0":{"value":100},"42.7.0":{"value":130}}"#, [Some(0.0), Some(30.0)]),
            (r#"{"1.8.1":{"value":100}}"#, [None, None]),
        ] {
            assert_eq!(powers(&reading(document)), expected, "{document}");
        }
        let tariffs =
            reading(r#"{"1.8.1":{"value":100},"1.8.2":{"value":20},"2.8.0":{"value":5},"2.8.1":{"value":4}}"#);
        assert_eq!([energy(&tariffs, 1), energy(&tariffs, 2), energy(&tariffs, 3)], [Some(120.0), Some(5.0), None]);
        assert_eq!(net(&reading(r#"{"2.7.0":{"value":7}}"#)), Some(-7.0));
        assert_eq!(net(&tariffs), None);
    }
}

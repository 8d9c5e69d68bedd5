//! Exact decimal numbers of devices: a register's whole number, and the power of ten that its scale factor moves the point
//! by. Never through a binary fraction, which cannot hold 0.1.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// The most digits of a factor in the configuration: with a register of 64 bits beside it a product stays within 128 bits.
const MAX_DIGITS: u32 = 18;

/// Bytes of a factor's text: fewer digits than 128 bits hold.
const MAX_TEXT: usize = 38;

/// Zeros written out before or behind the digits; beyond it an exponent is shorter, and as good a JSON number.
const MAX_ZEROS: i32 = 40;

/// A whole number times a power of ten. Equal values are equal, however they were scaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Scaled {
    /// Ends in no zero; 0 has the exponent 0.
    number: i128,
    exponent: i32,
}

/// Why a text is no factor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScaledError {
    #[error("must be a decimal number, such as \"0.1\" or \"1000\"")]
    NotANumber,
    #[error("must have at most {MAX_DIGITS} digits before and behind the point")]
    TooLong,
}

impl Scaled {
    pub const ZERO: Self = Self { number: 0, exponent: 0 };
    pub const ONE: Self = Self { number: 1, exponent: 0 };

    /// `number` × 10^`exponent`.
    pub fn new(mut number: i128, mut exponent: i32) -> Self {
        if number == 0 {
            return Self::ZERO;
        }
        while number % 10 == 0 {
            number /= 10;
            exponent = exponent.saturating_add(1);
        }
        Self { number, exponent }
    }

    /// So many tenths.
    pub const fn tenths(number: i128) -> Self {
        assert!(number % 10 != 0, "equal values are written alike");
        Self { number, exponent: -1 }
    }

    /// The lowest power of ten that is above it; 1 for what is not above 0.
    pub fn power_above(self) -> Self {
        if self.number <= 0 { Self::ONE } else { Self { number: 1, exponent: self.places() } }
    }

    /// The number that a float's shortest decimal text shows; none where it is infinite or not a number.
    pub fn of_f32(value: f32) -> Option<Self> {
        value.is_finite().then(|| Self::of_scientific(&format!("{value:e}"))).flatten()
    }

    /// Like [`Scaled::of_f32`].
    pub fn of_f64(value: f64) -> Option<Self> {
        value.is_finite().then(|| Self::of_scientific(&format!("{value:e}"))).flatten()
    }

    /// `-1.25e-3`
    fn of_scientific(text: &str) -> Option<Self> {
        let (digits, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let number: i128 = format!("{whole}{fraction}").parse().ok()?;
        let exponent: i32 = exponent.parse().ok()?;
        Some(Self::new(number, exponent.checked_sub(i32::try_from(fraction.len()).ok()?)?))
    }

    /// None where it has more than 128 bits.
    pub fn times(self, other: Self) -> Option<Self> {
        let number = self.number.checked_mul(other.number)?;
        Some(Self::new(number, self.exponent.checked_add(other.exponent)?))
    }

    /// None where it has more than 128 bits.
    pub fn plus(self, other: Self) -> Option<Self> {
        let exponent = self.exponent.min(other.exponent);
        Some(Self::new(self.digits_at(exponent)?.checked_add(other.digits_at(exponent)?)?, exponent))
    }

    /// Below zero it is the number without its sign.
    pub fn magnitude(self) -> Self {
        Self { number: self.number.abs(), ..self }
    }

    pub fn is_negative(self) -> bool {
        self.number < 0
    }

    /// Places of the first digit before the point: 3 for 227, 0 for 0.5.
    fn places(self) -> i32 {
        let digits = self.number.unsigned_abs().checked_ilog10().map_or(0, |log| log as i32 + 1);
        digits.saturating_add(self.exponent)
    }

    /// Whether a JSON reader that keeps numbers as doubles can read it.
    pub fn fits_json(self) -> bool {
        self.places() <= 308
    }

    /// The number that makes it with 10^`exponent`, which is not above its own.
    fn digits_at(self, exponent: i32) -> Option<i128> {
        let shift = u32::try_from(self.exponent.checked_sub(exponent)?).ok()?;
        self.number.checked_mul(10_i128.checked_pow(shift)?)
    }
}

impl Ord for Scaled {
    fn cmp(&self, other: &Self) -> Ordering {
        let signs = self.number.signum().cmp(&other.number.signum());
        if signs != Ordering::Equal || self.number == 0 {
            return signs;
        }
        let exponent = self.exponent.min(other.exponent);
        match (self.digits_at(exponent), other.digits_at(exponent)) {
            (Some(own), Some(others)) => own.cmp(&others),
            // So far apart that one has more places before the point.
            _ if self.number < 0 => other.places().cmp(&self.places()),
            _ => self.places().cmp(&other.places()),
        }
    }
}

impl PartialOrd for Scaled {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A JSON number, and the shortest that says all of it.
impl fmt::Display for Scaled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, exponent } = *self;
        let zeros = usize::try_from(exponent.unsigned_abs()).unwrap_or(usize::MAX);
        if exponent > MAX_ZEROS || self.places() < -MAX_ZEROS {
            return write!(f, "{number}e{exponent}");
        }
        if exponent >= 0 {
            return write!(f, "{number}{:0<zeros$}", "");
        }
        let sign = if number < 0 { "-" } else { "" };
        let digits = format!("{:0>width$}", number.unsigned_abs(), width = zeros + 1);
        let (whole, fraction) = digits.split_at(digits.len() - zeros);
        write!(f, "{sign}{whole}.{fraction}")
    }
}

impl FromStr for Scaled {
    type Err = ScaledError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
        if !known {
            return Err(ScaledError::NotANumber);
        }
        if text.len() > MAX_TEXT {
            return Err(ScaledError::TooLong);
        }
        // A fraction's own sign would stand in the middle of the digits.
        let (mantissa, _) = text.split_once(['e', 'E']).unwrap_or((text, ""));
        if mantissa.rfind(['+', '-']).is_some_and(|at| at > 0)
            || mantissa.trim_start_matches(['+', '-']).starts_with('.')
            || mantissa.ends_with('.')
        {
            return Err(ScaledError::NotANumber);
        }
        let scaled = Self::of_scientific(text).ok_or(ScaledError::NotANumber)?;
        let long = scaled.number.unsigned_abs() >= 10_u128.pow(MAX_DIGITS);
        if long || scaled.exponent.unsigned_abs() > MAX_DIGITS { Err(ScaledError::TooLong) } else { Ok(scaled) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Promise 9: what a register and its scale factor say is written with exactly these digits.
    #[test]
    fn written_as_a_person_would() {
        for (number, exponent, text) in [
            (0, 5, "0"),
            (2304, -1, "230.4"),
            (2300, -1, "230"),
            (-5, -3, "-0.005"),
            (83_403, 0, "83403"),
            (12, 3, "12000"),
            (4_294_967_295, -10, "0.4294967295"),
            (1, 60, "1e60"),
            (-15, -50, "-15e-50"),
        ] {
            assert_eq!(Scaled::new(number, exponent).to_string(), text);
        }
        for wrong in [
            "",
            "-",
            "1,5",
            "1.",
            ".5",
            "-.5",
            "1-2",
            "0x1",
            "1e",
            "1e400",
            "1234567890123456789",
            "1e19",
            "1.-5",
            "inf",
        ] {
            assert!(wrong.parse::<Scaled>().is_err(), "{wrong}");
        }
        assert_eq!("1e-3".parse(), Ok(Scaled::new(1, -3)));
        assert_eq!("-0.10".parse(), Ok(Scaled::new(-1, -1)));
        assert_eq!(Scaled::of_f32(f32::NAN), None);
        assert_eq!(Scaled::of_f32(0.1).map(|value| value.to_string()).as_deref(), Some("0.1"));
        assert!(!Scaled::new(1, 308).fits_json() && Scaled::new(1, 307).fits_json());
    }

    proptest! {
        /// Promise 9: any register with any scale factor is the number that it says, digit by digit.
        #[test]
        fn digits_are_those_of_the_register(number: i32, exponent in -10_i32..=10) {
            let text = Scaled::new(number.into(), exponent).to_string();
            let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
            let shift = 10 - fraction.len() as u32;
            let digits: i128 = format!("{whole}{fraction}").parse().expect("digits");
            prop_assert_eq!(digits * 10_i128.pow(shift), i128::from(number) * 10_i128.pow((10 + exponent) as u32));
        }

        /// Promise 9: a float is written as the shortest text that is read back as the same float, and JSON can hold it.
        #[test]
        fn floats_are_read_back(bits: u32, wide: u64) {
            let (value, double) = (f32::from_bits(bits), f64::from_bits(wide));
            if let Some(scaled) = Scaled::of_f32(value) {
                prop_assert_eq!(scaled.to_string().parse::<f32>().expect("a number"), value);
                prop_assert!(scaled.fits_json());
                prop_assert!(serde_json::from_str::<serde_json::Number>(&scaled.to_string()).is_ok());
            }
            if let Some(scaled) = Scaled::of_f64(double).filter(|scaled| scaled.fits_json()) {
                prop_assert_eq!(scaled.to_string().parse::<f64>().expect("a number"), double);
            }
        }

        /// Numbers compare by their value, however far apart they are.
        #[test]
        fn compares_by_value(left: i64, right: i64, exponents in (-60_i32..60, -60_i32..60)) {
            let (one, other) = (Scaled::new(left.into(), exponents.0), Scaled::new(right.into(), exponents.1));
            let doubles = (left as f64 * 10_f64.powi(exponents.0), right as f64 * 10_f64.powi(exponents.1));
            if (doubles.0 - doubles.1).abs() > 1e-9 * doubles.0.abs().max(doubles.1.abs()) {
                prop_assert_eq!(one.cmp(&other), doubles.0.total_cmp(&doubles.1));
            }
            prop_assert_eq!(one.cmp(&one), Ordering::Equal);
            if let Some(sum) = one.plus(other) {
                prop_assert_eq!(sum.cmp(&one), other.cmp(&Scaled::ZERO));
            }
        }

        /// No text makes the reader of factors panic, and what it reads is written so that it is read again as the same.
        #[test]
        fn any_text(text in "[-+0-9.eE]{0,24}|\\PC{0,10}") {
            if let Ok(scaled) = text.parse::<Scaled>() {
                prop_assert_eq!(scaled.to_string().parse(), Ok(scaled));
            }
        }
    }
}

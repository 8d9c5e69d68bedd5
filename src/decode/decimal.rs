//! Exact decimal numbers, as documents write them.
//!
//! A binary fraction cannot hold 0.1, and a meter's register must not change on its way: so digits stay digits. `2000.000`
//! keeps its zeros, and a factor such as 1000 moves the point.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// The most digits of one number, zeros before the first other digit not counted. A double written out in full, as
/// Java's `BigDecimal` does it, has 55.
pub const MAX_DIGITS: usize = 64;

/// Places before and behind the point up to which a number is written without an exponent.
const PLAIN: i32 = MAX_DIGITS as i32;

/// Places by which a mean is finer than what it is of.
const MORE: usize = 3;

/// A decimal number: sign, up to [`MAX_DIGITS`] digits, and a power of ten within an `i16`.
///
/// Numbers are equal by value, whatever zeros they were written with. `Display` writes a JSON number that reads back with
/// the same digits.
#[derive(Clone, Copy)]
pub struct Decimal {
    negative: bool,
    /// How many of `digits` are used.
    length: u8,
    /// The power of ten by which the digits, read as a whole number, are multiplied.
    exponent: i16,
    /// The most significant first, and that one is not 0: zero has no digits.
    digits: [u8; MAX_DIGITS],
}

/// Why a text is no decimal number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecimalError {
    #[error("not a decimal number")]
    NotANumber,
    #[error("a number of more than {MAX_DIGITS} digits")]
    TooLong,
    #[error("a number whose power of ten is not within {} and {}", i16::MIN, i16::MAX)]
    TooFar,
}

impl Decimal {
    pub const ZERO: Self = Self { negative: false, length: 0, exponent: 0, digits: [0; MAX_DIGITS] };

    pub const ONE: Self = Self::power_of_ten(0);

    /// 10 to the power of `exponent`.
    pub const fn power_of_ten(exponent: i16) -> Self {
        let mut digits = [0; MAX_DIGITS];
        digits[0] = 1;
        Self { negative: false, length: 1, exponent, digits }
    }

    /// Whether it is below zero; `-0` is not.
    pub fn is_negative(&self) -> bool {
        self.negative && self.length > 0
    }

    /// How many places the first digit stands before the point: 3 for 227, 0 for 0.5, -1 for 0.05; none for zero.
    pub fn magnitude(&self) -> Option<i32> {
        (self.length > 0).then(|| i32::from(self.exponent) + i32::from(self.length))
    }

    /// The nearest double; infinite where that is out of its range.
    pub fn to_f64(&self) -> f64 {
        // Rust reads every number that it is given to the nearest double.
        format!("{}e{}", self.whole_digits(), self.exponent).parse().unwrap_or(f64::NAN)
    }

    /// What stands before the point; none where an `i64` is too small for it.
    pub fn trunc(&self) -> Option<i64> {
        let mut whole: i128 = 0;
        for place in (0..self.magnitude().unwrap_or(0)).rev() {
            whole = whole * 10 + i128::from(self.at(place));
            if whole > i128::from(u64::MAX) {
                return None;
            }
        }
        i64::try_from(if self.negative { -whole } else { whole }).ok()
    }

    /// The product, exactly; none where it has too many digits. Zeros at the end of `factor` say nothing: 2.50 × 1000
    /// is 2500, and 2.50 × 1.0 stays 2.50.
    pub fn times(&self, factor: &Self) -> Option<Self> {
        let factor = factor.trimmed();
        let mut product = [0_u32; 2 * MAX_DIGITS];
        for (i, left) in self.used().iter().enumerate() {
            for (k, right) in factor.used().iter().enumerate() {
                product[i + k + 1] += u32::from(*left) * u32::from(*right);
            }
        }
        let used = &mut product[..usize::from(self.length) + usize::from(factor.length)];
        let mut carry = 0;
        for digit in used.iter_mut().rev() {
            let sum = *digit + carry;
            (*digit, carry) = (sum % 10, sum / 10);
        }
        let exponent = i32::from(self.exponent) + i32::from(factor.exponent);
        let negative = self.negative != factor.negative;
        Self::of(negative, used.iter().map(|digit| *digit as u8), exponent).map(Self::without_odd_zero)
    }

    /// The sum, exactly; none where it has too many digits.
    pub fn plus(&self, other: &Self) -> Option<Self> {
        let exponent = self.exponent.min(other.exponent);
        if self.length == 0 || other.length == 0 {
            let sum = if self.length == 0 { other } else { self };
            return sum.padded(exponent).or(Some(*sum));
        }
        let top = self.magnitude().max(other.magnitude())?;
        let (larger, smaller) = if self.compare_size(other).is_ge() { (self, other) } else { (other, self) };
        let places = top - i32::from(exponent) + 1;
        if places > PLAIN + 1 {
            return None;
        }
        let mut sum = [0_u8; MAX_DIGITS + 1];
        let sum = &mut sum[..places as usize];
        let mut carry = 0_i8;
        for (place, digit) in (i32::from(exponent)..=top).zip(sum.iter_mut().rev()) {
            let (left, right) = (larger.at(place) as i8, smaller.at(place) as i8);
            let value = left + carry + if larger.negative == smaller.negative { right } else { -right };
            (*digit, carry) = (value.rem_euclid(10) as u8, value.div_euclid(10));
        }
        Self::of(larger.negative, sum.iter().copied(), i32::from(exponent)).map(Self::without_odd_zero)
    }

    /// The difference, exactly; none where it has too many digits.
    pub fn minus(&self, other: &Self) -> Option<Self> {
        self.plus(&other.negated())
    }

    /// A `count`th of it, which must not be 0, rounded to [`MORE`] places more than it has itself; zeros among those are left
    /// out.
    #[must_use]
    pub fn over(&self, count: u64) -> Self {
        let count = u128::from(count.max(1));
        let more = MORE.min(MAX_DIGITS - usize::from(self.length));
        let (mut quotient, mut rest) = (Vec::with_capacity(MAX_DIGITS + 1), 0_u128);
        for digit in self.used().iter().copied().chain(std::iter::repeat_n(0, more)) {
            rest = rest * 10 + u128::from(digit);
            quotient.push((rest / count) as u8);
            rest %= count;
        }
        if rest * 2 >= count {
            round_up(&mut quotient);
        }
        let exponent = i32::from(self.exponent) - more as i32;
        let Some(mut mean) = Self::of(self.negative, quotient.into_iter(), exponent) else { return *self };
        while mean.exponent < self.exponent && (mean.length == 0 || mean.digits[usize::from(mean.length) - 1] == 0) {
            mean.length = mean.length.saturating_sub(1);
            mean.exponent += 1;
        }
        mean.without_odd_zero()
    }

    /// The same number on the other side of zero.
    #[must_use]
    pub fn negated(&self) -> Self {
        Self { negative: !self.negative, ..*self }.without_odd_zero()
    }

    /// The number of these digits, of which the first may be zeros.
    fn of(negative: bool, digits: impl Iterator<Item = u8>, exponent: i32) -> Option<Self> {
        let mut number = Self { negative, exponent: i16::try_from(exponent).ok()?, ..Self::ZERO };
        for digit in digits.skip_while(|digit| *digit == 0) {
            *number.digits.get_mut(usize::from(number.length))? = digit;
            number.length += 1;
        }
        Some(number)
    }

    /// One more digit at the end.
    #[inline]
    fn push(&mut self, digit: u8) -> Result<(), DecimalError> {
        if self.length > 0 || digit > 0 {
            *self.digits.get_mut(usize::from(self.length)).ok_or(DecimalError::TooLong)? = digit;
            self.length += 1;
        }
        Ok(())
    }

    fn used(&self) -> &[u8] {
        &self.digits[..usize::from(self.length)]
    }

    /// The digit at 10 to the power of `place`.
    fn at(&self, place: i32) -> u8 {
        let Some(top) = self.magnitude() else { return 0 };
        usize::try_from(top - 1 - place).ok().and_then(|index| self.used().get(index)).copied().unwrap_or(0)
    }

    /// What was worked out: neither `-0` nor `0e3`.
    fn without_odd_zero(self) -> Self {
        let exponent = if self.length == 0 { self.exponent.min(0) } else { self.exponent };
        Self { negative: self.is_negative(), exponent, ..self }
    }

    /// Without the zeros at its end.
    fn trimmed(mut self) -> Self {
        while self.length > 0 && self.digits[usize::from(self.length) - 1] == 0 && self.exponent < i16::MAX {
            self.length -= 1;
            self.exponent += 1;
        }
        self
    }

    /// With zeros at its end, so that its last digit stands at 10 to the power of `exponent`, which is not above its own.
    fn padded(mut self, exponent: i16) -> Option<Self> {
        let zeros = usize::try_from(i32::from(self.exponent) - i32::from(exponent)).ok()?;
        if self.length > 0 {
            let length = usize::from(self.length) + zeros;
            self.length = u8::try_from(length).ok().filter(|_| length <= MAX_DIGITS)?;
        }
        Some(Self { exponent, ..self })
    }

    /// The order of the numbers without their signs.
    fn compare_size(&self, other: &Self) -> Ordering {
        let (Some(left), Some(right)) = (self.magnitude(), other.magnitude()) else {
            return self.length.min(1).cmp(&other.length.min(1));
        };
        left.cmp(&right).then_with(|| {
            let digits = usize::from(self.length.max(other.length));
            // What is not used is zero.
            self.digits[..digits].cmp(&other.digits[..digits])
        })
    }

    fn whole_digits(&self) -> String {
        let sign = if self.negative { "-" } else { "" };
        let digits: String = self.used().iter().map(|digit| char::from(b'0' + digit)).collect();
        format!("{sign}{}", if digits.is_empty() { "0" } else { &digits })
    }
}

impl FromStr for Decimal {
    type Err = DecimalError;

    /// Reads what JSON calls a number, and what devices write into texts beside it: `+5`, `007.50`, `.5`, `5.`, and
    /// blanks around it.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim_ascii();
        let (negative, unsigned) = match text.strip_prefix(['-', '+']) {
            Some(rest) => (text.starts_with('-'), rest),
            None => (false, text),
        };
        let mut number = Self { negative, ..Self::ZERO };
        let (mut seen, mut point, mut behind, mut power) = (false, false, 0_i32, 0);
        for (index, byte) in unsigned.bytes().enumerate() {
            match byte {
                b'0'..=b'9' => {
                    seen = true;
                    behind = behind.saturating_add(point.into());
                    number.push(byte - b'0')?;
                }
                b'.' if !point => point = true,
                b'e' | b'E' => {
                    power = exponent(&unsigned[index + 1..])?;
                    break;
                }
                _ => return Err(DecimalError::NotANumber),
            }
        }
        if !seen {
            return Err(DecimalError::NotANumber);
        }
        number.exponent =
            power.checked_sub(behind).and_then(|power| power.try_into().ok()).ok_or(DecimalError::TooFar)?;
        Ok(number)
    }
}

/// One more in the last place. A digit in front takes the carry.
fn round_up(digits: &mut Vec<u8>) {
    for digit in digits.iter_mut().rev() {
        *digit += 1;
        if *digit < 10 {
            return;
        }
        *digit = 0;
    }
    digits.insert(0, 1);
}

/// What stands behind the `e`; far beyond an `i16` it need not be exact.
fn exponent(text: &str) -> Result<i32, DecimalError> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(DecimalError::NotANumber);
    }
    text.parse().map_err(|_| DecimalError::TooFar)
}

impl From<i64> for Decimal {
    fn from(number: i64) -> Self {
        Self { negative: number < 0, ..number.unsigned_abs().into() }
    }
}

impl From<u64> for Decimal {
    fn from(mut number: u64) -> Self {
        let mut digits = [0; 20];
        for digit in digits.iter_mut().rev() {
            (*digit, number) = ((number % 10) as u8, number / 10);
        }
        Self::of(false, digits.into_iter(), 0).expect("20 digits are within the limit")
    }
}

impl fmt::Display for Decimal {
    /// A JSON number, without an exponent where at most 64 places stand before and behind the point.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exponent = i32::from(self.exponent);
        let top = self.magnitude().unwrap_or(exponent.min(0) + 1);
        if top > PLAIN || -exponent > PLAIN || (self.length == 0 && exponent > 0) {
            return write!(f, "{}e{exponent}", self.whole_digits());
        }
        let mut text = [0_u8; 2 * MAX_DIGITS + 2];
        let mut used = 0;
        let mut write = |byte| {
            text[used] = byte;
            used += 1;
        };
        if self.negative {
            write(b'-');
        }
        for place in (exponent.min(0)..top.max(1)).rev() {
            if place == -1 {
                write(b'.');
            }
            write(b'0' + self.at(place));
        }
        f.write_str(std::str::from_utf8(&text[..used]).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl PartialEq for Decimal {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Decimal {}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.is_negative(), other.is_negative()) {
            (false, false) => self.compare_size(other),
            (true, true) => other.compare_size(self),
            (left, right) => right.cmp(&left),
        }
    }
}

#[cfg(test)]
mod tests;

//! Digits stay digits: read, written, compared and reckoned with as the numbers that were written.

use proptest::prelude::*;

use super::*;

fn decimal(text: &str) -> Decimal {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Promise 5: a number comes out with the digits it came in with.
#[test]
fn a_number_stays_as_it_was_written() {
    for text in [
        "0",
        "-0",
        "0.000",
        "-0.5",
        "1685.334",
        "2000.000",
        "34507.4761",
        "0.05",
        "-894",
        "9007199254740993",
        "18446744073709551616",
        "0.1000000000000000055511151231257827021181583404541015625",
        "1234567890123456789012345678901234567890123456789012345678901234",
        "1.5e300",
        "2e-300",
    ] {
        let again = decimal(text).to_string();
        assert_eq!(decimal(&again), decimal(text), "{text}");
        assert!(again == text || text.contains('e'), "{text} became {again}");
    }
    for (text, written) in [
        ("+5", "5"),
        ("007.50", "7.50"),
        (".5", "0.5"),
        ("5.", "5"),
        (" 12 ", "12"),
        ("1e3", "1000"),
        ("1.50E-2", "0.0150"),
        ("1e63", "1000000000000000000000000000000000000000000000000000000000000000"),
        ("1e64", "1e64"),
        ("1.25e400", "125e398"),
        ("0e9", "0e9"),
    ] {
        assert_eq!(decimal(text).to_string(), written, "{text}");
    }
}

/// Promise 5: what is no number, or longer than any meter's, is not bent into one.
#[test]
fn what_is_no_number_is_refused() {
    for text in ["", " ", "-", ".", "e5", "1e", "1e+", "1.2.3", "1,5", "0x10", "inf", "NaN", "--1", "1 2", "١", "1e5e5"]
    {
        assert_eq!(text.parse::<Decimal>(), Err(DecimalError::NotANumber), "{text:?}");
    }
    assert_eq!("1".repeat(65).parse::<Decimal>(), Err(DecimalError::TooLong));
    assert_eq!(decimal(&"0".repeat(10_000)), Decimal::ZERO);
    for text in ["1e32768", "1e-32769", "1e99999999999999999999", "0.1e-32768"] {
        assert_eq!(text.parse::<Decimal>(), Err(DecimalError::TooFar), "{text}");
    }
}

/// Promise 5: kilowatt hours become watt hours without a digit lost or made up.
#[test]
fn a_factor_moves_the_point() {
    for (number, factor, product) in [
        ("34507.4761", "1000", "34507476.1"),
        ("2000.000", "1000", "2000000"),
        ("0.000", "1000", "0"),
        ("1685.334", "1e3", "1685334"),
        ("59", "1000", "59000"),
        ("-894", "1", "-894"),
        ("2.50", "1.0", "2.50"),
        ("99", "0.01", "0.99"),
        ("100", "0.01", "1.00"),
        ("-0.5", "-1", "0.5"),
    ] {
        assert_eq!(
            decimal(number).times(&decimal(factor)).map(|product| product.to_string()).as_deref(),
            Some(product)
        );
    }
    let long = decimal(&"9".repeat(MAX_DIGITS));
    assert_eq!(long.times(&decimal("11")), None, "exact or not at all");
    assert_eq!(long.times(&decimal("1e10")).map(|product| product.magnitude()), Some(Some(74)));
    assert_eq!(decimal("1e32767").times(&decimal("10")), None);
}

/// Promise 5: sums are exact or not at all.
#[test]
fn sums_are_exact() {
    for (left, right, sum) in [
        ("0.1", "0.2", "0.3"),
        ("1.50", "1.50", "3.00"),
        ("40", "-40", "0"),
        ("-1.5", "1", "-0.5"),
        ("0.00", "5", "5.00"),
        ("5", "-0", "5"),
        ("1e3", "1", "1001"),
        ("9999.99", "0.01", "10000.00"),
    ] {
        assert_eq!(
            decimal(left).plus(&decimal(right)).map(|sum| sum.to_string()).as_deref(),
            Some(sum),
            "{left} {right}"
        );
    }
    assert_eq!(decimal("1e100").plus(&decimal("1")), None);
    assert_eq!(decimal(&"9".repeat(MAX_DIGITS)).plus(&decimal("1")), None);
}

/// Promise 8: seconds are cut where the point stands, and what no clock says is no time.
#[test]
fn the_whole_part() {
    for (text, whole) in [
        ("7.9", Some(7)),
        ("-7.9", Some(-7)),
        ("0.9", Some(0)),
        ("1697623015", Some(1_697_623_015)),
        ("1.5e3", Some(1500)),
        ("9223372036854775807", Some(i64::MAX)),
        ("-9223372036854775808", Some(i64::MIN)),
        ("9223372036854775808", None),
        ("1e300", None),
        ("1e-300", Some(0)),
    ] {
        assert_eq!(decimal(text).trunc(), whole, "{text}");
    }
}

proptest! {
    /// Promise 5: reckoned as whole numbers of the last place would be.
    #[test]
    fn agrees_with_whole_numbers(a in -(1_i128 << 60)..1 << 60, b in -(1_i128 << 60)..1 << 60, x in -20_i32..20, y in -20_i32..20) {
        let (left, right) = (decimal(&format!("{a}e{x}")), decimal(&format!("{b}e{y}")));
        prop_assert_eq!(left.times(&right), Some(decimal(&format!("{}e{}", a * b, x + y))));
        let low = x.min(y);
        let scaled = |number: i128, exponent: i32| number.checked_mul(10_i128.checked_pow((exponent - low) as u32)?);
        if let (Some(a), Some(b)) = (scaled(a, x), scaled(b, y)) {
            prop_assert_eq!(left.plus(&right), Some(decimal(&format!("{}e{low}", a + b))));
            prop_assert_eq!(left.minus(&right), Some(decimal(&format!("{}e{low}", a - b))));
            prop_assert_eq!(left.cmp(&right), a.cmp(&b));
        }
        prop_assert_eq!(left.negated(), decimal(&format!("{}e{x}", -a)));
        prop_assert_eq!(left.to_f64(), format!("{a}e{x}").parse::<f64>().expect("a double"));
    }

    /// Promise 5: what it writes is JSON and the same number, and so is what it reads of JSON.
    #[test]
    fn written_and_read_again(text in "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?") {
        let number = decimal(&text);
        let written = number.to_string();
        prop_assert_eq!(decimal(&written), number);
        prop_assert_eq!(decimal(&written).to_string(), written.clone(), "the second time it stays");
        prop_assert!(serde_json::from_str::<serde::de::IgnoredAny>(&written).is_ok(), "{}", written);
        if !text.contains(['e', 'E']) {
            prop_assert_eq!(written, text);
        }
    }

    /// Promise 5: an integer of the machine is the same number.
    #[test]
    fn integers(number: i64, unsigned: u64) {
        prop_assert_eq!(Decimal::from(number).to_string(), number.to_string());
        prop_assert_eq!(Decimal::from(number).trunc(), Some(number));
        prop_assert_eq!(Decimal::from(unsigned).to_string(), unsigned.to_string());
    }

    /// Promise 5: no text makes it panic.
    #[test]
    fn any_text_is_a_number_or_an_error(text in "(\\PC{0,20}|[-+0-9.eE]{0,80})") {
        if let Ok(number) = text.parse::<Decimal>() {
            prop_assert_eq!(decimal(&number.to_string()), number);
        }
    }
}

/// Promise 9: a mean is as fine as it has to be and no finer.
#[test]
fn means() {
    for (sum, count, mean) in [
        ("301", 3, "100.333"),
        ("200", 3, "66.667"),
        ("7.5", 1, "7.5"),
        ("15", 2, "7.5"),
        ("-15", 2, "-7.5"),
        ("0.10", 4, "0.025"),
        ("0", 7, "0"),
        ("2.00", 2, "1.00"),
        ("9.9999", 10, "0.99999"),
        ("-0.0001", 1_000_000, "0.0000"),
        ("999999", 1_000_000, "1"),
        (
            "1234567890123456789012345678901234567890123456789012345678901234",
            2,
            "617283945061728394506172839450617283945061728394506172839450617",
        ),
    ] {
        assert_eq!(decimal(sum).over(count).to_string(), mean, "{sum} / {count}");
    }
}

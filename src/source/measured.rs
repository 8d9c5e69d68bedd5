//! What a polled device's registers said, as the document that the Austrian adapter would have sent. Pure.
//!
//! `{"0-0:96.1.0":{"value":"1234"},"1-0:1.8.0":{"value":83403},"name":"1234"}`: one member a value, without `time`, since the
//! device has no clock. A value that cannot be right is kept and has a `flag` beside it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use crate::source::scaled::Scaled;

/// A counter above nine tenths of its range that is below one tenth at the next look has fallen by more than this.
const TURNED: Scaled = Scaled::tenths(8);

/// One value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured {
    /// An OBIS code, or the device's own name for what has none.
    pub code: Cow<'static, str>,
    pub value: Scaled,
    /// It only rises, as long as all is well.
    pub counts: bool,
    /// Where it begins again at 0; none where that is not known.
    pub turns_over_at: Option<Scaled>,
    /// A counter that is 0 because the device does not have it.
    pub zero_is_nothing: bool,
    /// It cannot be right.
    pub absurd: bool,
    pub flag: Option<Flag>,
}

impl Measured {
    pub fn new(code: impl Into<Cow<'static, str>>, value: Scaled) -> Self {
        Self {
            code: code.into(),
            value,
            counts: false,
            turns_over_at: None,
            zero_is_nothing: false,
            absurd: false,
            flag: None,
        }
    }
}

/// What is wrong with a value that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flag {
    /// A counter has reached its end and begun again.
    TurnedOver,
    /// A counter is lower than it was.
    WentBack,
    /// No meter can have measured it.
    Absurd,
}

impl Flag {
    /// As it stands in the document.
    pub const fn word(self) -> &'static str {
        match self {
            Self::TurnedOver => "turned-over",
            Self::WentBack => "went-back",
            Self::Absurd => "absurd",
        }
    }
}

/// All values of one poll.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Picture {
    pub measured: Vec<Measured>,
    /// The codes of values that JSON cannot hold, or that nothing is known of.
    pub left_out: Vec<Cow<'static, str>>,
}

/// A counter that did not rise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fall {
    pub code: Cow<'static, str>,
    pub flag: Flag,
    pub from: Scaled,
    pub to: Scaled,
}

impl fmt::Display for Fall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {} to {}", self.code, self.from, self.to)
    }
}

/// What the counters of one device were at the last poll.
#[derive(Debug, Clone, Default)]
pub struct Counters(BTreeMap<Cow<'static, str>, Scaled>);

impl Counters {
    /// Flags what cannot be right, leaves out what is nothing, and tells which counters did not rise.
    pub fn judge(&mut self, picture: &mut Picture) -> Vec<Fall> {
        let unfit = picture.measured.extract_if(.., |measured| !measured.value.fits_json());
        picture.left_out.extend(unfit.map(|measured| measured.code));
        picture.measured.retain(|measured| {
            measured.value != Scaled::ZERO || !measured.zero_is_nothing || self.0.contains_key(&measured.code)
        });
        let mut falls = Vec::new();
        for measured in &mut picture.measured {
            if measured.absurd {
                measured.flag = Some(Flag::Absurd);
                continue;
            }
            if !measured.counts {
                continue;
            }
            let now = measured.value;
            if let Some(from) = self.0.insert(measured.code.clone(), now).filter(|from| *from > now) {
                let flag =
                    if turned_over(from, now, measured.turns_over_at) { Flag::TurnedOver } else { Flag::WentBack };
                measured.flag = Some(flag);
                falls.push(Fall { code: measured.code.clone(), flag, from, to: now });
            }
        }
        falls
    }
}

/// Whether a counter fell because it was at its end: that of its register, or a display's full row of nines.
fn turned_over(from: Scaled, now: Scaled, end: Option<Scaled>) -> bool {
    let most = end.and_then(|end| end.times(TURNED)).and_then(|most| now.plus(most));
    if most.is_some_and(|most| from >= most) {
        return true;
    }
    // 999,999 and the like: six digits at least, and within a hundredth on either side.
    let row = Scaled::power_above(from);
    let hundredth = row.times(Scaled::new(1, -2));
    let nearly = row.times(Scaled::new(99, -2));
    row >= Scaled::new(1, 6)
        && nearly.is_some_and(|nearly| from >= nearly)
        && hundredth.is_some_and(|hundredth| now <= hundredth)
}

/// The document. `serial` and `name`: none where they are not known.
pub fn document(serial: Option<&str>, name: Option<&str>, picture: &Picture) -> Vec<u8> {
    let mut text = String::from("{");
    let mut member = |key: &str, value: &dyn fmt::Display, flag: Option<Flag>| {
        let comma = if text.len() == 1 { "" } else { "," };
        let flag = flag.map_or_else(String::new, |flag| format!(r#","flag":"{}""#, flag.word()));
        let _ = write!(text, r#"{comma}{}:{{"value":{value}{flag}}}"#, quoted(key));
    };
    if let Some(serial) = serial {
        member("0-0:96.1.0", &quoted(serial), None);
    }
    for measured in &picture.measured {
        member(&measured.code, &measured.value, measured.flag);
    }
    if let Some(name) = name {
        let comma = if text.len() == 1 { "" } else { "," };
        let _ = write!(text, r#"{comma}"name":{}"#, quoted(name));
    }
    text.push('}');
    text.into_bytes()
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counter(value: i128, exponent: i32) -> Picture {
        let measured = Measured {
            counts: true,
            turns_over_at: Some(Scaled::new(1 << 32, exponent)),
            ..Measured::new("1-0:1.8.0", Scaled::new(value, exponent))
        };
        Picture { measured: vec![measured], left_out: Vec::new() }
    }

    fn flags(values: &[(i128, i32)]) -> Vec<Option<Flag>> {
        let mut counters = Counters::default();
        let judge = |(value, exponent): &(i128, i32)| {
            let mut picture = counter(*value, *exponent);
            counters.judge(&mut picture);
            picture.measured[0].flag
        };
        values.iter().map(judge).collect()
    }

    /// Promise 5: a counter that begins again is told from one that goes back, is kept, and is told once.
    #[test]
    fn counters_that_fall() {
        let (over, back) = (Some(Flag::TurnedOver), Some(Flag::WentBack));
        assert_eq!(flags(&[(4_294_967_290, 0), (3, 0), (4, 0)]), [None, over, None]);
        assert_eq!(flags(&[(83_403, 0), (83_402, 0), (83_403, 0)]), [None, back, None]);
        assert_eq!(flags(&[(83_403, 0), (0, 0)]), [None, back]);
        assert_eq!(
            flags(&[(99_999_990, -1), (12, -1)]),
            [None, over],
            "a display of seven digits and one behind the point"
        );
        assert_eq!(
            flags(&[(834_030, -1), (83_403, 0), (8_340, 1)]),
            [None, None, back],
            "another scale is another text"
        );
        assert_eq!(flags(&[(0, 0), (0, 0)]), [None, None]);
    }

    /// Promise 5: a counter that a device does not have is no value; one that fell to 0 is.
    #[test]
    fn nothing_is_not_zero() {
        let mut counters = Counters::default();
        let mut judge = |value| {
            let mut picture = counter(value, 0);
            picture.measured[0].zero_is_nothing = true;
            counters.judge(&mut picture);
            picture.measured.first().map(|measured| measured.flag)
        };
        assert_eq!(
            [judge(0), judge(5), judge(0), judge(0)],
            [None, Some(None), Some(Some(Flag::WentBack)), Some(None)]
        );
    }

    /// The document's bytes: what is known of the device, exact digits, flags beside the values.
    #[test]
    fn the_document() {
        let mut picture = counter(834_031, -1);
        picture.measured.push(Measured { absurd: true, ..Measured::new("1-0:13.7.0", Scaled::new(15, -1)) });
        picture.measured.push(Measured::new("1-0:1.7.0", Scaled::of_f64(1e300).expect("a number")));
        picture.measured.push(Measured::new("1-0:2.7.0", Scaled::new(1, 400)));
        Counters::default().judge(&mut picture);
        assert_eq!(picture.left_out, ["1-0:2.7.0"]);
        let text = |serial, name| String::from_utf8(document(serial, name, &picture)).expect("UTF-8");
        let values =
            r#""1-0:1.8.0":{"value":83403.1},"1-0:13.7.0":{"value":1.5,"flag":"absurd"},"1-0:1.7.0":{"value":1e300}"#;
        assert_eq!(text(None, None), format!("{{{values}}}"));
        assert_eq!(
            text(Some("1\"2"), Some("Süd")),
            format!(r#"{{"0-0:96.1.0":{{"value":"1\"2"}},{values},"name":"Süd"}}"#)
        );
    }

    proptest! {
        /// Promise 5: any values are a JSON document with each code once, and no two judgements differ.
        #[test]
        fn any_values(values in proptest::collection::btree_map("[0-9:.-]{1,9}|\\PC{1,5}", (any::<i64>(), -400_i32..400, any::<bool>(), any::<bool>()), 0..20), name in proptest::option::of(".{0,9}")) {
            let mut picture = Picture::default();
            for (code, (value, exponent, counts, absurd)) in values {
                let measured = Measured::new(code, Scaled::new(value.into(), exponent));
                picture.measured.push(Measured { counts, absurd, turns_over_at: counts.then_some(Scaled::new(1, exponent)), ..measured });
            }
            let mut counters = Counters::default();
            let mut again = picture.clone();
            counters.judge(&mut picture);
            prop_assert!(counters.judge(&mut again).is_empty());
            prop_assert_eq!(&again, &picture);
            let bytes = document(name.as_deref(), name.as_deref(), &picture);
            let read: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&bytes).expect("JSON");
            let known = picture.measured.iter().filter(|measured| read.contains_key(&*measured.code)).count();
            prop_assert_eq!(known, picture.measured.len());
        }
    }
}

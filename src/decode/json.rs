//! Reading a JSON object member by member, without building it: strict about what JSON leaves open (a key that stands
//! twice, nesting without end), because two readers of the same bytes must not see two different readings.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::{MAX_DEPTH, Reason};

/// Keys of one object up to which looking at each is faster than hashing.
const FEW: usize = 24;

/// Characters of a key that a reason shows.
const SHOWN: usize = 60;

/// What serde's errors cannot carry: which rule of ours was broken.
#[derive(Debug, Default)]
pub(super) struct Rules(RefCell<Option<Broken>>);

#[derive(Debug)]
enum Broken {
    Duplicate(String),
    Depth,
    Shape(&'static str),
}

impl Rules {
    /// Turns the error of a parse under these rules into a reason.
    pub(super) fn reason(&self, error: &serde_json::Error) -> Reason {
        let (line, column) = (error.line(), error.column());
        match self.0.take() {
            Some(Broken::Duplicate(key)) => Reason::DuplicateKey { key, line, column },
            Some(Broken::Depth) => Reason::TooDeep { line, column },
            Some(Broken::Shape(found)) => Reason::NotAnObject { found },
            None => {
                let what = error.to_string();
                let place = format!(" at line {line} column {column}");
                Reason::NotJson { what: what.strip_suffix(&place).unwrap_or(&what).to_owned(), line, column }
            }
        }
    }

    fn broken<E: de::Error>(&self, rule: Broken) -> E {
        self.0.replace(Some(rule));
        E::custom("refused")
    }

    /// The document is not an object but `found`.
    pub(super) fn shape<E: de::Error>(&self, found: &'static str) -> E {
        self.broken(Broken::Shape(found))
    }

    /// One level deeper than `depth`.
    pub(super) fn deeper<E: de::Error>(&self, depth: usize) -> Result<usize, E> {
        if depth < MAX_DEPTH { Ok(depth + 1) } else { Err(self.broken(Broken::Depth)) }
    }
}

/// The keys of one object so far.
pub(super) struct Keys<'rules, 'de> {
    rules: &'rules Rules,
    few: Vec<Cow<'de, str>>,
    many: HashSet<Cow<'de, str>>,
}

impl<'rules, 'de> Keys<'rules, 'de> {
    pub(super) fn new(rules: &'rules Rules) -> Self {
        Self { rules, few: Vec::new(), many: HashSet::new() }
    }

    /// The next key of `map`; none at the object's end.
    pub(super) fn next<A: MapAccess<'de>>(&mut self, map: &mut A) -> Result<Option<Cow<'de, str>>, A::Error> {
        let Some(Text(key)) = map.next_key()? else { return Ok(None) };
        let new = if self.few.len() < FEW {
            let new = !self.few.contains(&key);
            self.few.push(key.clone());
            new
        } else {
            !self.few.contains(&key) && self.many.insert(key.clone())
        };
        if new { Ok(Some(key)) } else { Err(self.rules.broken(Broken::Duplicate(shown(&key)))) }
    }
}

fn shown(key: &str) -> String {
    match key.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}…", &key[..end]),
        None => format!("{key:?}"),
    }
}

/// A text that borrows from the document where it can.
pub(super) struct Text<'de>(pub(super) Cow<'de, str>);

impl<'de> de::Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Borrow;

        impl<'de> Visitor<'de> for Borrow {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }

        deserializer.deserialize_str(Borrow)
    }
}

/// A value that is neither an array nor an object.
pub(super) enum Plain<'de> {
    Text(Cow<'de, str>),
    Number(serde_json::Number),
    Flag,
    Null,
}

/// What a value becomes, by its kind.
pub(super) trait Shape<'de>: Sized {
    type Value;

    fn plain<E: de::Error>(self, plain: Plain<'de>) -> Result<Self::Value, E>;

    fn array<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error>;

    fn object<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error>;
}

/// Reads a value of any kind as its shape says.
pub(super) struct Read<S>(pub(super) S);

impl<'de, S: Shape<'de>> DeserializeSeed<'de> for Read<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, S: Shape<'de>> Visitor<'de> for Read<S> {
    type Value = S::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
        self.0.plain(Plain::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        self.0.plain(Plain::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
        self.0.plain(Plain::Number(number.into()))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
        self.0.plain(Plain::Number(number.into()))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Self::Value, E> {
        // serde_json reads no number that is not finite; null is how it would write one.
        self.0.plain(serde_json::Number::from_f64(number).map_or(Plain::Null, Plain::Number))
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Self::Value, E> {
        self.0.plain(Plain::Flag)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        self.0.plain(Plain::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        self.0.array(seq)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        self.0.object(map)
    }
}

/// A value as far as a decoder looks at it.
pub(super) enum Scalar<'de> {
    Text(Cow<'de, str>),
    Number(serde_json::Number),
    /// `true`, `false`, `null`, an array or an object.
    Other,
}

/// Any value is read to its end, held to the rules, and kept where it is a text or a number.
#[derive(Clone, Copy)]
pub(super) struct Scalars<'rules> {
    pub(super) rules: &'rules Rules,
    /// Levels open around the value.
    pub(super) depth: usize,
}

impl Scalars<'_> {
    /// For the values within this one.
    pub(super) fn inner<E: de::Error>(self) -> Result<Self, E> {
        Ok(Self { depth: self.rules.deeper(self.depth)?, ..self })
    }
}

impl<'de> Shape<'de> for Scalars<'_> {
    type Value = Scalar<'de>;

    fn plain<E: de::Error>(self, plain: Plain<'de>) -> Result<Self::Value, E> {
        Ok(match plain {
            Plain::Text(text) => Scalar::Text(text),
            Plain::Number(number) => Scalar::Number(number),
            Plain::Flag | Plain::Null => Scalar::Other,
        })
    }

    fn array<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let inner = self.inner()?;
        while seq.next_element_seed(Read(inner))?.is_some() {}
        Ok(Scalar::Other)
    }

    fn object<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let inner = self.inner()?;
        let mut keys = Keys::new(self.rules);
        while keys.next(&mut map)?.is_some() {
            map.next_value_seed(Read(inner))?;
        }
        Ok(Scalar::Other)
    }
}

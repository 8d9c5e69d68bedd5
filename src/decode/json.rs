//! Reading a JSON document piece by piece, without building it.
//!
//! Strict about what JSON leaves open (a key that stands twice, nesting without end), because two readers of the same
//! bytes must not see two different readings. Numbers keep their digits, which is why it is not serde_json that reads
//! them: it hands a fraction out as a double. Messages and places are worded as serde_json words them.

use std::borrow::Cow;
use std::collections::HashSet;

use arrayvec::ArrayVec;

use super::{MAX_DEPTH, Reason, Value};

mod text;

/// Keys of one object up to which looking at each is faster than hashing.
const FEW: usize = 24;

/// Characters of a key that a reason shows.
const SHOWN: usize = 60;

/// A document, and how far it has been read.
pub(super) struct Json<'de> {
    text: &'de str,
    at: usize,
    depth: usize,
}

/// One value; of an array or an object only what opens it has been read.
pub(super) enum Piece<'de> {
    Text(Cow<'de, str>),
    Number(&'de str),
    Flag,
    Null,
    Array,
    Object,
}

impl<'de> Piece<'de> {
    /// What a measurement may have as its value. A number with more digits than any meter has stays a text.
    pub(super) fn value(self) -> Option<Value> {
        match self {
            Self::Text(text) => Some(Value::Text(text.into_owned())),
            Self::Number(number) => Some(self::number(number)),
            Self::Flag | Self::Null | Self::Array | Self::Object => None,
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// For the reason why a document is none.
    pub(super) fn described(&self) -> &'static str {
        match self {
            Self::Text(_) => "a text",
            Self::Number(_) => "a number",
            Self::Flag => "true or false",
            Self::Null => "null",
            Self::Array => "an array",
            Self::Object => "an object",
        }
    }
}

fn number(text: &str) -> Value {
    text.parse().map_or_else(|_| Value::Text(text.to_owned()), Value::Number)
}

/// The keys of one object so far.
#[derive(Default)]
pub(super) struct Keys<'de> {
    few: ArrayVec<Cow<'de, str>, FEW>,
    many: HashSet<Cow<'de, str>>,
}

impl<'de> Keys<'de> {
    /// Whether it is the first time.
    fn add(&mut self, key: Cow<'de, str>) -> bool {
        if self.few.contains(&key) {
            return false;
        }
        match self.few.try_push(key) {
            Ok(()) => true,
            Err(full) => self.many.insert(full.element()),
        }
    }
}

impl<'de> Json<'de> {
    /// # Errors
    ///
    /// [`Reason::NotUtf8`].
    pub(super) fn new(bytes: &'de [u8]) -> Result<Self, Reason> {
        let text = std::str::from_utf8(bytes).map_err(|error| Reason::NotUtf8 { offset: error.valid_up_to() })?;
        Ok(Self { text, at: 0, depth: 0 })
    }

    /// The next value.
    pub(super) fn piece(&mut self) -> Result<Piece<'de>, Reason> {
        match self.peek() {
            Some(b'"') => self.string().map(Piece::Text),
            Some(b'-' | b'0'..=b'9') => self.number().map(Piece::Number),
            Some(b'{') => self.open(Piece::Object),
            Some(b'[') => self.open(Piece::Array),
            Some(b't') => self.word("true", Piece::Flag),
            Some(b'f') => self.word("false", Piece::Flag),
            Some(b'n') => self.word("null", Piece::Null),
            Some(_) if self.text[self.at..].starts_with('\u{feff}') => {
                Err(self.wrong("a byte order mark (U+FEFF) before the value"))
            }
            Some(_) => Err(self.wrong("expected value")),
            None => Err(self.wrong("EOF while parsing a value")),
        }
    }

    /// The next key of the object that was opened last, of which `keys` are known; none at its end.
    pub(super) fn key(&mut self, keys: &mut Keys<'de>) -> Result<Option<Cow<'de, str>>, Reason> {
        let first = keys.few.is_empty();
        match self.peek() {
            Some(b'}') => {
                self.close();
                return Ok(None);
            }
            Some(b',') if !first => self.at += 1,
            Some(_) if first => {}
            Some(_) => return Err(self.wrong("expected `,` or `}`")),
            None => return Err(self.wrong("EOF while parsing an object")),
        }
        match self.peek() {
            Some(b'"') => {}
            Some(b'}') => return Err(self.wrong("trailing comma")),
            Some(_) => return Err(self.wrong("key must be a string")),
            None => return Err(self.wrong("EOF while parsing a value")),
        }
        let key = self.string()?;
        if !keys.add(key.clone()) {
            let (line, column) = self.place(self.at);
            return Err(Reason::DuplicateKey { key: shown(&key), line, column });
        }
        match self.peek() {
            Some(b':') => self.at += 1,
            Some(_) => return Err(self.wrong("expected `:`")),
            None => return Err(self.wrong("EOF while parsing an object")),
        }
        Ok(Some(key))
    }

    /// Whether the array that was opened last has another value, which then comes next.
    pub(super) fn another(&mut self, first: bool) -> Result<bool, Reason> {
        match self.peek() {
            Some(b']') => {
                self.close();
                return Ok(false);
            }
            Some(_) if first => return Ok(true),
            Some(b',') => self.at += 1,
            Some(_) => return Err(self.wrong("expected `,` or `]`")),
            None => return Err(self.wrong("EOF while parsing a list")),
        }
        match self.peek() {
            Some(b']') => Err(self.wrong("trailing comma")),
            _ => Ok(true),
        }
    }

    /// Where the next value begins.
    pub(super) fn begin(&mut self) -> usize {
        self.peek();
        self.at
    }

    /// What is written from `begin` up to here.
    pub(super) fn since(&self, begin: usize) -> &'de str {
        &self.text[begin..self.at]
    }

    /// Reads what `piece` opened to its end, and holds it to the rules.
    pub(super) fn pass_over(&mut self, piece: &Piece<'de>) -> Result<(), Reason> {
        match piece {
            Piece::Object => {
                let mut keys = Keys::default();
                while self.key(&mut keys)?.is_some() {
                    let inner = self.piece()?;
                    self.pass_over(&inner)?;
                }
            }
            Piece::Array => {
                let mut first = true;
                while self.another(first)? {
                    first = false;
                    let inner = self.piece()?;
                    self.pass_over(&inner)?;
                }
            }
            Piece::Text(_) | Piece::Number(_) | Piece::Flag | Piece::Null => {}
        }
        Ok(())
    }

    /// Nothing but blanks may follow.
    pub(super) fn end(mut self) -> Result<(), Reason> {
        match self.peek() {
            Some(_) => Err(self.wrong("trailing characters")),
            None => Ok(()),
        }
    }

    fn open(&mut self, piece: Piece<'de>) -> Result<Piece<'de>, Reason> {
        self.at += 1;
        if self.depth == MAX_DEPTH {
            let (line, column) = self.place(self.at);
            return Err(Reason::TooDeep { line, column });
        }
        self.depth += 1;
        Ok(piece)
    }

    fn close(&mut self) {
        self.at += 1;
        self.depth -= 1;
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The next byte that is no blank.
    fn peek(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.byte() {
            self.at += 1;
        }
        self.byte()
    }

    fn word(&mut self, word: &str, piece: Piece<'de>) -> Result<Piece<'de>, Reason> {
        for expected in word.bytes() {
            match self.byte() {
                Some(byte) if byte == expected => self.at += 1,
                Some(_) => return Err(self.wrong("expected ident")),
                None => return Err(self.wrong("EOF while parsing a value")),
            }
        }
        Ok(piece)
    }

    fn number(&mut self) -> Result<&'de str, Reason> {
        let start = self.at;
        self.at += usize::from(self.byte() == Some(b'-'));
        if self.byte() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if let Some(b'0'..=b'9') = self.byte() {
            return Err(self.wrong("invalid number"));
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        let mut far = self.at - start > MAX_PLAIN;
        if let Some(b'e' | b'E') = self.byte() {
            far = true;
            self.at += 1;
            self.at += usize::from(matches!(self.byte(), Some(b'-' | b'+')));
            self.digits()?;
        }
        let text = &self.text[start..self.at];
        // Most readers of JSON have nothing larger than a double.
        if far && !text.parse::<f64>().is_ok_and(f64::is_finite) {
            return Err(self.wrong_before("number out of range"));
        }
        Ok(text)
    }

    fn digits(&mut self) -> Result<(), Reason> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.byte() {
            self.at += 1;
        }
        match self.byte() {
            _ if self.at > start => Ok(()),
            Some(_) => Err(self.wrong("invalid number")),
            None => Err(self.wrong("EOF while parsing a value")),
        }
    }

    /// The next byte is wrong, or missing.
    fn wrong(&self, what: &'static str) -> Reason {
        self.not_json(what, (self.at + 1).min(self.text.len()))
    }

    /// What ends before the next byte is wrong.
    fn wrong_before(&self, what: &'static str) -> Reason {
        self.not_json(what, self.at)
    }

    fn not_json(&self, what: &'static str, read: usize) -> Reason {
        let (line, column) = self.place(read);
        Reason::NotJson { what, line, column }
    }

    /// Line and column of the last of `read` bytes, both counted from 1.
    fn place(&self, read: usize) -> (usize, usize) {
        let before = &self.text.as_bytes()[..read];
        let lines = before.iter().filter(|byte| **byte == b'\n').count();
        let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        (lines + 1, read - line_start)
    }
}

/// Digits up to which a number without an exponent is within a double's range.
const MAX_PLAIN: usize = 300;

fn shown(key: &str) -> String {
    match key.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}…", &key[..end]),
        None => format!("{key:?}"),
    }
}

#[cfg(test)]
mod tests;

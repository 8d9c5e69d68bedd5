//! Texts of a JSON document: borrowed from it, unless something in them is escaped.

use std::borrow::Cow;

use super::Json;
use crate::decode::Reason;

impl<'de> Json<'de> {
    /// The text whose quotation mark comes next.
    pub(super) fn string(&mut self) -> Result<Cow<'de, str>, Reason> {
        self.at += 1;
        let first = self.plain()?;
        if self.byte() == Some(b'"') {
            self.at += 1;
            return Ok(Cow::Borrowed(first));
        }
        let mut text = first.to_owned();
        loop {
            self.at += 1;
            text.push(self.escaped()?);
            text.push_str(self.plain()?);
            if self.byte() == Some(b'"') {
                self.at += 1;
                return Ok(Cow::Owned(text));
            }
        }
    }

    /// Up to the next quotation mark or backslash.
    fn plain(&mut self) -> Result<&'de str, Reason> {
        let text = self.text;
        let rest = &text.as_bytes()[self.at..];
        let length = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f)).unwrap_or(rest.len());
        let start = self.at;
        self.at += length;
        match self.byte() {
            Some(b'"' | b'\\') => Ok(&text[start..self.at]),
            Some(_) => Err(self.wrong("control character (\\u0000-\\u001F) found while parsing a string")),
            None => Err(self.wrong("EOF while parsing a string")),
        }
    }

    /// The character that the escape sequence means whose backslash was read.
    fn escaped(&mut self) -> Result<char, Reason> {
        let Some(byte) = self.byte() else { return Err(self.wrong("EOF while parsing a string")) };
        let character = match byte {
            b'"' | b'\\' | b'/' => char::from(byte),
            b'b' => '\x08',
            b'f' => '\x0c',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                self.at += 1;
                return self.by_number();
            }
            _ => return Err(self.wrong("invalid escape")),
        };
        self.at += 1;
        Ok(character)
    }

    /// Four hexadecimal digits, or twice four for a character beyond the first 65,536.
    fn by_number(&mut self) -> Result<char, Reason> {
        let first = self.four_digits()?;
        if let Some(character) = char::from_u32(first) {
            return Ok(character);
        }
        if first >= 0xdc00 {
            return Err(self.wrong_before("lone leading surrogate in hex escape"));
        }
        for expected in *b"\\u" {
            match self.byte() {
                Some(byte) if byte == expected => self.at += 1,
                Some(_) => return Err(self.wrong("unexpected end of hex escape")),
                None => return Err(self.wrong("EOF while parsing a string")),
            }
        }
        let second = self.four_digits()?;
        let low = second.checked_sub(0xdc00).filter(|low| *low < 0x400);
        low.and_then(|low| char::from_u32(0x10000 + ((first - 0xd800) << 10) + low))
            .ok_or_else(|| self.wrong_before("lone leading surrogate in hex escape"))
    }

    fn four_digits(&mut self) -> Result<u32, Reason> {
        let mut number = 0;
        for _ in 0..4 {
            let Some(byte) = self.byte() else { return Err(self.wrong("EOF while parsing a string")) };
            let Some(digit) = char::from(byte).to_digit(16) else { return Err(self.wrong("invalid escape")) };
            number = number * 16 + digit;
            self.at += 1;
        }
        Ok(number)
    }
}

//! What a Modbus TCP answer must be, checked byte by byte as it comes, before the library sees it. Pure.
//!
//! tokio-modbus 0.17 compares transaction, unit and function only once an answer is whole, waits for up to 64 KiB where the
//! length says so, reports the end of the connection as whatever the last system error was, and does not compare the number
//! of registers with that asked for. An answer of Modbus TCP has 260 bytes at most (Modbus Messaging on TCP/IP 1.0b, 3.1.3).

/// Transaction, protocol and length, 2 bytes each, the unit; then function, address and count.
const REQUEST: usize = 12;

/// Up to the byte behind the function: the number of data bytes, or the exception.
const HEAD: usize = 9;

/// Set in the function of an exception.
const EXCEPTION: u8 = 0x80;

/// An answer that is none to what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("the answer is of transaction {got}, asked was {asked}")]
    Transaction { asked: u16, got: u16 },
    #[error("the answer is of unit {got}, asked was {asked}")]
    Unit { asked: u8, got: u8 },
    #[error("the answer is to function {got}, asked was {asked}")]
    Function { asked: u8, got: u8 },
    #[error("the answer is of protocol {0}, Modbus is 0")]
    Protocol(u16),
    #[error("the answer says that it has {got} bytes, it must be {must}")]
    Length { must: u16, got: u16 },
    #[error("the answer has {got} bytes of registers, asked for were {asked}")]
    Count { asked: u16, got: u8 },
    #[error("something comes behind the answer, or without a question")]
    Surplus,
    #[error("the connection ended {0} bytes into the answer")]
    Half(usize),
    #[error("nothing came behind the first {0} bytes of the answer")]
    Stalled(usize),
}

/// One question and what has come of its answer.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    request: Vec<u8>,
    head: [u8; HEAD],
    /// Bytes that have come.
    came: usize,
}

impl Answer {
    /// Bytes that go out. With the first after an answer a new question begins.
    pub fn asks(&mut self, bytes: &[u8]) {
        if self.came > 0 {
            *self = Self::default();
        }
        let room = REQUEST.saturating_sub(self.request.len());
        self.request.extend(bytes.iter().take(room));
    }

    /// Bytes that come in.
    ///
    /// # Errors
    ///
    /// At the first byte with which it cannot be the answer any more. Nothing of this connection is then to be believed.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        let begun = self.came;
        for (slot, byte) in self.head.iter_mut().skip(begun).zip(bytes) {
            *slot = *byte;
        }
        self.came = begun.saturating_add(bytes.len());
        self.check()
    }

    /// The connection has ended.
    ///
    /// # Errors
    ///
    /// Within an answer.
    pub fn end(&self) -> Result<(), Malformed> {
        let whole = self.length().is_some_and(|length| self.came >= length);
        if self.came == 0 || whole { Ok(()) } else { Err(Malformed::Half(self.came)) }
    }

    /// Bytes of the answer that have come.
    pub fn came(&self) -> usize {
        self.came
    }

    fn check(&self) -> Result<(), Malformed> {
        if self.request.len() < REQUEST {
            return if self.came == 0 { Ok(()) } else { Err(Malformed::Surplus) };
        }
        let word = |bytes: &[u8], at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let (asked, head) = (&self.request[..], &self.head[..]);
        // Before the transaction: what speaks another language hits no number of ours either.
        if self.came >= 4 && word(head, 2) != 0 {
            return Err(Malformed::Protocol(word(head, 2)));
        }
        if self.came >= 2 && word(head, 0) != word(asked, 0) {
            return Err(Malformed::Transaction { asked: word(asked, 0), got: word(head, 0) });
        }
        if self.came >= 7 && head[6] != asked[6] {
            return Err(Malformed::Unit { asked: asked[6], got: head[6] });
        }
        if self.came >= 8 {
            let (function, got) = (asked[7], head[7]);
            if got & !EXCEPTION != function {
                return Err(Malformed::Function { asked: function, got: got & !EXCEPTION });
            }
            let data = word(asked, 10).saturating_mul(2);
            let must = if got & EXCEPTION == 0 { data.saturating_add(3) } else { 3 };
            // An exception that says that it is longer is let pass by nobody: what stands behind it is not known.
            if word(head, 4) != must {
                return Err(Malformed::Length { must, got: word(head, 4) });
            }
            if self.came >= HEAD && got & EXCEPTION == 0 && u16::from(head[8]) != data {
                return Err(Malformed::Count { asked: data, got: head[8] });
            }
        }
        match self.length() {
            Some(length) if self.came > length => Err(Malformed::Surplus),
            _ => Ok(()),
        }
    }

    /// Bytes of the whole answer, once its head says so.
    fn length(&self) -> Option<usize> {
        (self.came >= 6).then(|| 6 + usize::from(u16::from_be_bytes([self.head[4], self.head[5]])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Transaction 7, unit 1, function 3, address 40000, two registers.
    const ASKED: [u8; 12] = [0, 7, 0, 0, 0, 6, 1, 3, 0x9c, 0x40, 0, 2];
    const RIGHT: [u8; 13] = [0, 7, 0, 0, 0, 7, 1, 3, 4, 0x53, 0x75, 0x6e, 0x53];

    fn asked() -> Answer {
        let mut answer = Answer::default();
        answer.asks(&ASKED[..5]);
        answer.asks(&ASKED[5..]);
        answer
    }

    fn with(at: usize, byte: u8) -> Malformed {
        let mut bytes = RIGHT;
        bytes[at] = byte;
        asked().take(&bytes).expect_err("not the answer")
    }

    /// Promise 5: what is wrong with an answer is told by name, and at its first wrong byte.
    #[test]
    fn wrong_answers_have_names() {
        assert_eq!(asked().take(&RIGHT), Ok(()));
        assert_eq!(with(1, 8), Malformed::Transaction { asked: 7, got: 8 });
        assert_eq!(with(3, 1), Malformed::Protocol(1));
        assert_eq!(with(4, 0xff), Malformed::Length { must: 7, got: 0xff07 });
        assert_eq!(with(6, 2), Malformed::Unit { asked: 1, got: 2 });
        assert_eq!(with(7, 4), Malformed::Function { asked: 3, got: 4 });
        assert_eq!(with(8, 2), Malformed::Count { asked: 4, got: 2 });
        assert_eq!(asked().take(&[0, 7, 0, 0, 0, 3, 1, 0x83, 2]), Ok(()));
        assert_eq!(asked().take(&[0, 7, 0, 0, 0, 3, 1, 0x84, 2]), Err(Malformed::Function { asked: 3, got: 4 }));
        assert_eq!(Answer::default().take(&[0]), Err(Malformed::Surplus));
        let mut answer = asked();
        assert_eq!(answer.end(), Ok(()), "it may hang up before it answers");
        assert_eq!(answer.take(&RIGHT[..12]), Ok(()));
        assert_eq!(answer.end(), Err(Malformed::Half(12)));
        assert_eq!(answer.take(&RIGHT[12..]), Ok(()));
        assert_eq!(answer.end(), Ok(()));
        assert_eq!(answer.take(&[0]), Err(Malformed::Surplus));
    }

    proptest! {
        /// Promises 5 and 6: whatever comes and however it is cut into pieces, only the answer passes, in at most 259 bytes,
        /// and the pieces change nothing.
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..400), valid in any::<bool>(), count in 1_u8..=125, pieces in proptest::collection::vec(1_usize..50, 1..20)) {
            let mut request = ASKED;
            request[11] = count;
            let mut bytes = bytes;
            if valid {
                let head = [0, 7, 0, 0, 0, 0, 1, 3, 2 * count];
                bytes.splice(..head.len().min(bytes.len()), head);
                let length = u16::from(count) * 2 + 3;
                bytes.splice(4..6, length.to_be_bytes());
            }
            let mut whole = Answer::default();
            whole.asks(&request);
            let at_once = whole.take(&bytes);
            let mut piecemeal = Answer::default();
            piecemeal.asks(&request);
            let mut rest = &bytes[..];
            let mut result = Ok(());
            for piece in pieces.iter().cycle() {
                if rest.is_empty() || result.is_err() {
                    break;
                }
                let (first, after) = rest.split_at((*piece).min(rest.len()));
                result = piecemeal.take(first);
                rest = after;
            }
            prop_assert_eq!(result.is_ok(), at_once.is_ok());
            if at_once.is_ok() {
                prop_assert!(bytes.len() <= 259);
                prop_assert!(bytes.len() < 7 || bytes[6] == 1);
            }
        }
    }
}

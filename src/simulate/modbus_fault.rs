//! What a simulated Modbus device does wrong on demand.

use std::fmt;
use std::str::FromStr;

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Answers after 20 s.
    Slow,
    /// Answers with this exception.
    Exception(u8),
    /// Sends half of the answer, and nothing more.
    Half,
    /// Sends half of the answer, and hangs up.
    Cut,
    /// Hangs up with a reset, without an answer.
    Reset,
    /// Answers under another unit id.
    WrongUnit,
    /// Answers with another transaction id.
    WrongTransaction,
    /// Answers to another function.
    WrongFunction,
    /// Answers with one register too few.
    Short,
    /// Says that the answer is very long, and sends as much.
    Oversized,
    /// Sends the answer again and again.
    Endless,
    /// Sends what is not Modbus.
    Garbage,
    /// The counter of imported energy reaches its end.
    TurnOver,
    /// The counter of imported energy shows half of what it was, once.
    WentBack,
}

/// All that can be asked for, but the exceptions, which have a number.
const NAMES: [(&str, Fault); 13] = [
    ("slow", Fault::Slow),
    ("half", Fault::Half),
    ("cut", Fault::Cut),
    ("reset", Fault::Reset),
    ("wrong-unit", Fault::WrongUnit),
    ("wrong-transaction", Fault::WrongTransaction),
    ("wrong-function", Fault::WrongFunction),
    ("short", Fault::Short),
    ("oversized", Fault::Oversized),
    ("endless", Fault::Endless),
    ("garbage", Fault::Garbage),
    ("turn-over", Fault::TurnOver),
    ("went-back", Fault::WentBack),
];

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exception(code) => write!(f, "exception:{code}"),
            other => f.write_str(NAMES.iter().find(|(_, fault)| fault == other).map_or("", |(name, _)| name)),
        }
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let exception = text.strip_prefix("exception:").and_then(|code| code.parse().ok()).filter(|code| *code > 0);
        let named = NAMES.iter().find(|(name, _)| *name == text).map(|(_, fault)| *fault);
        exception.map(Self::Exception).or(named).ok_or_else(|| {
            let names: Vec<_> = NAMES.iter().map(|(name, _)| *name).collect();
            format!("one of {}, exception:N with N from 1 to 255", names.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every fault is written as it is asked for.
    #[test]
    fn names() {
        for (name, fault) in NAMES {
            assert_eq!((name.parse(), fault.to_string().as_str()), (Ok(fault), name));
        }
        assert_eq!("exception:11".parse(), Ok(Fault::Exception(11)));
        for wrong in ["", "exception", "exception:0", "exception:256", "Slow"] {
            assert!(wrong.parse::<Fault>().is_err(), "{wrong}");
        }
    }
}

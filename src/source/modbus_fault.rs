//! Why a Modbus device gave no reading, in words that name the cure.

use crate::source::modbus_answer::Malformed;
use crate::source::sunspec::{ChainError, Model};

/// Why there is no reading.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("{0}")]
    Unreachable(String),
    /// Nothing came in time: to a connection, or to a question.
    #[error("no answer within {0}")]
    Silent(String),
    #[error("{0}")]
    Closed(String),
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The device's own word; `what` was asked for.
    #[error("exception {code} when asked for {what}")]
    Exception { code: u8, what: String },
    #[error("no SunS at register {0}")]
    NoMarker(String),
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error("its models are {0}")]
    NoMeter(String),
    /// Something else stands where the meter was found.
    #[error("model {was} was found there, now there is {now}")]
    Moved { was: u16, now: u16 },
    #[error("none of its values is a number")]
    Nothing,
}

impl Fault {
    /// The models that are there instead of a meter.
    pub(super) fn no_meter(models: &[Model]) -> Self {
        let ids: Vec<_> = models.iter().map(|model| model.id.to_string()).collect();
        Self::NoMeter(if ids.is_empty() { "none at all".to_owned() } else { ids.join(", ") })
    }

    /// Whether the connection can go on being used: the answer was a right one, and the meter is where it was.
    pub fn keeps_connection(&self) -> bool {
        match self {
            // Registers that are not there any more are looked for anew.
            Self::Exception { code, .. } => *code != 2,
            Self::Nothing => true,
            Self::Unreachable(_)
            | Self::Silent(_)
            | Self::Closed(_)
            | Self::Malformed(_)
            | Self::NoMarker(_)
            | Self::Chain(_)
            | Self::NoMeter(_)
            | Self::Moved { .. } => false,
        }
    }

    /// Whether another connection may do better at once: devices hang up on whoever asks seldom.
    pub(super) fn is_hang_up(&self) -> bool {
        matches!(self, Self::Closed(_))
    }

    /// Faults of one kind are one outage.
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Exception { code, .. } => {
                Kind { fault: std::mem::discriminant(self), number: Some(*code), answer: None }
            }
            Self::Malformed(malformed) => Kind {
                fault: std::mem::discriminant(self),
                number: None,
                answer: Some(std::mem::discriminant(malformed)),
            },
            _ => Kind { fault: std::mem::discriminant(self), number: None, answer: None },
        }
    }

    /// What happened.
    pub fn words(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "cannot reach the Modbus device",
            Self::Silent(_) => "the Modbus device does not answer in time",
            Self::Closed(_) => "the Modbus device closed the connection",
            Self::Malformed(malformed) => malformed_words(malformed),
            Self::Exception { code, .. } => exception_words(*code),
            Self::NoMarker(_) => "the Modbus device shows no SunSpec models",
            Self::Chain(_) => "the Modbus device's SunSpec models cannot be followed",
            Self::NoMeter(_) => "the Modbus device has SunSpec models, and none is a meter's (201 to 204, 211 to 214)",
            Self::Moved { .. } => "the Modbus device's SunSpec models have changed; the meter is looked for anew",
            Self::Nothing => "the Modbus device answered, and none of its values is a number",
        }
    }

    /// What helps.
    pub fn cure(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => {
                "is it switched on, is Modbus TCP switched on in it (it is off in adapters as they come), are host and port right?"
            }
            Self::Silent(_) => {
                "is the unit id right? Many devices do not answer to another one; some serve one client at a time; raise \
                 timeout if it is slow"
            }
            Self::Closed(_) => "is another client connected? Many devices serve one at a time",
            Self::Malformed(malformed) => malformed_cure(malformed),
            Self::Exception { code, .. } => exception_cure(*code),
            Self::NoMarker(_) => {
                "set base if its manual names another register, switch SunSpec on in it, or list its registers in \
                 [[source.registers]]"
            }
            Self::Chain(_) => "report it to its maker; list its registers in [[source.registers]] meanwhile",
            Self::NoMeter(_) => "is the meter attached to it, and does it have a unit id of its own?",
            Self::Moved { .. } => "nothing is to be done, unless its meter was taken away",
            Self::Nothing => "is the meter behind it connected? Do the types in [[source.registers]] fit?",
        }
    }
}

/// See [`Fault::kind`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind {
    fault: std::mem::Discriminant<Fault>,
    number: Option<u8>,
    answer: Option<std::mem::Discriminant<Malformed>>,
}

fn malformed_words(malformed: &Malformed) -> &'static str {
    match malformed {
        Malformed::Transaction { .. } => "the Modbus device answered another question",
        Malformed::Unit { .. } => "the Modbus device answered under another unit id",
        Malformed::Function { .. } => "the Modbus device answered to another function",
        Malformed::Protocol(_) => "what answers is not Modbus TCP",
        Malformed::Length { .. } | Malformed::Count { .. } => "the Modbus device's answer has the wrong size",
        Malformed::Surplus => "the Modbus device sends more than an answer",
        Malformed::Half(_) => "the Modbus device hung up within an answer",
        Malformed::Stalled(_) => "the Modbus device stopped within an answer",
    }
}

fn malformed_cure(malformed: &Malformed) -> &'static str {
    match malformed {
        Malformed::Transaction { .. } | Malformed::Surplus | Malformed::Half(_) | Malformed::Stalled(_) => {
            "it may be overloaded: a longer interval, and no other client beside this one"
        }
        Malformed::Unit { .. } => "set unit to the one it answers under, or correct the gateway in between",
        Malformed::Protocol(_) => "is it the port of Modbus TCP? Gateways have another one for Modbus RTU over TCP",
        Malformed::Function { .. } | Malformed::Length { .. } | Malformed::Count { .. } => {
            "newer firmware may help; does a gateway in between mix up its answers?"
        }
    }
}

/// Modbus Application Protocol 1.1b3, 7.
fn exception_words(code: u8) -> &'static str {
    match code {
        1 => "the Modbus device does not know the function (illegal function)",
        2 => "the Modbus device does not have these registers (illegal data address)",
        3 => "the Modbus device does not give so many registers at once (illegal data value)",
        4 => "the Modbus device has failed (device failure)",
        5 => "the Modbus device needs longer for it (acknowledge)",
        6 => "the Modbus device is busy (device busy)",
        11 => "the gateway gets no answer from the Modbus device behind it (target device failed to respond)",
        _ => "the Modbus device refuses with an exception",
    }
}

fn exception_cure(code: u8) -> &'static str {
    match code {
        1 => "set function to the other one, \"holding\" or \"input\"; SunSpec needs holding registers",
        2 => "correct base, or the addresses in [[source.registers]]; is the unit id that of the meter?",
        3 => "list the registers further apart, or fewer of them, in [[source.registers]]",
        4 => "start it anew; if that does not help, its meter or itself is broken",
        5 | 6 => "a longer interval, and no other client beside this one",
        11 => "is the unit id right, and is the meter behind the gateway switched on?",
        _ => "its manual tells what the exception means",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Promise 5: each exception has its own words and its own cure, and another one is told by its number.
    #[test]
    fn exceptions_have_words_and_cures() {
        let fault = |code| Fault::Exception { code, what: "register 40000".to_owned() };
        let known = [1, 2, 3, 4, 5, 6, 11];
        let words: std::collections::BTreeSet<_> = known.iter().map(|code| fault(*code).words()).collect();
        assert_eq!(words.len(), known.len());
        assert!(known.iter().all(|code| fault(*code).cure() != fault(99).cure()));
        assert_eq!(fault(99).to_string(), "exception 99 when asked for register 40000");
        assert_ne!(fault(5).kind(), fault(6).kind());
        assert_eq!(fault(5).kind(), Fault::Exception { code: 5, what: String::new() }.kind());
    }

    /// Promise 5: after anything but a right answer the connection is not used again.
    #[test]
    fn a_doubtful_connection_is_dropped() {
        assert!(Fault::Exception { code: 6, what: String::new() }.keeps_connection());
        for fault in [
            Fault::Silent("3s".to_owned()),
            Fault::Malformed(Malformed::Transaction { asked: 1, got: 2 }),
            Fault::Malformed(Malformed::Surplus),
            Fault::Closed(String::new()),
        ] {
            assert!(!fault.keeps_connection(), "{fault}");
        }
    }
}

//! SunSpec: where a Modbus device's models are, which device it is, and which of its models is a meter. Pure: the caller
//! reads the registers.
//!
//! The marker `SunS` stands at register 0, 40000 or 50000; behind it a chain of models, each with its id, its length and so
//! many registers; the id 0xFFFF ends it. Model 1 tells maker, model, version and serial number of what follows
//! (SunSpec Device Information Model Specification).

use std::fmt;

/// Where the marker may stand, in the order in which it is looked for.
pub const BASES: [u16; 3] = [0, 40_000, 50_000];

/// `SunS`
pub const MARKER: [u16; 2] = [0x5375, 0x6e53];

/// The common model's id.
const COMMON: u16 = 1;

/// Registers of the common model without its padding, which some devices leave out.
pub const COMMON_LENGTH: u16 = 65;

/// The id behind the last model.
const END: u16 = 0xffff;

/// Models of one device; an inverter with three meters has about twenty.
pub const MAX_MODELS: usize = 100;

/// One model in a device's chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Model {
    pub id: u16,
    /// Registers, id and length not counted.
    pub length: u16,
    /// The first register after id and length.
    pub address: u16,
}

/// A chain that cannot be followed to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    #[error("model {id} at register {address} has the length 0")]
    Empty { id: u16, address: u16 },
    #[error("there is a model 0 at register {address}")]
    Nothing { address: u16 },
    #[error("model {id} at register {address} has {length} registers, and ends behind the last one, 65535")]
    TooFar { id: u16, address: u16, length: u16 },
    #[error("the chain has no end within {MAX_MODELS} models")]
    TooMany,
}

/// The chain of a device, as far as it was followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    models: Vec<Model>,
    /// Where the next id and length stand.
    next: u16,
}

impl Chain {
    /// One whose marker stands at `base`.
    pub fn new(base: u16) -> Self {
        Self { models: Vec::new(), next: base.saturating_add(2) }
    }

    /// Where the next model's id and length are to be read, 2 registers.
    pub fn next(&self) -> u16 {
        self.next
    }

    /// Takes what stands there. True: the chain is at its end.
    ///
    /// # Errors
    ///
    /// It cannot be followed.
    pub fn take(&mut self, id: u16, length: u16) -> Result<bool, ChainError> {
        let address = self.next;
        match (id, length) {
            (END, _) => return Ok(true),
            (0, _) => return Err(ChainError::Nothing { address }),
            (_, 0) => return Err(ChainError::Empty { id, address }),
            _ if self.models.len() == MAX_MODELS => return Err(ChainError::TooMany),
            _ => {}
        }
        // Addresses only rise, so that no chain comes back to where it was.
        let first = address.checked_add(2);
        let next = first.and_then(|first| first.checked_add(length)).filter(|next| *next < u16::MAX);
        let (Some(first), Some(next)) = (first, next) else {
            return Err(ChainError::TooFar { id, address, length });
        };
        self.models.push(Model { id, length, address: first });
        self.next = next;
        Ok(false)
    }

    pub fn models(&self) -> &[Model] {
        &self.models
    }

    /// The first meter, and the common model that it belongs to: the last one before it.
    pub fn meter(&self) -> Option<(Option<Model>, Model)> {
        let at = self.models.iter().position(|model| is_meter(model.id))?;
        let common = self.models[..at].iter().rfind(|model| model.id == COMMON && model.length >= COMMON_LENGTH);
        Some((common.copied(), self.models[at]))
    }
}

/// Single phase, split phase, three phases with neutral, and without; as integers, and as floats.
pub fn is_meter(id: u16) -> bool {
    matches!(id, 201..=204 | 211..=214)
}

/// What a meter model is of, for a person.
pub fn meter_words(id: u16) -> &'static str {
    match id {
        201 => "single phase",
        202 => "split phase",
        203 => "three phases with neutral",
        204 => "three phases without neutral",
        211 => "single phase, floats",
        212 => "split phase, floats",
        213 => "three phases with neutral, floats",
        214 => "three phases without neutral, floats",
        _ => "no meter",
    }
}

/// The common model: which device it is. Texts without what pads them; empty where the device says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Common {
    pub maker: String,
    pub model: String,
    pub version: String,
    pub serial: String,
}

impl Common {
    /// From the model's registers; what is missing at the end is empty.
    pub fn read(registers: &[u16]) -> Self {
        let text = |from: usize, length: usize| {
            let end = (from + length).min(registers.len());
            text(registers.get(from..end).unwrap_or_default())
        };
        Self { maker: text(0, 16), model: text(16, 16), version: text(40, 8), serial: text(48, 16) }
    }
}

/// `Fronius Smart Meter TS 65A-3, version 1.3, serial number 1234`
impl fmt::Display for Common {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = format!("{} {}", self.maker, self.model);
        f.write_str(match name.trim() {
            "" => "a device without a name",
            name => name,
        })?;
        for (what, text) in [("version", &self.version), ("serial number", &self.serial)] {
            if !text.is_empty() {
                write!(f, ", {what} {text}")?;
            }
        }
        Ok(())
    }
}

/// Two characters a register, up to the first NUL. What is no UTF-8, and control characters, are replaced.
fn text(registers: &[u16]) -> String {
    let bytes: Vec<u8> =
        registers.iter().flat_map(|register| register.to_be_bytes()).take_while(|byte| *byte != 0).collect();
    // All bits set is how some devices say that there is no text.
    if bytes.iter().all(|byte| *byte == 0xff) {
        return String::new();
    }
    let text: String = String::from_utf8_lossy(&bytes).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn registers(text: &str, length: usize) -> Vec<u16> {
        let mut bytes = text.as_bytes().to_vec();
        bytes.resize(length * 2, 0);
        bytes.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect()
    }

    /// Promise 5: an inverter's meter has the serial number of the common model before it, not that of the inverter.
    #[test]
    fn a_meter_belongs_to_the_common_model_before_it() {
        let mut chain = Chain::new(40_000);
        for (id, length) in [(1, 65), (103, 50), (1, 66), (203, 105)] {
            assert_eq!(chain.take(id, length), Ok(false));
        }
        assert_eq!(chain.take(0xffff, 0), Ok(true));
        let (common, meter) = chain.meter().expect("a meter");
        assert_eq!(common, Some(Model { id: 1, length: 66, address: 40_000 + 2 + 67 + 52 + 2 }));
        assert_eq!(meter, Model { id: 203, length: 105, address: 40_000 + 2 + 67 + 52 + 68 + 2 });
        assert_eq!(Chain::new(0).meter(), None);
    }

    /// Promise 5: each chain that has no end is told in its own words.
    #[test]
    fn broken_chains() {
        let mut chain = Chain::new(0);
        assert_eq!(chain.take(1, 0), Err(ChainError::Empty { id: 1, address: 2 }));
        assert_eq!(chain.take(0, 0), Err(ChainError::Nothing { address: 2 }));
        assert_eq!(chain.take(5, 65_534), Err(ChainError::TooFar { id: 5, address: 2, length: 65_534 }));
        for _ in 0..MAX_MODELS {
            assert_eq!(chain.take(64_001, 1), Ok(false));
        }
        assert_eq!(chain.take(64_001, 1), Err(ChainError::TooMany));
    }

    /// Promise 9: texts are what the device says, without what pads them.
    #[test]
    fn common_model() {
        let mut common = registers("Fronius", 16);
        common.extend(registers("Smart Meter 63A ", 16));
        common.extend(registers("", 8));
        common.extend(registers("1.3", 8));
        common.extend(registers("12\u{1}34", 16));
        common.push(1);
        let read = Common::read(&common);
        assert_eq!(read.to_string(), "Fronius Smart Meter 63A, version 1.3, serial number 12 34");
        assert_eq!(Common::read(&common[..20]).serial, "");
        assert_eq!(Common::read(&[0xffff; 66]), Common::default());
        assert_eq!(Common::default().to_string(), "a device without a name");
    }

    proptest! {
        /// Promises 5 and 6: any chain ends, in its end or in an error, within its limit, and never reads past the registers.
        #[test]
        fn every_chain_ends(base: u16, words in proptest::collection::vec((any::<u16>(), 0_u16..2_000), 0..300)) {
            let mut chain = Chain::new(base);
            let mut ended = false;
            for (id, length) in words {
                let before = chain.next();
                match chain.take(id, length) {
                    Ok(false) => prop_assert!(chain.next() > before),
                    Ok(true) | Err(_) => { ended = true; break; }
                }
            }
            prop_assert!(ended || chain.models().len() <= MAX_MODELS);
            for model in chain.models() {
                prop_assert!(u32::from(model.address) + u32::from(model.length) <= 65_535);
            }
        }

        /// Promise 5: no registers make the reader of texts panic.
        #[test]
        fn any_common(registers in proptest::collection::vec(any::<u16>(), 0..80)) {
            let common = Common::read(&registers);
            prop_assert!(!common.to_string().chars().any(char::is_control));
        }
    }
}

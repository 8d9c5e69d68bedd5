//! Registers of a device without SunSpec, as the configuration lists them: which blocks are read, and what their words
//! say. Pure.

use crate::config::settings::{Function, Register, RegisterType, WordOrder};
use crate::source::measured::{Measured, Picture};
use crate::source::scaled::Scaled;

/// Registers of one answer (Modbus Application Protocol 1.1b3, 6.3).
pub const MAX_BLOCK: u16 = 125;

/// Registers between two that are wanted which are read with them: fewer requests, and a picture that is more consistent.
/// More may hold something that the device refuses to show.
const GAP: u16 = 8;

/// Registers that are read in one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    pub function: Function,
    pub address: u16,
    pub count: u16,
}

impl Block {
    fn end(&self) -> u32 {
        u32::from(self.address) + u32::from(self.count)
    }
}

/// The fewest blocks that hold all of `registers` and of which none is above [`MAX_BLOCK`].
pub fn blocks(registers: &[Register]) -> Vec<Block> {
    let mut wanted: Vec<_> = registers
        .iter()
        .map(|register| Block { function: register.function, address: register.address, count: words(register.kind) })
        .collect();
    wanted.sort_by_key(|block| (block.function, block.address, block.count));
    let mut blocks: Vec<Block> = Vec::new();
    for next in wanted {
        let joined = blocks.last_mut().and_then(|last| {
            let near = last.function == next.function && u32::from(next.address) <= last.end() + u32::from(GAP);
            let count = u16::try_from(next.end().max(last.end()) - u32::from(last.address)).ok()?;
            (near && count <= MAX_BLOCK).then(|| last.count = count)
        });
        if joined.is_none() {
            blocks.push(next);
        }
    }
    blocks
}

/// Registers that a value takes.
pub const fn words(kind: RegisterType) -> u16 {
    match kind {
        RegisterType::U16 | RegisterType::I16 => 1,
        RegisterType::U32 | RegisterType::I32 | RegisterType::F32 => 2,
        RegisterType::U64 | RegisterType::I64 | RegisterType::F64 => 4,
    }
}

/// What the blocks say, in the order of the configuration.
pub fn read(registers: &[Register], answers: &[(Block, Vec<u16>)]) -> Picture {
    let mut picture = Picture::default();
    for register in registers {
        match value(register, answers) {
            Some(measured) => picture.measured.push(measured),
            None => picture.left_out.push(register.code.to_string().into()),
        }
    }
    picture
}

/// None where it is no number, or not in the answers.
fn value(register: &Register, answers: &[(Block, Vec<u16>)]) -> Option<Measured> {
    let count = words(register.kind);
    let (block, words) = answers.iter().find(|(block, _)| {
        let end = u32::from(register.address) + u32::from(count);
        block.function == register.function && block.address <= register.address && end <= block.end()
    })?;
    let from = usize::from(register.address - block.address);
    let words = words.get(from..from + usize::from(count))?;
    let bits = match register.order {
        WordOrder::HighFirst => joined(words.iter()),
        WordOrder::LowFirst => joined(words.iter().rev()),
    };
    let raw = match register.kind {
        RegisterType::U16 | RegisterType::U32 | RegisterType::U64 => Scaled::new(bits.into(), 0),
        RegisterType::I16 => Scaled::new((bits as u16).cast_signed().into(), 0),
        RegisterType::I32 => Scaled::new((bits as u32).cast_signed().into(), 0),
        RegisterType::I64 => Scaled::new(bits.cast_signed().into(), 0),
        RegisterType::F32 => Scaled::of_f32(f32::from_bits(bits as u32))?,
        RegisterType::F64 => Scaled::of_f64(f64::from_bits(bits))?,
    };
    let value = raw.times(register.factor)?;
    let counts = register.code.d() == 8 && !register.factor.is_negative();
    let end = match register.kind {
        RegisterType::U16 | RegisterType::U32 | RegisterType::U64 => Some(Scaled::new(1 << (16 * count), 0)),
        _ => None,
    };
    Some(Measured {
        counts,
        turns_over_at: end.filter(|_| counts).and_then(|end| end.times(register.factor)),
        ..Measured::new(register.code.to_string(), value)
    })
}

fn joined<'w>(words: impl Iterator<Item = &'w u16>) -> u64 {
    words.fold(0, |bits, word| bits << 16 | u64::from(*word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn register(address: u16, kind: RegisterType, order: WordOrder, factor: &str) -> Register {
        Register {
            address,
            function: Function::Holding,
            kind,
            order,
            factor: factor.parse().expect("a factor"),
            code: "1-0:1.8.0".parse().expect("a code"),
        }
    }

    /// Promise 9: each type, each order, each factor: the digits that the registers say.
    #[test]
    fn values_are_exact() {
        use RegisterType::*;
        use WordOrder::*;
        for (kind, order, factor, words, text) in [
            (U16, HighFirst, "0.1", &[0xffff][..], "6553.5"),
            (I16, HighFirst, "0.1", &[0xffff], "-0.1"),
            (U32, HighFirst, "10", &[1, 2], "655380"),
            (U32, LowFirst, "1", &[2, 1], "65538"),
            (I32, HighFirst, "0.001", &[0xffff, 0xfffe], "-0.002"),
            (U64, HighFirst, "0.01", &[0xffff; 4], "184467440737095516.15"),
            (I64, LowFirst, "1", &[0xfffe, 0xffff, 0xffff, 0xffff], "-2"),
            (F32, HighFirst, "1000", &[0x3dcc, 0xcccd], "100"),
            (F64, HighFirst, "1", &[0x3fb9, 0x9999, 0x9999, 0x999a], "0.1"),
        ] {
            let register = register(7, kind, order, factor);
            let block = blocks(std::slice::from_ref(&register))[0];
            let picture = read(&[register], &[(block, words.to_vec())]);
            assert_eq!(picture.measured[0].value.to_string(), text, "{kind:?}");
        }
        let nan = register(0, F32, HighFirst, "1");
        let block = blocks(std::slice::from_ref(&nan))[0];
        assert_eq!(read(&[nan], &[(block, vec![0x7fc0, 0])]).left_out, ["1-0:1.8.0"]);
    }

    proptest! {
        /// Promise 6: whatever is listed, no block is too large, all that is listed is in one, and nothing reads past the end.
        #[test]
        fn blocks_hold_all(addresses in proptest::collection::vec((0_u16..=65_532, any::<bool>(), 0_usize..8), 1..100)) {
            let kinds = [RegisterType::U16, RegisterType::I16, RegisterType::U32, RegisterType::I32, RegisterType::U64, RegisterType::I64, RegisterType::F32, RegisterType::F64];
            let registers: Vec<_> = addresses.iter().map(|(address, input, kind)| Register {
                function: if *input { Function::Input } else { Function::Holding },
                ..register(*address, kinds[*kind], WordOrder::HighFirst, "1")
            }).collect();
            let blocks = blocks(&registers);
            prop_assert!(blocks.iter().all(|block| (1..=MAX_BLOCK).contains(&block.count) && block.end() <= 65_536));
            let answers: Vec<_> = blocks.iter().map(|block| (*block, vec![0; block.count.into()])).collect();
            prop_assert_eq!(read(&registers, &answers).measured.len(), registers.len());
            let short: Vec<_> = blocks.iter().map(|block| (*block, Vec::new())).collect();
            prop_assert_eq!(read(&registers, &short).left_out.len(), registers.len());
        }
    }
}

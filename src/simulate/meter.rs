//! A SunSpec meter's registers, fed by the simulated household: the adapter's figures, spread over three phases.

use super::adapter::State;

/// Where the marker stands.
pub const BASE: u16 = 40_000;

/// Registers of the common model.
const COMMON_LENGTH: u16 = 66;

/// What each phase has of the power, in hundredths.
const SHARES: [i64; 3] = [50, 30, 20];

/// Tenths of a volt between a phase and neutral.
const VOLTS: [i64; 3] = [2_304, 2_297, 2_311];

/// Of the whole house, in percent.
const POWER_FACTOR: i64 = 97;

/// Reactive power in thousandths of the active.
const REACTIVE: i64 = 250;

/// Not implemented, of a value and of a scale factor.
const NONE: u16 = 0x8000;

/// Not implemented, of a float.
const NAN: u32 = 0x7fc0_0000;

/// A meter of one of the eight models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meter {
    model: u16,
}

/// What a fault makes of the meter's import counter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tampering {
    /// Wh added to it; it turns over at 2^32 Wh.
    pub offset: u64,
    /// It shows half of what it counted.
    pub halved: bool,
}

/// One phase's figures, and with `phase` none the sum's.
struct Figures {
    /// Hundredths of an ampere.
    current: i64,
    /// Watts, volt-amperes, vars; import above zero.
    active: i64,
    apparent: i64,
    reactive: i64,
    /// Wh.
    imported: i64,
    exported: i64,
}

impl Meter {
    /// None where no meter has this model.
    pub fn new(model: u16) -> Option<Self> {
        matches!(model, 201..=204 | 211..=214).then_some(Self { model })
    }

    /// The commonest: 203, three phases in integers.
    pub fn three_phase() -> Self {
        Self { model: 203 }
    }

    /// All registers from the marker to the end of the chain.
    pub fn registers(&self, state: &State, tampering: Tampering) -> Vec<u16> {
        let mut registers = vec![0x5375, 0x6e53, 1, COMMON_LENGTH];
        for (text, length) in
            [("meterferry", 16), ("Simulated Meter", 16), ("", 8), (env!("CARGO_PKG_VERSION"), 8), (&state.number, 16)]
        {
            put_text(&mut registers, text, length);
        }
        // The unit id in the common model, and its padding.
        registers.extend([1, NONE]);
        let meter = if self.floats() { self.floating(state, tampering) } else { self.integers(state, tampering) };
        registers.extend([self.model, u16::try_from(meter.len()).unwrap_or(u16::MAX)]);
        registers.extend(meter);
        registers.extend([0xffff, 0]);
        registers
    }

    /// Where the meter model begins, counted from the marker.
    pub fn offset() -> u16 {
        2 + 2 + COMMON_LENGTH + 2
    }

    fn floats(&self) -> bool {
        self.model >= 211
    }

    /// Phases that this kind of connection has.
    fn phases(&self) -> usize {
        match self.model % 10 {
            1 => 1,
            2 => 2,
            _ => 3,
        }
    }

    /// Whether there is a neutral to measure against.
    fn has_neutral(&self) -> bool {
        self.model % 10 != 4
    }

    fn figures(&self, state: &State, tampering: Tampering, phase: Option<usize>) -> Figures {
        let phases = self.phases();
        let whole: i64 = SHARES[..phases].iter().sum();
        let share = |value: i64| match phase {
            None => value,
            Some(phase) => value * SHARES[phase] / whole,
        };
        let counted = |wh: u64| share(i64::try_from(wh).unwrap_or(i64::MAX / 1_000));
        let imported = if tampering.halved { state.imported_wh / 2 } else { state.imported_wh } + tampering.offset;
        let active = share(state.net_w);
        let apparent = active.abs() * 100 / POWER_FACTOR;
        let volts = VOLTS[phase.unwrap_or(0)];
        Figures {
            current: apparent * 1_000 / volts,
            active,
            apparent,
            reactive: active * REACTIVE / 1_000,
            imported: counted(imported),
            exported: counted(state.exported_wh),
        }
    }

    /// Tenths of a volt: mean and phases to neutral, mean and between the phases.
    fn volts(&self) -> [Option<i64>; 8] {
        let phases = self.phases();
        let neutral = |volts: i64, phase: usize| (self.has_neutral() && phase < phases).then_some(volts);
        let between = |number: usize, there: usize| {
            let (one, other) = (VOLTS[number], VOLTS[(number + 1) % 3]);
            // The square root of three; the two halves of a split phase stand opposite each other.
            let volts = if phases == 2 { one + other } else { (one + other) * 866 / 1_000 };
            (phases > there).then_some(volts)
        };
        let mean = VOLTS[..phases].iter().sum::<i64>() / phases as i64;
        [
            neutral(mean, 0),
            neutral(VOLTS[0], 0),
            neutral(VOLTS[1], 1),
            neutral(VOLTS[2], 2),
            between(0, 1),
            between(0, 1),
            between(1, 2),
            between(2, 2),
        ]
    }

    /// All quantities in the models' order.
    fn groups(&self, state: &State, tampering: Tampering) -> Vec<Group> {
        let all: Vec<_> = [None, Some(0), Some(1), Some(2)]
            .map(|phase: Option<usize>| {
                let there = phase.is_none_or(|phase| phase < self.phases());
                there.then(|| self.figures(state, tampering, phase))
            })
            .into();
        let each = |of: fn(&Figures) -> i64| all.iter().map(|figures| figures.as_ref().map(of)).collect::<Vec<_>>();
        let value = |values, scale| Group { values, scale, ratio: scale, counter: false, scaled: true };
        let counter = |of, scaled| Group { values: each(of), scale: 0, ratio: 0, counter: true, scaled };
        vec![
            value(each(|figures| figures.current), -2),
            value(self.volts().into(), -1),
            value(vec![Some(5_000)], -2),
            value(each(|figures| figures.active), 0),
            value(each(|figures| figures.apparent), 0),
            value(each(|figures| figures.reactive), 0),
            Group {
                // Percent as integers, a ratio as floats.
                ratio: -2,
                ..value(each(|figures| if figures.active < 0 { -POWER_FACTOR } else { POWER_FACTOR }), 0)
            },
            counter(|figures| figures.exported, false),
            counter(|figures| figures.imported, true),
            counter(|figures| figures.exported * 100 / POWER_FACTOR, false),
            counter(|figures| figures.imported * 100 / POWER_FACTOR, true),
            counter(|figures| figures.imported * REACTIVE / 1_000, false),
            counter(|figures| figures.exported / 50, false),
            counter(|figures| figures.exported * REACTIVE / 1_000, false),
            counter(|figures| figures.imported / 50, true),
        ]
    }

    fn integers(&self, state: &State, tampering: Tampering) -> Vec<u16> {
        let mut words = Vec::new();
        for group in self.groups(state, tampering) {
            for value in &group.values {
                match (value, group.counter) {
                    (Some(value), false) => words.push((*value).clamp(-32_767, 32_767) as u16),
                    (None, false) => words.push(NONE),
                    // A counter of 32 bits turns over.
                    (value, true) => {
                        let value = value.unwrap_or(0);
                        words.extend([(value >> 16) as u16, value as u16]);
                    }
                }
            }
            if group.scaled {
                words.push(group.scale.cast_unsigned());
            }
        }
        words.extend([0, 0]);
        words
    }

    fn floating(&self, state: &State, tampering: Tampering) -> Vec<u16> {
        let mut words = Vec::new();
        for group in self.groups(state, tampering) {
            for value in &group.values {
                let float = |value: i64| (value as f64 * 10_f64.powi(group.ratio.into())) as f32;
                let bits = value.map_or(NAN, |value| float(value).to_bits());
                words.extend([(bits >> 16) as u16, bits as u16]);
            }
        }
        words.extend([0, 0]);
        words
    }
}

/// The values of one quantity.
struct Group {
    values: Vec<Option<i64>>,
    /// The power of ten that they are of, as integers and as floats.
    scale: i16,
    ratio: i16,
    /// 32 bits, and 0 where it is not there.
    counter: bool,
    /// A scale factor follows.
    scaled: bool,
}

fn put_text(registers: &mut Vec<u16>, text: &str, length: usize) {
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize(length * 2, 0);
    registers.extend(bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])));
}

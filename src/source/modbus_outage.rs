//! What is said about one Modbus device: a warning when it stops to give readings or the reason changes, a line when it gives
//! them again, and silence (debug) in between.

use std::time::Instant;

use tracing::{debug, info, warn};

use crate::flapping::{Flapping, Word};
use crate::source::measured::{Fall, Flag};
use crate::source::modbus_fault::{Fault, Kind};

/// The chronicle of one device.
#[derive(Debug)]
pub(super) struct Chronicle {
    source: String,
    device: String,
    /// The reason last told of, since the last reading.
    current: Option<Kind>,
    failed: u64,
    /// What was said when it was found the last time: a device that is found again is no news.
    identity: String,
    flapping: Flapping,
    counted: bool,
    falls: Flapping,
    absurd: Flapping,
}

impl Chronicle {
    pub(super) fn new(source: &str, device: String) -> Self {
        Self {
            source: source.to_owned(),
            device,
            current: None,
            failed: 0,
            identity: String::new(),
            flapping: Flapping::default(),
            counted: false,
            falls: Flapping::default(),
            absurd: Flapping::default(),
        }
    }

    /// The device was found.
    pub(super) fn found(&mut self, identity: String) {
        let (source, device) = (&self.source, &self.device);
        if self.identity == identity {
            debug!(source, device, "connected to the Modbus device");
        } else {
            info!(source, device, meter = identity, "connected to the Modbus device");
            self.identity = identity;
        }
    }

    /// A poll gave a reading.
    pub(super) fn read(&mut self) {
        let (source, device, failed) = (&self.source, &self.device, std::mem::take(&mut self.failed));
        if self.current.take().is_none() {
            return;
        }
        if self.counted {
            debug!(source, device, failed, "the Modbus device gives readings again");
        } else {
            info!(source, device, failed, "the Modbus device gives readings again");
        }
    }

    /// A poll gave none. Returns whether it was told.
    pub(super) fn failed(&mut self, fault: &Fault, now: Instant) -> bool {
        self.failed += 1;
        let (source, device, words, hint) = (&self.source, &self.device, fault.words(), fault.cure());
        let news = self.current.replace(fault.kind()) != Some(fault.kind());
        if news {
            let word = self.flapping.outage(now);
            self.counted = word == Word::Counted;
            if word == Word::Last {
                warn!(
                    source,
                    device, "this device comes and goes: for the rest of the hour its faults are only counted"
                );
            }
        }
        let told = news && !self.counted;
        if told {
            warn!(source, device, error = %fault, hint, "{words}; trying again");
        } else {
            debug!(source, device, error = %fault, hint, "{words}; trying again");
        }
        told
    }

    /// Counters did not rise.
    pub(super) fn fell(&mut self, falls: &[Fall], now: Instant) {
        let Some(first) = falls.first() else { return };
        let source = &self.source;
        let counters = falls.iter().map(Fall::to_string).collect::<Vec<_>>().join(", ");
        let what = match first.flag {
            Flag::TurnedOver => "a counter has turned over and begins again: kept, and flagged in the reading",
            Flag::WentBack | Flag::Absurd => {
                "a counter went back: kept, and flagged in the reading; was the meter changed, or has it lost its memory?"
            }
        };
        match self.falls.outage(now) {
            Word::Said => warn!(source, counters, "{what}"),
            Word::Last => warn!(source, counters, "{what}; further ones are only counted for the rest of the hour"),
            Word::Counted => debug!(source, counters, "{what}"),
        }
    }

    /// Values cannot be right (`codes`), or are no numbers (`left_out`): said when that begins.
    pub(super) fn absurd(&mut self, codes: &str, left_out: &str, now: Instant) {
        let source = &self.source;
        let some = |codes| Some(codes).filter(|codes: &&str| !codes.is_empty());
        let (codes, left_out) = (some(codes), some(left_out));
        match self.absurd.outage(now) {
            Word::Said | Word::Last => warn!(
                source,
                codes,
                left_out,
                "values that no meter can have measured: kept and flagged in the reading (codes), or left out because they \
                 are no numbers (left_out)"
            ),
            Word::Counted => debug!(source, codes, left_out, "values that no meter can have measured"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn exception(code: u8) -> Fault {
        Fault::Exception { code, what: String::new() }
    }

    /// Promise 5: a fault is told once while it lasts, another one at once, and the same one anew after a reading.
    #[test]
    fn once_an_outage() {
        let (mut chronicle, now) = (Chronicle::new("m", "m:502 unit 1".to_owned()), Instant::now());
        let told: Vec<_> = (0..1_000).map(|_| chronicle.failed(&exception(6), now)).collect();
        assert_eq!(told.iter().filter(|told| **told).count(), 1);
        assert!(chronicle.failed(&exception(4), now));
        chronicle.read();
        assert!(chronicle.failed(&exception(4), now));
    }

    /// Promise 5: a device that fails at every other poll for a day does not fill the log.
    #[test]
    fn a_flapping_device() {
        let (mut chronicle, start) = (Chronicle::new("m", String::new()), Instant::now());
        let mut told = 0;
        for poll in 0..43_200 {
            told += u32::from(chronicle.failed(&exception(6), start + Duration::from_secs(2 * poll)));
            chronicle.read();
        }
        assert_eq!(told, 24 * 6);
    }
}

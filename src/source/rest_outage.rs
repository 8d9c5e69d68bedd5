//! What is said about one device: the first failure of its kind in an outage as a warning with the cure, the others at
//! debug; and once that it answers again, with how often it had failed.

use std::mem::{Discriminant, discriminant};
use std::time::Instant;

use tracing::{debug, info, warn};

use super::rest_trouble::Trouble;
use crate::flapping::{Flapping, Word};

/// The outages of one device.
#[derive(Debug)]
pub(super) struct Chronicle {
    source: String,
    device: String,
    /// The kind last said in this outage; none: it answers.
    current: Option<Discriminant<Trouble>>,
    /// Failures in this outage.
    failed: u64,
    /// Something of this outage was said.
    said: bool,
    /// It has answered before.
    met: bool,
    flapping: Flapping,
}

impl Chronicle {
    pub(super) fn new(source: &str, device: String) -> Self {
        let source = source.to_owned();
        Self { source, device, current: None, failed: 0, said: false, met: false, flapping: Flapping::default() }
    }

    /// A good answer came, in this way; `certificate` is the fingerprint of that which is trusted since its first use.
    pub(super) fn answered(&mut self, way: impl FnOnce() -> String, certificate: Option<&str>) {
        let (source, device, failed) = (&self.source, &self.device, self.failed);
        if !self.met {
            info!(source, device, way = way(), certificate, "the device answers");
        } else if self.said {
            info!(source, device, failed, "the device answers again");
        } else if self.current.is_some() {
            debug!(source, device, failed, "the device answers again");
        }
        (self.current, self.failed, self.said, self.met) = (None, 0, false, true);
    }

    /// An attempt failed. True where this was said.
    pub(super) fn failed(&mut self, trouble: &Trouble, now: Instant) -> bool {
        self.failed += 1;
        let kind = discriminant(trouble);
        let news = self.current.replace(kind) != Some(kind);
        let word = if news { self.flapping.outage(now) } else { Word::Counted };
        let (source, device, failed) = (&self.source, &self.device, self.failed);
        let (what, cure) = (trouble.what(), trouble.cure());
        if word == Word::Counted {
            debug!(source, device, failed, "{what}");
            return false;
        }
        self.said = true;
        let stop = if cure.ends_with('?') { "" } else { "." };
        warn!(source, device, "{what}; {cure}{stop} Trying again");
        if word == Word::Last {
            warn!(source, device, "this device comes and goes: for the rest of the hour its failures are only counted");
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Promise 5: each kind of failure is said once in an outage, and again in the next one.
    #[test]
    fn a_failure_is_said_once_an_outage() {
        let (mut chronicle, now) = (Chronicle::new("meter", "meter.lan:443".to_owned()), Instant::now());
        let html = Trouble::Html;
        chronicle.answered(String::new, None);
        assert!(chronicle.failed(&html, now) && !chronicle.failed(&html, now));
        assert!(chronicle.failed(&Trouble::Silent, now), "another kind");
        chronicle.answered(String::new, None);
        assert!(chronicle.failed(&html, now), "another outage");
    }

    /// Promise 5: a device that fails differently each second for a day does not fill the log.
    #[test]
    fn a_day_of_troubles_is_no_flood() {
        let (mut chronicle, start) = (Chronicle::new("meter", "meter.lan:443".to_owned()), Instant::now());
        let said = (0..86_400).filter(|second| {
            let trouble = if second % 2 == 0 { Trouble::Html } else { Trouble::Silent };
            chronicle.failed(&trouble, start + Duration::from_secs(*second))
        });
        assert_eq!(said.count(), 24 * 6);
    }
}

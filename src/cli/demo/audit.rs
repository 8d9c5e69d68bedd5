//! The audit: every document an adapter was told is safe, against every record a consumer read. Pure.

use std::collections::{HashMap, HashSet};
use std::fmt;

use crate::cli::units::count;
use crate::reading::Fingerprint;

/// What was said on the one end of the line and what was seen on the other. 16 to 100 bytes a document.
#[derive(Debug, Default)]
pub struct Audit {
    /// Whether a consumer has to drop repeats by `ce_id` (at-least-once).
    drops_repeats: bool,
    /// Of each acknowledged document: its device, and its place among that device's.
    published: HashMap<Fingerprint, Place>,
    /// Documents of each device so far.
    devices: HashMap<String, u64>,
    /// Devices that give registers, which the agent makes a document of: told apart by their import counter.
    counters: HashSet<String>,
    delivered: Vec<Delivered>,
    /// Contents in `delivered`.
    contents: HashSet<Fingerprint>,
    missing: u64,
    /// Documents that were acknowledged twice: adapters never make two equal ones.
    unexpected: u64,
    gaps: u64,
}

#[derive(Debug, Clone)]
struct Place {
    device: String,
    position: u64,
}

#[derive(Debug, Clone, Copy)]
struct Delivered {
    content: Fingerprint,
    /// Of `ce_id`.
    event: Option<Fingerprint>,
}

/// What the audit found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Documents that adapters were told are safe.
    pub published: u64,
    /// Of these: seen by the consumer, byte for byte, under their device's key.
    pub delivered: u64,
    /// Of these: not seen.
    pub lost: u64,
    /// Records whose document was seen before.
    pub repeated: u64,
    /// Documents seen after a later one of the same device.
    pub out_of_order: u64,
    /// Records dropped because their `ce_id` was seen before.
    pub dropped: u64,
    /// Records that no adapter was told is safe: sent and not acknowledged when the demo ended, or changed on their way.
    pub unknown: u64,
    /// Gap records.
    pub gaps: u64,
}

impl Audit {
    /// `drops_repeats`: as consumers of an at-least-once topic do, by `ce_id`.
    pub fn new(drops_repeats: bool) -> Self {
        Self { drops_repeats, ..Self::default() }
    }

    /// A device's readings are known by [`counter`], not by the bytes of a document.
    pub fn identify_by_counter(&mut self, device: &str) {
        self.counters.insert(device.to_owned());
    }

    /// A document is safe, by all that its adapter was told.
    pub fn published(&mut self, device: &str, document: &[u8]) {
        let position = self.devices.entry(device.to_owned()).or_default();
        let place = Place { device: device.to_owned(), position: *position };
        *position += 1;
        let content = content(device.as_bytes(), document);
        if self.published.insert(content, place).is_some() {
            self.unexpected += 1;
        } else if !self.contents.contains(&content) {
            self.missing += 1;
        }
    }

    /// The consumer read a reading.
    pub fn delivered(&mut self, key: &[u8], document: &[u8], ce_id: Option<&[u8]>) {
        let shown = str::from_utf8(key).ok().filter(|key| self.counters.contains(*key)).map(|_| imported_wh(document));
        let content = match shown {
            Some(imported_wh) => content(key, &imported_wh.map(counter).unwrap_or_default()),
            None => content(key, document),
        };
        if self.contents.insert(content) && self.published.contains_key(&content) {
            self.missing -= 1;
        }
        self.delivered.push(Delivered { content, event: ce_id.map(|id| Fingerprint::of(&[id])) });
    }

    /// The consumer read a gap record.
    pub fn gap(&mut self) {
        self.gaps += 1;
    }

    /// Different documents read so far: the figure of the live view.
    pub fn seen(&self) -> u64 {
        self.contents.len() as u64
    }

    /// Records read so far, repeats included.
    pub fn records(&self) -> u64 {
        self.delivered.len() as u64 + self.gaps
    }

    /// Acknowledged documents that the consumer has not read yet.
    pub fn missing(&self) -> u64 {
        self.missing
    }

    /// Some of the acknowledged documents that the consumer has not read, as device and number, at most `count` of them.
    pub fn examples_missing(&self, count: usize) -> Vec<(String, u64)> {
        let missing = self.published.iter().filter(|(content, _)| !self.contents.contains(content));
        let mut missing: Vec<_> = missing.map(|(_, place)| (place.device.clone(), place.position + 1)).collect();
        missing.sort_unstable();
        missing.truncate(count);
        missing
    }

    /// Compares all with all.
    pub fn verdict(&self) -> Verdict {
        let mut verdict = Verdict { published: self.published.len() as u64, gaps: self.gaps, ..Verdict::default() };
        verdict.repeated = self.unexpected;
        let (mut events, mut contents) = (HashSet::new(), HashSet::new());
        let mut newest: HashMap<&str, u64> = HashMap::new();
        for Delivered { content, event } in &self.delivered {
            let is_new_event = event.is_none_or(|event| events.insert(event));
            if self.drops_repeats && !is_new_event {
                verdict.dropped += 1;
                continue;
            }
            if !contents.insert(content) {
                verdict.repeated += 1;
                continue;
            }
            let Some(place) = self.published.get(content) else {
                verdict.unknown += 1;
                continue;
            };
            verdict.delivered += 1;
            let newest = newest.entry(&place.device).or_default();
            verdict.out_of_order += u64::from(place.position < *newest);
            *newest = place.position.max(*newest);
        }
        verdict.lost = verdict.published - verdict.delivered;
        verdict
    }
}

impl Verdict {
    /// Whether nothing is wrong. `unacknowledged`: documents that adapters sent and were told nothing about, which may
    /// be on the other side or not.
    pub fn is_clean(&self, unacknowledged: u64) -> bool {
        let Self { published, lost, repeated, out_of_order, unknown, gaps, .. } = *self;
        published > 0 && lost == 0 && repeated == 0 && out_of_order == 0 && gaps == 0 && unknown <= unacknowledged
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { published, delivered, lost, repeated, out_of_order, .. } = *self;
        let [published, delivered, lost, repeated, out_of_order] =
            [published, delivered, lost, repeated, out_of_order].map(count);
        write!(
            f,
            "{published} published, {delivered} delivered, {lost} lost, {repeated} repeated, {out_of_order} out of order"
        )
    }
}

/// What tells the readings of a device apart whose import counter rises with each.
pub fn counter(imported_wh: u64) -> Vec<u8> {
    format!("{imported_wh} Wh").into_bytes()
}

fn imported_wh(document: &[u8]) -> Option<u64> {
    let document: serde_json::Value = serde_json::from_slice(document).ok()?;
    document.get("1-0:1.8.0")?.get("value")?.as_u64()
}

fn content(device: &[u8], document: &[u8]) -> Fingerprint {
    Fingerprint::of(&[device, document])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Ten documents of each of two devices, delivered as they were published, under rising ids.
    fn records() -> Vec<(&'static str, String, String)> {
        (0..20).map(|n| (["a", "b"][n % 2], format!("document {n}"), format!("queue-{n}"))).collect()
    }

    fn audit(drops_repeats: bool, delivered: &[(&str, String, String)]) -> Verdict {
        let mut audit = Audit::new(drops_repeats);
        for (device, document, _) in records() {
            audit.published(device, document.as_bytes());
        }
        for (device, document, id) in delivered {
            audit.delivered(device.as_bytes(), document.as_bytes(), Some(id.as_bytes()));
        }
        let verdict = audit.verdict();
        assert_eq!((audit.missing(), audit.examples_missing(100).len() as u64), (verdict.lost, verdict.lost));
        audit.verdict()
    }

    /// Promise 9: what is right is called right.
    #[test]
    fn a_faultless_line_is_clean() {
        let verdict = audit(false, &records());
        assert!(verdict.is_clean(0));
        assert_eq!(verdict.to_string(), "20 published, 20 delivered, 0 lost, 0 repeated, 0 out of order");
        assert!(!Audit::new(false).verdict().is_clean(0), "nothing published proves nothing");
    }

    /// Promise 9: a document under another device's key, or with one byte changed, is not delivered.
    #[test]
    fn a_changed_record_is_lost_and_unknown() {
        let mut under_another_key = records();
        under_another_key[4].0 = "b";
        let mut changed = records();
        changed[4].1.push(' ');
        for records in [under_another_key, changed] {
            let verdict = audit(true, &records);
            assert_eq!((verdict.lost, verdict.unknown), (1, 1));
            assert!(!verdict.is_clean(0));
        }
    }

    /// Promise 9: what was sent and never acknowledged may be there, and no more of it than that.
    #[test]
    fn unacknowledged_documents_may_be_there() {
        let mut records = records();
        records.push(("a", "sent, not acknowledged".into(), "queue-20".into()));
        let verdict = audit(true, &records);
        assert_eq!((verdict.unknown, verdict.lost), (1, 0));
        assert!(verdict.is_clean(1));
        assert!(!verdict.is_clean(0));
    }

    /// Promise 9: a meter's reading is known by its counter, whatever the document around it.
    #[test]
    fn registers_are_known_by_their_counter() {
        let mut audit = Audit::new(false);
        audit.identify_by_counter("meter");
        let record = |wh: u64| format!(r#"{{"1-0:1.8.0":{{"value":{wh}}},"name":"meter"}}"#);
        (1..=3).for_each(|wh| audit.published("meter", &counter(wh)));
        audit.delivered(b"meter", record(1).as_bytes(), None);
        audit.delivered(b"meter", record(3).as_bytes(), None);
        audit.delivered(b"meter", record(3).as_bytes(), None);
        audit.delivered(b"meter", b"{}", None);
        let Verdict { delivered, lost, repeated, unknown, .. } = audit.verdict();
        assert_eq!((delivered, lost, repeated, unknown), (2, 1, 1, 1));
    }

    /// Promise 5: a gap record says that something is missing.
    #[test]
    fn a_gap_is_not_clean() {
        let mut audit = Audit::new(false);
        audit.published("a", b"x");
        audit.delivered(b"a", b"x", None);
        audit.gap();
        assert!(!audit.verdict().is_clean(0));
    }

    proptest! {
        /// Promises 3 and 4: whichever record is dropped, repeated or moved, the audit says so.
        #[test]
        fn every_fault_is_found(at in 0usize..20, to in 0usize..20, drops_repeats: bool) {
            let mut dropped = records();
            dropped.remove(at);
            let verdict = audit(drops_repeats, &dropped);
            prop_assert_eq!((verdict.lost, verdict.delivered), (1, 19));
            prop_assert!(!verdict.is_clean(100));

            // The same id again is what at-least-once allows, and only that.
            let mut repeated = records();
            repeated.insert(to, repeated[at].clone());
            let verdict = audit(drops_repeats, &repeated);
            prop_assert_eq!(verdict.repeated, u64::from(!drops_repeats));
            prop_assert_eq!(verdict.dropped, u64::from(drops_repeats));
            // A repeat ahead of its turn overtakes the documents of its device in between.
            let overtakes = to + 1 < at;
            prop_assert_eq!(verdict.out_of_order > 0, overtakes);
            prop_assert_eq!(verdict.is_clean(0), drops_repeats && !overtakes);

            let mut another = records();
            another.push((another[at].0, another[at].1.clone(), "queue-21".into()));
            let verdict = audit(drops_repeats, &another);
            prop_assert_eq!(verdict.repeated, 1);
            prop_assert!(!verdict.is_clean(0));

            let mut swapped = records();
            swapped.swap(at, to);
            let verdict = audit(drops_repeats, &swapped);
            prop_assert_eq!((verdict.lost, verdict.repeated), (0, 0));
            prop_assert_eq!(verdict.out_of_order > 0, at.abs_diff(to) > 1);
        }
    }
}

//! What a rescue says in the end.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::copy::Record;
use crate::agent::drain::Drained;
use crate::cli::units::{bytes, count};
use crate::queue::mend::Mended;

/// Everything that is told.
pub struct Summary {
    pub work: PathBuf,
    pub record: Record,
    pub mended: Mended,
    /// None where nothing was to be sent.
    pub drained: Option<Drained>,
    pub letters: u64,
}

impl Summary {
    /// Whether everything that waited could be read.
    pub fn is_whole(&self) -> bool {
        self.mended.lost.is_empty() && !self.mended.open_end
    }

    pub fn text(&self) -> String {
        let mut rows = vec![("read", self.read()), ("whole", format!("{} records", count(self.mended.records)))];
        if !self.mended.lost.is_empty() {
            rows.push(("lost", self.lost()));
        }
        if self.mended.open_end {
            rows.push(("newest file", "damaged: there may have been more at its end".to_owned()));
        }
        if self.mended.forked {
            rows.push(("queue.toml", "cannot be read: what waits goes on under a new queue id".to_owned()));
        }
        if let Some(drained) = &self.drained {
            rows.push(("sent now", Self::sent(drained)));
            if drained.known > 0 {
                rows.push(("there already", count(drained.known)));
            }
            if drained.forked {
                rows.push(("doubt", "Kafka's resume point does not fit: some may be there twice".to_owned()));
            }
        }
        if self.letters > 0 {
            let command = format!("meterferry dead-letters list --path {}", self.work.display());
            rows.push(("dead letters", format!("{}: {command}", count(self.letters))));
        }
        rows.push(("copy", format!("{}, kept", self.work.display())));
        let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let mut text: String = rows.iter().map(|(name, value)| format!("{name:<width$}  {value}\n")).collect();
        text.push_str(self.verdict());
        text
    }

    fn read(&self) -> String {
        let (unreadable, places) = self.record.unreadable();
        let size = bytes(self.record.size());
        match unreadable {
            0 => format!("all {size} in {} files", self.record.file.len()),
            n => format!("{size} in {} files, but for {} in {places} places", self.record.file.len(), bytes(n)),
        }
    }

    fn lost(&self) -> String {
        const SHOWN: usize = 3;
        let lost = &self.mended.lost;
        let many: u64 = lost.iter().map(|lost| lost.last - lost.first + 1).sum();
        let ranges: Vec<_> = lost.iter().take(SHOWN).map(|lost| format!("{} to {}", lost.first, lost.last)).collect();
        let more = if lost.len() > SHOWN { format!(" and {} more", lost.len() - SHOWN) } else { String::new() };
        format!("{} records: {}{more}", count(many), ranges.join(", "))
    }

    fn sent(drained: &Drained) -> String {
        match drained.gap_records {
            0 => count(drained.sent),
            gaps => format!("{}, {} of them gap records", count(drained.sent), count(gaps)),
        }
    }

    fn verdict(&self) -> &'static str {
        match &self.drained {
            None => "The copy is complete. Nothing was sent.\n",
            Some(drained) if drained.left > 0 => "Not everything is in Kafka yet. Run it again, it goes on.\n",
            Some(_) if !self.is_whole() => {
                "Everything that could be read is in Kafka. What could not is explained there.\n"
            }
            Some(_) => "Everything that waited is in Kafka.\n",
        }
    }

    pub fn json(&self) -> Value {
        let (unreadable, places) = self.record.unreadable();
        let lost =
            self.mended.lost.iter().map(|lost| json!({"first": lost.first, "last": lost.last, "reason": lost.reason}));
        json!({
            "copy": self.work,
            "bytes": self.record.size(),
            "unreadable_bytes": unreadable,
            "unreadable_places": places,
            "records": self.mended.records,
            "lost": lost.collect::<Vec<_>>(),
            "open_end": self.mended.open_end,
            "queue_toml_unreadable": self.mended.forked,
            "sent": self.drained.as_ref().map(|drained| drained.sent),
            "gap_records": self.drained.as_ref().map(|drained| drained.gap_records),
            "known_in_kafka": self.drained.as_ref().map(|drained| drained.known),
            "left": self.drained.as_ref().map(|drained| drained.left),
            "forked": self.drained.as_ref().map(|drained| drained.forked),
            "dead_letters": self.letters,
            "whole": self.is_whole(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::copy::Copied;
    use super::*;
    use crate::queue::Lost;

    fn summary() -> Summary {
        let file = Copied {
            name: "00000000000000000001.redb".into(),
            size: 450 << 20,
            modified: 0,
            unreadable: 0,
            places: 0,
            done: true,
        };
        Summary {
            work: "/root/.local/state/meterferry/rescue/ab".into(),
            record: Record { complete: true, found: None, file: vec![file] },
            mended: Mended { records: 1_000_000, ..Mended::default() },
            drained: Some(Drained { known: 20, sent: 599_980, ..Drained::default() }),
            letters: 0,
        }
    }

    /// Promise 3: what a person is told.
    #[test]
    fn rescue_in_words() {
        insta::assert_snapshot!("whole", summary().text());
        let mut damaged = summary();
        damaged.record.file[0].unreadable = 8192;
        damaged.record.file[0].places = 2;
        let lost = |first| Lost { first, last: first + 9, reason: "damaged on the disk".into() };
        damaged.mended.lost = (1..7).map(|n| lost(n * 1_000)).collect();
        damaged.mended.open_end = true;
        damaged.mended.forked = true;
        damaged.letters = 3;
        if let Some(drained) = &mut damaged.drained {
            drained.gap_records = 6;
            drained.forked = true;
        }
        insta::assert_snapshot!("damaged", damaged.text());
        assert!(!damaged.is_whole());
    }
}

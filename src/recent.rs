//! The last warnings and errors, kept in memory for `meterferry status`.

use std::collections::VecDeque;
use std::fmt::{Debug, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// So many are kept.
const KEPT: usize = 20;
/// Characters of one.
const LONGEST: usize = 400;

static WORDS: Mutex<VecDeque<Words>> = Mutex::new(VecDeque::new());

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Words {
    /// Milliseconds since 1970, by the clock of that moment.
    pub at_ms: i64,
    /// Otherwise it is a warning.
    pub is_error: bool,
    /// The module that said it: `meterferry::forwarder::trouble`.
    pub target: String,
    pub text: String,
}

impl Words {
    /// Whether a module, or one below it, has said it.
    pub fn is_of(&self, module: &str) -> bool {
        self.target.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    }
}

/// The last warnings and errors of this process, the oldest first.
pub fn words() -> Vec<Words> {
    WORDS.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
}

/// Remembers warnings and errors as they are logged.
#[derive(Debug, Clone, Copy, Default)]
pub struct Recent;

impl<S: Subscriber> Layer<S> for Recent {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = *event.metadata().level();
        if level > Level::WARN {
            return;
        }
        let mut line = Line::default();
        event.record(&mut line);
        let mut text = line.message + &line.fields;
        if let Some((at, _)) = text.char_indices().nth(LONGEST) {
            text.truncate(at);
            text.push('…');
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let words = Words {
            at_ms: i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            is_error: level == Level::ERROR,
            target: event.metadata().target().to_owned(),
            text,
        };
        let mut all = WORDS.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() == KEPT {
            all.pop_front();
        }
        all.push_back(words);
    }
}

#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // A string takes everything.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// Promises 6 and 9: the last warnings and errors are kept, and no more of them than a person reads.
    #[test]
    fn the_last_words_are_kept() {
        tracing::subscriber::with_default(tracing_subscriber::registry().with(Recent), || {
            for number in 0..30 {
                tracing::warn!(number, who = %"me", "it went wrong");
                tracing::info!("all is well");
            }
            tracing::error!("{}", "x".repeat(1_000));
        });
        // Other tests of this process may log into their own.
        let words = words();
        assert_eq!(words.len(), KEPT);
        let last = words.last().expect("some");
        assert!(last.is_error && last.text.chars().count() == LONGEST + 1 && last.is_of("meterferry::recent"));
        assert!(!last.is_of("meterferry::rec"));
        assert_eq!(words[KEPT - 2].text, "it went wrong number=29 who=me");
    }
}

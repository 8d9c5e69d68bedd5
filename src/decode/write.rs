//! Writing JSON member by member, so that numbers keep every digit and the order stays.

use std::fmt::{Display, Write};

/// An object that is being written.
#[derive(Debug)]
pub struct Object(String);

impl Object {
    /// An object without members.
    #[allow(clippy::new_without_default, reason = "it is begun, not defaulted")]
    pub fn new() -> Self {
        Self("{".to_owned())
    }

    fn key(&mut self, key: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.0.push_str(&quoted(key));
        self.0.push(':');
    }

    /// A member whose value is a text.
    pub fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        self.0.push_str(&quoted(value));
    }

    /// A member whose value is written as JSON already.
    pub fn raw(&mut self, key: &str, value: impl Display) {
        self.key(key);
        // Writing to a String does not fail.
        let _ = write!(self.0, "{value}");
    }

    /// The whole object.
    pub fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }

    /// Without its end.
    pub fn open(self) -> String {
        self.0
    }
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a text is always JSON")
}

//! Places in a JSON document.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// Keys within keys.
const DEEPEST: usize = 16;

/// Where a value stands: keys and indexes with `/` between them (RFC 6901 without the first slash, so a `/` in a key is
/// written `~1` and a `~` is `~0`). `*` is any one key or index; nothing is the whole document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path(Vec<Step>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    Any,
}

/// Why a text is no path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("must have at most {DEEPEST} keys")]
    TooDeep,
    #[error("has a ~ that is neither ~0 nor ~1")]
    Escape,
}

impl Path {
    /// Whether it is the place of `keys`, or one of its places.
    pub(super) fn fits(&self, keys: &[Cow<'_, str>]) -> bool {
        self.0.len() == keys.len() && self.begins(keys)
    }

    /// Whether `keys` lead to it, or into it.
    pub(super) fn begins(&self, keys: &[Cow<'_, str>]) -> bool {
        self.0.len() <= keys.len()
            && self.0.iter().zip(keys).all(|(step, key)| match step {
                Step::Key(own) => own == key,
                Step::Any => true,
            })
    }
}

/// Keys as a path writes them.
pub(super) fn shown(keys: &[Cow<'_, str>]) -> String {
    let keys: Vec<_> = keys.iter().map(|key| key.replace('~', "~0").replace('/', "~1")).collect();
    keys.join("/")
}

impl FromStr for Path {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let mut steps = Vec::new();
        for key in text.split('/') {
            if steps.len() == DEEPEST {
                return Err(PathError::TooDeep);
            }
            let plain = key.replace("~0", "").replace("~1", "");
            steps.push(match key {
                "*" => Step::Any,
                _ if plain.contains('~') => return Err(PathError::Escape),
                _ => Step::Key(key.replace("~1", "/").replace("~0", "~")),
            });
        }
        Ok(Self(steps))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("/")?;
            }
            match step {
                Step::Key(key) => f.write_str(&shown(&[Cow::Borrowed(key)]))?,
                Step::Any => f.write_str("*")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(path: &str, keys: &[&str]) -> bool {
        let keys: Vec<_> = keys.iter().map(|key| Cow::Borrowed(*key)).collect();
        path.parse::<Path>().expect("a path").fits(&keys)
    }

    /// Promise 5: a field is found where the table says, and nowhere else.
    #[test]
    fn places() {
        assert!(
            fits("", &[])
                && fits("power", &["power"])
                && fits("a/b", &["a", "b"])
                && fits("em:0/x.y", &["em:0", "x.y"])
        );
        assert!(
            fits("*/Total_in", &["SML", "Total_in"])
                && fits("*/Total_in", &["MT631", "Total_in"])
                && fits("l/0", &["l", "0"])
        );
        assert!(fits("a~1b/~0", &["a/b", "~"]) && fits("~01", &["~1"]));
        assert!(
            !fits("", &["a"])
                && !fits("a", &[])
                && !fits("a", &["a", "b"])
                && !fits("*", &["a", "b"])
                && !fits("A", &["a"])
        );
        assert_eq!("~2".parse::<Path>(), Err(PathError::Escape));
        assert_eq!(["a"; 17].join("/").parse::<Path>(), Err(PathError::TooDeep));
        for text in ["", "a/*/b", "a~1b/~0", "*"] {
            assert_eq!(text.parse::<Path>().expect("a path").to_string(), text);
        }
    }
}

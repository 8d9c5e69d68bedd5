//! Places in an MQTT topic.

use std::fmt;
use std::str::FromStr;

/// Levels of a pattern; a topic may have more, and then fits only where the last one takes the rest.
const MOST: usize = 32;

/// A topic with holes: `tele/{device}/SENSOR`.
///
/// A level is a text, in which `*` stands for any letters; `+` for anything; or `{device}`, `{code}` or `{name}`, which
/// take what stands there. `{device=shelly*}` takes only what looks so; `{device#}`, as the last level, takes all that
/// follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicPattern {
    levels: Vec<Level>,
    text: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Level {
    Like(String),
    Any,
    Device(String),
    DeviceAndRest,
    Code,
    Name,
}

/// What a pattern took out of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Captures<'t> {
    pub device: Option<&'t str>,
    pub code: Option<&'t str>,
    pub name: Option<&'t str>,
}

/// Why a text is no pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TopicPatternError {
    #[error("must have 1 to {MOST} levels")]
    Levels,
    #[error("has a hole that is none of {{device}}, {{device=...}}, {{device#}}, {{code}} and {{name}}")]
    Hole,
    #[error("has the same hole twice")]
    Twice,
    #[error("has {{device#}} before its last level")]
    NotLast,
}

impl TopicPattern {
    /// What it takes out of `topic`; none where the topic does not fit.
    pub fn captures<'t>(&self, topic: &'t str) -> Option<Captures<'t>> {
        let mut found = Captures::default();
        let mut rest = Some(topic);
        for level in &self.levels {
            let here = rest?;
            let (one, after) = here.split_once('/').map_or((here, None), |(one, after)| (one, Some(after)));
            rest = after;
            let fits = match level {
                Level::Any => true,
                Level::Like(pattern) => is_like(one, pattern),
                Level::Device(pattern) => {
                    found.device = Some(one);
                    is_like(one, pattern)
                }
                Level::DeviceAndRest => {
                    (found.device, rest) = (Some(here), None);
                    true
                }
                Level::Code => found.code.replace(one).is_none(),
                Level::Name => found.name.replace(one).is_none(),
            };
            if !fits {
                return None;
            }
        }
        rest.is_none().then_some(found)
    }

    /// Whether it has the hole `{code}`.
    pub fn has_code(&self) -> bool {
        self.levels.contains(&Level::Code)
    }

    /// Whether it has the hole `{name}`.
    pub fn has_name(&self) -> bool {
        self.levels.contains(&Level::Name)
    }
}

/// Whether `text` is what `pattern` says, in which each `*` is any letters.
fn is_like(text: &str, pattern: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return text == pattern };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let mut parts = rest.split('*').collect::<Vec<_>>();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match text.find(part) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    text.ends_with(last)
}

impl FromStr for TopicPattern {
    type Err = TopicPatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut levels = Vec::new();
        for level in text.split('/') {
            if levels.len() == MOST || text.is_empty() {
                return Err(TopicPatternError::Levels);
            }
            if levels.contains(&Level::DeviceAndRest) {
                return Err(TopicPatternError::NotLast);
            }
            let hole = level.strip_prefix('{').and_then(|hole| hole.strip_suffix('}'));
            let level = match (level, hole) {
                ("+", _) => Level::Any,
                (_, Some("device")) => Level::Device("*".to_owned()),
                (_, Some("device#")) => Level::DeviceAndRest,
                (_, Some("code")) => Level::Code,
                (_, Some("name")) => Level::Name,
                (_, Some(hole)) => match hole.strip_prefix("device=") {
                    Some(like) if !like.contains(['{', '}']) => Level::Device(like.to_owned()),
                    _ => return Err(TopicPatternError::Hole),
                },
                (level, None) if level.contains(['{', '}', '#', '+']) => return Err(TopicPatternError::Hole),
                (level, None) => Level::Like(level.to_owned()),
            };
            let same = |other: &Level| std::mem::discriminant(other) == std::mem::discriminant(&level);
            if !matches!(level, Level::Like(_) | Level::Any) && levels.iter().any(same) {
                return Err(TopicPatternError::Twice);
            }
            levels.push(level);
        }
        Ok(Self { levels, text: text.to_owned() })
    }
}

impl fmt::Display for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn device<'t>(pattern: &str, topic: &'t str) -> Option<&'t str> {
        pattern.parse::<TopicPattern>().expect("a pattern").captures(topic).map(|found| found.device.unwrap_or(""))
    }

    /// Promise 4: the device's name is what stands in its place of the topic.
    #[test]
    fn names_are_taken_out_of_topics() {
        for (pattern, topic, name) in [
            ("tele/{device}/SENSOR", "tele/cellar/SENSOR", Some("cellar")),
            ("tele/{device}/SENSOR", "tele/cellar/STATE", None),
            ("tele/{device}/SENSOR", "tele/a/b/SENSOR", None),
            ("tele/{device}/SENSOR", "tele/cellar/SENSOR/x", None),
            ("tele/{device}/SENSOR", "tele/cellar", None),
            ("zigbee2mqtt/{device#}", "zigbee2mqtt/kitchen/plug", Some("kitchen/plug")),
            ("zigbee2mqtt/{device#}", "zigbee2mqtt", None),
            (
                "shellies/{device=shellyem3-*}/emeter/0/power",
                "shellies/shellyem3-AB12/emeter/0/power",
                Some("shellyem3-AB12"),
            ),
            ("shellies/{device=shellyem3-*}/emeter/0/power", "shellies/shellyem-AB12/emeter/0/power", None),
            ("a/+/c", "a/b/c", Some("")),
            ("a/*x*y/c", "a/1x2y/c", Some("")),
            ("a/*x*y/c", "a/1y2x/c", None),
            ("a", "a", Some("")),
            ("a", "", None),
        ] {
            assert_eq!(device(pattern, topic), name, "{pattern} {topic}");
        }
        let pattern: TopicPattern = "sml2mqtt/{device}/{code}".parse().expect("a pattern");
        let found = pattern.captures("sml2mqtt/0a01/0100010800ff").expect("it fits");
        assert_eq!((found.device, found.code), (Some("0a01"), Some("0100010800ff")));
        assert!(pattern.has_code() && !pattern.has_name());
    }

    /// A hole that does not exist, or stands where it takes nothing, is said.
    #[test]
    fn what_is_no_pattern_is_refused() {
        for (text, error) in [
            ("", TopicPatternError::Levels),
            ("a/{meter}", TopicPatternError::Hole),
            ("a/x{device}", TopicPatternError::Hole),
            ("a/#", TopicPatternError::Hole),
            ("{device}/{device}", TopicPatternError::Twice),
            ("{device#}/x", TopicPatternError::NotLast),
        ] {
            assert_eq!(text.parse::<TopicPattern>(), Err(error), "{text}");
        }
    }

    proptest! {
        /// Promise 5: no pattern and no topic makes it panic.
        #[test]
        fn any_topic(pattern in "(\\PC{0,10}|[a+{}#=*/]{0,12}|(\\{(device|code|name|device=a\\*)\\}|[ab*]{0,4}|/){0,6})", topic in "[ab/🔌]{0,12}") {
            if let Ok(pattern) = pattern.parse::<TopicPattern>() {
                let _ = pattern.captures(&topic);
            }
        }
    }
}

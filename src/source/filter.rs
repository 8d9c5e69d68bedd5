//! Topic filters with wildcards (MQTT 3.1.1, 4.7). Pure.

/// Whether `topic` matches `filter`. Wildcards at the first level do not match topics that begin with `$`; `a/#`
/// matches `a` too.
pub fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut levels = topic.split('/');
    for wanted in filter.split('/') {
        if wanted == "#" {
            return true;
        }
        match levels.next() {
            Some(level) if wanted == "+" || wanted == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

/// Whether one of `filters` matches `topic`.
pub fn any_matches(filters: &[String], topic: &str) -> bool {
    filters.iter().any(|filter| matches(filter, topic))
}

/// Whether a PUBLISH may carry this topic: not empty, no wildcard, no NUL.
pub fn is_topic(topic: &str) -> bool {
    !topic.is_empty() && !topic.contains(['+', '#', '\0'])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Promise 5: what a listener ignores is what the configuration says, by MQTT's own rules.
    #[test]
    fn wildcards_match_as_the_standard_says() {
        for (filter, topic) in [
            ("sma", "sma"),
            ("+", "sma"),
            ("#", "sma/a/b"),
            ("sma/#", "sma"),
            ("sma/#", "sma/a/b"),
            ("+/a", "/a"),
            ("sma/+", "sma/"),
            ("sma/+/power", "sma/1/power"),
            ("$SYS/#", "$SYS/broker/load"),
            ("$SYS/+", "$SYS/broker"),
            ("/+", "/sma"),
        ] {
            assert!(matches(filter, topic), "{filter} {topic}");
        }
        for (filter, topic) in [
            ("sma", "sma/"),
            ("sma", "SMA"),
            ("sma/+", "sma"),
            ("+", "sma/a"),
            ("+", "/sma"),
            ("sma/#", "smart"),
            ("#", "$SYS/broker"),
            ("+/broker", "$SYS/broker"),
            ("sma/+/power", "sma/1/2/power"),
        ] {
            assert!(!matches(filter, topic), "{filter} {topic}");
        }
    }

    proptest! {
        /// Promise 5: no topic, however odd, breaks the matching.
        #[test]
        fn any_topic_matches_itself_and_never_panics(filter in "\\PC{0,20}", topic in "[^+#]{0,20}") {
            let _ = matches(&filter, &topic);
            prop_assert!(matches(&topic, &topic));
            prop_assert_eq!(matches("#", &topic), !topic.starts_with('$'));
        }
    }
}

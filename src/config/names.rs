//! Names that others give the rules for: agents, sources, Kafka topics, hosts and ports, MQTT topic filters.

use std::net::{IpAddr, Ipv6Addr};

use super::settings::DEVICE;

/// An agent's id: 1 to 63 letters, digits, `-` and `_`. No dot: `meterferry.<agent id>.` is an ACL prefix and must mean
/// one agent.
pub fn agent_id(id: &str) -> Result<(), String> {
    let fits = (1..=63).contains(&id.len()) && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if fits {
        Ok(())
    } else {
        Err("must be 1 to 63 of the letters a-z A-Z, digits, - and _ (no dot: it ends the prefix in Kafka's ACLs)"
            .to_owned())
    }
}

/// A source's name: 1 to 64 letters, digits, `-`, `_` and `.`.
pub fn source_name(name: &str) -> Result<(), String> {
    let fits = (1..=64).contains(&name.len()) && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if fits { Ok(()) } else { Err("must be 1 to 64 of the letters a-z A-Z, digits, -, _ and .".to_owned()) }
}

/// A topic's name as `org.apache.kafka.common.internals.Topic` allows it, and none of Kafka's own.
pub fn kafka_topic(name: &str) -> Result<(), String> {
    let legal = name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    if !(1..=249).contains(&name.len()) || !legal || name == "." || name == ".." {
        return Err("must be 1 to 249 of the letters a-z A-Z, digits, ., _ and -, and not . or ..".to_owned());
    }
    if ["__consumer_offsets", "__transaction_state", "__share_group_state", "__cluster_metadata"].contains(&name) {
        return Err("must not be a topic of Kafka's own".to_owned());
    }
    Ok(())
}

/// A source's topic: a topic in which `{device}` may stand once for the device's name.
pub fn source_topic(name: &str) -> Result<(), String> {
    let plain = name.replacen(DEVICE, "x", 1);
    if plain.contains(['{', '}']) {
        return Err("may hold {device} and {source}, each once, and no other braces".to_owned());
    }
    // Whoever names a device would name any topic, Kafka's own among them.
    if let Some((front, _)) = name.split_once(DEVICE)
        && (front.starts_with("__") || !front.contains(|c: char| c.is_ascii_alphanumeric()))
    {
        return Err("must have a letter or a digit in front of {device}, and no __, such as meters.{device}".to_owned());
    }
    kafka_topic(&plain)
}

/// A host name or address; IPv6 with or without brackets, given back without.
pub fn host(text: &str) -> Result<String, String> {
    if let Some(inner) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        return inner
            .parse::<Ipv6Addr>()
            .map(|_| inner.to_owned())
            .map_err(|_| "must hold an IPv6 address in its brackets".to_owned());
    }
    if text.parse::<IpAddr>().is_ok() {
        return Ok(text.to_owned());
    }
    // Names on a local network may hold an underscore, against RFC 952.
    let label = |label: &str| {
        (1..=63).contains(&label.len()) && label.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_')
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    let numeric = name.chars().all(|c| c.is_ascii_digit() || c == '.');
    if name.len() > 253 || numeric || !name.split('.').all(label) {
        return Err("must be a host name or an address".to_owned());
    }
    Ok(text.to_owned())
}

/// A SHA-256 as certificates are known by: 64 hexadecimal digits, with or without colons.
pub fn fingerprint(text: &str) -> Result<[u8; 32], String> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !b": ".contains(byte)).collect();
    let wrong =
        |what: &str| Err(format!("must be a SHA-256, 64 hexadecimal digits with or without colons, and {what}"));
    if digits.len() != 64 {
        return match digits.len() {
            40 => wrong("has 40: that is a SHA-1"),
            length => wrong(&format!("has {length}")),
        };
    }
    let mut hash = [0; 32];
    for (byte, pair) in hash.iter_mut().zip(digits.chunks(2)) {
        let (Some(high), Some(low)) = (char::from(pair[0]).to_digit(16), char::from(pair[1]).to_digit(16)) else {
            return wrong("holds another character");
        };
        *byte = (high * 16 + low) as u8;
    }
    Ok(hash)
}

/// As browsers and openssl show it: `AB:CD:…`.
pub fn show_fingerprint(fingerprint: &[u8; 32]) -> String {
    fingerprint.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

/// `host:port` as a person reads it, an IPv6 address in brackets.
pub fn show_address(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// `host:port`, an IPv6 address in brackets: the host without brackets, and the port.
pub fn host_and_port(text: &str) -> Result<(String, u16), String> {
    const FORM: &str = "must be HOST:PORT, an IPv6 address in brackets";
    let (name, port) = text.rsplit_once(':').ok_or(FORM)?;
    if name.contains(':') && !name.starts_with('[') {
        return Err(FORM.to_owned());
    }
    let digits = !port.is_empty() && port.chars().all(|c| c.is_ascii_digit());
    let port = port.parse().ok().filter(|port| *port > 0 && digits).ok_or("must have a port from 1 to 65535")?;
    Ok((host(name)?, port))
}

/// An MQTT topic filter (MQTT 3.1.1, 4.7).
pub fn topic_filter(filter: &str) -> Result<(), String> {
    if filter.is_empty() || filter.len() > 65_535 {
        return Err("must have 1 to 65535 bytes".to_owned());
    }
    if filter.chars().any(char::is_control) {
        return Err("must not hold control characters".to_owned());
    }
    if filter.starts_with("$share/") {
        return Err("is a shared subscription, which would break the order of a device's readings".to_owned());
    }
    let levels: Vec<_> = filter.split('/').collect();
    for (index, level) in levels.iter().enumerate() {
        if level.contains('#') && (*level != "#" || index + 1 != levels.len()) {
            return Err("has a # that is not a whole level at the end".to_owned());
        }
        if level.contains('+') && *level != "+" {
            return Err("has a + that is not a whole level".to_owned());
        }
    }
    Ok(())
}

/// Whether a topic exists that both filters match.
pub fn filters_overlap(left: &str, right: &str) -> bool {
    // A wildcard at the start matches no topic that begins with $ (MQTT 3.1.1, 4.7.2).
    let wild = |filter: &str| filter.starts_with(['#', '+']);
    if (wild(left) && right.starts_with('$')) || (wild(right) && left.starts_with('$')) {
        return false;
    }
    let (mut left, mut right) = (left.split('/'), right.split('/'));
    loop {
        match (left.next(), right.next()) {
            (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
            (Some(one), Some(other)) if one == other || one == "+" || other == "+" => {}
            _ => return false,
        }
    }
}

/// Whether a host is this machine.
pub fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether two hosts certainly are the same one.
pub fn same_host(left: &str, right: &str) -> bool {
    left.trim_end_matches('.').eq_ignore_ascii_case(right.trim_end_matches('.'))
        || (is_loopback(left) && is_loopback(right))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Filters as MQTT 3.1.1, 4.7.1 gives them as examples.
    #[test]
    fn filters_of_the_standard() {
        for filter in [
            "sport/tennis/player1/#",
            "#",
            "sport/tennis/#",
            "+",
            "+/tennis/#",
            "sport/+/player1",
            "/finance",
            "$SYS/#",
        ] {
            assert_eq!(topic_filter(filter), Ok(()), "{filter}");
        }
        for filter in ["", "sport/tennis#", "sport/tennis/#/ranking", "sport+", "a/\0", "$share/g/sma"] {
            assert!(topic_filter(filter).is_err(), "{filter}");
        }
    }

    /// Promise 3: filters that would deliver a message twice are told from those that never do.
    #[test]
    fn overlapping_filters() {
        for (left, right) in [("sma", "sma"), ("sma/#", "sma"), ("+/a", "sma/+"), ("#", "a/b"), ("a/+/c", "a/#")] {
            assert!(filters_overlap(left, right), "{left} {right}");
            assert!(filters_overlap(right, left), "{right} {left}");
        }
        for (left, right) in
            [("sma", "smb"), ("+/a", "sma/b"), ("#", "$SYS/x"), ("+/x", "$SYS/x"), ("a/+", "a"), ("a/b", "a/b/c")]
        {
            assert!(!filters_overlap(left, right), "{left} {right}");
            assert!(!filters_overlap(right, left), "{right} {left}");
        }
    }

    /// Hosts and ports as people write them.
    #[test]
    fn hosts_and_ports() {
        assert_eq!(host_and_port("[::1]:9092"), Ok(("::1".into(), 9092)));
        assert_eq!(host_and_port("kafka-1.example.org:9092"), Ok(("kafka-1.example.org".into(), 9092)));
        for wrong in [
            "kafka",
            "kafka:",
            "kafka:0",
            "kafka:65536",
            "kafka:+1",
            "::1:9092",
            ":9092",
            "a b:1",
            "[::g]:1",
            "1.2.3:9092",
            "http://a:1",
        ] {
            assert!(host_and_port(wrong).is_err(), "{wrong}");
        }
        assert_eq!(host("[fe80::1]"), Ok("fe80::1".into()));
        assert!(same_host("LOCALHOST", "::1") && same_host("Broker.", "broker") && !same_host("a", "b"));
    }

    fn matches(filter: &str, topic: &str) -> bool {
        if filter.starts_with(['#', '+']) && topic.starts_with('$') {
            return false;
        }
        let (mut filter, mut topic) = (filter.split('/'), topic.split('/'));
        loop {
            match (filter.next(), topic.next()) {
                (Some("#"), _) | (None, None) => return true,
                (Some(level), Some(name)) if level == "+" || level == name => {}
                _ => return false,
            }
        }
    }

    proptest! {
        /// Promise 3: no topic is matched by two filters that were said not to overlap.
        #[test]
        fn disjoint_filters_share_no_topic(
            left in "[ab+]?(/[ab+]?){0,3}(/#)?",
            right in "[ab+]?(/[ab+]?){0,3}(/#)?",
            topic in "[ab$]?(/[ab]?){0,4}",
        ) {
            if matches(&left, &topic) && matches(&right, &topic) {
                prop_assert!(filters_overlap(&left, &right));
            }
        }
    }
}

//! Which paths and which header a device understands: firmwares differ, and none says which it is. Pure.
//!
//! The ways are tried until the device answers with a document; the one that did is remembered. A path that is missing
//! is not tried with another header; a path that is there and refuses is tried with the other header first.

use serde::{Deserialize, Serialize};

/// Where a device keeps its documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Paths {
    V1,
    V1Json,
    Old,
    /// As configured: nothing is tried.
    Fixed,
}

/// How a device wants the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Header {
    /// `Authorization: TOKEN <key>`
    Authorization,
    /// `AuthorizationToken: <key>`
    AuthorizationToken,
}

/// One way to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Way {
    pub(super) paths: Paths,
    pub(super) header: Header,
}

/// What is configured in place of the known paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Configured {
    pub path: Option<String>,
    pub status_path: Option<String>,
}

impl Way {
    const fn new(paths: Paths, header: Header) -> Self {
        Self { paths, header }
    }

    /// Where the measurement is.
    pub(super) fn measurement<'c>(&self, configured: &'c Configured) -> &'c str {
        match (&configured.path, self.paths) {
            (Some(path), _) => path,
            (None, Paths::V1 | Paths::Fixed) => "/api/v1/measurement",
            (None, Paths::V1Json) => "/api/v1/measurement.json",
            (None, Paths::Old) => "/api/data/measurement.json",
        }
    }

    /// Where the status is; none where only the measurement's path is configured.
    pub(super) fn status<'c>(&self, configured: &'c Configured) -> Option<&'c str> {
        match (&configured.status_path, self.paths) {
            (Some(path), _) => Some(path),
            (None, Paths::V1) => Some("/api/v1/status"),
            (None, Paths::V1Json) => Some("/api/v1/status.json"),
            (None, Paths::Old) => Some("/api/sma/status.json"),
            (None, Paths::Fixed) => None,
        }
    }
}

/// What a device answered, as far as it tells whether the way is the right one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Met {
    /// The path is not there: 404, or a web page for everything unknown.
    Missing,
    /// The key is not taken: 401, 403.
    Refused,
}

/// The ways that are still to be tried in one attempt.
#[derive(Debug, Clone)]
pub(super) struct Search {
    left: Vec<Way>,
}

impl Search {
    /// Every way that fits the configuration, `known` first. Without a key the header makes no difference.
    pub fn new(configured: &Configured, has_key: bool, known: Option<Way>) -> Self {
        let paths: &[Paths] = match &configured.path {
            Some(_) => &[Paths::Fixed],
            None => &[Paths::V1, Paths::V1Json, Paths::Old],
        };
        let usual = |paths| match paths {
            Paths::V1 | Paths::V1Json | Paths::Fixed => Header::Authorization,
            Paths::Old => Header::AuthorizationToken,
        };
        let other = |header| match header {
            Header::Authorization => Header::AuthorizationToken,
            Header::AuthorizationToken => Header::Authorization,
        };
        let mut left: Vec<Way> = paths.iter().map(|paths| Way::new(*paths, usual(*paths))).collect();
        if has_key {
            left.extend(paths.iter().map(|paths| Way::new(*paths, other(usual(*paths)))));
        }
        if let Some(at) = left.iter().position(|way| Some(*way) == known) {
            left[..=at].rotate_right(1);
        }
        Self { left }
    }

    /// The way to try; none when there is no other.
    pub fn way(&self) -> Option<Way> {
        self.left.first().copied()
    }

    /// The way that was tried was not it.
    pub fn met(&mut self, met: Met) {
        let Some(tried) = self.way() else { return };
        self.left.remove(0);
        match met {
            Met::Missing => self.left.retain(|way| way.paths != tried.paths),
            // The path is there: most likely it is the header.
            Met::Refused => self.left.sort_by_key(|way| way.paths != tried.paths),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn walk(known: Option<Way>, has_key: bool, met: impl Fn(Way) -> Option<Met>) -> (Vec<Way>, Option<Way>) {
        let mut search = Search::new(&Configured::default(), has_key, known);
        let mut tried = Vec::new();
        while let Some(way) = search.way() {
            tried.push(way);
            match met(way) {
                None => return (tried, Some(way)),
                Some(met) => search.met(met),
            }
        }
        (tried, None)
    }

    const ALL: [Way; 6] = [
        Way::new(Paths::V1, Header::Authorization),
        Way::new(Paths::V1Json, Header::Authorization),
        Way::new(Paths::Old, Header::AuthorizationToken),
        Way::new(Paths::V1, Header::AuthorizationToken),
        Way::new(Paths::V1Json, Header::AuthorizationToken),
        Way::new(Paths::Old, Header::Authorization),
    ];

    /// Promise 5: a wrong key is found out after every way was tried once, and a wrong device after three.
    #[test]
    fn the_worst_takes_six_requests() {
        assert_eq!(walk(None, true, |_| Some(Met::Refused)).0.len(), 6);
        assert_eq!(walk(None, true, |_| Some(Met::Missing)).0.len(), 3);
        assert_eq!(walk(None, false, |_| Some(Met::Refused)).0.len(), 3);
    }

    /// A path that is there and refuses is tried with the other header before other paths are.
    #[test]
    fn a_refusal_is_about_the_header_first() {
        let (tried, found) = walk(None, true, |way| (way != ALL[3]).then_some(Met::Refused));
        assert_eq!((tried, found), (vec![ALL[0], ALL[3]], Some(ALL[3])));
    }

    /// A configured path is the only one, with either header.
    #[test]
    fn a_configured_path_is_the_only_one() {
        let configured = Configured { path: Some("/meter?now".to_owned()), status_path: None };
        let mut search = Search::new(&configured, true, None);
        let way = search.way().expect("a way");
        assert_eq!((way.measurement(&configured), way.status(&configured)), ("/meter?now", None));
        search.met(Met::Refused);
        assert_eq!(search.way().map(|way| way.header), Some(Header::AuthorizationToken));
        search.met(Met::Refused);
        assert_eq!(search.way(), None);
    }

    proptest! {
        /// Promise 5: whichever way a device speaks, and whatever it says to the others, that way is found, at once if it is
        /// remembered, and none is tried twice.
        #[test]
        fn the_right_way_is_found(right in 0usize..6, known in proptest::option::of(0usize..6), refuses in any::<[bool; 6]>()) {
            let right = ALL[right];
            let known = known.map(|known| ALL[known]);
            let (tried, found) = walk(known, true, |way| {
                let at = ALL.iter().position(|one| *one == way).unwrap_or(0);
                // A path that is there does not say that it is missing.
                let there = way.paths == right.paths;
                (way != right).then_some(if there || refuses[at] { Met::Refused } else { Met::Missing })
            });
            prop_assert_eq!(found, Some(right));
            prop_assert_eq!(tried.first().copied(), Some(known.unwrap_or(ALL[0])));
            for (at, way) in tried.iter().enumerate() {
                prop_assert!(!tried[..at].contains(way));
            }
        }
    }
}

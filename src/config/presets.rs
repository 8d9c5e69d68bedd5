//! Mapping tables of readers that people have, as shipped in `edge-config/mappings/`.

use std::sync::Arc;

use jiff::tz::TimeZone;

use super::mapping;
use super::problem::{Place, Problems, Report};
use super::raw;
use crate::decode::mapping::{Mapping, Table};

/// A shipped table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preset {
    /// What `payload` calls it.
    pub name: &'static str,
    /// The table as TOML, with comments.
    pub text: &'static str,
}

macro_rules! presets {
    ($($name:literal),* $(,)?) => {
        &[$(Preset { name: $name, text: include_str!(concat!("../../edge-config/mappings/", $name, ".toml")) }),*]
    };
}

/// All of them, in the order of their names.
pub const PRESETS: &[Preset] = presets![
    "amis-reader",
    "ams-reader",
    "dsmr-reader",
    "esphome",
    "shelly-em",
    "shelly-pro-3em",
    "shrdzm",
    "sml2mqtt",
    "tasmota-plug",
    "tasmota-sml",
    "vzlogger",
    "zigbee2mqtt-plug",
];

impl Preset {
    pub fn named(name: &str) -> Option<Self> {
        PRESETS.iter().find(|preset| preset.name == name).copied()
    }

    /// Its table.
    ///
    /// # Errors
    ///
    /// None: a test reads every one of them.
    pub fn table(self) -> Result<Table, Problems> {
        let mut report = Report::default();
        let file = report.file(std::path::Path::new(self.name));
        let root = raw::parse(self.text.as_bytes(), file, &mut report);
        let table = mapping::check(root, Place { file, line: 0 }, &mut report);
        if report.has_errors() { Err(report.finish()) } else { Ok(table) }
    }

    /// Its table, for times in `zone`.
    pub fn mapping(self, zone: TimeZone) -> Mapping {
        let table =
            self.table().unwrap_or_else(|problems| unreachable!("the preset {} is wrong: {problems}", self.name));
        Mapping { name: self.name.into(), table: Arc::new(table), zone }
    }
}

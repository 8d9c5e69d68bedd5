//! Configuration: raw (serde) → check → [`settings`]. The only reader of files and environment.

pub mod settings;

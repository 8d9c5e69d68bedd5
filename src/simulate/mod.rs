//! The adapter as it speaks, for trials without a smart meter: a household's day, the adapter's document, and the MQTT
//! client that publishes it.

pub mod adapter;
mod flights;
mod household;
pub mod mqtt;
mod random;
pub mod reader;
pub mod session;

//! The adapter as it speaks, for trials without a smart meter: a household's day, the adapter's document, and the MQTT
//! client that publishes it; and a SunSpec meter on Modbus TCP.

pub mod adapter;
mod flights;
mod household;
pub mod meter;
pub mod modbus;
pub mod modbus_fault;
pub mod mqtt;
mod random;
pub mod reader;
pub mod session;

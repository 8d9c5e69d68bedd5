//! The adapter as it speaks, for trials without a smart meter: a household's day, the adapter's document, the MQTT client
//! that publishes it and the HTTP server that gives it to who asks; and a SunSpec meter on Modbus TCP.

pub mod adapter;
mod flights;
mod household;
pub mod meter;
pub mod modbus;
pub mod modbus_fault;
pub mod mqtt;
mod random;
pub mod reader;
pub mod rest;
pub mod rest_fault;
pub mod session;

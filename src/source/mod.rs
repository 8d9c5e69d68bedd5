//! Where readings come from. A source receives, hands a [`Raw`] on, and acknowledges when its receipt is redeemed.
//!
//! A source knows nothing of decoding or of the queue: it offers each raw to a bounded channel whose capacity is the
//! source's limit of unacknowledged messages, and takes tickets back on another of the same capacity.

use std::sync::Arc;

use bytes::Bytes;

use crate::reading::{Kind, Received};
use crate::receipt::Receipt;

pub mod filter;
pub mod grid;
pub mod measured;
pub mod modbus;
pub mod modbus_answer;
pub mod modbus_device;
pub mod modbus_fault;
mod modbus_outage;
pub mod modbus_probe;
#[cfg(test)]
mod modbus_tests;
mod modbus_wire;
pub mod mqtt;
mod mqtt_connection;
pub mod mqtt_farewell;
pub mod mqtt_listener;
#[cfg(test)]
mod mqtt_listener_tests;
mod mqtt_outage;
#[cfg(test)]
mod mqtt_peer;
pub mod mqtt_probe;
mod mqtt_publisher;
mod mqtt_seats;
mod mqtt_subscription;
#[cfg(test)]
mod mqtt_tests;
mod mqtt_welcome;
mod mqtt_wire;
mod outstanding;
pub mod redelivery;
pub mod registers;
pub mod rest;
pub mod rest_answer;
mod rest_link;
mod rest_memory;
mod rest_outage;
mod rest_paths;
pub mod rest_probe;
mod rest_sameness;
#[cfg(test)]
mod rest_tests;
pub mod rest_tls;
pub mod rest_trouble;
pub mod scaled;
pub mod sunspec;
pub mod sunspec_meter;
pub mod tls;

/// What a source received.
#[derive(Debug)]
pub struct Raw {
    /// Name of the source in the configuration.
    pub source: Arc<str>,
    /// What it is said to be: measurements, or the device's own state.
    pub kind: Kind,
    /// MQTT topic; what a device was asked for; empty where the source has neither.
    pub topic: String,
    pub payload: Bytes,
    pub received: Received,
    pub delivery: Delivery,
    pub receipt: Receipt,
}

/// How an MQTT message came: what a redelivery is recognised by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Whose packet identifiers these are: the client id with `mqtt-listener`, empty with a broker.
    pub sender: Arc<str>,
    /// None with QoS 0.
    pub packet_id: Option<u16>,
    /// The DUP flag.
    pub dup: bool,
    /// The RETAIN flag: an old value, sent because we subscribed.
    pub retain: bool,
    /// Counts the sender's sessions from 0; a number that was not seen before means that the earlier session, and with
    /// it every message that the sender might have sent again, is gone.
    pub session: u64,
}

impl Delivery {
    /// Of what was asked for, and is not sent by itself.
    pub fn asked() -> Self {
        Self { sender: "".into(), packet_id: None, dup: false, retain: false, session: 0 }
    }
}

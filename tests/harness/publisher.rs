//! An MQTT client that publishes with QoS 1 and counts what the broker acknowledged.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use rumqttc::{Client, Event, MqttOptions, Packet, QoS};

use super::document::Message;
use super::wait::{self, PATIENT};

/// Publishes from a thread of its own, reconnecting for ever; ends when dropped.
pub struct Publisher {
    client: Client,
    acknowledged: Arc<AtomicU64>,
    closing: Arc<AtomicBool>,
    published: Mutex<Vec<Message>>,
    thread: Option<JoinHandle<()>>,
}

impl Publisher {
    /// Connects to a broker on 127.0.0.1.
    pub fn connect(port: u16) -> Self {
        Self::with(port, |_| ())
    }

    /// Connects with further options (a password, a client id).
    pub fn with(port: u16, change: impl FnOnce(&mut MqttOptions)) -> Self {
        let mut options = MqttOptions::new(format!("sma_{:06x}", rand::random_range(0..1u32 << 24)), "127.0.0.1", port);
        options.set_keep_alive(Duration::from_secs(10)).set_clean_session(false).set_inflight(50);
        options.set_max_packet_size(64 << 20, 64 << 20);
        change(&mut options);
        let (client, mut connection) = Client::new(options, 100);
        let acknowledged = Arc::new(AtomicU64::new(0));
        let closing = Arc::new(AtomicBool::new(false));
        let (count, end) = (Arc::clone(&acknowledged), Arc::clone(&closing));
        let thread = thread::spawn(move || {
            for event in connection.iter() {
                match event {
                    Ok(Event::Incoming(Packet::PubAck(_))) => {
                        count.fetch_add(1, Ordering::SeqCst);
                    }
                    Ok(_) => (),
                    Err(_) if end.load(Ordering::SeqCst) => return,
                    Err(_) => thread::sleep(Duration::from_millis(100)),
                }
            }
        });
        Self { client, acknowledged, closing, published: Mutex::default(), thread: Some(thread) }
    }

    /// Publishes one message with QoS 1; waits only while a hundred others wait for the broker.
    pub fn publish(&self, message: &Message) {
        self.client
            .publish(&message.topic, QoS::AtLeastOnce, false, message.payload.clone())
            .expect("the publisher's thread runs");
        self.published.lock().unwrap_or_else(PoisonError::into_inner).push(message.clone());
    }

    /// Publishes all of them and waits until the broker has them.
    pub fn publish_all(&self, messages: &[Message]) {
        messages.iter().for_each(|message| self.publish(message));
        self.wait_acknowledged();
    }

    /// Publishes what `make` makes, which is given the number of the first reading and how many, in bursts of random size
    /// with short pauses between them, until `enough` is set.
    pub fn publish_on(&self, mut choices: StdRng, enough: &AtomicBool, make: impl Fn(u64, u64) -> Vec<Message>) {
        let mut serial = 0;
        while !enough.load(Ordering::SeqCst) {
            let burst = choices.random_range(1..10);
            make(serial, burst).iter().for_each(|message| self.publish(message));
            serial += burst;
            thread::sleep(Duration::from_millis(choices.random_range(5..80)));
        }
    }

    /// Publishes outside the count: with another QoS, or retained.
    pub fn publish_raw(&self, topic: &str, qos: QoS, retain: bool, payload: &[u8]) {
        self.client.publish(topic, qos, retain, payload.to_vec()).expect("the publisher's thread runs");
    }

    /// Messages that the broker acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// Waits until the broker has acknowledged everything published so far.
    pub fn wait_acknowledged(&self) {
        let wanted = self.published.lock().unwrap_or_else(PoisonError::into_inner).len() as u64;
        wait::until_true("the broker to acknowledge every publish", PATIENT, || self.acknowledged() >= wanted);
    }

    /// Everything published so far, in order.
    pub fn published(&self) -> Vec<Message> {
        self.published.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::SeqCst);
        let _ = self.client.try_disconnect();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so already.
            let _ = thread.join();
        }
    }
}

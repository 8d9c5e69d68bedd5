//! Readers of other makers: their messages arrive as they are, under their device's name.

use std::collections::BTreeMap;

use crate::harness::auditor::Auditor;
use crate::harness::document::Message;
use crate::harness::kafka::Kafka;
use crate::harness::line::Line;
use crate::harness::mosquitto::Options;
use crate::harness::wait::PATIENT;

macro_rules! sample {
    ($name:literal) => {
        include_bytes!(concat!("../../src/decode/mapping/testdata/", $name, ".json"))
    };
}

/// Payload, topic, key, and the message.
const READERS: [(&str, &str, &str, &[u8]); 8] = [
    ("shrdzm", "SHRDZM/84F3EB6C2A11/84F3EB6C2A11/sensor", "84F3EB6C2A11", sample!("shrdzm")),
    ("amis-reader", "amis/out", "amis-reader", sample!("amis-reader")),
    ("tasmota-sml", "tele/cellar/SENSOR", "cellar", sample!("tasmota-sml")),
    ("tasmota-plug", "tele/dryer/SENSOR", "dryer", sample!("tasmota-plug")),
    ("shelly-pro-3em", "shellypro3em-0cb8/status/em:0", "shellypro3em-0cb8", sample!("shelly-pro-3em")),
    ("ams-reader", "ams", "ams-1122", sample!("ams-reader")),
    ("dsmr-reader", "dsmr/json", "dsmr-reader", sample!("dsmr-reader")),
    ("zigbee2mqtt-plug", "zigbee2mqtt/kitchen", "kitchen", sample!("zigbee2mqtt-plug")),
];

/// Promises 3 and 4: one source for each payload, in one agent; every message is a record with the same bytes, and its key
/// is the device's name as that reader says it.
#[test]
#[ignore = "needs Mosquitto and Kafka: run tests/run"]
fn messages_arrive_as_they_are() {
    let mut line = Line::with(Kafka::shared(), "readers", &Options::default(), |mut config, port| {
        for (payload, topic, ..) in READERS {
            config = config.source(&format!(
                "name = \"{payload}\"\ntype = \"mqtt\"\nhost = \"127.0.0.1\"\nport = {port}\ntopics = [{topic:?}]\n\
                 payload = \"{payload}\"\nclient_id = \"{payload}-{port}\"\nreconnect_max_delay = \"1s\""
            ));
        }
        config
    });
    line.start();
    for (payload, ..) in READERS {
        line.mosquitto.wait_subscribed(&format!("{payload}-{}", line.mosquitto.port()));
    }
    let messages: Vec<_> = READERS
        .iter()
        .map(|(_, topic, key, bytes)| Message {
            device: (*key).to_owned(),
            topic: (*topic).to_owned(),
            payload: bytes.to_vec(),
        })
        .collect();
    line.publisher.publish_all(&messages);
    let auditor = Auditor::new(line.kafka, &line.topic);
    auditor.wait_count(messages.len(), PATIENT);
    let arrived: BTreeMap<_, _> = auditor.records().into_iter().map(|record| (record.key, record.value)).collect();
    let sent: BTreeMap<_, _> = messages.into_iter().map(|message| (message.device, message.payload)).collect();
    assert_eq!(arrived, sent);
    line.agent.stop();
}

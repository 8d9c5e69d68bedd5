//! A client's session at a broker, begun before the client is there and ended when it is gone.

use std::net::Ipv6Addr;
use std::time::Duration;

use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Outgoing, Packet, QoS, SubscribeReasonCode};
use tokio::time::timeout;

/// How long the broker may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Subscribes `client_id` to `topic` with QoS 1 in a session that stays: from here on the broker keeps what is published.
/// `host` is a name or an address, IPv6 without brackets.
///
/// # Errors
///
/// Why the broker does not.
pub async fn begin(host: &str, port: u16, client_id: &str, topic: &str) -> Result<(), String> {
    visit(host, port, client_id, Some(topic)).await
}

/// Makes the broker forget the session of `client_id`, with all that waits in it: a clean connection does (MQTT 3.1.1,
/// 3.1.2.4).
///
/// # Errors
///
/// Why the broker still has it.
pub async fn end(host: &str, port: u16, client_id: &str) -> Result<(), String> {
    visit(host, port, client_id, None).await
}

async fn visit(host: &str, port: u16, client_id: &str, topic: Option<&str>) -> Result<(), String> {
    let host = match host.parse::<Ipv6Addr>() {
        Ok(address) => format!("[{address}]"),
        Err(_) => host.to_owned(),
    };
    let mut options = MqttOptions::new(client_id, host, port);
    options.set_clean_session(topic.is_none());
    let (client, mut eventloop) = AsyncClient::new(options, 2);
    let limited = timeout(LIMIT, talk(&client, &mut eventloop, topic)).await;
    limited.unwrap_or_else(|_| Err(format!("no answer within {} s", LIMIT.as_secs())))
}

async fn talk(client: &AsyncClient, eventloop: &mut EventLoop, topic: Option<&str>) -> Result<(), String> {
    loop {
        let asked = match (eventloop.poll().await.map_err(|error| error.to_string())?, topic) {
            (Event::Incoming(Packet::ConnAck(_)), Some(topic)) => client.try_subscribe(topic, QoS::AtLeastOnce),
            (Event::Incoming(Packet::ConnAck(_)), None) => client.try_disconnect(),
            (Event::Incoming(Packet::SubAck(answer)), _) => match answer.return_codes[..] {
                [SubscribeReasonCode::Success(QoS::AtLeastOnce)] => client.try_disconnect(),
                _ => return Err("the broker refuses a subscription with QoS 1".to_owned()),
            },
            (Event::Outgoing(Outgoing::Disconnect), _) => return Ok(()),
            _ => Ok(()),
        };
        asked.map_err(|error| error.to_string())?;
    }
}

//! The simulated adapters, whose acknowledged documents are what the audit holds the line to.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinHandle;

use super::auditor::{SharedAudit, lock};
use super::board::Board;
use crate::shutdown::Shutdown;
use crate::simulate::mqtt::{self, Event, Options, Report};

/// Documents of one adapter on their way at one time.
const WINDOW: usize = 20;

/// Adapters that publish until they are asked to stop.
#[derive(Debug)]
pub struct Adapters {
    stop: Shutdown,
    task: JoinHandle<Report>,
}

impl Adapters {
    /// Live ones: what is due while nobody listens is missed.
    pub fn start(
        (host, port): (&str, u16),
        topic: &str,
        (devices, interval): (u32, Duration),
        audit: SharedAudit,
        board: Arc<Board>,
    ) -> Self {
        let options = Options {
            host: host.to_owned(),
            port,
            reader: None,
            topic: topic.to_owned(),
            login: None,
            devices,
            interval,
            count: None,
            acknowledged: true,
            // Other households each time, and with a broker no two demos with the same MQTT client ids.
            seed: rand::random(),
            start_ms: None,
            window: WINDOW,
        };
        let observer = Arc::new(move |event: Event<'_>| note(&event, &audit, &board));
        let stop = Shutdown::new();
        let asked = stop.clone();
        Self { stop, task: tokio::spawn(async move { mqtt::run(options, observer, &asked).await }) }
    }

    /// Asks them to stop; what is on its way is still acknowledged.
    pub async fn stop(&mut self) -> Report {
        self.stop.ask();
        match (&mut self.task).await {
            Ok(report) => report,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Report::default(),
        }
    }
}

impl Drop for Adapters {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn note(event: &Event<'_>, audit: &SharedAudit, board: &Board) {
    match event {
        Event::Published { device, payload, repeated } => {
            lock(audit).published(device, payload);
            let watts = watts(payload);
            board.change(|figures| {
                figures.published += 1;
                figures.sent_again += u64::from(*repeated);
                figures.device(device).watts = watts;
            });
        }
        Event::Connected { device } => board.change(|figures| figures.device(device).connected = true),
        Event::Disconnected { device, .. } => board.change(|figures| figures.device(device).connected = false),
        Event::Missed { count, .. } => board.change(|figures| figures.missed += count),
    }
}

/// Net power of a document, import positive.
fn watts(document: &[u8]) -> Option<i64> {
    let document: Value = serde_json::from_slice(document).ok()?;
    let of = |code: &str| document.get(code)?.get("value")?.as_i64();
    Some(of("1-0:1.7.0")? - of("1-0:2.7.0")?)
}

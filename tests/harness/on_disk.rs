//! The queue's folder, opened with the queue's own code while no agent runs.

use std::path::Path;
use std::sync::Arc;

use meterferry::clock::Clock;
use meterferry::config::settings::WhenFull;
use meterferry::metrics::Metrics;
use meterferry::queue::{self, Queue};
use meterferry::reading::Entry;

use super::agent::Agent;

/// Opens the queue in `path`, or makes one there, for an agent of this id.
pub fn open(path: &Path, agent_id: Option<&str>) -> Queue {
    let options = queue::Options {
        path: path.to_owned(),
        max_size: 16 << 30,
        min_free: 0,
        when_full: WhenFull::Block,
        segment_size: 16 << 20,
        pack_after: queue::PACK_AFTER,
        redelivery_window: 1_000,
        windows: std::collections::BTreeMap::new(),
        max_dead_letters: 1 << 20,
        agent_id: agent_id.map(str::to_owned),
        default_agent_id: "test-bed".to_owned(),
        hardware_serial: None,
    };
    let metrics = Metrics::new([&"meter".into()].into_iter());
    queue::open(&options, metrics, Clock::new(), Arc::new(|| ())).expect("the queue opens")
}

/// What a restart would find unreleased: read from a copy, so that the original stays as the kill has left it.
pub fn entries(agent: &Agent) -> Vec<Entry> {
    let copy = agent.copy_queue();
    let Queue { intake, mut outlet, writer, recovered } = open(copy.path(), None);
    let mut entries = Vec::new();
    let mut from = recovered.release_point;
    while from < recovered.end {
        let some = outlet.read(from, 10_000, 64 << 20).expect("readable");
        from = some.last().map_or(recovered.end, |last| last.sequence + 1);
        entries.extend(some);
    }
    drop((intake, outlet));
    writer.join().expect("an orderly end");
    entries
}

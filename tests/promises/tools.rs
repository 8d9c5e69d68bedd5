//! Promises 5, 7 and 9: the tools for a person, on real queues, beside the agent and without it.

use crate::harness::document;
use crate::harness::on_disk;

/// By hand: fills METERFERRY_FILL, a folder to be made, with METERFERRY_FILL_COUNT readings (a million), to try the tools on.
#[test]
#[ignore = "by hand: METERFERRY_FILL=FOLDER cargo test --test promises fill_a_folder -- --include-ignored"]
fn fill_a_folder() {
    let Some(folder) = std::env::var_os("METERFERRY_FILL") else { return };
    let count = std::env::var("METERFERRY_FILL_COUNT").map_or(1_000_000, |text| text.parse().expect("a number"));
    let messages = document::readings(&["90296857"], 0, count);
    println!("queue id {}", on_disk::fill(folder.as_ref(), "pi-1", &messages));
}

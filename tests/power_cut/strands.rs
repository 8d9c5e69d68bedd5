//! Independent random histories, played on all processors, each from a seed of its own.

use std::sync::atomic::{AtomicU64, Ordering};

use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::scale::seed;

/// Plays strands 0 to `count`.
pub fn run(count: u64, play: impl Fn(u64, &mut StdRng) + Sync) {
    let processors = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    run_on(processors, count, play);
}

/// [`run`] on more threads than there are processors, for strands that mostly wait.
pub fn run_on(workers: usize, count: u64, play: impl Fn(u64, &mut StdRng) + Sync) {
    log();
    let (next, seed) = (AtomicU64::new(0), seed());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let strand = next.fetch_add(1, Ordering::Relaxed);
                    if strand >= count {
                        break;
                    }
                    play(strand, &mut StdRng::seed_from_u64(seed ^ (strand << 32)));
                }
            });
        }
    });
}

/// Shows what the queue logs where RUST_LOG says so, for a strand that is replayed.
fn log() {
    let silent = tracing_subscriber::filter::LevelFilter::OFF.into();
    let filter = tracing_subscriber::EnvFilter::builder().with_default_directive(silent).from_env_lossy();
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
}

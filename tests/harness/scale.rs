//! How much of a fault one run tries, and the seed that replays it.
//!
//! `tests/run --long` sets METERFERRY_LONG, METERFERRY_SEED replays a run that printed its seed.

use std::sync::OnceLock;

use rand::SeedableRng;
use rand::rngs::StdRng;

/// `small` in a test run, `long` on demand.
pub fn scale(small: u64, long: u64) -> u64 {
    if std::env::var_os("METERFERRY_LONG").is_some() { long } else { small }
}

/// The seed of this process: METERFERRY_SEED, else a new one. It is printed once, so that a failure can be replayed.
pub fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| {
        let seed = std::env::var("METERFERRY_SEED")
            .map_or_else(|_| rand::random_range(0..1 << 32), |text| text.parse().expect("METERFERRY_SEED is a number"));
        eprintln!("METERFERRY_SEED={seed} replays this run's random choices");
        seed
    })
}

/// The random choices of one test: the same for the same seed and name, whatever runs beside it.
pub fn choices(test: &str) -> StdRng {
    let name = test
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    eprintln!("{test}: seed {}", seed());
    StdRng::seed_from_u64(seed() ^ name)
}

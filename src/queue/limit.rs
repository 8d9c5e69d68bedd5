//! How much room the queue may take.

/// What a commit rewrites of the tree above the records (measured: 28 KB at most), and a new segment with its window.
const COMMIT_OVERHEAD: u64 = 320 * 1024;

/// `queue.max_size` and `queue.min_free`, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    pub max_size: u64,
    pub min_free: u64,
}

/// Why there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoRoom {
    #[error("the queue takes {used} bytes, {needed} are kept for the next commit, queue.max_size is {limit}")]
    MaxSize { used: u64, needed: u64, limit: u64 },
    #[error("the file system has {free} bytes free, {needed} are kept for the next commit, queue.min_free is {limit}")]
    MinFree { free: u64, needed: u64, limit: u64 },
}

impl Limit {
    /// Whether `more` bytes of records fit beside the `used` ones; pure. The database grows the active segment, of
    /// `active` bytes, in steps, up to twice its size.
    pub fn allows(&self, used: u64, active: u64, free: u64, more: u64) -> Result<(), NoRoom> {
        let needed = more.saturating_mul(2).saturating_add(COMMIT_OVERHEAD).saturating_add(active);
        if used.saturating_add(needed) > self.max_size {
            return Err(NoRoom::MaxSize { used, needed, limit: self.max_size });
        }
        if free < self.min_free.saturating_add(needed) {
            return Err(NoRoom::MinFree { free, needed, limit: self.min_free });
        }
        Ok(())
    }
}

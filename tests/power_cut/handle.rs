//! An opened file of the simulated disk, as the database wants it: bytes, lengths and byte-range locks.

use std::fmt;
use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::{BackendError, StorageBackend};

use crate::disk::{Shared, State};
use crate::tree::Inode;

/// Bytes that one handle has locked; the end is exclusive.
#[derive(Debug, Clone, Copy)]
pub struct RangeLock {
    owner: u64,
    start: u128,
    end: u128,
    shared: bool,
}

pub struct Handle {
    disk: Arc<Shared>,
    inode: Inode,
    owner: u64,
}

impl Handle {
    pub fn new(disk: Arc<Shared>, inode: Inode) -> Self {
        static OWNERS: AtomicU64 = AtomicU64::new(0);
        Self { disk, inode, owner: OWNERS.fetch_add(1, Ordering::Relaxed) }
    }

    fn range(&self, start: Bound<u64>, end: Bound<u64>, shared: bool) -> RangeLock {
        let start = match start {
            Bound::Included(start) => u128::from(start),
            Bound::Excluded(start) => u128::from(start) + 1,
            Bound::Unbounded => 0,
        };
        let end = match end {
            Bound::Included(end) => u128::from(end) + 1,
            Bound::Excluded(end) => u128::from(end),
            Bound::Unbounded => u128::MAX,
        };
        RangeLock { owner: self.owner, start, end, shared }
    }

    fn conflicts(&self, state: &State, wanted: &RangeLock) -> bool {
        let others = state.locks.get(&self.inode).into_iter().flatten().filter(|held| held.owner != self.owner);
        others
            .filter(|held| held.start < wanted.end && wanted.start < held.end)
            .any(|held| !(held.shared && wanted.shared))
    }

    fn try_lock(&self, start: Bound<u64>, end: Bound<u64>, shared: bool) -> bool {
        let wanted = self.range(start, end, shared);
        let mut state = self.disk.state();
        if self.conflicts(&state, &wanted) {
            return false;
        }
        state.locks.entry(self.inode).or_default().push(wanted);
        true
    }

    fn lock(&self, start: Bound<u64>, end: Bound<u64>, shared: bool) {
        let wanted = self.range(start, end, shared);
        let mut state = self.disk.state();
        while self.conflicts(&state, &wanted) {
            state = self.disk.unlocked.wait(state).expect("no panic while a lock is waited for");
        }
        state.locks.entry(self.inode).or_default().push(wanted);
    }

    fn unlock(&self, remove: impl Fn(&RangeLock) -> bool) {
        if let Some(locks) = self.disk.state().locks.get_mut(&self.inode) {
            locks.retain(|held| held.owner != self.owner || !remove(held));
        }
        self.disk.unlocked.notify_all();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.unlock(|_| true);
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({})", self.inode)
    }
}

impl StorageBackend for Handle {
    fn len(&self) -> io::Result<u64> {
        let state = self.disk.state();
        state
            .live
            .files
            .get(&self.inode)
            .map(crate::content::Content::len)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.disk.state().read(self.inode, offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.state().set_len(self.inode, len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.state().sync(self.inode)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.disk.state().write(self.inode, offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.unlock(|_| true);
        Ok(())
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        Ok(self.try_lock(start, end, false))
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        Ok(self.try_lock(start, end, true))
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.lock(start, end, false);
        Ok(())
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.lock(start, end, true);
        Ok(())
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        let range = self.range(start, end, false);
        self.unlock(|held| held.start == range.start && held.end == range.end);
        Ok(())
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        let wanted = self.range(start, end, false);
        Ok(self.conflicts(&self.disk.state(), &wanted))
    }
}

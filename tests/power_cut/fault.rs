//! What a simulated disk refuses to do, and when.

use std::io;

/// Kinds of operations that fail alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Read,
    Write,
    Sync,
    /// Making, renaming, linking, unlinking.
    Name,
    /// Opening a file for writing.
    Open,
}

/// Strikes one operation of its kinds, or all from that one on.
#[derive(Debug, Clone)]
pub struct Fault {
    pub kinds: &'static [Kind],
    /// Operations that still succeed.
    pub after: usize,
    /// Operations that fail then; `usize::MAX` for ever.
    pub times: usize,
    /// The number that Linux gives it.
    pub errno: i32,
    pub struck: usize,
}

pub const ENOSPC: i32 = 28;
pub const EIO: i32 = 5;
pub const EROFS: i32 = 30;

impl Fault {
    pub fn new(kinds: &'static [Kind], errno: i32, after: usize, times: usize) -> Self {
        Self { kinds, after, times, errno, struck: 0 }
    }

    pub fn has_struck(&self) -> bool {
        self.struck > 0
    }

    pub fn strike(&mut self, kind: Kind) -> Option<io::Error> {
        if !self.kinds.contains(&kind) {
            return None;
        }
        if self.after > 0 {
            self.after -= 1;
            return None;
        }
        if self.struck >= self.times {
            return None;
        }
        self.struck += 1;
        Some(io::Error::from_raw_os_error(self.errno))
    }
}

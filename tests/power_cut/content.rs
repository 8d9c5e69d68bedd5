//! The bytes of one simulated file: pages that copies share until one of them writes.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use crate::fault::EIO;

pub const PAGE: usize = 4096;

/// Holes read as zeros, and take no room.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Content {
    len: u64,
    pages: Vec<Option<Arc<[u8; PAGE]>>>,
    /// Pages that the medium refuses to read, until they are written again.
    refused: BTreeSet<usize>,
}

impl Content {
    pub fn of(bytes: &[u8]) -> Self {
        let mut content = Self::default();
        content.write(0, bytes);
        content
    }

    pub fn len(&self) -> u64 {
        self.len
    }

    /// Bytes that it takes on the medium.
    pub fn room(&self) -> u64 {
        (self.pages.iter().flatten().count() * PAGE) as u64
    }

    /// Bytes that a write would take on top.
    pub fn room_for(&self, offset: u64, length: usize) -> u64 {
        if length == 0 {
            return 0;
        }
        let (first, last) = (offset as usize / PAGE, (offset as usize + length - 1) / PAGE);
        let new = (first..=last).filter(|page| self.pages.get(*page).is_none_or(Option::is_none)).count();
        (new * PAGE) as u64
    }

    /// All of it; noise where it cannot be read.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len as usize];
        self.fill(0, &mut bytes);
        for page in &self.refused {
            let end = bytes.len().min((page + 1) * PAGE);
            bytes.get_mut(page * PAGE..end).into_iter().for_each(|page| page.fill(0xa5));
        }
        bytes
    }

    /// From now on the page at `offset` cannot be read.
    pub fn refuse(&mut self, offset: usize) {
        self.refused.insert(offset / PAGE);
    }

    pub fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if offset + out.len() as u64 > self.len {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "failed to fill whole buffer"));
        }
        let end = (offset as usize + out.len()).div_ceil(PAGE);
        if !out.is_empty() && self.refused.range(offset as usize / PAGE..end).next().is_some() {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        self.fill(offset, out);
        Ok(())
    }

    fn fill(&self, offset: u64, out: &mut [u8]) {
        let mut done = 0;
        while done < out.len() {
            let (page, within) = place(offset + done as u64);
            let length = (PAGE - within).min(out.len() - done);
            let target = &mut out[done..done + length];
            match self.pages.get(page).and_then(Option::as_ref) {
                Some(bytes) => target.copy_from_slice(&bytes[within..within + length]),
                None => target.fill(0),
            }
            done += length;
        }
    }

    pub fn write(&mut self, offset: u64, data: &[u8]) {
        let mut done = 0;
        while done < data.len() {
            let (page, within) = place(offset + done as u64);
            let length = (PAGE - within).min(data.len() - done);
            self.refused.remove(&page);
            if self.pages.len() <= page {
                self.pages.resize(page + 1, None);
            }
            let bytes = Arc::make_mut(self.pages[page].get_or_insert_with(|| Arc::new([0; PAGE])));
            bytes[within..within + length].copy_from_slice(&data[done..done + length]);
            done += length;
        }
        self.len = self.len.max(offset + data.len() as u64);
    }

    pub fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.pages.truncate((len as usize).div_ceil(PAGE));
            self.refused.split_off(&(len as usize).div_ceil(PAGE));
            let (page, within) = place(len);
            if within > 0
                && let Some(Some(bytes)) = self.pages.get_mut(page)
            {
                Arc::make_mut(bytes)[within..].fill(0);
            }
        }
        self.len = len;
    }
}

fn place(offset: u64) -> (usize, usize) {
    (offset as usize / PAGE, offset as usize % PAGE)
}

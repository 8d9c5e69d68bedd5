//! The bytes of one simulated file: pages that copies share until one of them writes.

use std::io;
use std::sync::Arc;

pub const PAGE: usize = 4096;

/// Holes read as zeros, and take no room.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Content {
    len: u64,
    pages: Vec<Option<Arc<[u8; PAGE]>>>,
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

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len as usize];
        self.read(0, &mut bytes).expect("all of it is there");
        bytes
    }

    pub fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if offset + out.len() as u64 > self.len {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "failed to fill whole buffer"));
        }
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
        Ok(())
    }

    pub fn write(&mut self, offset: u64, data: &[u8]) {
        let mut done = 0;
        while done < data.len() {
            let (page, within) = place(offset + done as u64);
            let length = (PAGE - within).min(data.len() - done);
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

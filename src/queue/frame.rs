//! Records packed together: what a sealed segment holds once it was packed.
//!
//! ```text
//! offset 0   3 bytes   "MFP"
//!        3   1 byte    version of the format, 1
//!        4   4 bytes   CRC-32 (IEEE) over origin and everything that follows, little endian
//!        8   8 bytes   sequence of the first record
//!       16   8 bytes   sequence of the last record
//!       24   4 bytes   number of records
//!       28   4 bytes   bytes of the contents, unpacked
//!       32   4 bytes   bytes of the contents, packed
//!       36             the contents, one zstd frame: of each record, LEB128, how far its sequence is beyond the one
//!                      due and the length of its body; then the bodies (see [`super::record`]), one after the other
//! ```
//!
//! The headers of the records are not kept: a header follows from origin, sequence and body, and comes out of the frame
//! as it went in. A frame is of use without its neighbours, and findable without the database, as a record is.

use std::io;
use std::ops::ControlFlow;

use zstd::bulk::{Compressor, Decompressor};

use super::record::{self, HEADER as RECORD_HEADER};

pub(super) const MAGIC: [u8; 3] = *b"MFP";
const VERSION: u8 = 1;
pub(super) const HEADER: usize = 36;
/// Bytes of records in a frame. A reader holds one frame unpacked; a larger one packs little better.
const SIZE: usize = 64 << 10;
/// No frame is larger than the largest record, with room to spare: what claims more is not unpacked.
const LARGEST: usize = 64 << 20;
/// A fifth smaller than at half the level, and still faster than a hundred meters talk; a higher one gains nothing.
const LEVEL: i32 = 15;

/// Why a frame is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    #[error("no header of packed records")]
    Header,
    #[error("version {0} of packed records is not known here")]
    Version(u8),
    #[error("the checksum of packed records does not fit")]
    Checksum,
    #[error("packed records cannot be unpacked")]
    Content,
}

/// What a frame's header claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub first: u64,
    pub last: u64,
    pub count: u32,
    unpacked: usize,
    packed: usize,
}

impl Header {
    /// The header at the start of `bytes`; not checked.
    pub fn read(bytes: &[u8]) -> Result<Self, FrameError> {
        if bytes.len() < HEADER || bytes[..3] != MAGIC {
            return Err(FrameError::Header);
        }
        if bytes[3] != VERSION {
            return Err(FrameError::Version(bytes[3]));
        }
        let long = |at: usize| u64::from_le_bytes(record::array(&bytes[at..at + 8]));
        let short = |at: usize| u32::from_le_bytes(record::array(&bytes[at..at + 4]));
        Ok(Self {
            first: long(8),
            last: long(16),
            count: short(24),
            unpacked: short(28) as usize,
            packed: short(32) as usize,
        })
    }

    /// Bytes of the whole frame.
    pub fn size(&self) -> usize {
        HEADER + self.packed
    }
}

/// Makes frames of records.
pub(super) struct Packer {
    origin: u128,
    compressor: Compressor<'static>,
    first: u64,
    due: u64,
    count: u32,
    lengths: Vec<u8>,
    bodies: Vec<u8>,
}

impl Packer {
    pub fn new(origin: u128) -> io::Result<Self> {
        let mut compressor = Compressor::new(LEVEL)?;
        compressor.include_checksum(false)?;
        Ok(Self { origin, compressor, first: 0, due: 0, count: 0, lengths: Vec::new(), bodies: Vec::new() })
    }

    /// Whether the frame at hand is to be finished before a record of `size` bytes is added.
    pub fn is_full(&self, size: usize) -> bool {
        self.count > 0 && self.bodies.len() + size > SIZE
    }

    /// Adds a whole record. Sequences rise.
    pub fn add(&mut self, sequence: u64, record: &[u8]) {
        if self.count == 0 {
            (self.first, self.due) = (sequence, sequence);
        }
        leb128(&mut self.lengths, sequence - self.due);
        leb128(&mut self.lengths, (record.len() - RECORD_HEADER) as u64);
        self.bodies.extend_from_slice(&record[RECORD_HEADER..]);
        self.due = sequence.saturating_add(1);
        self.count += 1;
    }

    /// The frame of what was added, and its first sequence; none where nothing was.
    pub fn finish(&mut self) -> io::Result<Option<(u64, Vec<u8>)>> {
        if self.count == 0 {
            return Ok(None);
        }
        let mut contents = std::mem::take(&mut self.lengths);
        contents.append(&mut self.bodies);
        let packed = self.compressor.compress(&contents)?;
        let mut frame = Vec::with_capacity(HEADER + packed.len());
        frame.extend_from_slice(&MAGIC);
        frame.push(VERSION);
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(&self.first.to_le_bytes());
        frame.extend_from_slice(&(self.due - 1).to_le_bytes());
        frame.extend_from_slice(&self.count.to_le_bytes());
        for length in [contents.len(), packed.len()] {
            frame.extend_from_slice(&u32::try_from(length).map_err(io::Error::other)?.to_le_bytes());
        }
        frame.extend_from_slice(&packed);
        let crc = checksum(self.origin, &frame[8..]);
        frame[4..8].copy_from_slice(&crc.to_le_bytes());
        self.count = 0;
        Ok(Some((self.first, frame)))
    }
}

/// Whether every byte of a frame is as it was written.
pub(super) fn verify(origin: u128, frame: &[u8]) -> Result<Header, FrameError> {
    let header = Header::read(frame)?;
    let whole = frame.get(..header.size()).ok_or(FrameError::Header)?;
    let claimed = u32::from_le_bytes(record::array(&frame[4..8]));
    if checksum(origin, &whole[8..]) == claimed { Ok(header) } else { Err(FrameError::Checksum) }
}

/// Shows `visit` the records of a frame in order, as they were before they were packed, until it breaks.
pub(super) fn unpack(
    origin: u128,
    frame: &[u8],
    mut visit: impl FnMut(u64, &[u8]) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, FrameError> {
    let header = verify(origin, frame)?;
    if header.unpacked > LARGEST || header.count == 0 {
        return Err(FrameError::Content);
    }
    let contents = Decompressor::new()
        .and_then(|mut decompressor| decompressor.decompress(&frame[HEADER..header.size()], header.unpacked))
        .map_err(|_| FrameError::Content)?;
    let mut bodies = contents.as_slice();
    for _ in 0..2 * u64::from(header.count) {
        take_leb128(&mut bodies).ok_or(FrameError::Content)?;
    }
    let (mut lengths, mut due) = (contents.as_slice(), header.first);
    let mut record = Vec::new();
    for _ in 0..header.count {
        let skipped = take_leb128(&mut lengths).ok_or(FrameError::Content)?;
        let length = take_leb128(&mut lengths).and_then(|length| usize::try_from(length).ok());
        let sequence = due.checked_add(skipped).ok_or(FrameError::Content)?;
        let body = length.and_then(|length| bodies.split_off(..length)).ok_or(FrameError::Content)?;
        record.clear();
        record::write(&mut record, origin, sequence, body).ok_or(FrameError::Content)?;
        if visit(sequence, &record).is_break() {
            return Ok(ControlFlow::Break(()));
        }
        due = sequence.saturating_add(1);
    }
    if !bodies.is_empty() || due.checked_sub(1) != Some(header.last) {
        return Err(FrameError::Content);
    }
    Ok(ControlFlow::Continue(()))
}

fn checksum(origin: u128, bytes: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&origin.to_le_bytes());
    crc.update(bytes);
    crc.finalize()
}

fn leb128(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn take_leb128(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.split_off_first()?;
        let part = u64::from(byte & 0x7f);
        if part << shift >> shift != part {
            return None;
        }
        value |= part << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(records: &[(u64, Vec<u8>)]) -> Vec<u8> {
        let mut packer = Packer::new(7).expect("a packer");
        for (sequence, body) in records {
            let mut record = Vec::new();
            record::write(&mut record, 7, *sequence, body).expect("small enough");
            packer.add(*sequence, &record);
        }
        let (first, frame) = packer.finish().expect("packs").expect("not empty");
        assert_eq!(first, records[0].0);
        frame
    }

    fn unpacked(origin: u128, frame: &[u8]) -> Result<Vec<(u64, Vec<u8>)>, FrameError> {
        let mut found = Vec::new();
        let end = unpack(origin, frame, |sequence, record| {
            found.push((sequence, record.to_vec()));
            ControlFlow::Continue(())
        });
        end.map(|_| found)
    }

    proptest! {
        /// Promise 1: records come out of a frame as they went in, header and all, and no changed bit, cut or foreign
        /// frame is served.
        #[test]
        fn frames_hold_what_they_were_given(
            first in 1u64..u64::MAX / 2,
            bodies in proptest::collection::vec((0u64..4, proptest::collection::vec(any::<u8>(), 0..300)), 1..60),
            bit in any::<proptest::sample::Index>(),
        ) {
            let mut sequence = first;
            let mut records = Vec::new();
            for (skipped, body) in bodies {
                records.push((sequence + skipped, body));
                sequence += skipped + 1;
            }
            let whole = frame(&records);
            let expected: Vec<(u64, Vec<u8>)> = records
                .iter()
                .map(|(sequence, body)| {
                    let mut record = Vec::new();
                    record::write(&mut record, 7, *sequence, body).expect("small enough");
                    (*sequence, record)
                })
                .collect();
            prop_assert_eq!(unpacked(7, &whole), Ok(expected));
            let header = verify(7, &whole).expect("whole");
            prop_assert_eq!((header.first, header.last, header.size()), (records[0].0, sequence - 1, whole.len()));
            prop_assert_eq!(unpacked(8, &whole), Err(FrameError::Checksum));
            prop_assert!(unpacked(7, &whole[..whole.len() - 1]).is_err());
            let mut flipped = whole;
            let bit = bit.index(flipped.len() * 8);
            flipped[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(unpacked(7, &flipped).is_err());
        }

        /// Promise 5: bytes of any kind, with a good checksum too, are refused, not choked on.
        #[test]
        fn garbage_is_refused(count in 0u32..9, unpacked_size in 0u32..99, bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut frame = b"MFP\x01\0\0\0\0".to_vec();
            frame.extend_from_slice(&5u64.to_le_bytes());
            frame.extend_from_slice(&9u64.to_le_bytes());
            frame.extend_from_slice(&count.to_le_bytes());
            frame.extend_from_slice(&unpacked_size.to_le_bytes());
            frame.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            frame.extend_from_slice(&bytes);
            let crc = checksum(7, &frame[8..]);
            frame[4..8].copy_from_slice(&crc.to_le_bytes());
            prop_assert!(unpacked(7, &frame).is_err());
            prop_assert!(unpacked(7, &bytes).is_err());
        }
    }
}

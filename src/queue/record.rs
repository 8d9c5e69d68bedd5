//! One record as it stands on disk.
//!
//! ```text
//! offset 0   3 bytes   "MFR"
//!        3   1 byte    version of the format, 1
//!        4   4 bytes   CRC-32 (IEEE) over origin, sequence, length and body, little endian
//!        8   8 bytes   sequence, little endian; the same as the table's key
//!       16   4 bytes   length of the body, little endian
//!       20             body: postcard of [`Stored`]
//! ```
//!
//! `origin` is the queue id that the folder was made with: a segment of another queue fails every checksum. The header
//! makes a record findable without the database around it: that is how a damaged segment is salvaged.

use serde::{Deserialize, Serialize};

use crate::reading::{Body, Fingerprint, Mark, Received};

pub(super) const MAGIC: [u8; 3] = *b"MFR";
/// Written by this release; older ones are read. Packed records of version 1 are records of version 1
/// (see [`super::frame`]).
pub(super) const VERSION: u8 = 1;
pub(super) const HEADER: usize = 20;
/// The key of a segment's window record. Sequences begin with 1.
pub(super) const WINDOW_KEY: u64 = 0;

/// What a record says besides its sequence. The order of fields and variants is the format.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Stored {
    /// The release point known when the record was appended.
    pub release_point: u64,
    pub content: Content,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Content {
    Record(Body),
    Window(Window),
}

/// The first record of a segment: what the redelivery window knew when the segment was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Window {
    pub origin: u128,
    pub made: Received,
    /// Of each source, oldest first.
    pub marks: Vec<(String, Vec<Mark>)>,
}

/// Why a record is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum RecordError {
    #[error("no record header")]
    Header,
    #[error("version {0} is not known here")]
    Version(u8),
    #[error("the checksum does not fit")]
    Checksum,
    #[error("the content cannot be decoded")]
    Content,
}

/// The record's bytes.
pub(super) fn encode(origin: u128, sequence: u64, stored: &Stored) -> Result<Vec<u8>, postcard::Error> {
    let mut bytes = Vec::new();
    encode_into(&mut bytes, origin, sequence, stored)?;
    Ok(bytes)
}

/// Adds the record's bytes to others; after an error `buffer` is as it was.
pub(super) fn encode_into(
    buffer: &mut Vec<u8>,
    origin: u128,
    sequence: u64,
    stored: &Stored,
) -> Result<(), postcard::Error> {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; HEADER]);
    let written = postcard::serialize_with_flavor(stored, Appending(buffer))
        .and_then(|()| head(&mut buffer[start..], origin, sequence).ok_or(postcard::Error::SerializeBufferFull));
    written.inspect_err(|_| buffer.truncate(start))
}

/// Adds the record with this body to others.
pub(super) fn write(buffer: &mut Vec<u8>, origin: u128, sequence: u64, body: &[u8]) -> Option<()> {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; HEADER]);
    buffer.extend_from_slice(body);
    head(&mut buffer[start..], origin, sequence)
}

/// Fills in the header of a record whose body is there; none where the body is too large.
fn head(record: &mut [u8], origin: u128, sequence: u64) -> Option<()> {
    let length = u32::try_from(record.len() - HEADER).ok()?;
    let crc = checksum(origin, sequence, length, &record[HEADER..]);
    record[..3].copy_from_slice(&MAGIC);
    record[3] = VERSION;
    record[4..8].copy_from_slice(&crc.to_le_bytes());
    record[8..16].copy_from_slice(&sequence.to_le_bytes());
    record[16..20].copy_from_slice(&length.to_le_bytes());
    Some(())
}

/// Serialises to the end of a buffer.
struct Appending<'a>(&'a mut Vec<u8>);

impl postcard::ser_flavors::Flavor for Appending<'_> {
    type Output = ();

    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(data);
        Ok(())
    }

    fn try_push(&mut self, data: u8) -> postcard::Result<()> {
        self.0.push(data);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// The record under `sequence`, if every byte is as it was written.
pub(super) fn decode(origin: u128, sequence: u64, bytes: &[u8]) -> Result<Stored, RecordError> {
    let (found, length) = header(bytes)?;
    if found != sequence || bytes.len() != HEADER + length {
        return Err(RecordError::Checksum);
    }
    verify(origin, bytes)?;
    postcard::from_bytes(&bytes[HEADER..]).map_err(|_| RecordError::Content)
}

/// Sequence and body length that a header at the start of `bytes` claims.
pub(super) fn header(bytes: &[u8]) -> Result<(u64, usize), RecordError> {
    if bytes.len() < HEADER || bytes[..3] != MAGIC {
        return Err(RecordError::Header);
    }
    if bytes[3] != VERSION {
        return Err(RecordError::Version(bytes[3]));
    }
    let sequence = u64::from_le_bytes(array(&bytes[8..16]));
    let length = u32::from_le_bytes(array(&bytes[16..20]));
    Ok((sequence, length as usize))
}

/// The origin that a window record names itself, if its checksum fits that origin.
pub(super) fn claimed_origin(bytes: &[u8]) -> Option<u128> {
    let stored: Stored = postcard::from_bytes(bytes.get(HEADER..)?).ok()?;
    let Content::Window(window) = stored.content else { return None };
    verify(window.origin, bytes).ok().map(|()| window.origin)
}

/// Whether the checksum of a whole record (header and body) fits.
pub(super) fn verify(origin: u128, bytes: &[u8]) -> Result<(), RecordError> {
    let (sequence, length) = header(bytes)?;
    let body = bytes.get(HEADER..HEADER + length).ok_or(RecordError::Header)?;
    let claimed = u32::from_le_bytes(array(&bytes[4..8]));
    let length = u32::try_from(length).map_err(|_| RecordError::Header)?;
    if checksum(origin, sequence, length, body) == claimed { Ok(()) } else { Err(RecordError::Checksum) }
}

/// What two records are compared by: key and content as they stand on disk.
pub(super) fn fingerprint(sequence: u64, bytes: &[u8]) -> Fingerprint {
    Fingerprint::of(&[&sequence.to_le_bytes(), bytes])
}

/// Of a gap that the reader makes for sequences that are not there.
pub(super) fn hole_fingerprint(last: u64) -> Fingerprint {
    Fingerprint::of(&[b"hole", &last.to_le_bytes()])
}

fn checksum(origin: u128, sequence: u64, length: u32, body: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&origin.to_le_bytes());
    crc.update(&sequence.to_le_bytes());
    crc.update(&length.to_le_bytes());
    crc.update(body);
    crc.finalize()
}

pub(super) fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(bytes);
    array
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::{Dead, Gap, Kind, Reading};
    use bytes::Bytes;
    use proptest::prelude::*;

    const NOW: Received = Received { wall_ms: 1_800_000_000_000, boot_ms: 5, boot_id: 9, synchronised: true };

    fn dead(payload: Vec<u8>) -> Stored {
        Stored {
            release_point: 3,
            content: Content::Record(Body::Dead(Dead {
                source: "sma".into(),
                topic: "sma".into(),
                sender: String::new(),
                packet_id: Some(4),
                received: NOW,
                reason: "not JSON".into(),
                marks: Vec::new(),
                payload: Bytes::from(payload),
            })),
        }
    }

    /// The format is a promise to later releases: these bytes must stay readable.
    #[test]
    fn format_1_is_as_documented() {
        let gap = Gap { first: 5, last: 9, reason: "damage".into(), noticed: NOW };
        let stored = Stored { release_point: 4, content: Content::Record(Body::Gap(gap)) };
        let bytes = encode(1, 77, &stored).expect("encodes");
        assert_eq!(&bytes[..4], b"MFR\x01");
        assert_eq!(u64::from_le_bytes(array(&bytes[8..16])), 77);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        insta::assert_snapshot!(hex, @"4d465201a8caafa14d000000000000001500000004000205090664616d61676580c0e285e368050901");
        assert_eq!(decode(1, 77, &bytes), Ok(stored));
    }

    /// A reading as older releases know it has the bytes that it always had; one made of several messages says more.
    #[test]
    fn format_3_adds_readings_made_of_messages() {
        let of = |kind, marks| {
            let reading = Reading {
                source: "sma".into(),
                device: "9".into(),
                topic: "t".into(),
                sender: String::new(),
                packet_id: None,
                received: NOW,
                measured_ms: Some(1),
                self_identified: false,
                json: true,
                kind,
                marks,
                payload: Bytes::from_static(b"{}"),
            };
            let stored = Stored { release_point: 4, content: Content::Record(Body::Reading(reading)) };
            let bytes = encode(1, 77, &stored).expect("encodes");
            assert_eq!(decode(1, 77, &bytes), Ok(stored));
            bytes[HEADER..].iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        };
        let plain = of(Kind::Measured, Vec::new());
        insta::assert_snapshot!(plain, @"04000003736d6101390174000080c0e285e36805090101020001027b7d");
        let mark = Mark::of("", Some(4), "t", b"{}", true);
        let made = of(Kind::Normalized, vec![mark]);
        assert!(made.starts_with(&plain.replacen("040000", "040004", 1)), "{made}");
        assert_eq!(made.len(), plain.len() + 2 * (1 + 1 + 16 + 2 + 16 + 1));
    }

    proptest! {
        /// Promise 7: no changed bit, moved key or foreign queue is ever served as good.
        #[test]
        fn damage_is_noticed(payload in proptest::collection::vec(any::<u8>(), 0..600), bit in any::<proptest::sample::Index>(), sequence in 1u64..u64::MAX) {
            let stored = dead(payload);
            let bytes = encode(7, sequence, &stored).expect("encodes");
            prop_assert_eq!(decode(7, sequence, &bytes), Ok(stored));
            prop_assert!(decode(8, sequence, &bytes).is_err());
            prop_assert!(decode(7, sequence ^ 1, &bytes).is_err());
            let mut flipped = bytes.clone();
            let bit = bit.index(bytes.len() * 8);
            flipped[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(decode(7, sequence, &flipped).is_err());
            prop_assert!(decode(7, sequence, &bytes[..bytes.len() - 1]).is_err());
        }

        /// Promise 5: bytes of any kind are refused, not choked on.
        #[test]
        fn garbage_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(decode(7, 1, &bytes).is_err());
        }
    }
}

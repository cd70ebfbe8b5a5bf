//! The header before each piece of output.

use motefarm_core::exec::OutputStream;

/// Bytes of a header.
pub(crate) const HEADER_BYTES: usize = 24;
/// Most payload of one frame.
pub(crate) const MOST_PAYLOAD_BYTES: usize = 1024 * 1024;
/// Bytes of an index entry: offset and position.
pub(crate) const INDEX_ENTRY_BYTES: usize = 16;
/// There is an index entry at least this often.
pub(crate) const INDEX_EVERY_BYTES: u64 = 1024 * 1024;

/// "MF", little-endian: never zero, so a released frame can not be mistaken for one.
const MAGIC: u16 = 0x464d;

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// Payload bytes that follow; 1 to [`MOST_PAYLOAD_BYTES`].
    pub(crate) length: u32,
    /// Where they came from.
    pub(crate) stream: OutputStream,
    /// Offset of the first of them.
    pub(crate) offset: u64,
    /// When they were read from the command, in milliseconds since the epoch.
    pub(crate) time_ms: i64,
}

/// Why some bytes are no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotAHeader {
    /// All zero: a hole where a released frame was, or a page the disk never got.
    Hole,
    /// Anything else.
    Damaged,
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..4].copy_from_slice(&self.length.to_le_bytes());
        bytes[4] = match self.stream {
            OutputStream::Stdout => 1,
            OutputStream::Stderr => 2,
        };
        bytes[6..8].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.offset.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.time_ms.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, NotAHeader> {
        if bytes.iter().all(|b| *b == 0) {
            return Err(NotAHeader::Hole);
        }
        let [l0, l1, l2, l3, stream, pad, m0, m1, rest @ ..] = *bytes;
        let [o0, o1, o2, o3, o4, o5, o6, o7, t0, t1, t2, t3, t4, t5, t6, t7] = rest;
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        let stream = match stream {
            1 => OutputStream::Stdout,
            2 => OutputStream::Stderr,
            _ => return Err(NotAHeader::Damaged),
        };
        let sane = pad == 0 && u16::from_le_bytes([m0, m1]) == MAGIC;
        if !sane || length == 0 || length as usize > MOST_PAYLOAD_BYTES {
            return Err(NotAHeader::Damaged);
        }
        Ok(Self {
            length,
            stream,
            offset: u64::from_le_bytes([o0, o1, o2, o3, o4, o5, o6, o7]),
            time_ms: i64::from_le_bytes([t0, t1, t2, t3, t4, t5, t6, t7]),
        })
    }
}

/// Two numbers, as the index and the released mark hold them.
pub(crate) fn encode_pair(first: u64, second: u64) -> [u8; INDEX_ENTRY_BYTES] {
    let mut bytes = [0; INDEX_ENTRY_BYTES];
    bytes[..8].copy_from_slice(&first.to_le_bytes());
    bytes[8..].copy_from_slice(&second.to_le_bytes());
    bytes
}

/// Reads what [`encode_pair`] wrote.
pub(crate) fn decode_pair(bytes: [u8; INDEX_ENTRY_BYTES]) -> (u64, u64) {
    let [a0, a1, a2, a3, a4, a5, a6, a7, b0, b1, b2, b3, b4, b5, b6, b7] = bytes;
    (u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]), u64::from_le_bytes([b0, b1, b2, b3, b4, b5, b6, b7]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn holes_and_damage_are_told_apart() {
        assert_eq!(Header::decode(&[0; HEADER_BYTES]), Err(NotAHeader::Hole));
        let good = Header { length: 1, stream: OutputStream::Stderr, offset: 7, time_ms: -1 }.encode();
        for at in [0, 4, 5, 6, 7] {
            let mut bad = good;
            bad[at] ^= 0xff;
            // A changed length may still be a length; everything else must be noticed.
            assert!(at == 0 || Header::decode(&bad) == Err(NotAHeader::Damaged), "byte {at}");
        }
    }

    proptest! {
        #[test]
        fn headers_survive(length in 1..=MOST_PAYLOAD_BYTES as u32, err: bool, offset: u64, time_ms: i64) {
            let stream = if err { OutputStream::Stderr } else { OutputStream::Stdout };
            let header = Header { length, stream, offset, time_ms };
            prop_assert_eq!(Header::decode(&header.encode()), Ok(header));
        }

        #[test]
        fn no_bytes_panic(bytes: [u8; HEADER_BYTES]) {
            let _ = Header::decode(&bytes);
        }
    }
}

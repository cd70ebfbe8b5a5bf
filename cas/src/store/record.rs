//! One record of an index log.
//!
//! 56 bytes, little-endian: hash (32), size (8), offset in the pack (8), and the first 8 bytes of
//! SHA-256 over those 48. A record that is cut off or fails its checksum is not there, and neither
//! is anything behind it. The last record of a sealed pack is the *seal*: an impossible hash (all
//! ones) with size 0.

use motefarm_core::Digest;

/// Size of a record.
pub(super) const RECORD_BYTES: usize = 56;
const SEAL_HASH: [u8; 32] = [0xff; 32];

/// What an index log says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Record {
    /// A blob lies at `offset`.
    Blob { digest: Digest, offset: u64 },
    /// Everything before was synced to disk; the pack is full.
    Seal,
}

impl Record {
    /// Appends the record's bytes.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let (hash, size, offset) = match self {
            Self::Blob { digest, offset } => (digest.hash(), digest.size_bytes(), *offset),
            Self::Seal => (&SEAL_HASH, 0, 0),
        };
        let start = out.len();
        out.extend_from_slice(hash);
        out.extend_from_slice(&size.to_le_bytes());
        out.extend_from_slice(&offset.to_le_bytes());
        let check = checksum(&out[start..]);
        out.extend_from_slice(&check);
    }

    /// The records at the beginning of `log` up to the first that is torn.
    pub(super) fn decode_all(log: &[u8]) -> impl Iterator<Item = Self> {
        log.chunks_exact(RECORD_BYTES).map_while(Self::decode)
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, check) = bytes.split_at_checked(RECORD_BYTES - 8)?;
        if checksum(body) != check {
            return None;
        }
        let hash: [u8; 32] = body[..32].try_into().ok()?;
        let size = u64::from_le_bytes(body[32..40].try_into().ok()?);
        let offset = u64::from_le_bytes(body[40..48].try_into().ok()?);
        if hash == SEAL_HASH && size == 0 {
            return Some(Self::Seal);
        }
        Some(Self::Blob { digest: Digest::new(hash, size), offset })
    }
}

fn checksum(body: &[u8]) -> [u8; 8] {
    let mut check = [0; 8];
    check.copy_from_slice(&Digest::of(body).hash()[..8]);
    check
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_log_cut_or_damaged_anywhere_yields_its_undamaged_beginning(
            count in 1usize..6, cut in 0usize..400, flip in proptest::option::of(0usize..400),
        ) {
            let records: Vec<Record> = (0..count)
                .map(|n| Record::Blob { digest: Digest::of(&[n as u8]), offset: n as u64 })
                .chain([Record::Seal])
                .collect();
            let mut log = Vec::new();
            records.iter().for_each(|record| record.encode(&mut log));
            let cut = cut.min(log.len());
            log.truncate(cut);
            let mut whole = cut / RECORD_BYTES;
            if let Some(at) = flip.filter(|at| *at < log.len()) {
                log[at] ^= 1;
                whole = whole.min(at / RECORD_BYTES);
            }
            let read: Vec<Record> = Record::decode_all(&log).collect();
            prop_assert_eq!(&read[..], &records[..whole]);
        }
    }
}

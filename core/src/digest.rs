//! Content addresses.

use sha2::{Digest as _, Sha256};
use std::fmt;

/// SHA-256 and size of some content: the two are inseparable, as in the Remote Execution API
/// (`build.bazel.remote.execution.v2.Digest`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    hash: [u8; 32],
    size_bytes: u64,
}

/// Why a pair of hash text and size is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseDigestError {
    /// Not 64 lower-case hex digits.
    #[error("hash {0:?} is not 64 lower-case hex digits of SHA-256")]
    Hash(String),
    /// A size below zero.
    #[error("size {0} is negative")]
    Size(i64),
}

impl Digest {
    /// The digest of nothing, which is always present everywhere.
    pub const EMPTY: Self = Self {
        hash: [
            0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24, 0x27, 0xae,
            0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
        ],
        size_bytes: 0,
    };

    /// Hashes `content`.
    pub fn of(content: &[u8]) -> Self {
        Self { hash: Sha256::digest(content).into(), size_bytes: content.len() as u64 }
    }

    /// From a hash already computed.
    pub const fn new(hash: [u8; 32], size_bytes: u64) -> Self {
        Self { hash, size_bytes }
    }

    /// From the text and signed size of the wire.
    pub fn parse(hash: &str, size_bytes: i64) -> Result<Self, ParseDigestError> {
        let size_bytes = u64::try_from(size_bytes).map_err(|_| ParseDigestError::Size(size_bytes))?;
        let bad = || ParseDigestError::Hash(hash.chars().take(80).collect());
        if hash.len() != 64 || hash.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(bad());
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(hash, &mut bytes).map_err(|_| bad())?;
        Ok(Self { hash: bytes, size_bytes })
    }

    /// The 32 bytes of the hash.
    pub const fn hash(&self) -> &[u8; 32] {
        &self.hash
    }

    /// The hash as 64 lower-case hex digits.
    pub fn hash_hex(&self) -> String {
        let mut text = vec![0; 64];
        // Not `hex::encode`, which goes character by character: a tree has thousands of these.
        hex::encode_to_slice(self.hash, &mut text).expect("two digits a byte");
        String::from_utf8(text).expect("hex digits are ASCII")
    }

    /// Size of the content.
    pub const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.hash_hex(), self.size_bytes)
    }
}

/// Computes a [`Digest`] over content that comes in pieces.
#[derive(Debug, Clone, Default)]
pub struct DigestHasher {
    sha: Sha256,
    size_bytes: u64,
}

impl DigestHasher {
    /// Nothing hashed yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.sha.update(piece);
        self.size_bytes += piece.len() as u64;
    }

    /// The digest of all pieces in order.
    pub fn finish(self) -> Digest {
        Digest { hash: self.sha.finalize().into(), size_bytes: self.size_bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_empty_digest_is_the_digest_of_nothing() {
        assert_eq!(Digest::of(b""), Digest::EMPTY);
        assert_eq!(DigestHasher::new().finish(), Digest::EMPTY);
    }

    #[test]
    fn only_lower_case_hex_and_a_size_make_a_digest() {
        let d = Digest::of(b"hello");
        assert_eq!(Digest::parse(&d.hash_hex(), 5), Ok(d));
        assert!(Digest::parse(&d.hash_hex().to_uppercase(), 5).is_err());
        assert!(Digest::parse("abc", 5).is_err());
        assert_eq!(Digest::parse(&d.hash_hex(), -1), Err(ParseDigestError::Size(-1)));
        assert_ne!(Digest::parse(&d.hash_hex(), 6), Ok(d));
    }
}

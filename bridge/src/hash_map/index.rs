//! Where in a log the record of a key begins: twelve bytes a key and some air.
//!
//! Keys are SHA-256, so eight bytes of one are a good hash of it, and are taken for the whole until the
//! record is read: two keys that share them hide each other, which costs an upload.

use crate::file_blob::HashKey;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Records begin at multiples of this, so that four bytes tell positions up to 32 GiB.
pub(super) const ALIGN: u64 = 8;

/// See the module.
#[derive(Default)]
pub(super) struct Index(HashMap<[u8; 8], u32, BuildHasherDefault<AsIs>>);

impl Index {
    pub(super) fn with_capacity(keys: usize) -> Self {
        Self(HashMap::with_capacity_and_hasher(keys, BuildHasherDefault::default()))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn get(&self, key: &HashKey) -> Option<u64> {
        self.0.get(&short(key)).map(|position| u64::from(*position) * ALIGN)
    }

    /// `false`: the log is too long for it.
    pub(super) fn insert(&mut self, key: &HashKey, position: u64) -> bool {
        debug_assert!(position.is_multiple_of(ALIGN));
        let Ok(position) = u32::try_from(position / ALIGN) else { return false };
        self.0.insert(short(key), position);
        true
    }
}

fn short(key: &HashKey) -> [u8; 8] {
    let mut short = [0; 8];
    short.copy_from_slice(&key.as_bytes()[..8]);
    short
}

/// Takes eight bytes of a hash for the hash they are.
#[derive(Default)]
pub(super) struct AsIs(u64);

impl Hasher for AsIs {
    fn write(&mut self, bytes: &[u8]) {
        let mut word = [0; 8];
        let len = bytes.len().min(8);
        word[..len].copy_from_slice(&bytes[..len]);
        self.0 ^= u64::from_le_bytes(word);
    }

    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

//! Files that were asked for lately, in memory: two generations, of which the older is forgotten when the
//! younger is full.

use super::index::AsIs;
use crate::file_blob::HashKey;
use motefarm_core::Digest;
use std::collections::HashMap;
use std::hash::BuildHasherDefault;

/// Files of one generation: some 5 MiB for both. A large project has about so many headers.
const MOST: usize = 1 << 15;

type Generation = HashMap<HashKey, Digest, BuildHasherDefault<AsIs>>;

/// See the module.
#[derive(Default)]
pub(super) struct Recent {
    younger: Generation,
    older: Generation,
}

impl Recent {
    pub(super) fn get(&self, key: &HashKey) -> Option<Digest> {
        self.younger.get(key).or_else(|| self.older.get(key)).copied()
    }

    pub(super) fn insert(&mut self, key: HashKey, digest: Digest) {
        if self.younger.len() >= MOST {
            self.older = std::mem::take(&mut self.younger);
        }
        self.younger.insert(key, digest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_known_and_it_does_not_grow() {
        let key = |n: usize| HashKey::of_encoded(&n.to_le_bytes());
        let mut recent = Recent::default();
        for n in 0..3 * MOST {
            recent.insert(key(n), Digest::of(&n.to_le_bytes()));
        }
        for n in [2 * MOST, 3 * MOST - 1] {
            assert_eq!(recent.get(&key(n)), Some(Digest::of(&n.to_le_bytes())));
        }
        assert_eq!(recent.get(&key(0)), None);
        assert!(recent.younger.len() + recent.older.len() <= 2 * MOST);
    }
}

//! What eviction must leave alone.

use motefarm_core::Digest;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Reference counts by digest, in memory: who needs content across a restart pins it again.
#[derive(Debug, Default)]
pub(super) struct Pins(Mutex<HashMap<Digest, u32>>);

impl Pins {
    /// Counts one more user of each.
    pub(super) fn pin(self: &Arc<Self>, digests: Vec<Digest>) -> PinGuard {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for digest in &digests {
            *counts.entry(*digest).or_insert(0) += 1;
        }
        drop(counts);
        PinGuard { pins: Arc::clone(self), digests }
    }

    /// How many digests are pinned.
    pub(super) fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether anybody needs it.
    pub(super) fn contains(&self, digest: &Digest) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(digest)
    }
}

/// Keeps blobs from eviction until dropped. Blobs that are not there yet are pinned from the moment
/// they come.
#[derive(Debug)]
#[must_use = "dropping it unpins"]
pub struct PinGuard {
    pins: Arc<Pins>,
    digests: Vec<Digest>,
}

impl Drop for PinGuard {
    fn drop(&mut self) {
        let mut counts = self.pins.0.lock().unwrap_or_else(PoisonError::into_inner);
        for digest in &self.digests {
            if let Some(count) = counts.get_mut(digest) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(digest);
                }
            }
        }
    }
}

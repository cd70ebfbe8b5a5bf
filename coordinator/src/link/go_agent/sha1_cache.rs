//! SHA-1 of blobs of the farm's store, which the Go agent compares files by.

use motefarm_cas::store::{BlobSource, Store};
use motefarm_core::Digest;
use sha1::{Digest as _, Sha1};
use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, PoisonError};

/// Blobs remembered; some 16 MiB. Beyond that it forgets all and begins anew.
const MOST: usize = 200_000;
/// Read at a time.
const BUFFER_BYTES: usize = 256 << 10;

/// A SHA-1.
pub(super) type Hash = [u8; 20];

/// See the module. What a digest names never changes, so nothing here can be wrong, only missing.
#[derive(Default)]
pub struct Sha1Cache(Mutex<HashMap<Digest, Hash>>);

impl Sha1Cache {
    /// The hash of a blob; `None` if the store does not have it. Blocking.
    pub(super) fn of(&self, digest: &Digest, store: &Store) -> io::Result<Option<Hash>> {
        if let Some(known) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(digest) {
            return Ok(Some(*known));
        }
        let Some(blob) = store.open(digest).map_err(io::Error::other)? else { return Ok(None) };
        let mut hasher = Sha1::new();
        let mut buffer = vec![0; usize::try_from(blob.size()).unwrap_or(usize::MAX).clamp(1, BUFFER_BYTES)];
        let mut offset = 0;
        while offset < blob.size() {
            let read = blob.read_at(&mut buffer, offset)?;
            hasher.update(&buffer[..read]);
            offset += read as u64;
        }
        let hash = hasher.finalize().into();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(*digest, hash);
        Ok(Some(hash))
    }
}

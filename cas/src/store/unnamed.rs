//! Storing a large blob whose digest is only known when all of it has come.

use super::limits::MAX_PACKED_BLOB_BYTES;
use super::upload::TempFile;
use super::{PinGuard, Store, StoreError};
use bytes::Bytes;
use motefarm_core::Digest;
use motefarm_core::digest::DigestHasher;
use std::io::Write as _;

/// Content of a known size under way. Nothing of it is visible before [`Unnamed::commit`]; dropping
/// it gives it up.
#[derive(Debug)]
pub struct Unnamed {
    store: Store,
    size_bytes: u64,
    hasher: DigestHasher,
    written: u64,
    temp: TempFile,
}

impl Store {
    /// Begins storing `size_bytes` of content. Small content is cheaper to hash in memory and to put
    /// by its digest: this makes a file in any case.
    pub fn begin_unnamed(&self, size_bytes: u64) -> Result<Unnamed, StoreError> {
        let limit = self.0.limits.blob_limit();
        if size_bytes > limit {
            return Err(StoreError::TooLarge { digest: Digest::new([0; 32], size_bytes), limit });
        }
        let temp = self.temp_file(size_bytes)?;
        Ok(Unnamed { store: self.clone(), size_bytes, hasher: DigestHasher::new(), written: 0, temp })
    }
}

impl Unnamed {
    /// Adds a piece. [`StoreError::Mismatch`] as soon as there is more than announced.
    pub fn write(&mut self, piece: &[u8]) -> Result<(), StoreError> {
        self.hasher.update(piece);
        self.written += piece.len() as u64;
        if self.written > self.size_bytes {
            return Err(self.mismatch());
        }
        let written = self.temp.file.write_all(piece);
        written.map_err(|error| self.store.no_room_or_io(error, self.temp.path.clone(), self.size_bytes))
    }

    /// Stores it, pinned, and tells its digest.
    pub fn commit(self) -> Result<(Digest, PinGuard), StoreError> {
        if self.written != self.size_bytes {
            return Err(self.mismatch());
        }
        let digest = self.hasher.finish();
        // Pinned before it is looked for, so that it can not go in between.
        let pin = self.store.pin(vec![digest]);
        if self.store.missing(&[digest]).is_empty() {
            return Ok((digest, pin));
        }
        if digest.size_bytes() > MAX_PACKED_BLOB_BYTES {
            self.store.adopt(digest, self.temp)?;
        } else {
            let path = &self.temp.path;
            let content = std::fs::read(path).map_err(StoreError::io(path))?;
            self.store.put_verified(&[(digest, Bytes::from(content))])?;
        }
        Ok((digest, pin))
    }

    fn mismatch(&self) -> StoreError {
        StoreError::Mismatch { expected: Digest::new([0; 32], self.size_bytes), actual: self.hasher.clone().finish() }
    }
}

//! Storing one blob that comes in pieces.

use super::catalog::Place;
use super::error::is_no_room;
use super::limits::MAX_PACKED_BLOB_BYTES;
use super::{Store, StoreError, large};
use motefarm_core::Digest;
use motefarm_core::digest::DigestHasher;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::PathBuf;

/// A blob under way. Nothing of it is visible before [`Upload::commit`]; dropping it gives it up.
#[derive(Debug)]
pub struct Upload {
    store: Store,
    expected: Digest,
    hasher: DigestHasher,
    written: u64,
    sink: Sink,
}

#[derive(Debug)]
enum Sink {
    /// Small: collected in memory, at most 1 MiB.
    Memory(Vec<u8>),
    /// Large: a file in `tmp/`.
    File(TempFile),
}

/// A file that goes away unless it was renamed.
#[derive(Debug)]
pub(super) struct TempFile {
    pub(super) path: PathBuf,
    pub(super) file: File,
    kept: bool,
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::debug!(path = %self.path.display(), %error, "temporary file stays until the next start");
        }
    }
}

impl Store {
    /// Begins storing the blob `digest` in pieces. It is no error if it is there already.
    pub fn begin(&self, digest: Digest) -> Result<Upload, StoreError> {
        let limit = self.0.limits.blob_limit();
        if digest.size_bytes() > limit {
            return Err(StoreError::TooLarge { digest, limit });
        }
        let sink = if digest.size_bytes() > MAX_PACKED_BLOB_BYTES {
            Sink::File(self.temp_file(digest.size_bytes())?)
        } else {
            Sink::Memory(Vec::new())
        };
        Ok(Upload { store: self.clone(), expected: digest, hasher: DigestHasher::new(), written: 0, sink })
    }

    /// A file for a blob of `bytes` under way.
    pub(super) fn temp_file(&self, bytes: u64) -> Result<TempFile, StoreError> {
        let path = self.0.dir.join("tmp").join(uuid::Uuid::new_v4().to_string());
        let file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .open(&path)
            .map_err(|error| self.no_room_or_io(error, path.clone(), bytes))?;
        Ok(TempFile { path, file, kept: false })
    }

    pub(super) fn no_room_or_io(&self, error: io::Error, path: PathBuf, bytes: u64) -> StoreError {
        if is_no_room(&error) {
            return StoreError::Full { dir: self.0.dir.clone(), bytes };
        }
        StoreError::Io { path, source: error }
    }
}

impl Upload {
    /// Adds a piece. [`StoreError::Mismatch`] as soon as there is more than announced.
    pub fn write(&mut self, piece: &[u8]) -> Result<(), StoreError> {
        self.hasher.update(piece);
        if self.written + piece.len() as u64 > self.expected.size_bytes() {
            return Err(StoreError::Mismatch { expected: self.expected, actual: self.hasher.clone().finish() });
        }
        match &mut self.sink {
            Sink::Memory(content) => content.extend_from_slice(piece),
            Sink::File(temp) => temp
                .file
                .write_all(piece)
                .map_err(|error| self.store.no_room_or_io(error, temp.path.clone(), self.expected.size_bytes()))?,
        }
        self.written += piece.len() as u64;
        Ok(())
    }

    /// Bytes taken so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// What it is to become.
    pub fn digest(&self) -> Digest {
        self.expected
    }

    /// Verifies and stores it; whether it was new.
    pub fn commit(self) -> Result<bool, StoreError> {
        let actual = self.hasher.finish();
        if actual != self.expected {
            return Err(StoreError::Mismatch { expected: self.expected, actual });
        }
        if self.store.missing(&[self.expected]).is_empty() {
            return Ok(false);
        }
        match self.sink {
            Sink::Memory(content) => Ok(self.store.append(vec![(self.expected, &content)])?.0 > 0),
            Sink::File(temp) => self.store.adopt(self.expected, temp),
        }
    }
}

impl Store {
    /// Moves a finished temporary file to its place.
    pub(super) fn adopt(&self, digest: Digest, mut temp: TempFile) -> Result<bool, StoreError> {
        let mut writer = self.writer();
        if self.catalog().place(&digest).is_some() {
            return Ok(false);
        }
        self.make_room_for(&mut writer, digest.size_bytes())?;
        let path = large::path(&self.0.dir, &digest);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)
                .map_err(|error| self.no_room_or_io(error, parent.to_owned(), digest.size_bytes()))?;
        }
        std::fs::rename(&temp.path, &path)
            .map_err(|error| self.no_room_or_io(error, path.clone(), digest.size_bytes()))?;
        temp.kept = true;
        self.catalog_mut().insert(digest, Place::Large, self.now_ms());
        Ok(true)
    }
}

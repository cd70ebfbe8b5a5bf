//! Reading one blob, and where blobs may be read from.

use super::StoreError;
use bytes::Bytes;
use motefarm_core::Digest;
use motefarm_core::digest::DigestHasher;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

/// Where blobs can be read by digest.
pub trait BlobSource: Send + Sync {
    /// Whether it is there now. The empty blob always is.
    fn contains(&self, digest: &Digest) -> bool;

    /// Opens it for reading; `None` if it is not there. What was opened stays readable until
    /// dropped, also when it is evicted meanwhile.
    fn open(&self, digest: &Digest) -> Result<Option<Blob>, StoreError>;

    /// All of it, if it is there; [`StoreError::TooLarge`] beyond `max` bytes.
    fn read(&self, digest: &Digest, max: u64) -> Result<Option<Bytes>, StoreError> {
        let Some(blob) = self.open(digest)? else { return Ok(None) };
        if blob.size() > max {
            return Err(StoreError::TooLarge { digest: *digest, limit: max });
        }
        blob.read_all().map(Some).map_err(|source| StoreError::Io { path: digest.to_string().into(), source })
    }
}

/// An open blob: a stretch of a pack or a file of its own. The content was verified when it was
/// stored and is not hashed again on reading.
#[derive(Debug, Clone)]
pub struct Blob {
    /// None for the empty blob, which has no place on disk.
    file: Option<Arc<File>>,
    start: u64,
    size: u64,
}

impl Blob {
    /// The blob of no bytes.
    pub(crate) fn empty() -> Self {
        Self { file: None, start: 0, size: 0 }
    }

    /// `size` bytes of `file` from `start` on.
    pub(crate) fn stretch(file: Arc<File>, start: u64, size: u64) -> Self {
        Self { file: Some(file), start, size }
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Reads into `buf` from `offset` on, as `pread(2)`: possibly less than asked, 0 at the end.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let Some(file) = &self.file else { return Ok(0) };
        let left = self.size.saturating_sub(offset);
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        if len == 0 {
            return Ok(0);
        }
        match file.read_at(&mut buf[..len], self.start + offset)? {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the blob's file is shorter than the blob")),
            read => Ok(read),
        }
    }

    /// Fills `buf` from `offset` on; an error if the blob ends before.
    pub fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < buf.len() {
            match self.read_at(&mut buf[done..], offset + done as u64)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => done += read,
            }
        }
        Ok(())
    }

    /// Appends the whole content to `to` at its present position.
    pub fn copy_to(&self, mut to: &File) -> io::Result<()> {
        let mut buf = vec![0; usize::try_from(self.size).unwrap_or(usize::MAX).min(COPY_BYTES)];
        let mut offset = 0;
        while offset < self.size {
            let read = self.read_at(&mut buf, offset)?;
            to.write_all(&buf[..read])?;
            offset += read as u64;
        }
        Ok(())
    }

    /// Reads and hashes all of it: whether it is what this digest says, on this disk, today.
    pub fn is(&self, digest: &Digest) -> io::Result<bool> {
        let mut buf = vec![0; usize::try_from(self.size).unwrap_or(COPY_BYTES).clamp(1, COPY_BYTES)];
        let (mut hasher, mut offset) = (DigestHasher::new(), 0);
        loop {
            match self.read_at(&mut buf, offset)? {
                0 => return Ok(hasher.finish() == *digest),
                read => {
                    hasher.update(&buf[..read]);
                    offset += read as u64;
                }
            }
        }
    }

    fn read_all(&self) -> io::Result<Bytes> {
        let mut content = vec![0; usize::try_from(self.size).map_err(io::Error::other)?];
        self.read_exact_at(&mut content, 0)?;
        Ok(content.into())
    }
}

/// Piece of a copy: large enough that system calls do not matter, small enough for a cache.
const COPY_BYTES: usize = 256 << 10;

//! From blobs to messages.

use super::{Content, LocalBlob, PackError};
#[cfg(unix)]
use crate::store::Blob;
use bytes::Bytes;
use motefarm_core::Digest;
use motefarm_core::digest::DigestHasher;
use motefarm_proto::mote::BlobBatch;
use motefarm_proto::mote::blob_batch::Compression;
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::PathBuf;

/// Yields the messages that carry a list of blobs, in the list's order. Blocks on reading files.
/// After an error it yields nothing more.
///
/// Memory: about two messages' content, whatever the number and size of the blobs.
pub struct BatchPacker {
    blobs: Box<dyn Iterator<Item = LocalBlob> + Send>,
    compress: bool,
    /// A small blob that did not fit the last message any more.
    next: Option<LocalBlob>,
    pieces: Option<Pieces>,
    content: Vec<u8>,
    failed: bool,
}

/// A blob that is sent in pieces.
struct Pieces {
    digest: Digest,
    reader: Reader,
    offset: u64,
    hasher: DigestHasher,
}

enum Reader {
    Bytes(Bytes),
    File(PathBuf, File),
    #[cfg(unix)]
    Stored(Blob),
}

/// A message is closed when the next blob would bring its content over this.
const BATCH_BYTES: u64 = 2 << 20;
/// And when it names this many blobs: 20,000 digests of at most 45 bytes are 0.9 MB.
const BATCH_BLOBS: usize = 20_000;
const ZSTD_LEVEL: i32 = 1;
/// Content shorter than this is sent as it is.
const MIN_COMPRESS_BYTES: usize = 512;

impl BatchPacker {
    /// A packer that compresses with zstd.
    pub fn new(blobs: impl IntoIterator<Item = LocalBlob, IntoIter: Send + 'static>) -> Self {
        Self {
            blobs: Box::new(blobs.into_iter()),
            compress: true,
            next: None,
            pieces: None,
            content: Vec::new(),
            failed: false,
        }
    }

    /// Sends contents as they are: for a peer on the same machine, where compressing costs more
    /// than it saves.
    #[must_use]
    pub fn uncompressed(mut self) -> Self {
        self.compress = false;
        self
    }

    fn next_batch(&mut self) -> Result<Option<BlobBatch>, PackError> {
        if self.pieces.is_some() {
            return self.next_piece().map(Some);
        }
        self.content.clear();
        let mut digests = Vec::new();
        while let Some(blob) = self.next.take().or_else(|| self.blobs.next()) {
            let full =
                self.content.len() as u64 + blob.digest.size_bytes() > BATCH_BYTES || digests.len() >= BATCH_BLOBS;
            if full && !digests.is_empty() {
                self.next = Some(blob);
                break;
            }
            if blob.digest.size_bytes() > BATCH_BYTES {
                self.pieces = Some(Pieces::open(blob)?);
                return self.next_piece().map(Some);
            }
            append_blob(&mut self.content, &blob)?;
            digests.push(blob.digest.into());
        }
        if digests.is_empty() {
            return Ok(None);
        }
        let (compression, data) = self.close_content()?;
        Ok(Some(BlobBatch { digests, compression: compression.into(), data, ..BlobBatch::default() }))
    }

    fn next_piece(&mut self) -> Result<BlobBatch, PackError> {
        let Some(mut pieces) = self.pieces.take() else { return Ok(BlobBatch::default()) };
        let piece_offset = pieces.offset;
        let left = pieces.digest.size_bytes() - pieces.offset;
        let size = usize::try_from(left.min(BATCH_BYTES)).unwrap_or(usize::MAX);
        self.content.resize(size, 0);
        pieces.read(&mut self.content)?;
        let digest = pieces.digest;
        if pieces.offset < digest.size_bytes() {
            self.pieces = Some(pieces);
        } else {
            pieces.finish()?;
        }
        let (compression, data) = self.close_content()?;
        Ok(BlobBatch {
            digests: vec![digest.into()],
            compression: compression.into(),
            data,
            piece_offset,
            is_piece: true,
        })
    }

    fn close_content(&mut self) -> Result<(Compression, Bytes), PackError> {
        if self.compress && self.content.len() >= MIN_COMPRESS_BYTES {
            let packed = zstd::bulk::compress(&self.content, ZSTD_LEVEL).map_err(PackError::Compress)?;
            if packed.len() < self.content.len() {
                return Ok((Compression::Zstd, packed.into()));
            }
        }
        Ok((Compression::None, std::mem::take(&mut self.content).into()))
    }
}

impl Iterator for BatchPacker {
    type Item = Result<BlobBatch, PackError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let batch = self.next_batch();
        self.failed = batch.is_err();
        batch.transpose()
    }
}

/// Appends a small blob's content after verifying it.
fn append_blob(content: &mut Vec<u8>, blob: &LocalBlob) -> Result<(), PackError> {
    let start = content.len();
    let size = usize::try_from(blob.digest.size_bytes()).unwrap_or(usize::MAX);
    match &blob.content {
        Content::Bytes(bytes) => content.extend_from_slice(bytes),
        Content::File(path) => {
            let read = open_file(path).and_then(|file| {
                // One byte more, to notice a file that grew.
                file.take(blob.digest.size_bytes() + 1).read_to_end(content).map_err(io_error(path))
            })?;
            if read != size {
                return Err(PackError::Changed(path.clone()));
            }
        }
        #[cfg(unix)]
        Content::Stored(source) => {
            let bytes = source.read(&blob.digest, blob.digest.size_bytes())?.ok_or(PackError::Gone(blob.digest))?;
            content.extend_from_slice(&bytes);
            // What a store gives out it has verified, and the receiver verifies again.
            return Ok(());
        }
    }
    if Digest::of(&content[start..]) == blob.digest {
        return Ok(());
    }
    Err(match &blob.content {
        Content::File(path) => PackError::Changed(path.clone()),
        _ => PackError::Mismatch(blob.digest),
    })
}

impl Pieces {
    fn open(blob: LocalBlob) -> Result<Self, PackError> {
        let digest = blob.digest;
        let reader = match blob.content {
            Content::Bytes(bytes) if bytes.len() as u64 != digest.size_bytes() => {
                return Err(PackError::Mismatch(digest));
            }
            Content::Bytes(bytes) => Reader::Bytes(bytes),
            Content::File(path) => {
                let file = open_file(&path)?;
                Reader::File(path, file)
            }
            #[cfg(unix)]
            Content::Stored(source) => Reader::Stored(source.open(&digest)?.ok_or(PackError::Gone(digest))?),
        };
        Ok(Self { digest, reader, offset: 0, hasher: DigestHasher::new() })
    }

    fn read(&mut self, piece: &mut [u8]) -> Result<(), PackError> {
        match &mut self.reader {
            Reader::Bytes(bytes) => piece.copy_from_slice(&bytes.split_to(piece.len())),
            Reader::File(path, file) => file.read_exact(piece).map_err(|error| match error.kind() {
                ErrorKind::UnexpectedEof => PackError::Changed(path.clone()),
                _ => io_error(path)(error),
            })?,
            #[cfg(unix)]
            Reader::Stored(blob) => blob
                .read_exact_at(piece, self.offset)
                .map_err(|source| PackError::Io { path: self.digest.to_string().into(), source })?,
        }
        self.offset += piece.len() as u64;
        self.hasher.update(piece);
        Ok(())
    }

    /// After the last piece: was it what it was said to be?
    fn finish(mut self) -> Result<(), PackError> {
        if let Reader::File(path, file) = &mut self.reader
            && file.read(&mut [0]).map_err(io_error(path))? > 0
        {
            return Err(PackError::Changed(path.clone()));
        }
        if self.hasher.finish() == self.digest {
            return Ok(());
        }
        Err(match self.reader {
            Reader::File(path, _) => PackError::Changed(path),
            _ => PackError::Mismatch(self.digest),
        })
    }
}

/// A file that is gone has changed, too.
fn open_file(path: &PathBuf) -> Result<File, PackError> {
    File::open(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => PackError::Changed(path.clone()),
        _ => io_error(path)(error),
    })
}

fn io_error(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> PackError {
    let path = path.to_owned();
    move |source| PackError::Io { path, source }
}

//! zstd of single blobs, in both directions and within bounds.

use crate::store::{Blob, StoreError, Upload};
use std::io::{self, Write as _};

const ZSTD_LEVEL: i32 = 1;
/// Largest window accepted: 32 MiB, which every level without `--long` stays under. It bounds the
/// memory of one write.
const MAX_WINDOW_LOG: u32 = 25;

/// Content of a batch entry; at most as much as its digest announces.
pub(super) fn unpack(packed: &[u8], size: usize) -> io::Result<Vec<u8>> {
    zstd::bulk::decompress(packed, size)
}

/// Content of a batch entry, packed.
pub(super) fn pack(content: &[u8]) -> io::Result<Vec<u8>> {
    zstd::bulk::compress(content, ZSTD_LEVEL)
}

/// An upload that is fed compressed. The upload refuses more than its digest announces, so a bomb
/// ends where it begins to be one.
pub(super) struct Unpacker(zstd::stream::write::Decoder<'static, Sink>);

struct Sink {
    upload: Upload,
    /// What the upload said; the decoder only carries IO errors.
    error: Option<StoreError>,
}

impl io::Write for Sink {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        match self.upload.write(piece) {
            Ok(()) => Ok(piece.len()),
            Err(error) => {
                let message = error.to_string();
                self.error = Some(error);
                Err(io::Error::other(message))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Why compressed content was refused.
pub(super) enum UnpackError {
    Store(StoreError),
    Zstd(io::Error),
}

impl Unpacker {
    pub(super) fn new(upload: Upload) -> io::Result<Self> {
        let mut decoder = zstd::stream::write::Decoder::new(Sink { upload, error: None })?;
        decoder.window_log_max(MAX_WINDOW_LOG)?;
        Ok(Self(decoder))
    }

    pub(super) fn write(&mut self, piece: &[u8]) -> Result<(), UnpackError> {
        let result = self.0.write_all(piece).and_then(|()| self.0.flush());
        result.map_err(|error| match self.0.get_mut().error.take() {
            Some(error) => UnpackError::Store(error),
            None => UnpackError::Zstd(error),
        })
    }

    /// Bytes unpacked so far.
    pub(super) fn written(&self) -> u64 {
        self.0.get_ref().upload.written()
    }

    pub(super) fn into_upload(self) -> Upload {
        self.0.into_inner().upload
    }
}

/// A blob as one zstd stream, piece by piece.
pub(super) struct Packer {
    blob: Blob,
    offset: u64,
    encoder: Option<zstd::stream::write::Encoder<'static, Vec<u8>>>,
}

impl Packer {
    /// From `offset` (in uncompressed bytes) to the end.
    pub(super) fn new(blob: Blob, offset: u64) -> io::Result<Self> {
        let encoder = zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
        Ok(Self { blob, offset, encoder: Some(encoder) })
    }

    /// The next piece, of about `size` bytes or a little more; `None` at the end.
    pub(super) fn next(&mut self, size: usize) -> io::Result<Option<Vec<u8>>> {
        let Some(mut encoder) = self.encoder.take() else { return Ok(None) };
        let mut buf = vec![0; size];
        while self.offset < self.blob.size() {
            let read = self.blob.read_at(&mut buf, self.offset)?;
            encoder.write_all(&buf[..read])?;
            self.offset += read as u64;
            if encoder.get_ref().len() >= size {
                let piece = std::mem::take(encoder.get_mut());
                self.encoder = Some(encoder);
                return Ok(Some(piece));
            }
        }
        encoder.finish().map(Some)
    }
}

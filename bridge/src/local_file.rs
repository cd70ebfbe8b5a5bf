//! A file of this machine as Goma's clients know it: one blob, or chunks and the list of them.

use crate::file_blob::{Blob, CHUNK_BYTES, HashKey, key_of_chunk};
use bytes::Bytes;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// The blobs of a file, read piece by piece. The last one is what the file is known by.
#[derive(Debug)]
pub struct FileBlobs {
    file: File,
    /// As it was when it was opened: a file of one chunk exactly shows itself by nothing else.
    announced: u64,
    read: u64,
    chunks: Vec<HashKey>,
    is_done: bool,
}

impl FileBlobs {
    /// Of the file at `path`.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let announced = file.metadata()?.len();
        Ok(Self { file, announced, read: 0, chunks: Vec::new(), is_done: false })
    }

    /// Bytes that were read.
    pub fn bytes(&self) -> u64 {
        self.read
    }

    fn piece(&mut self) -> io::Result<Blob> {
        let mut piece = Vec::new();
        (&mut self.file).take(CHUNK_BYTES as u64).read_to_end(&mut piece)?;
        let (content, offset) = (Bytes::from(piece), self.read);
        self.read += content.len() as u64;
        if offset == 0 && (content.len() < CHUNK_BYTES || self.read == self.announced) {
            self.is_done = true;
            return Ok(Blob::File(content));
        }
        if content.is_empty() {
            self.is_done = true;
            return Ok(Blob::Meta { size: self.read, chunks: std::mem::take(&mut self.chunks) });
        }
        self.chunks.push(key_of_chunk(offset, &content));
        Ok(Blob::Chunk { offset, content })
    }
}

impl Iterator for FileBlobs {
    type Item = io::Result<Blob>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_done {
            return None;
        }
        let piece = self.piece();
        self.is_done |= piece.is_err();
        Some(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the vectors of the protocol's description.
    #[test]
    fn the_last_blob_is_what_the_file_is_known_by() {
        let dir = tempfile::tempdir().unwrap();
        for (size, count, key) in [
            (0, 1, "6ed756eacff27326411ce890c828745034b70725d434d0fe940561f39f712bfd"),
            (CHUNK_BYTES, 1, "0abbcb88f737dc97622267ba29f9786df3965639337125763de530dd2e5118c0"),
            (CHUNK_BYTES + 1, 3, "49d6bd5f1ecfa3be852b351dda7160d3338cb84b154e5695cf80859936fccb06"),
        ] {
            let path = dir.path().join("zeros");
            std::fs::write(&path, vec![0; size]).unwrap();
            let blobs: Vec<Blob> = FileBlobs::open(&path).unwrap().collect::<Result<_, _>>().unwrap();
            assert_eq!((blobs.len(), blobs.last().unwrap().key().to_string().as_str()), (count, key), "{size}");
        }
        assert!(FileBlobs::open(&dir.path().join("none")).is_err());
    }
}

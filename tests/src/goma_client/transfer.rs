//! Large files on their ways: chunks to the server (`/s`) and from it (`/l`).

use super::blob::Blob;
use super::compile::{Client, Failure};
use super::wire::{Fields, Message};

/// Chunks of one store, and keys of one lookup.
const TOGETHER: usize = 5;

impl Client {
    /// Blobs by key, in order.
    pub fn look_up(&mut self, keys: &[String]) -> Result<Vec<Blob>, Failure> {
        let answer = self.http.call("/l", &Message::default().all(1, keys).0).map_err(Failure::Http)?;
        let answer = Fields::read(&answer).map_err(Failure::Answer)?;
        let blobs = answer.all(2);
        if blobs.len() != keys.len() {
            return Err(Failure::Answer(format!("{} blobs for {} keys", blobs.len(), keys.len())));
        }
        let read =
            |blob| if Blob::is_none(blob) { Err(Failure::Lost) } else { Blob::read(blob).map_err(Failure::Answer) };
        blobs.into_iter().map(read).collect()
    }

    /// Chunks go by themselves, a few together.
    pub(super) fn store(&mut self, chunks: &[Blob]) -> Result<(), Failure> {
        for some in chunks.chunks(TOGETHER) {
            let request = Message::default().all(1, some.iter().map(Blob::encode)).0;
            let answer = self.http.call("/s", &request).map_err(Failure::Http)?;
            let keys = Fields::read(&answer).map_err(Failure::Answer)?.texts(1);
            // The real client looks only for empty ones here; a server has no reason to answer others.
            let expected: Vec<String> = some.iter().map(Blob::key).collect();
            if keys != expected {
                return Err(Failure::Answer(format!("stored {expected:?}, answered {keys:?}")));
            }
        }
        Ok(())
    }

    /// A blob's content: its own, or what its keys lead to.
    pub(super) fn fetch(&mut self, blob: &Blob) -> Result<Vec<u8>, Failure> {
        if let Some(content) = &blob.content {
            return Ok(content.clone());
        }
        let mut content = vec![0; blob.size as usize];
        let mut filled = 0;
        for keys in blob.to_look_up().chunks(TOGETHER) {
            for (piece, key) in self.look_up(keys)?.into_iter().zip(keys) {
                if piece.key() != *key {
                    return Err(Failure::Answer(format!("looked up {key}, got {}", piece.key())));
                }
                let at = piece.offset.unwrap_or(0) as usize;
                let bytes = piece.content.ok_or_else(|| Failure::Answer("a list in a list".to_owned()))?;
                filled += bytes.len();
                content
                    .get_mut(at..at + bytes.len())
                    .ok_or_else(|| Failure::Answer(format!("a chunk at {at} beyond the file's end")))?
                    .copy_from_slice(&bytes);
            }
        }
        if filled == content.len() { Ok(content) } else { Err(Failure::Answer(format!("{filled} bytes came"))) }
    }
}

//! Making one blob of a file that came in chunks. Twice over the chunks, which lie in the CAS already: a
//! blob's digest must be known before it can be written, and a file of any size is never held.

use super::Content;
use crate::backend::{Fault, Stage};
use crate::file_blob::{CHUNK_BYTES, HashKey, key_of_chunk};
use crate::hash_map::Entry;
use bytes::Bytes;
use motefarm_core::Digest;
use motefarm_core::digest::DigestHasher;
use tokio::sync::mpsc;
use tonic::Code;

/// Times a file is written before it is given up.
const TRIES: u32 = 3;

/// Where a chunk lies.
struct Chunk {
    key: HashKey,
    offset: u64,
    blob: Digest,
    start: u64,
    length: u64,
}

impl Content {
    /// Sees to it that the file with this list of chunks is in the CAS as one blob, and remembers it.
    pub(super) async fn assemble(
        &self,
        stage: Stage,
        key: HashKey,
        size: u64,
        chunks: Vec<HashKey>,
    ) -> Result<(), Fault> {
        let failed = |why: String| Fault::new(stage, Code::NotFound, why);
        let _turn = self.assemblies.acquire().await.map_err(|_| failed("the bridge stops".to_owned()))?;
        if let Some(Entry::Meta { whole, .. }) = self.entries(stage, vec![key]).await?.pop().flatten()
            && self.backend.missing(stage, &[whole]).await?.is_empty()
        {
            return Ok(());
        }
        let found = self.chunks(stage, size, &chunks).await?;
        let mut hasher = DigestHasher::new();
        for chunk in &found {
            hasher.update(&self.read_chunk(stage, chunk).await?);
        }
        let whole = hasher.finish();
        let mut tries = 1;
        while !self.backend.missing(stage, &[whole]).await?.is_empty() {
            match self.write_whole(stage, whole, &found).await {
                Err(fault) if tries == TRIES => return Err(fault),
                Err(fault) => tracing::debug!(%fault, "a long file is written again"),
                Ok(()) => {}
            }
            tries += 1;
            if tries > TRIES {
                break;
            }
        }
        self.remember(stage, vec![(key, Entry::Meta { whole, chunks })]).await
    }

    /// Where the chunks lie; they must be all here and fit together.
    async fn chunks(&self, stage: Stage, size: u64, keys: &[HashKey]) -> Result<Vec<Chunk>, Fault> {
        let entries = self.entries(stage, keys.to_vec()).await?;
        let mut expected = 0;
        let mut found = Vec::with_capacity(keys.len());
        for (key, entry) in keys.iter().zip(entries) {
            match entry {
                Some(Entry::Chunk { offset, blob, start, length })
                    if offset == expected && length == (size - expected).min(CHUNK_BYTES as u64) =>
                {
                    expected += length;
                    found.push(Chunk { key: *key, offset, blob, start, length });
                }
                _ => {
                    let why = format!("its chunk {key} at {expected} is not here");
                    return Err(Fault::new(stage, Code::NotFound, why));
                }
            }
        }
        Ok(found)
    }

    async fn read_chunk(&self, stage: Stage, chunk: &Chunk) -> Result<Bytes, Fault> {
        let content = self.backend.read_range(stage, chunk.blob, chunk.start, chunk.length).await?;
        if key_of_chunk(chunk.offset, &content) == chunk.key {
            return Ok(content);
        }
        Err(Fault::new(stage, Code::DataLoss, format!("the chunk {} in blob {} is damaged", chunk.key, chunk.blob)))
    }

    async fn write_whole(&self, stage: Stage, whole: Digest, chunks: &[Chunk]) -> Result<(), Fault> {
        let (sender, receiver) = mpsc::channel(1);
        let reading = async {
            for chunk in chunks {
                let mut content = self.read_chunk(stage, chunk).await?;
                while !content.is_empty() {
                    let piece = content.split_to(content.len().min(CHUNK_BYTES / 8));
                    if sender.send(piece).await.is_err() {
                        // The server has taken enough; its answer says whether that is well.
                        return Ok(());
                    }
                }
            }
            drop(sender);
            Ok(())
        };
        let (written, read) = tokio::join!(self.backend.write_pieces(stage, whole, receiver), reading);
        read.and(written)
    }
}

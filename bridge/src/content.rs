//! The clients' content: blobs by hash key, kept in the server's CAS alone.
//!
//! A file or chunk lies there as its plain bytes. A file of chunks lies there as one blob as well, because an
//! action's tree needs it whole; its chunks are then ranges of it.

mod assemble;

use crate::backend::{Backend, Fault, Stage};
use crate::file_blob::{Blob, HashKey, key_of_chunk};
use crate::hash_map::{Entry, HashMap};
use bytes::Bytes;
use motefarm_core::Digest;
use std::io;
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc};
use tonic::Code;

/// Long files put together at once: each holds a few chunks in memory.
const ASSEMBLIES: usize = 2;

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Content {
    backend: Backend,
    map: HashMap,
    assemblies: Arc<Semaphore>,
}

impl Content {
    /// Content in this server, known by this map.
    pub fn new(backend: Backend, map: HashMap) -> Self {
        Self { backend, map, assemblies: Arc::new(Semaphore::new(ASSEMBLIES)) }
    }

    /// What the keys stand for, in order. Whether the content is still there is another question.
    pub async fn entries(&self, stage: Stage, keys: Vec<HashKey>) -> Result<Vec<Option<Entry>>, Fault> {
        match self.map.recent(&keys) {
            Some(known) => Ok(known),
            None => self.on_map(stage, move |map| map.get(&keys)).await,
        }
    }

    /// Remembers what keys stand for.
    pub async fn remember(&self, stage: Stage, entries: Vec<(HashKey, Entry)>) -> Result<(), Fault> {
        if self.map.knows(&entries) {
            return Ok(());
        }
        self.on_map(stage, move |map| map.put(&entries)).await
    }

    async fn on_map<T: Send + 'static>(
        &self,
        stage: Stage,
        work: impl FnOnce(&HashMap) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Fault> {
        let map = self.map.clone();
        let done = tokio::task::spawn_blocking(move || work(&map)).await;
        let failed = |why: String| Fault::new(stage, Code::Internal, format!("the bridge's hash map failed: {why}"));
        done.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))
    }

    /// Stores blobs whose keys were verified; for each, in order, why it is not stored. Files and chunks go
    /// first, so that a list among them finds them.
    pub async fn store(&self, stage: Stage, blobs: Vec<(HashKey, Blob)>) -> Vec<Result<(), Fault>> {
        let plain = blobs.iter().filter_map(|(key, blob)| match blob {
            Blob::File(content) => Some((*key, Entry::File(Digest::of(content)), content.clone())),
            Blob::Chunk { offset, content } => {
                let (blob, length) = (Digest::of(content), content.len() as u64);
                Some((*key, Entry::Chunk { offset: *offset, blob, start: 0, length }, content.clone()))
            }
            Blob::Meta { .. } | Blob::Reference { .. } => None,
        });
        let (mut entries, mut contents) = (Vec::new(), Vec::new());
        for (key, entry, content) in plain {
            contents.push((entry.blob(), content));
            entries.push((key, entry));
        }
        let plain_stored = match self.backend.put(stage, &contents).await {
            Ok(()) => self.remember(stage, entries).await,
            Err(fault) => Err(fault),
        };
        let mut results = Vec::with_capacity(blobs.len());
        for (key, blob) in blobs {
            results.push(match blob {
                Blob::File(_) | Blob::Chunk { .. } => plain_stored.clone(),
                Blob::Meta { size, chunks } => self.assemble(stage, key, size, chunks).await,
                Blob::Reference { file, size } => self.refer(stage, key, file, size).await,
            });
        }
        results
    }

    /// Stores a longer file that is at hand, whose key was verified: as one blob, from its pieces.
    pub async fn store_whole(
        &self,
        stage: Stage,
        key: HashKey,
        whole: Digest,
        chunks: Vec<HashKey>,
        pieces: mpsc::Receiver<Bytes>,
    ) -> Result<(), Fault> {
        self.backend.put_pieces(stage, whole, pieces).await?;
        self.remember(stage, Entry::of_whole(key, whole, chunks)).await
    }

    /// A reference is another key of its file.
    async fn refer(&self, stage: Stage, key: HashKey, file: HashKey, size: u64) -> Result<(), Fault> {
        match self.entries(stage, vec![file]).await?.pop().flatten() {
            Some(Entry::File(digest)) if digest.size_bytes() == size => {
                self.remember(stage, vec![(key, Entry::File(digest))]).await
            }
            _ => Err(Fault::new(stage, Code::NotFound, format!("the file {file} that it refers to is not here"))),
        }
    }

    /// The blob of a key, as a client is to see it. `None`: unknown, or its content is gone.
    pub async fn look_up(&self, key: HashKey) -> Result<Option<Blob>, Fault> {
        let stage = Stage::Download;
        let Some(entry) = self.entries(stage, vec![key]).await?.pop().flatten() else { return Ok(None) };
        let read = match entry {
            Entry::Meta { whole, chunks } => return Ok(Some(Blob::Meta { size: whole.size_bytes(), chunks })),
            Entry::File(digest) => self.backend.read(stage, digest).await.map(Blob::File),
            Entry::Chunk { offset, blob, start, length } => {
                self.backend.read_range(stage, blob, start, length).await.and_then(|content| {
                    // A range has no digest to check it by, but it has the key.
                    if key_of_chunk(offset, &content) == key {
                        return Ok(Blob::Chunk { offset, content });
                    }
                    Err(Fault::new(stage, Code::DataLoss, format!("the chunk {key} in blob {blob} is damaged")))
                })
            }
        };
        match read {
            Ok(blob) => Ok(Some(blob)),
            Err(fault) if fault.code == Code::NotFound => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// How many bytes [`Self::look_up`] will hold for these keys.
    pub async fn look_up_bytes(&self, keys: Vec<HashKey>) -> Result<u64, Fault> {
        let entries = self.entries(Stage::Download, keys).await?;
        let bytes = entries.into_iter().flatten().map(|entry| match entry {
            Entry::File(digest) => digest.size_bytes(),
            Entry::Chunk { length, .. } => length,
            Entry::Meta { chunks, .. } => chunks.len() as u64 * 128,
        });
        Ok(bytes.sum())
    }

    /// The backend it lies in.
    pub fn backend(&self) -> &Backend {
        &self.backend
    }

    /// Keys known.
    pub fn known(&self) -> usize {
        self.map.len()
    }
}

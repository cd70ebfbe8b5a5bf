//! Writes under way, so that one cut off can be resumed while the server lives.

use super::compression::{UnpackError, Unpacker};
use super::resource_name::{Compressor, WriteName};
use super::status;
use crate::store::{Store, Upload};
use motefarm_core::{Clock as _, SystemClock, Timestamp};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tonic::Status;

/// Writes kept after their stream broke.
const MAX_PARKED: usize = 64;
/// What they may have in temporary files together: one blob as large as may be.
const MAX_PARKED_BYTES: u64 = 4 << 30;
/// How long.
const PARKED_FOR: Duration = Duration::from_secs(600);

/// A blob being written.
pub(super) struct PartialWrite {
    sink: Sink,
    /// Bytes of the stream taken so far: compressed ones if it is compressed.
    received: Arc<AtomicU64>,
}

enum Sink {
    Plain(Upload),
    Zstd(Box<Unpacker>),
}

/// The writes of one server by their names.
#[derive(Clone, Default)]
pub(super) struct Writes(Arc<Mutex<HashMap<WriteName, Entry>>>);

struct Entry {
    received: Arc<AtomicU64>,
    /// `None` while a stream feeds it.
    parked: Option<(PartialWrite, Timestamp)>,
}

impl Writes {
    fn entries(&self) -> MutexGuard<'_, HashMap<WriteName, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up the write `name` at `offset`: the parked one if it stands there, a new one at 0.
    pub(super) fn take_up(&self, store: &Store, name: &WriteName, offset: u64) -> Result<PartialWrite, Status> {
        let mut entries = self.entries();
        if let Some(entry) = entries.get_mut(name)
            && entry.received.load(Ordering::Relaxed) == offset
            && let Some((write, _)) = entry.parked.take()
        {
            return Ok(write);
        }
        if offset > 0 {
            return Err(Status::invalid_argument(format!(
                "write_offset {offset} where {} bytes were received; QueryWriteStatus tells",
                entries.get(name).map_or(0, |entry| entry.received.load(Ordering::Relaxed))
            )));
        }
        let upload = store.begin(name.blob.digest).map_err(|error| status::of_store(&error))?;
        let sink = match name.blob.compressor {
            Compressor::Identity => Sink::Plain(upload),
            Compressor::Zstd => Sink::Zstd(Box::new(Unpacker::new(upload).map_err(|error| {
                tracing::error!(%error, "zstd can not be set up");
                Status::internal("no zstd")
            })?)),
        };
        let received = Arc::new(AtomicU64::new(0));
        entries.insert(name.clone(), Entry { received: Arc::clone(&received), parked: None });
        Ok(PartialWrite { sink, received })
    }

    /// Keeps a write whose stream broke, for a while; the oldest make room for it.
    pub(super) fn park(&self, name: &WriteName, write: PartialWrite) {
        let now = SystemClock.now();
        let mut entries = self.entries();
        entries.retain(|_, entry| entry.parked.as_ref().is_none_or(|(_, since)| now.since(*since) < PARKED_FOR));
        let parked = |(name, entry): (&WriteName, &Entry)| {
            let (write, since) = entry.parked.as_ref()?;
            Some((*since, write.stored(), name.clone()))
        };
        let mut parked: Vec<(Timestamp, u64, WriteName)> = entries.iter().filter_map(parked).collect();
        parked.sort_unstable_by_key(|(since, ..)| *since);
        let mut count = parked.len() + 1;
        let mut bytes = parked.iter().map(|(_, bytes, _)| bytes).sum::<u64>() + write.stored();
        for (_, freed, oldest) in parked {
            if count <= MAX_PARKED && bytes <= MAX_PARKED_BYTES {
                break;
            }
            entries.remove(&oldest);
            count -= 1;
            bytes -= freed;
        }
        entries.insert(name.clone(), Entry { received: Arc::clone(&write.received), parked: Some((write, now)) });
    }

    /// Forgets a write that is over.
    pub(super) fn forget(&self, name: &WriteName, received: &Arc<AtomicU64>) {
        let mut entries = self.entries();
        // Not one that was begun anew under the same name.
        if entries.get(name).is_some_and(|entry| Arc::ptr_eq(&entry.received, received)) {
            entries.remove(name);
        }
    }

    /// Bytes received of a write that is known.
    pub(super) fn received(&self, name: &WriteName) -> Option<u64> {
        self.entries().get(name).map(|entry| entry.received.load(Ordering::Relaxed))
    }
}

impl PartialWrite {
    /// Takes a piece of the stream.
    pub(super) fn write(&mut self, piece: &[u8]) -> Result<(), Status> {
        match &mut self.sink {
            Sink::Plain(upload) => upload.write(piece).map_err(|error| status::of_store(&error))?,
            Sink::Zstd(unpacker) => unpacker.write(piece).map_err(|error| match error {
                UnpackError::Store(error) => status::of_store(&error),
                UnpackError::Zstd(error) => Status::invalid_argument(format!("not zstd: {error}")),
            })?,
        }
        self.received.fetch_add(piece.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Bytes of the stream taken so far.
    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Bytes it has in the store's temporary files.
    fn stored(&self) -> u64 {
        match &self.sink {
            Sink::Plain(upload) => upload.written(),
            Sink::Zstd(unpacker) => unpacker.written(),
        }
    }

    /// The counter that identifies this write.
    pub(super) fn counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.received)
    }

    /// The whole stream has come.
    pub(super) fn commit(self) -> Result<(), Status> {
        let upload = match self.sink {
            Sink::Plain(upload) => upload,
            Sink::Zstd(unpacker) => unpacker.into_upload(),
        };
        upload.commit().map(|_| ()).map_err(|error| status::of_store(&error))
    }
}

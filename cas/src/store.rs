//! The pack store: blobs on disk by digest.
//!
//! ```text
//! <dir>/
//!   format                   version of this layout
//!   writer.lock              flock of the one writing process
//!   boot_id                  the boot under which unsealed packs were written
//!   packs/<n>.pack           contents one after the other, n counting up in eight hex digits
//!   packs/<n>.idx            index log: fixed-size records, see `record`
//!   large/<2 hex>/<hash>     blobs over 1 MiB, one file each
//!   tmp/                     uploads under way; emptied when the store opens
//! ```
//!
//! Data is written before the index record that names it, and both are only ever appended, so a
//! killed writer leaves at worst a torn tail, which the next writer cuts off. Against the loss of
//! power a pack is synced once, when it is full (*sealed*); under another boot id the contents of
//! unsealed packs are hashed again before they are believed.
//!
//! Blocking; asynchronous callers use `spawn_blocking`. Knows nothing of trees or owners: what must
//! stay is *pinned* by digest.

mod blob;
mod catalog;
mod discard;
mod error;
mod evict;
mod large;
mod limits;
mod lock;
mod pack;
mod pins;
mod put;
mod read_store;
mod record;
mod recover;
mod unnamed;
mod upload;
mod verify;

pub use blob::{Blob, BlobSource};
pub use error::StoreError;
pub use evict::Collected;
pub use limits::StoreLimits;
pub use pins::PinGuard;
pub use put::PutSummary;
pub use read_store::ReadStore;
pub use unnamed::Unnamed;
pub use upload::Upload;
pub use verify::{VerifyProgress, VerifyReport};

use catalog::{Catalog, Place};
use limits::MAX_PACKED_BLOB_BYTES;
use lock::WriterLock;
use motefarm_core::{Clock, Digest, SystemClock};
use pack::{OpenPacks, PackWriter};
use pins::Pins;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The one writer of a store; cheap to clone, and all clones are the same store. Blocking.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

/// What a store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreStats {
    /// Different blobs.
    pub blobs: u64,
    /// Their bytes together.
    pub blob_bytes: u64,
    /// Disk space counted against [`StoreLimits::max_bytes`].
    pub disk_bytes: u64,
    /// Pack files.
    pub packs: u64,
    /// Blobs that are files of their own.
    pub large_files: u64,
    /// Digests that are pinned.
    pub pinned: u64,
    /// The bound on `disk_bytes`.
    pub max_bytes: u64,
}

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    limits: StoreLimits,
    clock: ClockHandle,
    pins: Arc<Pins>,
    open_packs: OpenPacks,
    catalog: RwLock<Catalog>,
    /// Whoever changes what lies on disk holds this.
    writer: Mutex<PackWriter>,
    /// Last, so that it is given up after everything else is closed.
    _lock: WriterLock,
}

/// A clock that can be printed as part of what holds it.
struct ClockHandle(Arc<dyn Clock>);

impl std::fmt::Debug for ClockHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

impl Store {
    /// Opens the store in `dir` for writing, making it if there is none, and cleans up after a
    /// writer that was killed. [`StoreError::Locked`] if another process has it open.
    pub fn open(dir: &Path, limits: StoreLimits) -> Result<Self, StoreError> {
        Self::open_under(dir, limits, Arc::new(SystemClock), &recover::this_boot())
    }

    /// As [`Store::open`] with the clock and the boot id given.
    fn open_under(dir: &Path, limits: StoreLimits, clock: Arc<dyn Clock>, boot: &str) -> Result<Self, StoreError> {
        let lock = lock::acquire(dir)?;
        let recovered = recover::recover(dir, boot)?;
        let writer = PackWriter::resume(dir, limits.pack_bytes(), recovered.active)?;
        let mut catalog = recovered.catalog;
        catalog.pack_grew(writer.number(), 0);
        let store = Self(Arc::new(Inner {
            dir: dir.to_owned(),
            limits,
            clock: ClockHandle(clock),
            pins: Arc::default(),
            open_packs: OpenPacks::new(dir),
            catalog: RwLock::new(catalog),
            writer: Mutex::new(writer),
            _lock: lock,
        }));
        Ok(store)
    }

    /// Which of `digests` are not there, each once, in the order asked. Those that are there count
    /// as used just now. The empty blob is never missing.
    pub fn missing(&self, digests: &[Digest]) -> Vec<Digest> {
        let now = self.now_ms();
        let mut seen = std::collections::HashSet::new();
        let mut missing = Vec::new();
        let mut stale = Vec::new();
        let catalog = self.catalog();
        for digest in digests.iter().filter(|digest| **digest != Digest::EMPTY) {
            match catalog.touch(digest, now) {
                Some(found) => stale.extend(found.stale_mtime.then_some((*digest, found.place))),
                None if seen.insert(*digest) => missing.push(*digest),
                None => {}
            }
        }
        drop(catalog);
        self.persist_touch(stale);
        missing
    }

    /// Keeps `digests` from eviction while the guard lives; also those that come later.
    pub fn pin(&self, digests: Vec<Digest>) -> PinGuard {
        self.0.pins.pin(digests)
    }

    /// Counts, from memory.
    pub fn stats(&self) -> StoreStats {
        let catalog = self.catalog();
        StoreStats {
            blobs: catalog.len() as u64,
            blob_bytes: catalog.blob_bytes(),
            disk_bytes: catalog.disk_bytes(),
            packs: catalog.packs() as u64,
            large_files: catalog.large_files() as u64,
            pinned: self.0.pins.len() as u64,
            max_bytes: self.0.limits.max_bytes,
        }
    }

    /// The bounds it was opened with.
    pub fn limits(&self) -> StoreLimits {
        self.0.limits
    }

    /// The directory it lies in.
    pub fn dir(&self) -> &Path {
        &self.0.dir
    }

    /// Finds a blob and counts it as used.
    fn find(&self, digest: &Digest) -> Option<Place> {
        let found = self.catalog().touch(digest, self.now_ms())?;
        if found.stale_mtime {
            self.persist_touch(vec![(*digest, found.place)]);
        }
        Some(found.place)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.0.clock.0.now().as_millis()).unwrap_or(0)
    }

    fn catalog(&self) -> RwLockReadGuard<'_, Catalog> {
        self.0.catalog.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn catalog_mut(&self) -> RwLockWriteGuard<'_, Catalog> {
        self.0.catalog.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn writer(&self) -> MutexGuard<'_, PackWriter> {
        self.0.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes on disk, as modification times, that these were used: coarse, and a hint only.
    fn persist_touch(&self, stale: Vec<(Digest, Place)>) {
        for (digest, place) in stale {
            let path = match place {
                Place::Pack { number, .. } => pack::index_path(&self.0.dir, number),
                Place::Large => large::path(&self.0.dir, &digest),
            };
            large::set_mtime_now(&path);
        }
    }
}

impl BlobSource for Store {
    fn contains(&self, digest: &Digest) -> bool {
        *digest == Digest::EMPTY || self.find(digest).is_some()
    }

    fn open(&self, digest: &Digest) -> Result<Option<Blob>, StoreError> {
        self.open_found(digest, |digest| self.find(digest))
    }
}

impl Store {
    /// As `open`, without counting it as use.
    fn open_unused(&self, digest: &Digest) -> Result<Option<Blob>, StoreError> {
        self.open_found(digest, |digest| self.catalog().place(digest))
    }

    fn open_found(&self, digest: &Digest, find: impl Fn(&Digest) -> Option<Place>) -> Result<Option<Blob>, StoreError> {
        if *digest == Digest::EMPTY {
            return Ok(Some(Blob::empty()));
        }
        // Between the look-up and the open the pack may be evicted and the blob copied to another.
        for _ in 0..OPEN_TRIES {
            let Some(place) = find(digest) else { return Ok(None) };
            let opened = match place {
                Place::Pack { number, offset } => {
                    let file = self.0.open_packs.get(number)?;
                    file.map(|file| Blob::stretch(file, offset, digest.size_bytes()))
                }
                Place::Large => large::open(&self.0.dir, digest)?,
            };
            if opened.is_some() {
                return Ok(opened);
            }
        }
        // The file is gone although nobody here removed it.
        self.catalog_mut().forget(digest);
        Ok(None)
    }
}

const OPEN_TRIES: usize = 4;

#[cfg(test)]
mod tests;

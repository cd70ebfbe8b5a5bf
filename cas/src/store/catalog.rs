//! What is where, in memory.

use super::record::RECORD_BYTES;
use motefarm_core::Digest;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};

/// Where a blob lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In a pack, from `offset` on.
    Pack { number: u32, offset: u64 },
    /// In a file of its own.
    Large,
}

/// A blob that is there.
#[derive(Debug)]
struct Slot {
    place: Place,
    /// When it was used last, in ms since the epoch.
    touched_ms: AtomicU64,
}

#[derive(Debug, Default)]
struct Pack {
    /// Pack and index log.
    bytes: u64,
    /// Modification time of the index log as last set.
    mtime_ms: AtomicU64,
}

/// The answer of [`Catalog::touch`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Touched {
    pub(super) place: Place,
    /// The time on disk is so old that it should be set anew.
    pub(super) stale_mtime: bool,
}

/// Every blob of the store by digest, and the disk space of packs and large files.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    slots: HashMap<Digest, Slot>,
    packs: BTreeMap<u32, Pack>,
    blob_bytes: u64,
    large_bytes: u64,
    large_files: usize,
}

impl Catalog {
    /// Finds a blob and marks it as used at `now_ms`.
    pub(super) fn touch(&self, digest: &Digest, now_ms: u64) -> Option<Touched> {
        let slot = self.slots.get(digest)?;
        let before = slot.touched_ms.fetch_max(now_ms, Ordering::Relaxed);
        let stale = |since: u64| now_ms.saturating_sub(since) > MTIME_EVERY_MS;
        let stale_mtime = match slot.place {
            Place::Large => stale(before),
            Place::Pack { number, .. } => self.packs.get(&number).is_some_and(|pack| {
                let last = pack.mtime_ms.load(Ordering::Relaxed);
                stale(last) && pack.mtime_ms.swap(now_ms, Ordering::Relaxed) == last
            }),
        };
        Some(Touched { place: slot.place, stale_mtime })
    }

    /// Finds a blob without using it.
    pub(super) fn place(&self, digest: &Digest) -> Option<Place> {
        self.slots.get(digest).map(|slot| slot.place)
    }

    /// When it was last used; 0 if it is not there.
    pub(super) fn touched_ms(&self, digest: &Digest) -> u64 {
        self.slots.get(digest).map_or(0, |slot| slot.touched_ms.load(Ordering::Relaxed))
    }

    /// A blob is at `place` now, wherever it was before.
    pub(super) fn insert(&mut self, digest: Digest, place: Place, touched_ms: u64) {
        let touched_ms = touched_ms.max(self.touched_ms(&digest));
        let old = self.slots.insert(digest, Slot { place, touched_ms: AtomicU64::new(touched_ms) });
        if old.is_none() {
            self.blob_bytes += digest.size_bytes();
            if place == Place::Large {
                self.large_bytes += digest.size_bytes();
                self.large_files += 1;
            }
        }
    }

    /// A blob is nowhere any more.
    pub(super) fn forget(&mut self, digest: &Digest) {
        if let Some(slot) = self.slots.remove(digest) {
            self.blob_bytes -= digest.size_bytes();
            if slot.place == Place::Large {
                self.large_bytes -= digest.size_bytes();
                self.large_files -= 1;
            }
        }
    }

    /// A pack exists and has taken up `bytes` more.
    pub(super) fn pack_grew(&mut self, number: u32, bytes: u64) {
        self.packs.entry(number).or_default().bytes += bytes;
    }

    /// `full` gets its seal, and `next` is begun.
    pub(super) fn pack_sealed(&mut self, full: u32, next: u32) {
        self.pack_grew(full, RECORD_BYTES as u64);
        self.pack_grew(next, 0);
    }

    /// The modification time of a pack's index log.
    pub(super) fn pack_used(&mut self, number: u32, mtime_ms: u64) {
        self.packs.entry(number).or_default().mtime_ms = AtomicU64::new(mtime_ms);
    }

    /// A pack's files are gone; its blobs have been forgotten or moved before.
    pub(super) fn pack_gone(&mut self, number: u32) {
        self.packs.remove(&number);
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn blob_bytes(&self) -> u64 {
        self.blob_bytes
    }

    pub(super) fn disk_bytes(&self) -> u64 {
        self.large_bytes + self.packs.values().map(|pack| pack.bytes).sum::<u64>()
    }

    pub(super) fn packs(&self) -> usize {
        self.packs.len()
    }

    pub(super) fn pack_numbers(&self) -> impl Iterator<Item = u32> {
        self.packs.keys().copied()
    }

    pub(super) fn large_files(&self) -> usize {
        self.large_files
    }

    /// Every blob with its place and last use.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Digest, Place, u64)> {
        self.slots.iter().map(|(digest, slot)| (*digest, slot.place, slot.touched_ms.load(Ordering::Relaxed)))
    }
}

/// How old a use noted on disk may be before it is noted again: an hour, so that a restart forgets
/// at most that much of the order of use.
const MTIME_EVERY_MS: u64 = 3_600_000;

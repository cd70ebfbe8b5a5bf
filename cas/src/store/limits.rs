//! How much a store may hold.

/// Bounds of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreLimits {
    /// Disk space of packs, index logs and large files together; beyond it what was used least
    /// recently goes. Default 20 GiB.
    pub max_bytes: u64,
    /// Largest single blob. Default 4 GiB.
    pub max_blob_bytes: u64,
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self { max_bytes: 20 << 30, max_blob_bytes: 4 << 30 }
    }
}

impl StoreLimits {
    /// At which size a pack is sealed: 64 MiB, less in a small store so that evicting one pack is
    /// not evicting everything.
    pub(crate) fn pack_bytes(&self) -> u64 {
        (self.max_bytes / 16).clamp(MIN_PACK_BYTES, MAX_PACK_BYTES)
    }

    /// The largest blob that can be accepted at all.
    pub(crate) fn blob_limit(&self) -> u64 {
        self.max_blob_bytes.min(self.max_bytes)
    }
}

/// A pack takes blobs up to this size; larger ones are files of their own.
pub(super) const MAX_PACKED_BLOB_BYTES: u64 = 1 << 20;
const MAX_PACK_BYTES: u64 = 64 << 20;
const MIN_PACK_BYTES: u64 = 64 << 10;

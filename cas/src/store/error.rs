//! What can go wrong with a store.

use motefarm_core::Digest;
use std::io;
use std::path::{Path, PathBuf};

/// Why a store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory already has its one writer.
    #[error("another process writes the store in {}", dir.display())]
    Locked {
        /// Directory of the store.
        dir: PathBuf,
    },
    /// The directory holds something this version can not read.
    #[error("{} is not a store this version knows: {problem}", dir.display())]
    Format {
        /// Directory of the store.
        dir: PathBuf,
        /// What it found instead.
        problem: String,
    },
    /// Content is not what its digest says. Nothing of it was kept.
    #[error("content announced as {expected} is {actual}")]
    Mismatch {
        /// What was announced.
        expected: Digest,
        /// What came; when more came than announced, a digest of the beginning and its size.
        actual: Digest,
    },
    /// A blob over the limit.
    #[error("blob {digest} is larger than the {limit} bytes this store accepts")]
    TooLarge {
        /// The blob.
        digest: Digest,
        /// `StoreLimits::max_blob_bytes`, or the store's whole size if that is smaller.
        limit: u64,
    },
    /// The disk is full, or what is pinned leaves no room. Nothing was half stored.
    #[error("no room in the store {} for {bytes} more bytes", dir.display())]
    Full {
        /// Directory of the store.
        dir: PathBuf,
        /// What was to be stored.
        bytes: u64,
    },
    /// Anything else the file system said.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file concerned.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
}

impl StoreError {
    /// An IO error at `path`; for `map_err`.
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

/// Whether an IO error says that there is no room: disk or quota.
pub(crate) fn is_no_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

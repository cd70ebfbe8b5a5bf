//! Why a directory could not be made equal to a tree.

use crate::store::StoreError;
use crate::tree::TreeError;
use motefarm_core::Digest;
use std::io;

/// Why a sync ended early. Paths are relative to the work directory, for people.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// Something that is not a directory (perhaps a link) stands where the destination or one of
    /// its parents should be.
    #[error("{0} is not a directory")]
    NotDirectory(String),
    /// The disk or a quota is full. Make room and repeat.
    #[error("no space left to write {0}")]
    Full(String),
    /// Anything else the file system said.
    #[error("{path}: {source}")]
    Io {
        /// What.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A `Directory` of the tree that can not be used.
    #[error("directory {path} ({digest}): {source}")]
    Tree {
        /// Where in the tree.
        path: String,
        /// The message.
        digest: Digest,
        /// What is wrong with it.
        source: TreeError,
    },
    /// The tree is too deep or has too many entries altogether.
    #[error("the tree has {0}")]
    TooLarge(String),
    /// A blob that was there a moment ago is gone (evicted). Ask again; it will be named missing.
    #[error("blob {digest} of {path} vanished from the store")]
    Vanished {
        /// The blob.
        digest: Digest,
        /// For which file.
        path: String,
    },
    /// The source of blobs failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

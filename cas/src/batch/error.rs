//! What can go wrong on either side.

use motefarm_core::Digest;
use std::io;
use std::path::PathBuf;

/// Why blobs could not be packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The file is not any more what was hashed. Hash the tree again and start over.
    #[error("{} changed after it was hashed", .0.display())]
    Changed(PathBuf),
    /// The file could not be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// Content in memory that is not what its digest says: a mistake of the caller.
    #[error("content announced as {0} is something else")]
    Mismatch(Digest),
    /// The store has lost it (evicted) since it was looked up.
    #[error("blob {0} is not in the store any more")]
    Gone(Digest),
    /// The store could not be read.
    #[cfg(unix)]
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    /// zstd failed, which it does only for want of memory.
    #[error("compressing: {0}")]
    Compress(io::Error),
    /// The thread that packs died.
    #[error("packing stopped before its end")]
    Stopped,
}

/// Why a batch was refused. Nothing of a refused batch is stored.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// A digest that is none.
    #[error(transparent)]
    Field(#[from] motefarm_proto::convert::FieldError),
    /// Announced sizes beyond what one message may hold.
    #[error("blobs of {bytes} bytes together beginning with {first:?}; at most {limit} fit a batch")]
    TooLarge {
        /// The first blob announced.
        first: Option<Digest>,
        /// What was announced.
        bytes: u64,
        /// The bound.
        limit: u64,
    },
    /// The content does not have the size announced.
    #[error("content of {first:?} and what follows is {problem}")]
    Size {
        /// The first blob announced.
        first: Option<Digest>,
        /// In words.
        problem: String,
    },
    /// A compression this side does not know.
    #[error("compression {0} is not known")]
    Compression(i32),
    /// A piece that does not follow the one before.
    #[error("piece of {digest} at offset {offset} where {expected} was next")]
    Gap {
        /// The blob in pieces.
        digest: Digest,
        /// Where the piece says it begins.
        offset: u64,
        /// Where the next piece should begin.
        expected: u64,
    },
    /// Pieces of a blob stopped before its end.
    #[error("blob {digest} ended after {received} bytes")]
    Incomplete {
        /// The blob in pieces.
        digest: Digest,
        /// Bytes that came.
        received: u64,
    },
    /// The store refused: mismatch, full, IO.
    #[cfg(unix)]
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
}

//! What is to be sent.

#[cfg(unix)]
use crate::store::BlobSource;
use bytes::Bytes;
use motefarm_core::Digest;
use std::path::PathBuf;
#[cfg(unix)]
use std::sync::Arc;

/// A blob on this side.
#[derive(Debug, Clone)]
pub struct LocalBlob {
    /// What the other side will verify.
    pub digest: Digest,
    /// Where the content is.
    pub content: Content,
}

/// Where a blob's content is.
#[derive(Clone)]
pub enum Content {
    /// In memory.
    Bytes(Bytes),
    /// In a file, which is verified while it is sent: it may have changed since it was hashed.
    File(PathBuf),
    /// In a store, under the blob's digest.
    #[cfg(unix)]
    Stored(Arc<dyn BlobSource>),
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            #[cfg(unix)]
            Self::Stored(_) => f.write_str("Stored"),
        }
    }
}

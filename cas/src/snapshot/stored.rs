//! A tree that lies in a store: everything it needs.

use crate::store::{BlobSource, StoreError};
use crate::tree::{self, EntryKind, MAX_DIRECTORY_BYTES, TreeError};
use motefarm_core::Digest;
use std::collections::HashSet;

/// Most different blobs of a tree that is walked.
const MAX_BLOBS: usize = 4_000_000;

/// The blobs of a tree, each once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredTree {
    /// Directories and file contents, the root among them; but for the empty blob, which is everywhere.
    pub digests: Vec<Digest>,
    /// Those of them that the store lacks. What lies below a missing directory is not known.
    pub missing: Vec<Digest>,
}

/// Why a tree could not be walked.
#[derive(Debug, thiserror::Error)]
pub enum StoredTreeError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A blob that should be a directory is none.
    #[error("{digest} is no directory: {source}")]
    Tree {
        /// The blob.
        digest: Digest,
        /// What is wrong with it.
        source: TreeError,
    },
    /// More blobs than any tree that is kept here has.
    #[error("the tree has more than {MAX_BLOBS} different blobs")]
    TooLarge,
}

/// Walks the tree below `root`. A directory that occurs often is read once. Blocking; memory is a
/// hundred bytes a blob.
pub fn stored_tree(root: Digest, source: &dyn BlobSource) -> Result<StoredTree, StoredTreeError> {
    let mut found = StoredTree::default();
    let mut seen = HashSet::from([Digest::EMPTY]);
    let mut directories = Vec::new();
    if seen.insert(root) {
        directories.push(root);
    }
    while let Some(digest) = directories.pop() {
        found.digests.push(digest);
        let Some(bytes) = source.read(&digest, MAX_DIRECTORY_BYTES)? else {
            found.missing.push(digest);
            continue;
        };
        let contents = tree::decode(&bytes).map_err(|source| StoredTreeError::Tree { digest, source })?;
        for entry in contents.entries {
            match entry.kind {
                EntryKind::Directory { digest } if seen.insert(digest) => directories.push(digest),
                EntryKind::File { digest, .. } if seen.insert(digest) => {
                    found.digests.push(digest);
                    if !source.contains(&digest) {
                        found.missing.push(digest);
                    }
                }
                _ => {}
            }
        }
        if seen.len() > MAX_BLOBS {
            return Err(StoredTreeError::TooLarge);
        }
    }
    Ok(found)
}

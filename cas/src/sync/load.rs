//! The tree, from the blobs of its directories.

use super::SyncError;
use crate::store::BlobSource;
use crate::tree::{self, Contents, EntryKind, MAX_DEPTH, MAX_DIRECTORY_BYTES};
use motefarm_core::Digest;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Most entries of a whole tree, counting a directory that occurs twice twice: what keeps a small
/// tree of shared directories from unfolding into an enormous one.
const MAX_TREE_ENTRIES: u64 = 4_000_000;

/// Every different directory of a tree.
#[derive(Debug, Default)]
pub struct Tree {
    directories: HashMap<Digest, Arc<Contents>>,
    /// Directories that are not in the source, some of them twice; what lies below them is not known.
    pub missing: Vec<Digest>,
}

impl Tree {
    /// Reads a tree level by level.
    pub fn load(root: Digest, source: &dyn BlobSource) -> Result<Self, SyncError> {
        let mut tree = Self::default();
        // How often each directory occurs on this level, and one path where.
        let mut level = BTreeMap::from([(root, (1u64, Vec::new()))]);
        let mut entries = 0u64;
        for _ in 0..=MAX_DEPTH {
            if level.is_empty() {
                return Ok(tree);
            }
            let mut below: BTreeMap<Digest, (u64, Vec<u8>)> = BTreeMap::new();
            for (digest, (times, path)) in level {
                let Some(contents) = tree.directory_at(digest, &path, source)? else { continue };
                entries = entries.saturating_add(times.saturating_mul(contents.entries.len() as u64));
                if entries > MAX_TREE_ENTRIES {
                    return Err(SyncError::TooLarge(format!("more than {MAX_TREE_ENTRIES} entries")));
                }
                for entry in &contents.entries {
                    if let EntryKind::Directory { digest } = &entry.kind {
                        let seen = below.entry(*digest).or_insert_with(|| (0, super::dirs::join(&path, &entry.name)));
                        seen.0 = seen.0.saturating_add(times);
                    }
                }
            }
            level = below;
        }
        Err(SyncError::TooLarge(format!("more than {MAX_DEPTH} directories below one another")))
    }

    /// A directory that was loaded.
    pub fn directory(&self, digest: &Digest) -> Option<&Arc<Contents>> {
        self.directories.get(digest)
    }

    fn directory_at(
        &mut self,
        digest: Digest,
        path: &[u8],
        source: &dyn BlobSource,
    ) -> Result<Option<Arc<Contents>>, SyncError> {
        if let Some(known) = self.directories.get(&digest) {
            return Ok(Some(Arc::clone(known)));
        }
        let Some(bytes) = source.read(&digest, MAX_DIRECTORY_BYTES)? else {
            self.missing.push(digest);
            return Ok(None);
        };
        let contents = tree::decode(&bytes).map_err(|source| SyncError::Tree {
            path: super::dirs::shown(path),
            digest,
            source,
        })?;
        let contents = Arc::new(contents);
        self.directories.insert(digest, Arc::clone(&contents));
        Ok(Some(contents))
    }
}

//! The input root of an action: what of it the store has, and which directories it is made of.

use super::error::ActionError;
use crate::trees::Blobs;
use bytes::Bytes;
use motefarm_cas::store::{Blob, BlobSource, StoreError};
use motefarm_cas::sync::Tree;
use motefarm_cas::tree::EntryKind;
use motefarm_core::Digest;
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// What a look at the store showed.
pub(super) enum Looked {
    /// All is there: the tree, and the digests of all its blobs.
    Complete(Tree, Vec<Digest>),
    /// This is not, each once. Directories among it may hide more.
    Missing(Vec<Digest>),
}

/// Looks for the whole tree of `root`. A malformed one is an error that names the place. Blocks.
pub(super) fn look(blobs: &Blobs, root: Digest) -> Result<Looked, ActionError> {
    let verified = Verified { source: blobs.source(), wrong: Mutex::default() };
    let loaded = Tree::load(root, &verified);
    for digest in verified.wrong.into_inner().unwrap_or_else(PoisonError::into_inner) {
        tracing::error!(%digest, "a directory is not what its digest says");
        blobs.discard(&digest);
    }
    let mut tree = loaded?;
    let mut missing: HashSet<Digest> = std::mem::take(&mut tree.missing).into_iter().collect();
    let all = blobs_of(&tree, root);
    missing.extend(blobs.missing(&all));
    if missing.is_empty() {
        return Ok(Looked::Complete(tree, all));
    }
    let mut missing: Vec<Digest> = missing.into_iter().collect();
    missing.sort_unstable();
    Ok(Looked::Missing(missing))
}

/// Every different blob below `root` as far as its directories are there, with these.
fn blobs_of(tree: &Tree, root: Digest) -> Vec<Digest> {
    let mut seen = HashSet::from([root]);
    let mut all = vec![root];
    let mut to_visit = vec![root];
    while let Some(directory) = to_visit.pop() {
        let Some(contents) = tree.directory(&directory) else { continue };
        for entry in &contents.entries {
            match &entry.kind {
                EntryKind::File { digest, .. } if seen.insert(*digest) => all.push(*digest),
                EntryKind::Directory { digest } if seen.insert(*digest) => {
                    all.push(*digest);
                    to_visit.push(*digest);
                }
                _ => {}
            }
        }
    }
    all
}

/// A source that hashes what is read whole and takes what is wrong for missing.
struct Verified<'a> {
    source: &'a dyn BlobSource,
    wrong: Mutex<Vec<Digest>>,
}

impl BlobSource for Verified<'_> {
    fn contains(&self, digest: &Digest) -> bool {
        self.source.contains(digest)
    }

    fn open(&self, digest: &Digest) -> Result<Option<Blob>, StoreError> {
        self.source.open(digest)
    }

    fn read(&self, digest: &Digest, max: u64) -> Result<Option<Bytes>, StoreError> {
        let Some(content) = self.source.read(digest, max)? else { return Ok(None) };
        if Digest::of(&content) == *digest {
            return Ok(Some(content));
        }
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).push(*digest);
        Ok(None)
    }
}

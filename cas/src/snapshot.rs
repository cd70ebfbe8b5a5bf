//! A directory as a tree of digests, reading only what changed.
//!
//! Walks the directory on a few threads, leaves out what git would ignore, looks every file up in a
//! [`StatCache`] and hashes the others, then encodes the directories from the leaves up. Nothing is
//! sent and nothing but the cache remembered: the result names the blobs and where they are.
//!
//! * Rules come from `.gitignore` files in every directory, `.git/info/exclude` and the user's
//!   global excludes, whether or not there is a `.git`. Files in git's index are always included.
//! * `.git` never is. Symbolic links stay links, empty directories and modes are kept, sockets,
//!   pipes and devices are left out with a warning.
//! * A file that changes while it is read is read again, three times; one that vanishes is left out.
//!
//! Portable: where there are no Unix modes, files are 0644 and directories 0755.

mod assemble;
mod error;
#[cfg(unix)]
mod from_tar;
mod git;
mod go_tree;
mod hash;
mod options;
mod platform;
#[cfg(unix)]
mod stored;
mod walk;

pub use crate::stat_cache::StatCache;
pub use error::SnapshotError;
#[cfg(unix)]
pub use from_tar::{FromTarError, FromTarLimits, TarSnapshot, from_tar};
pub use options::SnapshotOptions;
#[cfg(unix)]
pub use stored::{StoredTree, StoredTreeError, stored_tree};

use crate::batch::{Content, LocalBlob};
use bytes::Bytes;
use motefarm_core::Digest;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// A directory as it was.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Digest of the root `Directory`.
    pub root: Digest,
    /// Every different encoded `Directory`, but for the empty one.
    pub directories: Vec<(Digest, Bytes)>,
    /// Every different file content that is not empty, and one file that has it.
    pub files: Vec<(Digest, PathBuf)>,
    /// Contents that no file has: the made-up `VERSION` of a Go tree.
    pub made_up: Vec<(Digest, Bytes)>,
    /// The ignore files that were followed, weakest first: the directory each governs (relative,
    /// slash-separated, empty for the root) and its lines. For `mote.v1.TreeSync`.
    pub ignore_files: Vec<(String, Vec<u8>)>,
    /// Paths that the receiving side should leave alone: made there, not here.
    pub keep: Vec<String>,
    /// What a person should know, a sentence each.
    pub warnings: Vec<String>,
    /// Files in the tree.
    pub total_files: u64,
    /// Their bytes.
    pub total_bytes: u64,
    /// Files that had to be read because the cache did not know them.
    pub hashed_files: u64,
}

impl Snapshot {
    /// The digest of every blob the tree needs, each once.
    pub fn digests(&self) -> impl Iterator<Item = Digest> {
        let contents = self.directories.iter().chain(&self.made_up).map(|(digest, _)| *digest);
        contents.chain(self.files.iter().map(|(digest, _)| *digest))
    }

    /// The blobs among `wanted`, ready to be packed: directories first, so that a receiver that is
    /// cut off has the tree's shape.
    pub fn blobs(&self, wanted: &HashSet<Digest>) -> Vec<LocalBlob> {
        let contents = self.directories.iter().chain(&self.made_up);
        let contents = contents.filter(|(digest, _)| wanted.contains(digest));
        let files = self.files.iter().filter(|(digest, _)| wanted.contains(digest));
        let files = files.map(|(digest, path)| (digest, Content::File(path.clone())));
        contents
            .map(|(digest, bytes)| (digest, Content::Bytes(bytes.clone())))
            .chain(files)
            .map(|(digest, content)| LocalBlob { digest: *digest, content })
            .collect()
    }
}

/// Takes a snapshot of the directory `root` (a link to one is followed). `cache` is brought up to
/// date; saving it is the caller's. Blocking; memory is a few hundred bytes an entry.
pub fn snapshot(root: &Path, options: &SnapshotOptions, cache: &mut StatCache) -> Result<Snapshot, SnapshotError> {
    let mut walked = walk::walk(root, options, cache)?;
    let hashed_files = hash::hash_unknown(root, &mut walked)?;
    if options.go_tree {
        go_tree::add_version(root, &mut walked)?;
    }
    walked.remember(cache);
    let (keep, warnings) = (walked.keep(options), std::mem::take(&mut walked.warnings));
    let ignore_files = walked.take_ignore_files();
    let assembled = assemble::assemble(root, walked)?;
    Ok(Snapshot {
        root: assembled.root,
        directories: assembled.directories,
        files: assembled.files,
        made_up: assembled.made_up,
        ignore_files,
        keep,
        warnings,
        total_files: assembled.total_files,
        total_bytes: assembled.total_bytes,
        hashed_files,
    })
}

#[cfg(test)]
mod tests;

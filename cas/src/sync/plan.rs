//! What is to be done, and the order of doing it.

use super::compare::{self, Difference};
use super::keep::Keeper;
use super::load::Tree;
use super::{SyncError, apply, dirs};
use crate::stat_cache::{self, CachedFile, StatCache};
use crate::store::BlobSource;
use crate::tree::{Entry, EntryKind};
use motefarm_core::{Digest, WorkPath};
use motefarm_proto::MAX_DIGESTS;
use motefarm_proto::mote::{self, TreeSyncResult};
use std::collections::BTreeSet;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;

/// Most paths of each kind that a dry run names.
pub(super) const MAX_NAMED: usize = 1000;

/// A tree to be equal to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncPlan {
    /// Digest of the tree's root `Directory`.
    pub root: Digest,
    /// Ignore files, weakest first: directory (relative to the tree, empty for the root) and
    /// content. What they match and the tree does not have is left alone.
    pub ignore_files: Vec<(String, Vec<u8>)>,
    /// Paths relative to the tree that are left alone with all below them. Where the tree itself
    /// has a file in the place of a directory, what that directory kept goes with it.
    pub keep: Vec<String>,
    /// Count what would be done and do nothing.
    pub dry_run: bool,
}

/// See [`super::sync_tree`].
pub(super) fn run(
    root: BorrowedFd<'_>,
    dest: &WorkPath,
    plan: &SyncPlan,
    source: &dyn BlobSource,
    index_file: &Path,
) -> Result<TreeSyncResult, SyncError> {
    let tree = Tree::load(plan.root, source)?;
    if !tree.missing.is_empty() {
        return Ok(missing(tree.missing));
    }
    let keeper = Keeper::new(plan);
    let mut index = StatCache::load(index_file);
    let there = dirs::open_dest(root, dest)?;
    let is_there = there.is_some();
    let difference = compare::compare(there, &plan.root, &tree, &index, &keeper)?;
    drop(tree);

    let needed = needed_blobs(&difference);
    let missing_files: Vec<Digest> = needed.into_iter().filter(|digest| !source.contains(digest)).collect();
    let compared = TreeSyncResult {
        compared: true,
        files_unchanged: difference.unchanged,
        files_hashed: difference.hashed,
        ..TreeSyncResult::default()
    };
    if plan.dry_run {
        let result = TreeSyncResult { missing: some_of(missing_files), ..compared };
        return dry_run(root, dest, &difference, &keeper, result);
    }
    if !missing_files.is_empty() {
        return Ok(missing(missing_files));
    }
    let mut result = compared;
    let top = dirs::make_dest(root, dest)?;
    let again = top.try_clone().map_err(|source| SyncError::Io { path: dest.to_string(), source })?;
    let written = apply::write_all(again, &difference, source)?;
    let finished = apply::finish(top.as_fd(), &difference, &keeper, !dest.is_root(), false)?;
    result.files_written = written.files;
    result.bytes_written = written.bytes;
    result.entries_deleted = written.deleted + finished.deleted;
    result.modes_changed = written.modes + finished.modes;
    remember(&mut index, difference, written.written, is_there, index_file);
    Ok(result)
}

fn missing(digests: Vec<Digest>) -> TreeSyncResult {
    TreeSyncResult { missing: some_of(digests), ..TreeSyncResult::default() }
}

/// Each once, and no more than a message holds.
fn some_of(mut digests: Vec<Digest>) -> Vec<mote::Digest> {
    digests.sort_unstable();
    digests.dedup();
    digests.truncate(MAX_DIGESTS);
    digests.into_iter().map(Into::into).collect()
}

/// Content of every file to be written, each once.
fn needed_blobs(difference: &Difference) -> BTreeSet<Digest> {
    writes(difference).filter_map(|(_, entry)| file_digest(&entry.kind)).collect()
}

/// What is to be written, each with the path of its directory.
fn writes(difference: &Difference) -> impl Iterator<Item = (&[u8], &Entry)> {
    difference.directories.iter().flat_map(|directory| {
        let entries = directory.writes.iter().map(|write| &directory.contents.entries[write.entry]);
        entries.map(|entry| (directory.path.as_slice(), entry))
    })
}

fn file_digest(kind: &EntryKind) -> Option<Digest> {
    match kind {
        EntryKind::File { digest, .. } => Some(*digest),
        _ => None,
    }
}

fn dry_run(
    root: BorrowedFd<'_>,
    dest: &WorkPath,
    difference: &Difference,
    keeper: &Keeper,
    mut result: TreeSyncResult,
) -> Result<TreeSyncResult, SyncError> {
    for (dir, entry) in writes(difference) {
        result.files_written += 1;
        result.bytes_written += file_digest(&entry.kind).map_or(0, |digest| digest.size_bytes());
        if result.would_write.len() < MAX_NAMED {
            result.would_write.push(dirs::join(dir, &entry.name).into());
        }
    }
    result.modes_changed = difference.directories.iter().map(|directory| directory.modes.len() as u64).sum();
    if let Some(top) = dirs::open_dest(root, dest)? {
        let would = apply::finish(top.as_fd(), difference, keeper, !dest.is_root(), true)?;
        result.entries_deleted = would.deleted;
        result.would_delete = would.named.into_iter().map(Into::into).collect();
        result.modes_changed += would.modes;
    }
    Ok(result)
}

/// Brings the index up to date, if anything is new. Failing to costs hashing next time.
fn remember(
    index: &mut StatCache,
    difference: Difference,
    written: Vec<(usize, CachedFile)>,
    was_there: bool,
    index_file: &Path,
) {
    let known: usize = difference.directories.iter().map(|directory| directory.known.len()).sum();
    if was_there && written.is_empty() && difference.hashed == 0 && known == index.len() {
        return;
    }
    let mut directories: Vec<(Vec<u8>, Vec<CachedFile>)> =
        difference.directories.into_iter().map(|directory| (directory.path, directory.known)).collect();
    let now_ns = stat_cache::now_ns();
    for (id, file) in written {
        // Content written by us is known until somebody else writes; from now on that would show in
        // the change time, unless it is as young as the clock's tick.
        if file.stat.is_settled(now_ns) {
            directories[id].1.push(file);
        }
    }
    index.replace(directories.into_iter());
    if let Err(error) = index.save(index_file) {
        tracing::warn!(path = %index_file.display(), %error, "stat index not saved; the next sync hashes more");
    }
}

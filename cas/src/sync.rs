//! A directory of an instance made equal to a tree.
//!
//! Compares with what is really there, not with what was there last time: a command may have
//! changed anything. First everything is looked at and every blob needed is looked for; if one is
//! missing, nothing is changed. Then files are written (each to a temporary name and renamed, so
//! that it is old or new and never torn), kinds and modes put right, and last what the tree does
//! not have is deleted, unless the ignore rules or `keep` say that it was made there.
//!
//! The directory belongs to code nobody trusts. Every name is opened relative to the descriptor of
//! the directory that holds it and never through a link, so links planted there lead nowhere.
//!
//! Knows nothing of instances: the caller hands in the directory and the source of blobs, and sees to
//! it that one directory is synced once at a time.

mod apply;
mod compare;
mod delete;
mod dirs;
mod error;
mod keep;
mod load;
mod plan;
mod write;

pub use error::SyncError;
pub use keep::{Keeper, Rules, Verdict};
pub use load::Tree;
pub use plan::SyncPlan;

use crate::store::BlobSource;
use motefarm_core::WorkPath;
use motefarm_proto::mote::TreeSyncResult;
use std::os::fd::BorrowedFd;
use std::path::Path;

/// Makes `dest` below `root` equal to the tree of `plan`, with content from `source`.
///
/// `index_file` remembers stat data and digests from one sync to the next; it is written anew after
/// a sync that changed something, and losing it costs hashing. If the result names missing blobs,
/// nothing was changed. After an error each file is old or new; the same call again goes on from
/// there. Blocking.
pub fn sync_tree(
    root: BorrowedFd<'_>,
    dest: &WorkPath,
    plan: &SyncPlan,
    source: &dyn BlobSource,
    index_file: &Path,
) -> Result<TreeSyncResult, SyncError> {
    plan::run(root, dest, plan, source, index_file)
}

#[cfg(test)]
mod tests;

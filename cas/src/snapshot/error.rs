//! Why there is no snapshot.

use crate::tree::TreeError;
use std::io;
use std::path::{Path, PathBuf};

/// Why a directory could not be made a tree.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Something could not be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no directory.
    #[error("{} is not a directory", .0.display())]
    NotDirectory(PathBuf),
    /// Something writes it faster than it can be read.
    #[error("{} changes while it is read", .0.display())]
    Changing(PathBuf),
    /// Directories below one another beyond [`crate::tree::MAX_DEPTH`].
    #[error("{} lies deeper than {} directories", .0.display(), crate::tree::MAX_DEPTH)]
    TooDeep(PathBuf),
    /// A directory that can not be encoded: too many entries.
    #[error("{}: {source}", path.display())]
    Tree {
        /// Which directory.
        path: PathBuf,
        /// Why.
        source: TreeError,
    },
    /// A Go tree without `VERSION` and without the file that would say which.
    #[error("{}: no line \"const Version = N\", and the tree has no VERSION file", .0.display())]
    GoVersion(PathBuf),
}

impl SnapshotError {
    /// An IO error at `path`; for `map_err`.
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

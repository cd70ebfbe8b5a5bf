//! Why an archive was not unpacked to its end. What came before the entry in question stays.

use std::io;

/// See the module.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnpackError {
    /// The archive's: this entry is refused.
    #[error("entry {entry:?} is refused: {problem}")]
    Entry { entry: String, problem: String },
    /// The archive's: it can not be read on.
    #[error("{0}")]
    Archive(String),
    /// A bound, or the disk.
    #[error("{0}")]
    Bound(String),
    /// What it is read from ended before its end.
    #[error("the archive did not come whole: {0}")]
    Cut(String),
    /// The machine's.
    #[error("can not write entry {entry:?}: {source}")]
    Io { entry: String, source: io::Error },
}

/// Most characters of a name in a message.
const SHOWN_CHARS: usize = 300;

/// A name, for a message.
pub(super) fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(&name[..name.len().min(4 * SHOWN_CHARS)]).chars().take(SHOWN_CHARS).collect()
}

impl UnpackError {
    pub(super) fn entry(name: &[u8], problem: impl Into<String>) -> Self {
        Self::Entry { entry: shown(name), problem: problem.into() }
    }
}

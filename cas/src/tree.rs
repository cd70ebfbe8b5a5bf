//! Directories as REAPI `Directory` messages.
//!
//! [`encode()`] makes the one canonical message of a directory, [`decode()`] checks a message of unknown
//! origin. In between is [`Entry`], whose names and link targets are bytes, as Unix has them.
//!
//! What the plain message can not say travels in node properties, so that any REAPI peer still
//! reads the rest: a Unix mode other than the usual one in `unix_mode`, and the bytes of a name or
//! target that is not UTF-8 in `mote.raw_name`, `mote.raw_target` and (for subdirectories, whose
//! nodes have no properties, in those of the directory that holds them) `mote.raw_directory`. The
//! UTF-8 spelling is then an escape of the bytes, see `escape`. Set-user-id, set-group-id and sticky
//! bits are never carried.
//!
//! Pure: no file is read here.

mod decode;
mod encode;
mod escape;
mod mode;

pub use decode::{Contents, decode};
pub use encode::encode;
pub use mode::{DEFAULT_DIRECTORY_MODE, DEFAULT_FILE_MODE, EXECUTABLE_FILE_MODE, MODE_BITS};

use motefarm_core::Digest;

/// Most entries one directory may have.
pub const MAX_ENTRIES: usize = 200_000;
/// Most directories below one another.
pub const MAX_DEPTH: usize = 256;
/// Largest encoded `Directory`: what [`MAX_ENTRIES`] of long names come to, and a bound for readers.
pub const MAX_DIRECTORY_BYTES: u64 = 64 << 20;
/// Longest name, as everywhere on Unix.
pub const MAX_NAME_BYTES: usize = 255;
/// Longest link target, Linux's `PATH_MAX`.
pub const MAX_TARGET_BYTES: usize = 4096;

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name: not empty, no `/` or NUL, neither `.` nor `..`.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File {
        /// Of its content.
        digest: Digest,
        /// Permission bits; others are dropped.
        mode: u32,
    },
    /// A directory.
    Directory {
        /// Of its encoded `Directory`, which also says its mode.
        digest: Digest,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points, uninterpreted: not empty, no NUL.
        target: Vec<u8>,
    },
}

/// Why entries or a message make no directory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// Not a `Directory` message at all.
    #[error("not a Directory message: {0}")]
    Message(String),
    /// A name that no directory can have.
    #[error("name {0:?} is empty, '.', '..', too long, or has a '/' or NUL in it")]
    Name(String),
    /// Two entries with one name.
    #[error("name {0:?} occurs twice")]
    Duplicate(String),
    /// A link target that no link can have.
    #[error("target of link {0:?} is empty, too long, or has a NUL in it")]
    Target(String),
    /// A file or directory without a usable digest.
    #[error("digest of {name:?}: {problem}")]
    Digest {
        /// The entry.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A raw name or target that does not belong to the UTF-8 one.
    #[error("property {property} of {name:?} does not belong to it")]
    RawBytes {
        /// The entry.
        name: String,
        /// Which property.
        property: &'static str,
    },
    /// Too many entries.
    #[error("{0} entries; at most {MAX_ENTRIES} fit a directory")]
    TooMany(usize),
}

/// A name for an error message.
fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).chars().take(100).collect()
}

/// Whether a directory can have an entry of this name.
pub fn is_valid_name(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..") && name.len() <= MAX_NAME_BYTES && !name.iter().any(|b| matches!(b, b'/' | 0))
}

fn is_valid_target(target: &[u8]) -> bool {
    !target.is_empty() && target.len() <= MAX_TARGET_BYTES && !target.contains(&0)
}

#[cfg(test)]
mod tests;

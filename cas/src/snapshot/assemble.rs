//! From what was walked to encoded directories, leaves first.

use super::walk::{FileContent, Item, ItemKind, Walked};
use super::{SnapshotError, platform};
use crate::tree::{self, Entry, EntryKind};
use bytes::Bytes;
use motefarm_core::Digest;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

pub(super) struct Assembled {
    pub(super) root: Digest,
    pub(super) directories: Vec<(Digest, Bytes)>,
    pub(super) files: Vec<(Digest, PathBuf)>,
    pub(super) made_up: Vec<(Digest, Bytes)>,
    pub(super) total_files: u64,
    pub(super) total_bytes: u64,
}

/// Encodes every directory.
pub(super) fn assemble(root: &Path, walked: Walked) -> Result<Assembled, SnapshotError> {
    let mut out = Assembled {
        root: Digest::EMPTY,
        directories: Vec::new(),
        files: Vec::new(),
        made_up: Vec::new(),
        total_files: 0,
        total_bytes: 0,
    };
    // The empty blob is everywhere.
    let mut seen = HashSet::from([Digest::EMPTY]);
    // What lies below comes after, so from the end every digest needed is there already.
    let mut digests: Vec<Option<Digest>> = vec![None; walked.directories.len()];
    for (id, directory) in walked.directories.into_iter().enumerate().rev() {
        if directory.vanished {
            continue;
        }
        let absolute = root.join(&directory.path);
        let mut entries = Vec::with_capacity(directory.items.len());
        for Item { name, kind } in directory.items {
            let kind = match kind {
                ItemKind::File { stat, content } => {
                    let digest = match content {
                        FileContent::Known { digest, .. } => {
                            if seen.insert(digest) {
                                out.files.push((digest, absolute.join(platform::bytes_name(&name))));
                            }
                            digest
                        }
                        FileContent::MadeUp { digest, bytes } => {
                            if seen.insert(digest) {
                                out.made_up.push((digest, bytes));
                            }
                            digest
                        }
                        FileContent::Unknown => continue,
                    };
                    out.total_files += 1;
                    out.total_bytes += digest.size_bytes();
                    EntryKind::File { digest, mode: stat.mode }
                }
                ItemKind::Directory { id } => match digests[id] {
                    Some(digest) => EntryKind::Directory { digest },
                    None => continue,
                },
                ItemKind::Symlink { target } => EntryKind::Symlink { target },
                ItemKind::Vanished => continue,
            };
            entries.push(Entry { name, kind });
        }
        let (digest, bytes) =
            tree::encode(directory.mode, &entries).map_err(|source| SnapshotError::Tree { path: absolute, source })?;
        digests[id] = Some(digest);
        if seen.insert(digest) {
            out.directories.push((digest, bytes));
        }
    }
    out.root = digests[0].unwrap_or(Digest::EMPTY);
    Ok(out)
}

//! What a tree wants to be in a directory, path by path. Pure.

use motefarm_cas::sync::Tree;
use motefarm_cas::tree::EntryKind;
use motefarm_core::Digest;
use std::collections::BTreeMap;

/// Most entries of a tree for a Go agent: they are compared in memory.
const MOST_ENTRIES: usize = 1_000_000;

/// Something a tree wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Want {
    File { digest: Digest, mode: u32 },
    Directory,
    Symlink,
}

/// See the module. Paths are relative to the directory; directories come before what they hold.
pub(super) type Wanted = BTreeMap<Vec<u8>, Want>;

/// All that a tree, which was loaded whole, wants.
pub(super) fn of(root: &Digest, tree: &Tree) -> Result<Wanted, String> {
    let mut wanted = Wanted::new();
    let mut open = vec![(Vec::new(), *root)];
    while let Some((path, digest)) = open.pop() {
        let Some(contents) = tree.directory(&digest) else { return Err("the tree is not whole".to_owned()) };
        for entry in &contents.entries {
            let path = match path.is_empty() {
                true => entry.name.clone(),
                false => [&path, &b"/"[..], &entry.name].concat(),
            };
            if entry.name.iter().any(|byte| matches!(byte, b'\t' | b'\n')) {
                let shown = String::from_utf8_lossy(&path).into_owned();
                return Err(format!("{shown:?} has a tab or a line break in its name, which a Go agent can not list"));
            }
            let want = match &entry.kind {
                EntryKind::File { digest, mode } => Want::File { digest: *digest, mode: *mode },
                EntryKind::Directory { digest } => {
                    open.push((path.clone(), *digest));
                    Want::Directory
                }
                EntryKind::Symlink { .. } => Want::Symlink,
            };
            wanted.insert(path, want);
            if wanted.len() > MOST_ENTRIES {
                return Err(format!("more than {MOST_ENTRIES} entries, the most a tree for a Go agent may have"));
            }
        }
    }
    Ok(wanted)
}

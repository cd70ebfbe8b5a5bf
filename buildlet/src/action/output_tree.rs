//! The `Tree` message of one output directory. Pure.

use bytes::Bytes;
use motefarm_core::Digest;
use prost::Message;
use std::collections::HashSet;

/// Encoded directories, each once, leaves first, the root last.
#[derive(Debug, Default)]
pub(super) struct OutputTree {
    directories: Vec<(Digest, Bytes)>,
    seen: HashSet<Digest>,
}

/// `build.bazel.remote.execution.v2.Tree` of directories that are encoded already.
#[derive(Clone, PartialEq, Message)]
struct EncodedTree {
    #[prost(bytes = "bytes", tag = "1")]
    root: Bytes,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    children: Vec<Bytes>,
}

impl OutputTree {
    /// Adds a directory after all below it.
    pub(super) fn add(&mut self, digest: Digest, bytes: Bytes) {
        if self.seen.insert(digest) {
            self.directories.push((digest, bytes));
        }
    }

    pub(super) fn directories(&self) -> &[(Digest, Bytes)] {
        &self.directories
    }

    /// Parents before their children, as `OutputDirectory.is_topologically_sorted` promises: the reverse
    /// of leaves first, also where a directory occurs in several places.
    pub(super) fn encode(&self) -> (Digest, Bytes) {
        let mut down = self.directories.iter().rev().map(|(_, bytes)| bytes.clone());
        let tree = EncodedTree { root: down.next().unwrap_or_default(), children: down.collect() };
        // A root without entries is no bytes, which a decoder takes for no root: said all the same.
        let mut bytes = tree.encode_to_vec();
        if tree.root.is_empty() {
            bytes.splice(0..0, [0x0a, 0x00]);
        }
        (Digest::of(&bytes), bytes.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use motefarm_cas::tree::{Entry, EntryKind, encode};
    use motefarm_proto::reapi::Tree;

    fn directory(below: &[(&str, Digest)]) -> (Digest, Bytes) {
        let entries: Vec<Entry> = below
            .iter()
            .map(|(name, digest)| Entry {
                name: name.as_bytes().to_vec(),
                kind: EntryKind::Directory { digest: *digest },
            })
            .collect();
        encode(0o755, &entries).unwrap()
    }

    #[test]
    fn every_directory_comes_once_and_after_its_parents() {
        let leaf = directory(&[]);
        let middle = directory(&[("leaf", leaf.0)]);
        let root = directory(&[("a", middle.0), ("b", leaf.0)]);
        let mut tree = OutputTree::default();
        for (digest, bytes) in [&leaf, &middle, &leaf, &root] {
            tree.add(*digest, bytes.clone());
        }
        let (digest, bytes) = tree.encode();
        assert_eq!(digest, Digest::of(&bytes));
        let decoded = Tree::decode(bytes.clone()).unwrap();
        assert_eq!(decoded.root.as_ref().unwrap().encode_to_vec(), root.1);
        let children: Vec<Vec<u8>> = decoded.children.iter().map(Message::encode_to_vec).collect();
        assert_eq!(children, [middle.1.to_vec(), leaf.1.to_vec()]);
        assert_eq!(decoded.encode_to_vec(), bytes, "canonical");
    }

    #[test]
    fn an_empty_directory_is_a_tree_with_a_root() {
        let mut tree = OutputTree::default();
        let (digest, bytes) = directory(&[]);
        tree.add(digest, bytes);
        let (_, bytes) = tree.encode();
        assert!(Tree::decode(bytes.clone()).unwrap().root.is_some());
        assert_eq!(Tree { root: Some(Default::default()), children: Vec::new() }.encode_to_vec(), bytes);
    }
}

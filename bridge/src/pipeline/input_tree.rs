//! The input root of an action: files, links and directories by place, encoded as canonical `Directory`
//! messages. Pure.

use bytes::Bytes;
use motefarm_cas::tree::{
    self, DEFAULT_DIRECTORY_MODE, DEFAULT_FILE_MODE, EXECUTABLE_FILE_MODE, Entry, EntryKind, TreeError,
};
use motefarm_core::Digest;
use std::collections::BTreeMap;

/// See the module.
#[derive(Debug, Default)]
pub struct InputTree(Directory);

type Directory = BTreeMap<String, Node>;

#[derive(Debug)]
enum Node {
    File { digest: Digest, executable: bool },
    Link(String),
    Directory(Directory),
}

/// Two things that can not both be at one place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path} is {one} and {other}")]
pub struct Conflict {
    /// Where, from the input root.
    pub path: String,
    /// What is there.
    pub one: String,
    /// What was to be put there.
    pub other: String,
}

impl Node {
    fn word(&self) -> String {
        match self {
            Self::File { digest, .. } => format!("a file of digest {digest}"),
            Self::Link(target) => format!("a link to {target}"),
            Self::Directory(_) => "a directory".to_owned(),
        }
    }
}

/// What is wanted at a path that is the root's own.
fn at_root(node: &Node) -> Conflict {
    let root = Node::Directory(Directory::new());
    Conflict { path: ".".to_owned(), one: root.word(), other: node.word() }
}

impl InputTree {
    /// Puts a file. The same content twice is one file, executable if it is so once.
    pub fn file(&mut self, at: &str, digest: Digest, executable: bool) -> Result<(), Conflict> {
        self.put(at, Node::File { digest, executable })
    }

    /// Puts a link, whose target is not looked at.
    pub fn link(&mut self, at: &str, target: String) -> Result<(), Conflict> {
        self.put(at, Node::Link(target))
    }

    /// Puts a directory, if it is not there.
    pub fn directory(&mut self, at: &str) -> Result<(), Conflict> {
        if at.is_empty() {
            return Ok(());
        }
        self.put(at, Node::Directory(Directory::new()))
    }

    /// `at`: names with a `/` between them, from the input root.
    fn put(&mut self, at: &str, node: Node) -> Result<(), Conflict> {
        if at.is_empty() {
            return Err(at_root(&node));
        }
        let (parents, name) = at.rsplit_once('/').unwrap_or(("", at));
        let (mut directory, mut end) = (&mut self.0, 0);
        for parent in parents.split('/').filter(|parent| !parent.is_empty()) {
            end += parent.len() + usize::from(end > 0);
            directory = enter(directory, parent).map_err(|there| Conflict {
                path: at[..end].to_owned(),
                one: there.word(),
                other: Node::Directory(Directory::new()).word(),
            })?;
        }
        match (directory.get_mut(name), node) {
            (None, node) => {
                directory.insert(name.to_owned(), node);
                Ok(())
            }
            (Some(Node::File { digest, executable }), Node::File { digest: same, executable: also })
                if *digest == same =>
            {
                *executable |= also;
                Ok(())
            }
            (Some(Node::Link(target)), Node::Link(same)) if *target == same => Ok(()),
            (Some(Node::Directory(_)), Node::Directory(_)) => Ok(()),
            (Some(there), node) => Err(Conflict { path: at.to_owned(), one: there.word(), other: node.word() }),
        }
    }

    /// The root's digest, and every directory's message.
    pub fn encode(self) -> Result<(Digest, Vec<(Digest, Bytes)>), TreeError> {
        let mut messages = Vec::new();
        let root = encode(self.0, &mut messages)?;
        Ok((root, messages))
    }
}

/// The directory of this name, made if nothing has it; or what has it.
fn enter<'a>(directory: &'a mut Directory, name: &str) -> Result<&'a mut Directory, &'a Node> {
    // Most are there already, and then no text of the name is needed.
    if !directory.contains_key(name) {
        directory.insert(name.to_owned(), Node::Directory(Directory::new()));
    }
    match directory.get_mut(name).expect("it is there or was put there") {
        Node::Directory(inner) => Ok(inner),
        other => Err(other),
    }
}

fn encode(directory: Directory, messages: &mut Vec<(Digest, Bytes)>) -> Result<Digest, TreeError> {
    let mut entries = Vec::with_capacity(directory.len());
    for (name, node) in directory {
        let kind = match node {
            Node::File { digest, executable } => {
                EntryKind::File { digest, mode: if executable { EXECUTABLE_FILE_MODE } else { DEFAULT_FILE_MODE } }
            }
            Node::Link(target) => EntryKind::Symlink { target: target.into_bytes() },
            Node::Directory(inner) => EntryKind::Directory { digest: encode(inner, messages)? },
        };
        entries.push(Entry { name: name.into_bytes(), kind });
    }
    let (digest, bytes) = tree::encode(DEFAULT_DIRECTORY_MODE, &entries)?;
    messages.push((digest, bytes));
    Ok(digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use motefarm_proto::reapi::Directory as Message;
    use prost::Message as _;

    #[test]
    fn a_tree_is_what_was_put_whatever_the_order() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let mut tree = InputTree::default();
        tree.file("src/z.h", a, false).unwrap();
        tree.file("src/a.h", b, false).unwrap();
        tree.file("src/a.h", b, true).unwrap();
        tree.link("bin/cc", "../src/a.h".to_owned()).unwrap();
        tree.directory("out/empty").unwrap();
        tree.directory("src").unwrap();
        let (digest, messages) = tree.encode().unwrap();
        let message = |digest: &motefarm_proto::reapi::Digest| {
            let bytes = messages.iter().find(|(known, _)| known.hash_hex() == digest.hash).unwrap();
            Message::decode(&bytes.1[..]).unwrap()
        };
        let root = message(&motefarm_proto::convert::to_reapi_digest(digest));
        let names: Vec<&str> = root.directories.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["bin", "out", "src"]);
        let source = message(root.directories[2].digest.as_ref().unwrap());
        let files: Vec<(&str, bool)> = source.files.iter().map(|f| (f.name.as_str(), f.is_executable)).collect();
        assert_eq!(files, [("a.h", true), ("z.h", false)]);
        assert!(source.files.iter().all(|file| file.node_properties.is_none()));
        assert_eq!(message(root.directories[0].digest.as_ref().unwrap()).symlinks[0].target, "../src/a.h");

        let mut other = InputTree::default();
        other.directory("out/empty").unwrap();
        other.file("src/a.h", b, true).unwrap();
        other.link("bin/cc", "../src/a.h".to_owned()).unwrap();
        other.file("src/z.h", a, false).unwrap();
        assert_eq!(other.encode().unwrap().0, digest);
    }

    #[test]
    fn two_things_at_one_place_are_named() {
        let mut tree = InputTree::default();
        tree.file("a/b", Digest::of(b"1"), false).unwrap();
        tree.link("l", "a".to_owned()).unwrap();
        let conflict = tree.file("a/b", Digest::of(b"2"), false).unwrap_err();
        assert!(conflict.to_string().starts_with("a/b is a file of digest"), "{conflict}");
        assert_eq!(tree.file("a/b/c", Digest::of(b"2"), false).unwrap_err().path, "a/b");
        assert_eq!(tree.file("l/c", Digest::of(b"2"), false).unwrap_err().path, "l");
        assert!(tree.directory("a/b").is_err());
        assert!(tree.file("", Digest::EMPTY, false).is_err());
    }
}

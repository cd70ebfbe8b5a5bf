//! The input root of an action: files, links and directories by place, encoded as canonical `Directory`
//! messages. Pure.
//!
//! A list that is sorted once, not a tree of maps: a request has hundreds of places, and most of its processor
//! time would go into making and freeing the maps.

use bytes::Bytes;
use motefarm_cas::tree::{
    self, DEFAULT_DIRECTORY_MODE, DEFAULT_FILE_MODE, EXECUTABLE_FILE_MODE, Entry, EntryKind, TreeError,
};
use motefarm_core::Digest;
use std::cmp::Ordering;

/// See the module. Places are names with a `/` between them, from the input root; empty for the root itself.
#[derive(Debug, Default)]
pub struct InputTree<'a>(Vec<Placed<'a>>);

/// What is at a place.
type Placed<'a> = (&'a str, Node<'a>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node<'a> {
    File { digest: Digest, executable: bool },
    Link(&'a str),
    Directory,
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

/// Why places are no tree.
#[derive(Debug, thiserror::Error)]
pub enum InputTreeError {
    /// They contradict each other.
    #[error("the inputs contradict each other: {0}")]
    Conflict(#[from] Conflict),
    /// A directory can not be said as a message.
    #[error(transparent)]
    Message(#[from] TreeError),
}

impl Node<'_> {
    fn word(&self) -> String {
        match self {
            Self::File { digest, .. } => format!("a file of digest {digest}"),
            Self::Link(target) => format!("a link to {target}"),
            Self::Directory => "a directory".to_owned(),
        }
    }

    /// What is there if both are. The same content twice is one file, executable if it is so once.
    fn and(self, other: Self) -> Option<Self> {
        match (self, other) {
            (Self::File { digest, executable }, Self::File { digest: same, executable: also }) if digest == same => {
                Some(Self::File { digest, executable: executable || also })
            }
            (one, other) => (one == other).then_some(one),
        }
    }
}

impl<'a> InputTree<'a> {
    /// With room for so many places.
    pub fn with_capacity(places: usize) -> Self {
        Self(Vec::with_capacity(places))
    }

    /// Puts a file.
    pub fn file(&mut self, at: &'a str, digest: Digest, executable: bool) {
        self.0.push((at, Node::File { digest, executable }));
    }

    /// Puts a link, whose target is not looked at.
    pub fn link(&mut self, at: &'a str, target: &'a str) {
        self.0.push((at, Node::Link(target)));
    }

    /// Puts a directory.
    pub fn directory(&mut self, at: &'a str) {
        self.0.push((at, Node::Directory));
    }

    /// The root's digest, and every directory's message.
    pub fn encode(mut self) -> Result<(Digest, Vec<(Digest, Bytes)>), InputTreeError> {
        // Stable: of two that contradict each other the first is named first.
        self.0.sort_by(|(one, _), (other, _)| by_names(one, other));
        let mut messages = Vec::new();
        let rest = here(&self.0, "")?.1;
        let root = encode(rest, 0, &mut messages)?;
        Ok((root, messages))
    }
}

/// By names: what lies in a directory comes right after it.
fn by_names(one: &str, other: &str) -> Ordering {
    let key = |byte: u8| if byte == b'/' { 0 } else { byte };
    one.bytes().map(key).cmp(other.bytes().map(key))
}

/// What is at `path`, of nodes that are there or below it; and those below.
fn here<'n, 'a>(nodes: &'n [Placed<'a>], path: &str) -> Result<(Node<'a>, &'n [Placed<'a>]), Conflict> {
    let (at, below) = nodes.split_at(nodes.iter().take_while(|(at, _)| at.len() == path.len()).count());
    // Whatever has something below it is a directory.
    let implied = below.first().or(if path.is_empty() { at.first() } else { None }).map(|_| Node::Directory);
    let mut all = at.iter().map(|(_, node)| *node).chain(implied);
    let first = all.next().unwrap_or(Node::Directory);
    let found = all.try_fold(first, |one, other| {
        let path = if path.is_empty() { ".".to_owned() } else { path.to_owned() };
        one.and(other).ok_or_else(|| Conflict { path, one: one.word(), other: other.word() })
    });
    Ok((found?, below))
}

/// Of the directory with these nodes below it; names begin at `start`.
fn encode(
    mut nodes: &[Placed<'_>],
    start: usize,
    messages: &mut Vec<(Digest, Bytes)>,
) -> Result<Digest, InputTreeError> {
    let mut entries = Vec::new();
    while let Some((first, _)) = nodes.first() {
        let end = first[start..].find('/').map_or(first.len(), |len| start + len);
        let path = &first[..end];
        let inside = |at: &str| at.starts_with(path) && matches!(at.as_bytes().get(end), None | Some(b'/'));
        let (ours, rest) = nodes.split_at(nodes.iter().take_while(|(at, _)| inside(at)).count());
        nodes = rest;
        let kind = match here(ours, path)? {
            (Node::File { digest, executable }, _) => {
                EntryKind::File { digest, mode: if executable { EXECUTABLE_FILE_MODE } else { DEFAULT_FILE_MODE } }
            }
            (Node::Link(target), _) => EntryKind::Symlink { target: target.as_bytes().to_vec() },
            (Node::Directory, below) => EntryKind::Directory { digest: encode(below, end + 1, messages)? },
        };
        entries.push(Entry { name: path.as_bytes()[start..].to_vec(), kind });
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
        tree.file("src/z.h", a, false);
        tree.file("src/a.h", b, false);
        tree.file("src/a.h", b, true);
        tree.link("bin/cc", "../src/a.h");
        tree.directory("out/empty");
        tree.directory("src");
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
        other.directory("out/empty");
        other.file("src/a.h", b, true);
        other.link("bin/cc", "../src/a.h");
        other.file("src/z.h", a, false);
        assert_eq!(other.encode().unwrap().0, digest);
    }

    fn conflict(put: impl FnOnce(&mut InputTree<'_>)) -> Conflict {
        let mut tree = InputTree::default();
        tree.file("a/b", Digest::of(b"1"), false);
        tree.link("l", "a");
        put(&mut tree);
        match tree.encode() {
            Err(InputTreeError::Conflict(conflict)) => conflict,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn two_things_at_one_place_are_named() {
        let two = Digest::of(b"2");
        let twice = conflict(|tree| tree.file("a/b", two, false));
        assert!(twice.to_string().starts_with("a/b is a file of digest"), "{twice}");
        assert_eq!(twice.other, format!("a file of digest {two}"));
        assert_eq!(conflict(|tree| tree.file("a/b/c", two, false)).path, "a/b");
        assert_eq!(conflict(|tree| tree.file("l/c", two, false)).path, "l");
        assert_eq!(conflict(|tree| tree.link("l", "b")).path, "l");
        assert_eq!(conflict(|tree| tree.directory("a/b")).other, "a directory");
        assert_eq!(conflict(|tree| tree.file("", Digest::EMPTY, false)).path, ".");
    }

    /// Bytes below `/` stand before it in plain order, and would tear a directory apart.
    #[test]
    fn names_that_begin_alike_are_not_mixed_up() {
        let mut tree = InputTree::default();
        for at in ["a/x", "a-b", "a.h", "a/y/z", "ab", "a/y.h"] {
            tree.file(at, Digest::of(at.as_bytes()), false);
        }
        let (root, messages) = tree.encode().unwrap();
        let message =
            |digest: Digest| Message::decode(&messages.iter().find(|(d, _)| *d == digest).unwrap().1[..]).unwrap();
        let names = |message: &Message| message.files.iter().map(|file| file.name.clone()).collect::<Vec<_>>();
        let root = message(root);
        assert_eq!(
            (names(&root), root.directories.len(), messages.len()),
            (vec!["a-b".into(), "a.h".into(), "ab".into()], 1, 3)
        );
        assert_eq!(InputTree::default().encode().unwrap().0, Digest::EMPTY);
    }
}

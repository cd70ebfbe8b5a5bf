//! The names of an archive: which are possible, and which of them clash.
//!
//! Every name seen is kept, in a tree, so that an archive can be held to say each thing once, and to
//! mean the same on a file system that folds case or Unicode forms. Pure.

use std::borrow::Cow;
use std::collections::HashMap;
use unicode_normalization::UnicodeNormalization as _;

/// Longest name of an entry.
pub(super) const MOST_PATH_BYTES: usize = 4096;
/// Longest part of one: Linux's `NAME_MAX`.
const MOST_PART_BYTES: usize = 255;
/// Most directories below one another, as in a pushed tree.
const MOST_DEPTH: usize = 256;
/// Most bytes of names of one archive, which are kept in memory.
const MOST_NAME_BYTES: usize = 256 << 20;

/// Index of a node; the top is 0.
pub(super) type NodeId = u32;
/// The directory that is unpacked into.
pub(super) const TOP: NodeId = 0;

/// What an entry is, as far as names go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NodeKind {
    Directory,
    File,
    Link,
}

/// Mode and time that a directory gets in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DirMeta {
    pub(super) mode: u32,
    pub(super) modified: Option<(i64, u32)>,
}

struct Node {
    parent: NodeId,
    name: Box<[u8]>,
    kind: NodeKind,
    meta: Option<DirMeta>,
}

/// See the module.
pub(super) struct Names {
    nodes: Vec<Node>,
    /// By parent and folded name.
    index: HashMap<(NodeId, Box<[u8]>), NodeId>,
    bytes: usize,
    most: u64,
}

/// Why a name can not be taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Clash {
    /// The entry's fault.
    Refused(String),
    /// There are too many.
    Bound(String),
}

/// The parts of a name, without `.` and empty ones; none for the top itself.
pub(super) fn parts(name: &[u8]) -> Result<Vec<&[u8]>, String> {
    if name.is_empty() {
        return Err("it has no name".to_owned());
    }
    // The slash after a directory's name is none of it.
    let length = name.len() - usize::from(name.ends_with(b"/"));
    if length > MOST_PATH_BYTES {
        return Err(format!("a name of {length} bytes; at most {MOST_PATH_BYTES}"));
    }
    if name[0] == b'/' {
        return Err("its name is absolute".to_owned());
    }
    if name.contains(&0) {
        return Err("its name holds a NUL byte".to_owned());
    }
    let parts: Vec<&[u8]> = name.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
    if parts.contains(&&b".."[..]) {
        return Err("its name has '..' in it".to_owned());
    }
    if parts.iter().any(|part| part.len() > MOST_PART_BYTES) {
        return Err(format!("a part of its name is longer than {MOST_PART_BYTES} bytes"));
    }
    if parts.len() > MOST_DEPTH {
        return Err(format!("it is more than {MOST_DEPTH} directories deep"));
    }
    Ok(parts)
}

/// Checks where a symbolic link at `parts` points: nowhere outside. Climbing is allowed at the
/// beginning only: what follows a name may have been a link itself, and its `..` anywhere.
pub(super) fn check_target(parts: &[&[u8]], target: &[u8]) -> Result<(), String> {
    let leaves = || "it is a link that leads out of the directory unpacked into".to_owned();
    if target.first() == Some(&b'/') {
        return Err(leaves());
    }
    if target.contains(&0) || target.len() > MOST_PATH_BYTES {
        return Err("it is a link to an impossible name".to_owned());
    }
    let mut above = parts.len().saturating_sub(1);
    let mut descended = false;
    for part in target.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if descended => return Err("it is a link whose target has '..' after a name".to_owned()),
            b".." => above = above.checked_sub(1).ok_or_else(leaves)?,
            _ => descended = true,
        }
    }
    Ok(())
}

/// The name as a file system sees it that folds case and Unicode forms.
fn fold(name: &[u8]) -> Cow<'_, [u8]> {
    if name.is_ascii() {
        if name.iter().any(u8::is_ascii_uppercase) {
            return Cow::Owned(name.to_ascii_lowercase());
        }
        return Cow::Borrowed(name);
    }
    match std::str::from_utf8(name) {
        Ok(text) => Cow::Owned(text.nfd().flat_map(char::to_lowercase).nfc().collect::<String>().into_bytes()),
        Err(_) => Cow::Owned(name.to_ascii_lowercase()),
    }
}

impl Names {
    /// Room for `most` names.
    pub(super) fn new(most: u64) -> Self {
        let top = Node { parent: TOP, name: Box::default(), kind: NodeKind::Directory, meta: None };
        Self { nodes: vec![top], index: HashMap::new(), bytes: 0, most }
    }

    /// The directory `name` in `parent`, which may have been seen before.
    pub(super) fn directory(&mut self, parent: NodeId, name: &[u8]) -> Result<NodeId, Clash> {
        let (id, is_new) = self.find_or_add(parent, name, NodeKind::Directory)?;
        match self.nodes[id as usize].kind {
            NodeKind::Directory => Ok(id),
            _ if is_new => Ok(id),
            NodeKind::Link => Err(Clash::Refused(format!("the archive has a link at {}", self.path(id)))),
            NodeKind::File => Err(Clash::Refused(format!("the archive has a file at {}", self.path(id)))),
        }
    }

    /// A file or link, which must not have been seen before.
    pub(super) fn add(&mut self, parent: NodeId, name: &[u8], kind: NodeKind) -> Result<NodeId, Clash> {
        match self.find_or_add(parent, name, kind)? {
            (id, true) => Ok(id),
            (id, false) => Err(Clash::Refused(format!("the archive has {} twice", self.path(id)))),
        }
    }

    /// What the archive has at `parts`, if anything.
    pub(super) fn find(&self, parts: &[&[u8]]) -> Option<NodeKind> {
        let mut at = TOP;
        for part in parts {
            at = *self.index.get(&(at, fold(part).into()))?;
            if *self.nodes[at as usize].name != **part {
                return None;
            }
        }
        Some(self.nodes[at as usize].kind)
    }

    /// Notes what a directory is to be in the end.
    pub(super) fn set_meta(&mut self, id: NodeId, meta: DirMeta) {
        self.nodes[id as usize].meta = Some(meta);
    }

    /// Directories with mode and time, those below others first.
    pub(super) fn metas(&self) -> impl Iterator<Item = (NodeId, DirMeta)> {
        let all = self.nodes.iter().enumerate().rev();
        all.filter_map(|(id, node)| Some((NodeId::try_from(id).ok()?, node.meta?)))
    }

    /// The nodes from the top (not included) to one (included), with their names.
    pub(super) fn way(&self, mut id: NodeId) -> Vec<(NodeId, &[u8])> {
        let mut way = Vec::new();
        while id != TOP {
            let node = &self.nodes[id as usize];
            way.push((id, &*node.name));
            id = node.parent;
        }
        way.reverse();
        way
    }

    fn path(&self, id: NodeId) -> String {
        let way = self.way(id);
        super::error::shown(&way.iter().map(|(_, name)| *name).collect::<Vec<_>>().join(&b'/'))
    }

    fn find_or_add(&mut self, parent: NodeId, name: &[u8], kind: NodeKind) -> Result<(NodeId, bool), Clash> {
        let folded: Box<[u8]> = fold(name).into();
        if let Some(known) = self.index.get(&(parent, folded.clone())) {
            let node = &self.nodes[*known as usize];
            if *node.name != *name {
                let other = self.path(*known);
                return Err(Clash::Refused(format!("it and {other} differ by case or Unicode form only")));
            }
            return Ok((*known, false));
        }
        self.bytes += name.len() + folded.len();
        let id = match NodeId::try_from(self.nodes.len()) {
            Ok(id) if u64::from(id) <= self.most => id,
            _ => return Err(Clash::Bound(format!("the archive has more than {} entries", self.most))),
        };
        if self.bytes > MOST_NAME_BYTES {
            return Err(Clash::Bound(format!("the archive has more than {MOST_NAME_BYTES} bytes of names")));
        }
        self.nodes.push(Node { parent, name: name.into(), kind, meta: None });
        self.index.insert((parent, folded), id);
        Ok((id, true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_or_refused() {
        let plain = |name: &'static str| parts(name.as_bytes()).map(|parts| parts.join(&b'/'));
        assert_eq!(plain("./a//b/./c/"), Ok(b"a/b/c".to_vec()));
        assert_eq!(plain("./"), Ok(Vec::new()));
        assert_eq!(plain("..a/b.."), Ok(b"..a/b..".to_vec()));
        let long = "n".repeat(MOST_PART_BYTES + 1);
        let deep = "d/".repeat(MOST_DEPTH + 1);
        for bad in ["", "/a", "a/../b", "..", "a/..", "a\0b", &long, &deep, &"a/".repeat(2049)] {
            assert!(parts(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn links_may_climb_only_at_their_beginning_and_never_out() {
        let check = |parts: &[&[u8]], target: &str| check_target(parts, target.as_bytes());
        let deep: &[&[u8]] = &[b"a", b"b", b"link"];
        for good in ["x", "../x", "../../x/y", ".", "..", "../..", "./x/./y//", "dangling/far/away"] {
            assert_eq!(check(deep, good), Ok(()), "{good}");
        }
        for bad in ["/", "/etc/passwd", "../../..", "../../../x", "x/../y", "x/..", "a\0b"] {
            assert!(check(deep, bad).is_err(), "{bad}");
        }
        assert!(check(&[b"link"], "..").is_err());
    }

    #[test]
    fn one_name_is_one_thing() {
        let mut names = Names::new(100);
        let d = names.directory(TOP, b"Dir").unwrap();
        assert_eq!(names.directory(TOP, b"Dir"), Ok(d));
        let refused = |clash: Result<NodeId, Clash>, text: &str| match clash {
            Err(Clash::Refused(problem)) => assert!(problem.contains(text), "{problem}"),
            other => panic!("{other:?}"),
        };
        refused(names.directory(TOP, b"dIR"), "Dir");
        names.add(d, "caf\u{e9}".as_bytes(), NodeKind::File).unwrap();
        refused(names.add(d, "cafe\u{301}".as_bytes(), NodeKind::File), "Unicode form");
        refused(names.add(d, "CAF\u{c9}".as_bytes(), NodeKind::File), "Dir/caf");
        refused(names.add(d, "caf\u{e9}".as_bytes(), NodeKind::File), "twice");
        refused(names.directory(d, "caf\u{e9}".as_bytes()), "file at");
        names.add(TOP, b"link", NodeKind::Link).unwrap();
        refused(names.directory(TOP, b"link"), "link at");
        refused(names.add(TOP, b"Dir", NodeKind::File), "twice");
        names.add(TOP, b"\xff\xfe", NodeKind::File).unwrap();
        names.add(TOP, b"\xff\xfd", NodeKind::File).unwrap();
        assert_eq!(names.find(&[b"Dir", "caf\u{e9}".as_bytes()]), Some(NodeKind::File));
        assert_eq!(names.find(&[b"dir", "caf\u{e9}".as_bytes()]), None);
        let mut few = Names::new(1);
        few.add(TOP, b"a", NodeKind::File).unwrap();
        assert!(matches!(few.add(TOP, b"b", NodeKind::File), Err(Clash::Bound(_))));
    }
}

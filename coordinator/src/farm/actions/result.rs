//! What an `ActionResult` names, and whether it is all there.

use motefarm_cas::snapshot::{StoredTreeError, stored_tree};
use motefarm_cas::store::{BlobSource as _, PinGuard, Store as Cas, StoreError as CasError};
use motefarm_core::Digest;
use motefarm_proto::convert::{self, FieldError};
use motefarm_proto::reapi::{self, ActionResult, Tree};
use prost::Message as _;
use std::collections::HashSet;

/// Largest encoded result that is kept or answered: with what an operation adds it stays under the 4 MiB
/// that clients take by default.
pub const MAX_RESULT_BYTES: usize = 3 << 20;
/// Largest `Tree` that is looked into.
const MAX_TREE_BYTES: u64 = 64 << 20;

/// The blobs that a result names itself: to be there before anything else can be known.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// Contents of files, and what was written to stdout and stderr.
    pub files: Vec<Digest>,
    /// `Tree`s, which name more.
    pub trees: Vec<Digest>,
    /// Directories, which name more.
    pub roots: Vec<Digest>,
}

/// Parses every digest of a result. An error names the first that is none.
pub fn named(result: &ActionResult) -> Result<Named, FieldError> {
    let parse = |field, digest: &reapi::Digest| {
        convert::reapi_digest(digest).map_err(|error| FieldError::new(field, error.problem))
    };
    let mut named = Named::default();
    for file in &result.output_files {
        let digest = file.digest.as_ref();
        let digest = digest.ok_or_else(|| FieldError::new("output_files.digest", format!("{:?} has none", file.path)));
        named.files.push(parse("output_files.digest", digest?)?);
    }
    for directory in &result.output_directories {
        if directory.tree_digest.is_none() && directory.root_directory_digest.is_none() {
            return Err(FieldError::new("output_directories.tree_digest", format!("{:?} has none", directory.path)));
        }
        if let Some(digest) = &directory.tree_digest {
            named.trees.push(parse("output_directories.tree_digest", digest)?);
        }
        if let Some(digest) = &directory.root_directory_digest {
            named.roots.push(parse("output_directories.root_directory_digest", digest)?);
        }
    }
    for (field, digest) in [("stdout_digest", &result.stdout_digest), ("stderr_digest", &result.stderr_digest)] {
        // Unset and an empty message both mean that nothing was written.
        if let Some(digest) = digest.as_ref().filter(|digest| !digest.hash.is_empty()) {
            named.files.push(parse(field, digest)?);
        }
    }
    Ok(named)
}

/// Whether all that a result names is there.
#[derive(Debug)]
pub enum Held {
    /// It is, counts as used just now, and stays while the guard lives.
    All(PinGuard),
    /// These are not, or are not what they should be.
    Lacks(Vec<Digest>),
}

/// Looks for everything that a result names, contents of its trees included. Blocking.
pub fn hold(cas: &Cas, named: &Named) -> Result<Held, CasError> {
    let mut all: HashSet<Digest> = named.files.iter().chain(&named.trees).chain(&named.roots).copied().collect();
    for digest in &named.trees {
        let Some(tree) = read_tree(cas, digest)? else { return Ok(Held::Lacks(vec![*digest])) };
        for directory in tree.root.iter().chain(&tree.children) {
            for file in &directory.files {
                match file.digest.as_ref().map(convert::reapi_digest) {
                    Some(Ok(found)) => all.insert(found),
                    // Not a tree that a client could use.
                    _ => return Ok(Held::Lacks(vec![*digest])),
                };
            }
        }
    }
    for digest in &named.roots {
        match stored_tree(*digest, cas) {
            Ok(tree) if tree.missing.is_empty() => all.extend(tree.digests),
            Ok(tree) => return Ok(Held::Lacks(tree.missing)),
            Err(StoredTreeError::Store(error)) => return Err(error),
            Err(StoredTreeError::Tree { .. } | StoredTreeError::TooLarge) => return Ok(Held::Lacks(vec![*digest])),
        }
    }
    let all: Vec<Digest> = all.into_iter().collect();
    // Pinned first: what is found then stays.
    let pin = cas.pin(all.clone());
    let lacks = cas.missing(&all);
    Ok(if lacks.is_empty() { Held::All(pin) } else { Held::Lacks(lacks) })
}

/// A `Tree`, if there is one under this digest.
fn read_tree(cas: &Cas, digest: &Digest) -> Result<Option<Tree>, CasError> {
    match cas.read(digest, MAX_TREE_BYTES) {
        Ok(bytes) => Ok(bytes.and_then(|bytes| Tree::decode(bytes).ok())),
        Err(CasError::TooLarge { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use motefarm_cas::store::StoreLimits;
    use motefarm_proto::reapi::{Directory, FileNode, OutputDirectory, OutputFile};

    fn put(cas: &Cas, content: &[u8]) -> reapi::Digest {
        let digest = Digest::of(content);
        cas.put_batch(&[(digest, Bytes::copy_from_slice(content))]).unwrap();
        convert::to_reapi_digest(digest)
    }

    fn file(name: &str, content: &[u8]) -> FileNode {
        let digest = Some(convert::to_reapi_digest(Digest::of(content)));
        FileNode { name: name.to_owned(), digest, ..Default::default() }
    }

    #[test]
    fn a_result_is_whole_when_all_below_its_trees_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let cas = Cas::open(dir.path(), StoreLimits::default()).unwrap();
        let child = Directory { files: vec![file("deep", b"deep")], ..Default::default() };
        let tree = Tree {
            root: Some(Directory { files: vec![file("top", b"top")], ..Default::default() }),
            children: vec![child.clone()],
        };
        let root = put(&cas, &child.encode_to_vec());
        let result = ActionResult {
            output_files: vec![OutputFile { digest: Some(put(&cas, b"one")), ..Default::default() }],
            output_directories: vec![OutputDirectory {
                tree_digest: Some(put(&cas, &tree.encode_to_vec())),
                root_directory_digest: Some(root),
                ..Default::default()
            }],
            stdout_digest: Some(reapi::Digest::default()),
            stderr_digest: Some(convert::to_reapi_digest(Digest::EMPTY)),
            ..Default::default()
        };
        let named = named(&result).unwrap();
        let lacks = |cas: &Cas| match hold(cas, &named).unwrap() {
            Held::All(_) => Vec::new(),
            Held::Lacks(lacks) => lacks,
        };
        assert_eq!(lacks(&cas), [Digest::of(b"deep")]);
        put(&cas, b"deep");
        assert_eq!(lacks(&cas), [Digest::of(b"top")]);
        put(&cas, b"top");
        assert!(lacks(&cas).is_empty());
    }

    #[test]
    fn what_is_no_tree_is_as_good_as_missing_and_no_digest_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let cas = Cas::open(dir.path(), StoreLimits::default()).unwrap();
        let directory = |tree_digest| OutputDirectory { path: "d".to_owned(), tree_digest, ..Default::default() };
        let result = |output| ActionResult { output_directories: vec![directory(output)], ..ActionResult::default() };
        let good = named(&result(Some(put(&cas, b"\xff no tree")))).unwrap();
        assert!(matches!(hold(&cas, &good).unwrap(), Held::Lacks(_)));
        let error = named(&result(None)).unwrap_err();
        assert_eq!(error.field, "output_directories.tree_digest");
        let bad = reapi::Digest { hash: "x".to_owned(), size_bytes: 1 };
        assert!(named(&ActionResult { stdout_digest: Some(bad), ..Default::default() }).is_err());
        let file = OutputFile { path: "f".to_owned(), ..Default::default() };
        assert!(named(&ActionResult { output_files: vec![file], ..Default::default() }).is_err());
    }
}

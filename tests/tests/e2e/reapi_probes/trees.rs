//! GetTree.

use super::Probe;
use super::ground::{Ground, told};
use motefarm_core::Digest;
use motefarm_proto::convert::to_reapi_digest;
use motefarm_proto::reapi::{Directory, DirectoryNode, FileNode, GetTreeRequest, GetTreeResponse};
use tonic::Status;

pub(super) const PROBES: [Probe; 4] = [
    ("GetTree of a root with two names for one subdirectory", shared),
    ("GetTree with page_size 1", small_pages),
    ("GetTree of an unknown root, and of a root that is no directory", no_root),
    ("GetTree with an inner directory missing", no_inner),
];

/// A directory that was put.
fn directory(ground: &Ground, files: &[&str], directories: &[(&str, Digest)]) -> Digest {
    let file = |name: &&str| FileNode {
        name: (*name).to_owned(),
        digest: Some(to_reapi_digest(Digest::EMPTY)),
        ..Default::default()
    };
    let node = |(name, digest): &(&str, Digest)| DirectoryNode {
        name: (*name).to_owned(),
        digest: Some(to_reapi_digest(*digest)),
    };
    ground.put_message(&Directory {
        files: files.iter().map(file).collect(),
        directories: directories.iter().map(node).collect(),
        ..Default::default()
    })
}

fn pages(ground: &Ground, root: Digest, page_size: i32) -> Result<Vec<GetTreeResponse>, Status> {
    let request = GetTreeRequest { root_digest: Some(to_reapi_digest(root)), page_size, ..Default::default() };
    ground.rpc.wait(async {
        let mut stream = ground.cas().get_tree(request).await?.into_inner();
        let mut pages = Vec::new();
        while let Some(page) = stream.message().await? {
            pages.push(page);
        }
        Ok(pages)
    })
}

fn count(pages: &[GetTreeResponse]) -> usize {
    pages.iter().map(|page| page.directories.len()).sum()
}

fn shared(ground: &Ground) -> String {
    let leaf = directory(ground, &["shared"], &[]);
    let root = directory(ground, &[], &[("a", leaf), ("b", leaf)]);
    told(pages(ground, root, 0), |pages| format!("{} directories", count(&pages)))
}

fn small_pages(ground: &Ground) -> String {
    let leaves = ["x", "y"].map(|name| directory(ground, &[name], &[]));
    let root = directory(ground, &[], &[("x", leaves[0]), ("y", leaves[1])]);
    told(pages(ground, root, 1), |pages| match (pages.len(), count(&pages)) {
        (3.., 3) => "streams on".to_owned(),
        other => format!("{other:?}"),
    })
}

fn no_root(ground: &Ground) -> String {
    let file = ground.put(&[0xff; 100]);
    let unknown = Digest::of(&ground.fresh(9));
    [unknown, file]
        .map(|root| told(pages(ground, root, 0), |pages| format!("{} directories", count(&pages))))
        .join(", ")
}

fn no_inner(ground: &Ground) -> String {
    let root = directory(ground, &["here"], &[("gone", Digest::of(&ground.fresh(9)))]);
    told(pages(ground, root, 0), |pages| match count(&pages) {
        1 => "left out".to_owned(),
        other => format!("{other} directories"),
    })
}

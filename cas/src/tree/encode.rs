//! From entries to the canonical message.

use super::escape::escape;
use super::mode::{self, DEFAULT_DIRECTORY_MODE, MODE_BITS};
use super::{Entry, EntryKind, MAX_ENTRIES, TreeError, is_valid_name, is_valid_target, shown};
use bazel_remote_apis::google::protobuf::UInt32Value;
use bytes::Bytes;
use motefarm_core::Digest;
use motefarm_proto::convert::to_reapi_digest;
use motefarm_proto::reapi::{Directory, DirectoryNode, FileNode, NodeProperties, NodeProperty, SymlinkNode};
use prost::Message as _;

/// Node property with the hex of a file's or link's name.
pub(super) const RAW_NAME: &str = "mote.raw_name";
/// Node property with the hex of a link's target.
pub(super) const RAW_TARGET: &str = "mote.raw_target";
/// Node property of a directory with the hex of one subdirectory's name.
pub(super) const RAW_DIRECTORY: &str = "mote.raw_directory";

/// Encodes a directory with permission bits `mode`. The entries may come in any order; equal
/// directories have equal bytes and so one digest.
pub fn encode(mode: u32, entries: &[Entry]) -> Result<(Digest, Bytes), TreeError> {
    if entries.len() > MAX_ENTRIES {
        return Err(TreeError::TooMany(entries.len()));
    }
    let mut spelled: Vec<(String, bool, &Entry)> = Vec::with_capacity(entries.len());
    for entry in entries {
        if !is_valid_name(&entry.name) {
            return Err(TreeError::Name(shown(&entry.name)));
        }
        let (name, escaped) = escape(&entry.name);
        spelled.push((name, escaped, entry));
    }
    spelled.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    if let Some(twice) = spelled.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(TreeError::Duplicate(shown(&twice[0].2.name)));
    }
    let mut directory = Directory::default();
    let mut raw_directories = Vec::new();
    for (name, escaped, entry) in spelled {
        let raw_name = escaped.then(|| property(RAW_NAME, &entry.name));
        match &entry.kind {
            EntryKind::File { digest, mode } => {
                let is_executable = mode::is_executable(*mode);
                let unusual = (mode & MODE_BITS != mode::usual(is_executable)).then_some(mode & MODE_BITS);
                directory.files.push(FileNode {
                    name,
                    digest: Some(to_reapi_digest(*digest)),
                    is_executable,
                    node_properties: properties(raw_name.into_iter().collect(), unusual),
                });
            }
            EntryKind::Directory { digest } => {
                raw_directories.extend(escaped.then(|| property(RAW_DIRECTORY, &entry.name)));
                directory.directories.push(DirectoryNode { name, digest: Some(to_reapi_digest(*digest)) });
            }
            EntryKind::Symlink { target } => {
                if !is_valid_target(target) {
                    return Err(TreeError::Target(shown(&entry.name)));
                }
                let (text, escaped) = escape(target);
                let raw_target = escaped.then(|| property(RAW_TARGET, target));
                directory.symlinks.push(SymlinkNode {
                    name,
                    target: text,
                    node_properties: properties(raw_name.into_iter().chain(raw_target).collect(), None),
                });
            }
        }
    }
    let unusual = (mode & MODE_BITS != DEFAULT_DIRECTORY_MODE).then_some(mode & MODE_BITS);
    directory.node_properties = properties(raw_directories, unusual);
    let bytes = Bytes::from(directory.encode_to_vec());
    Ok((Digest::of(&bytes), bytes))
}

fn property(name: &str, bytes: &[u8]) -> NodeProperty {
    NodeProperty { name: name.to_owned(), value: hex::encode(bytes) }
}

/// Callers pass them sorted: by name, equal names in the order of the entries.
fn properties(properties: Vec<NodeProperty>, mode: Option<u32>) -> Option<NodeProperties> {
    (mode.is_some() || !properties.is_empty()).then(|| NodeProperties {
        properties,
        mtime: None,
        unix_mode: mode.map(|value| UInt32Value { value }),
    })
}

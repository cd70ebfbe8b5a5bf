//! From a message of unknown origin to entries that are safe to use.

use super::encode::{RAW_DIRECTORY, RAW_NAME, RAW_TARGET};
use super::escape::escape;
use super::mode::{self, DEFAULT_DIRECTORY_MODE, MODE_BITS};
use super::{Entry, EntryKind, MAX_ENTRIES, TreeError, is_valid_name, is_valid_target, shown};
use motefarm_core::Digest;
use motefarm_proto::reapi::{self, Directory, NodeProperties};
use prost::Message as _;
use std::collections::HashMap;

/// A decoded directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// Its permission bits.
    pub mode: u32,
    /// Its entries, sorted by the bytes of their names, each name once.
    pub entries: Vec<Entry>,
}

/// Decodes and checks a `Directory`. Entries need not be sorted (real clients send such trees), but
/// unsafe names, duplicates and missing digests are refused.
pub fn decode(bytes: &[u8]) -> Result<Contents, TreeError> {
    let directory = Directory::decode(bytes).map_err(|error| TreeError::Message(error.to_string()))?;
    let count = directory.files.len() + directory.directories.len() + directory.symlinks.len();
    if count > MAX_ENTRIES {
        return Err(TreeError::TooMany(count));
    }
    let mut entries = Vec::with_capacity(count);
    for file in directory.files {
        let properties = file.node_properties.as_ref();
        let digest = digest(file.digest.as_ref(), &file.name)?;
        let mode = unix_mode(properties).unwrap_or_else(|| mode::usual(file.is_executable));
        let name = raw(properties, RAW_NAME, &file.name, &file.name)?;
        entries.push(Entry { name, kind: EntryKind::File { digest, mode } });
    }
    let mut raw_names = raw_directories(directory.node_properties.as_ref())?;
    for node in directory.directories {
        let digest = digest(node.digest.as_ref(), &node.name)?;
        let name = raw_names.remove(&node.name).unwrap_or_else(|| node.name.into_bytes());
        entries.push(Entry { name, kind: EntryKind::Directory { digest } });
    }
    if let Some((name, _)) = raw_names.into_iter().next() {
        return Err(TreeError::RawBytes { name: shown(name.as_bytes()), property: RAW_DIRECTORY });
    }
    for link in directory.symlinks {
        let properties = link.node_properties.as_ref();
        let name = raw(properties, RAW_NAME, &link.name, &link.name)?;
        let target = raw(properties, RAW_TARGET, &link.target, &link.name)?;
        if !is_valid_target(&target) {
            return Err(TreeError::Target(shown(&name)));
        }
        entries.push(Entry { name, kind: EntryKind::Symlink { target } });
    }
    if let Some(bad) = entries.iter().find(|entry| !is_valid_name(&entry.name)) {
        return Err(TreeError::Name(shown(&bad.name)));
    }
    entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    if let Some(twice) = entries.windows(2).find(|pair| pair[0].name == pair[1].name) {
        return Err(TreeError::Duplicate(shown(&twice[0].name)));
    }
    let mode = unix_mode(directory.node_properties.as_ref()).unwrap_or(DEFAULT_DIRECTORY_MODE);
    Ok(Contents { mode, entries })
}

fn digest(digest: Option<&reapi::Digest>, name: &str) -> Result<Digest, TreeError> {
    let bad = |problem: String| TreeError::Digest { name: shown(name.as_bytes()), problem };
    let digest = digest.ok_or_else(|| bad("is not set".to_owned()))?;
    Digest::parse(&digest.hash, digest.size_bytes).map_err(|error| bad(error.to_string()))
}

fn unix_mode(properties: Option<&NodeProperties>) -> Option<u32> {
    Some(properties?.unix_mode.as_ref()?.value & MODE_BITS)
}

/// The bytes behind `text`: those of the property, if it is there and `text` is their spelling.
fn raw(
    properties: Option<&NodeProperties>,
    property: &'static str,
    text: &str,
    name: &str,
) -> Result<Vec<u8>, TreeError> {
    let Some(found) = properties.and_then(|all| all.properties.iter().find(|one| one.name == property)) else {
        return Ok(text.as_bytes().to_vec());
    };
    match hex::decode(&found.value) {
        Ok(bytes) if escape(&bytes).0 == text => Ok(bytes),
        _ => Err(TreeError::RawBytes { name: shown(name.as_bytes()), property }),
    }
}

/// Raw names of subdirectories by their spelling.
fn raw_directories(properties: Option<&NodeProperties>) -> Result<HashMap<String, Vec<u8>>, TreeError> {
    let mut names = HashMap::new();
    for property in properties.iter().flat_map(|all| &all.properties).filter(|one| one.name == RAW_DIRECTORY) {
        let bytes = hex::decode(&property.value)
            .map_err(|_| TreeError::RawBytes { name: shown(property.value.as_bytes()), property: RAW_DIRECTORY })?;
        names.insert(escape(&bytes).0, bytes);
    }
    Ok(names)
}

//! A result's outputs, brought into a directory of ours.

use crate::connection::{Farm, opened};
use crate::error::Error;
use crate::resume::SHORT_PATIENCE;
use motefarm_cas::tree::{self, EntryKind};
use motefarm_core::WorkPath;
use motefarm_proto::reapi::bytestream::ReadRequest;
use motefarm_proto::reapi::{self, ActionResult, Directory, Tree};
use prost::Message as _;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

const DOING: &str = "fetch the outputs";

/// Fetches all of them, replacing what is there under their names; the paths they have.
pub(super) async fn fetch(farm: &Farm, result: &ActionResult, into: &Path) -> Result<Vec<String>, Error> {
    let mut fetched = Vec::new();
    for file in &result.output_files {
        let path = place(into, &file.path)?;
        write_file(farm, file.digest.as_ref(), &path, file.is_executable).await?;
        fetched.push(file.path.clone());
    }
    for directory in &result.output_directories {
        let path = place(into, &directory.path)?;
        let digest = directory.tree_digest.clone().unwrap_or_default();
        let tree = Tree::decode(read(farm, &digest).await?.as_slice()).map_err(|e| Error::protocol(DOING, e))?;
        write_tree(farm, tree, &path).await?;
        fetched.push(directory.path.clone());
    }
    for link in &result.output_symlinks {
        write_link(&place(into, &link.path)?, &link.target)?;
        fetched.push(link.path.clone());
    }
    Ok(fetched)
}

/// Where an output comes to lie: below `into`, whatever the farm says.
fn place(into: &Path, path: &str) -> Result<std::path::PathBuf, Error> {
    let path = WorkPath::parse(path).map_err(|e| Error::protocol(DOING, format!("output path {path:?}: {e}")))?;
    Ok(into.join(path.as_str()))
}

/// Directories are few and hold digests; files go one by one. What a farm says twice is fetched twice.
async fn write_tree(farm: &Farm, tree: Tree, path: &Path) -> Result<(), Error> {
    let encoded = |directory: &Directory| motefarm_core::Digest::of(&directory.encode_to_vec());
    let children: HashMap<_, _> = tree.children.into_iter().map(|child| (encoded(&child), child)).collect();
    let mut left = vec![(path.to_owned(), tree.root.unwrap_or_default(), 0)];
    while let Some((path, directory, depth)) = left.pop() {
        // Names and targets are checked here, as of any tree.
        let contents = tree::decode(&directory.encode_to_vec()).map_err(|e| Error::protocol(DOING, e))?;
        if depth > tree::MAX_DEPTH {
            return Err(Error::protocol(DOING, "a tree without end"));
        }
        make_dir(&path)?;
        for entry in contents.entries {
            let name = String::from_utf8(entry.name).map_err(|e| Error::protocol(DOING, e))?;
            let path = path.join(&name);
            match entry.kind {
                EntryKind::File { digest, mode } => {
                    let digest = motefarm_proto::convert::to_reapi_digest(digest);
                    write_file(farm, Some(&digest), &path, mode & 0o100 != 0).await?;
                }
                EntryKind::Directory { digest } => {
                    let child = children.get(&digest).cloned();
                    let child = child.ok_or_else(|| Error::protocol(DOING, format!("{digest} is not in its tree")))?;
                    left.push((path, child, depth + 1));
                }
                EntryKind::Symlink { target } => write_link(&path, &String::from_utf8_lossy(&target))?,
            }
        }
    }
    Ok(())
}

fn make_dir(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(|cause| Error::file("make the folder", path, cause))
}

/// Beside its place, then renamed: whole or not at all.
async fn write_file(
    farm: &Farm,
    digest: Option<&reapi::Digest>,
    path: &Path,
    is_executable: bool,
) -> Result<(), Error> {
    let failed = |cause| Error::file("write", path, cause);
    let parent = path.parent().unwrap_or(Path::new("."));
    make_dir(parent)?;
    let mut temp = tempfile::Builder::new().prefix(".mote-").tempfile_in(parent).map_err(failed)?;
    copy(farm, digest.unwrap_or(&reapi::Digest::default()), temp.as_file_mut()).await?;
    set_mode(temp.as_file(), is_executable).map_err(failed)?;
    temp.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

#[cfg(unix)]
fn set_mode(file: &File, is_executable: bool) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    file.set_permissions(fs::Permissions::from_mode(if is_executable { 0o755 } else { 0o644 }))
}

#[cfg(not(unix))]
fn set_mode(_file: &File, _is_executable: bool) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn write_link(path: &Path, target: &str) -> Result<(), Error> {
    let failed = |cause| Error::file("make the link", path, cause);
    make_dir(path.parent().unwrap_or(Path::new(".")))?;
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    std::os::unix::fs::symlink(target, path).map_err(failed)
}

#[cfg(not(unix))]
fn write_link(path: &Path, _target: &str) -> Result<(), Error> {
    Err(Error::file("make the link", path, io::ErrorKind::Unsupported.into()))
}

/// A blob that fits memory.
pub(super) async fn read(farm: &Farm, digest: &reapi::Digest) -> Result<Vec<u8>, Error> {
    let mut content = Vec::new();
    copy(farm, digest, &mut content).await?;
    Ok(content)
}

/// A blob, going on where a broken connection left it; checked at its end.
async fn copy(farm: &Farm, digest: &reapi::Digest, to: &mut impl Write) -> Result<(), Error> {
    let expected = motefarm_proto::convert::reapi_digest(digest).map_err(|e| Error::protocol(DOING, e))?;
    let mut retry = farm.retry(DOING, SHORT_PATIENCE);
    let mut hasher = motefarm_core::digest::DigestHasher::new();
    let mut read_offset: i64 = 0;
    loop {
        let resource_name = format!("blobs/{expected}");
        let request = ReadRequest { resource_name, read_offset, read_limit: 0 };
        let failure = 'stream: {
            let mut client = farm.bytes();
            let mut pieces = match opened(client.read(request)).await {
                Ok(pieces) => pieces,
                Err(status) => break 'stream status,
            };
            loop {
                match pieces.message().await {
                    Ok(Some(piece)) => {
                        retry.contact();
                        hasher.update(&piece.data);
                        read_offset += i64::try_from(piece.data.len()).unwrap_or(i64::MAX);
                        to.write_all(&piece.data).map_err(|cause| Error::local(DOING, cause))?;
                    }
                    Ok(None) => {
                        let actual = hasher.finish();
                        let wrong = || Error::protocol(DOING, format!("{expected} came as {actual}"));
                        return if actual == expected { Ok(()) } else { Err(wrong()) };
                    }
                    Err(status) => break 'stream status,
                }
            }
        };
        retry.wait(&failure).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_stay_below_where_they_are_wanted() {
        let into = Path::new("here");
        assert_eq!(place(into, "a/b.o").ok().unwrap(), Path::new("here/a/b.o"));
        for climbing in ["../x", "/etc/passwd", "a/../../x"] {
            assert!(place(into, climbing).is_err(), "{climbing}");
        }
    }
}

//! Archives that are written here: what brings blobs of the farm's store to a Go agent, and others anew.
//! Blocking.

use super::tar_in::Member;
use flate2::Compression;
use flate2::write::GzEncoder;
use motefarm_cas::store::{Blob, BlobSource as _, Store};
use motefarm_core::{Digest, Timestamp};
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Writes it: `dest` and `directories` as such, then `files` with their modes, all below `dest`.
///
/// Everything gets the present moment, or a build would take what changed for old.
pub(super) fn write(
    sink: impl Write,
    store: &Store,
    dest: &str,
    directories: &[Vec<u8>],
    files: &[(Vec<u8>, Digest, u32)],
    now: Timestamp,
) -> io::Result<()> {
    let mut archive = tar::Builder::new(GzEncoder::new(sink, Compression::fast()));
    let below = |path: &[u8]| match dest.is_empty() {
        true => path.to_vec(),
        false => [dest.as_bytes(), b"/", path].concat(),
    };
    let seconds = u64::try_from(now.as_millis() / 1000).unwrap_or(0);
    if !dest.is_empty() {
        append(&mut archive, dest.as_bytes(), tar::EntryType::Directory, 0o755, seconds, 0, io::empty())?;
    }
    for path in directories {
        append(&mut archive, &below(path), tar::EntryType::Directory, 0o755, seconds, 0, io::empty())?;
    }
    for (path, digest, mode) in files {
        let blob = store.open(digest).map_err(io::Error::other)?;
        let blob = blob.ok_or_else(|| io::Error::other(format!("{digest} is no longer in the store; ask again")))?;
        let size = blob.size();
        let content = Content { blob, offset: 0 };
        append(&mut archive, &below(path), tar::EntryType::Regular, *mode, seconds, size, content)?;
    }
    archive.into_inner()?.finish()?.flush()
}

/// Appends what another archive has.
pub(super) fn copy<W: Write>(archive: &mut tar::Builder<W>, member: Member<'_, impl Read>) -> io::Result<()> {
    let Member { name, kind, target, mode, modified_s, size, content } = member;
    if kind != tar::EntryType::Symlink {
        return append(archive, &name, kind, mode, modified_s, size, content);
    }
    let mut header = header(kind, mode, modified_s, 0);
    archive.append_link(&mut header, path(&name), path(&target))
}

/// Appends an entry under a name of any length and any bytes.
fn append<W: Write>(
    archive: &mut tar::Builder<W>,
    name: &[u8],
    kind: tar::EntryType,
    mode: u32,
    seconds: u64,
    size: u64,
    content: impl Read,
) -> io::Result<()> {
    archive.append_data(&mut header(kind, mode, seconds, size), path(name), content)
}

fn header(kind: tar::EntryType, mode: u32, seconds: u64, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode & 0o777);
    header.set_mtime(seconds);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

struct Content {
    blob: Blob,
    offset: u64,
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.blob.read_at(buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

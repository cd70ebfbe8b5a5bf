//! Listing a directory: depth first, by the bytes of the names. Memory is bounded by the names of
//! the directories on one way down.

use super::get::open_regular;
use super::{Place, dir, failed};
use crate::error::AgentError;
use motefarm_cas::beneath::{self, DIRECTORY};
use motefarm_core::WorkPath;
use motefarm_proto::convert::{self, FieldError};
use motefarm_proto::mote::dir_entry::Kind;
use motefarm_proto::mote::list_dir_spec::Hash;
use motefarm_proto::mote::{DirEntry, DirListing, ListDirSpec};
use rustix::fs::{Dir, FileType, Mode, Stat, fstat, openat, readlinkat};
use rustix::io::Errno;
use std::collections::HashSet;
use std::io::Read as _;
use std::os::fd::{AsFd, OwnedFd};

/// Most entries a message.
const MOST_ENTRIES: usize = 1000;
/// A message with names of this many bytes goes out early: long ones must not outgrow a message.
const MOST_NAME_BYTES: usize = 1 << 20;
/// Most directories to leave out.
const MOST_SKIPPED: usize = 1000;
/// Deeper trees are refused rather than run out of descriptors.
const MOST_DEPTH: usize = 512;
/// Piece of a file that is hashed.
const READ_BYTES: usize = 128 << 10;

/// What to list, checked.
#[derive(Debug)]
pub(crate) struct Listing {
    dir: WorkPath,
    recursive: bool,
    skip: HashSet<Vec<u8>>,
    hash: Hash,
}

impl TryFrom<ListDirSpec> for Listing {
    type Error = FieldError;

    fn try_from(spec: ListDirSpec) -> Result<Self, FieldError> {
        if spec.skip.len() > MOST_SKIPPED {
            let problem = format!("{} directories; at most {MOST_SKIPPED}", spec.skip.len());
            return Err(FieldError::new("list.skip", problem));
        }
        let hash = Hash::try_from(spec.hash)
            .map_err(|_| FieldError::new("list.hash", format!("{} is no hash known here", spec.hash)))?;
        let skip = spec.skip.iter().map(|path| Ok(convert::work_path("list.skip", path)?.as_str().into()));
        let skip = skip.collect::<Result<_, FieldError>>()?;
        Ok(Self { dir: convert::work_path("list.dir", &spec.dir)?, recursive: spec.recursive, skip, hash })
    }
}

/// A directory on the way down.
struct Level {
    dir: OwnedFd,
    names: std::vec::IntoIter<Vec<u8>>,
    path: Vec<u8>,
}

/// Lists into `sink`, whose error ends it.
pub(crate) fn list<E: From<AgentError>>(
    place: &Place,
    listing: &Listing,
    sink: impl FnMut(DirListing) -> Result<(), E>,
) -> Result<(), E> {
    let mut page = Page { sink, entries: Vec::new(), name_bytes: 0 };
    let parent = dir(&place.work, "list.dir", &listing.dir.parent())?;
    let top = match listing.dir.parts().last() {
        None => parent,
        Some(name) => {
            let missing = || AgentError::NoFile(format!("there is no directory {}", listing.dir));
            let about = || failed(format!("can not list {}", listing.dir));
            match openat(&parent, name, DIRECTORY, Mode::empty()) {
                Ok(top) => top,
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    let found = entry(&parent, name.as_bytes(), Vec::new(), listing.hash).map_err(about())?;
                    page.add(found.ok_or_else(missing)?)?;
                    return page.finish();
                }
                Err(Errno::NOENT) => return Err(missing().into()),
                Err(errno) => return Err(about()(errno).into()),
            }
        }
    };
    let about = |path: &[u8]| failed(format!("can not list {}", String::from_utf8_lossy(path)));
    let names = names(&top).map_err(about(listing.dir.as_str().as_bytes()))?;
    let mut stack = vec![Level { dir: top, names, path: Vec::new() }];
    while let Some(level) = stack.last_mut() {
        let Some(name) = level.names.next() else {
            stack.pop();
            continue;
        };
        let path = if level.path.is_empty() { name.clone() } else { [&level.path, &b"/"[..], &name].concat() };
        // What vanished meanwhile is not there.
        let Some(entry) = entry(&level.dir, &name, path.clone(), listing.hash).map_err(about(&path))? else {
            continue;
        };
        if entry.kind() != Kind::Directory {
            page.add(entry)?;
            continue;
        }
        if listing.skip.contains(&path) {
            continue;
        }
        page.add(entry)?;
        if !listing.recursive {
            continue;
        }
        match openat(&level.dir, name.as_slice(), DIRECTORY, Mode::empty()) {
            Ok(_) if stack.len() >= MOST_DEPTH => return Err(about(&path)(Errno::NAMETOOLONG).into()),
            Ok(dir) => {
                let names = self::names(&dir).map_err(about(&path))?;
                stack.push(Level { dir, names, path });
            }
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
            Err(errno) => return Err(about(&path)(errno).into()),
        }
    }
    page.finish()
}

/// A message being filled.
struct Page<F> {
    sink: F,
    entries: Vec<DirEntry>,
    name_bytes: usize,
}

impl<F> Page<F> {
    fn add<E>(&mut self, entry: DirEntry) -> Result<(), E>
    where
        F: FnMut(DirListing) -> Result<(), E>,
    {
        self.name_bytes += entry.path.len() + entry.target.len();
        self.entries.push(entry);
        if self.entries.len() >= MOST_ENTRIES || self.name_bytes >= MOST_NAME_BYTES {
            self.name_bytes = 0;
            return (self.sink)(DirListing { entries: std::mem::take(&mut self.entries) });
        }
        Ok(())
    }

    fn finish<E>(mut self) -> Result<(), E>
    where
        F: FnMut(DirListing) -> Result<(), E>,
    {
        if self.entries.is_empty() { Ok(()) } else { (self.sink)(DirListing { entries: self.entries }) }
    }
}

fn names(dir: &OwnedFd) -> Result<std::vec::IntoIter<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    let entries = match Dir::read_from(dir) {
        Err(Errno::NOENT) => return Ok(names.into_iter()),
        entries => entries?,
    };
    for entry in entries {
        let entry = match entry {
            // The directory itself was removed.
            Err(Errno::NOENT) => break,
            entry => entry?,
        };
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    names.sort_unstable();
    Ok(names.into_iter())
}

/// What there is under a name; `None`: nothing (any more).
fn entry(dir: impl AsFd, name: &[u8], path: Vec<u8>, hash: Hash) -> Result<Option<DirEntry>, Errno> {
    let stat = match beneath::stat(&dir, name) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    let mut entry = described(&stat, path);
    match entry.kind() {
        Kind::File if hash != Hash::None => match hashed(&dir, name, hash) {
            Ok(Some((stat, hash))) => {
                entry = DirEntry { hash: hash.into(), ..described(&stat, entry.path.to_vec()) };
            }
            // Something else by now, or nothing that may be read: it has no hash.
            Ok(None) | Err(Errno::LOOP | Errno::NXIO | Errno::ACCESS | Errno::PERM) => {}
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(errno),
        },
        Kind::Symlink => match readlinkat(&dir, name, Vec::new()) {
            Ok(target) => entry.target = target.into_bytes().into(),
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::INVAL) => {}
            Err(errno) => return Err(errno),
        },
        _ => {}
    }
    Ok(Some(entry))
}

#[expect(clippy::unnecessary_cast, reason = "other systems have these fields in other widths")]
fn described(stat: &Stat, path: Vec<u8>) -> DirEntry {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        _ => Kind::Other,
    };
    let modified_at_ms =
        (stat.st_mtime as i64).saturating_mul(1000).saturating_add(stat.st_mtime_nsec as i64 / 1_000_000);
    DirEntry {
        path: path.into(),
        kind: kind.into(),
        mode: stat.st_mode as u32 & 0o7777,
        size_bytes: if kind == Kind::File { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 },
        modified_at_ms,
        ..Default::default()
    }
}

/// The hash of a file's content, with the stat data of what was hashed.
fn hashed(dir: impl AsFd, name: &[u8], hash: Hash) -> Result<Option<(Stat, Vec<u8>)>, Errno> {
    let Some(mut opened) = open_regular(dir, name)? else { return Ok(None) };
    let stat = fstat(&opened.file)?;
    let digest = match hash {
        Hash::Sha1 => hash_all::<sha1::Sha1>(&mut opened.file, opened.size),
        Hash::Sha256 | Hash::None => hash_all::<sha2::Sha256>(&mut opened.file, opened.size),
    };
    match digest {
        Ok(digest) => Ok(Some((stat, digest))),
        Err(error) => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
    }
}

/// Not past `size`: what a command goes on writing has no end.
fn hash_all<D: sha2::Digest>(file: &mut std::fs::File, size: u64) -> std::io::Result<Vec<u8>> {
    let mut hasher = D::new();
    let mut buffer = vec![0; usize::try_from(size).unwrap_or(usize::MAX).clamp(1, READ_BYTES)];
    let mut content = file.take(size);
    loop {
        match content.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finalize().to_vec()),
            Ok(read) => hasher.update(&buffer[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

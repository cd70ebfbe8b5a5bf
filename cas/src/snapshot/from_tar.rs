//! An archive as a tree in a store.
//!
//! For archives of our own making (`GetTar`): depth first, what is in a directory right after it and
//! all of it together. That is what lets each directory be encoded as soon as it is left, so memory
//! is what the open directories hold and a digest for every blob, whatever the size of the files.
//! The archive may still come from a machine that lies: every name is checked.

use crate::store::{PinGuard, Store, StoreError};
use crate::tree::{
    self, DEFAULT_DIRECTORY_MODE, Entry, EntryKind, MAX_DEPTH, MAX_DIRECTORY_BYTES, MODE_BITS, TreeError,
};
use bytes::Bytes;
use motefarm_core::Digest;
use std::io::{self, Read};

/// Contents up to this size are hashed in memory; larger ones go through a file.
const IN_MEMORY_BYTES: u64 = 1 << 20;
/// Contents collected before they are stored in one go.
const BATCH_BYTES: u64 = 4 << 20;
const BATCH_BLOBS: usize = 4096;
const READ_BYTES: usize = 256 << 10;
/// Longest path: [`MAX_DEPTH`] names of 255 bytes.
const MAX_LONG_BYTES: u64 = 64 << 10;

/// Bounds of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FromTarLimits {
    /// Files, directories and links together.
    pub entries: u64,
    /// Bytes of all files together.
    pub bytes: u64,
}

/// What an archive became. Its blobs stay in the store while this lives.
#[derive(Debug)]
pub struct TarSnapshot {
    /// Digest of the root `Directory`.
    pub root: Digest,
    /// Files in the tree.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Keeps every blob of the tree.
    pub pins: Vec<PinGuard>,
}

/// Why an archive makes no tree.
#[derive(Debug, thiserror::Error)]
pub enum FromTarError {
    /// The archive could not be read, or is none.
    #[error("the archive could not be read: {0}")]
    Archive(#[source] io::Error),
    /// An entry that no tree can have, or out of order.
    #[error("entry {name:?} of the archive: {problem}")]
    Entry {
        /// Its name, shortened.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A directory that can not be encoded.
    #[error("directory {path:?} of the archive: {source}")]
    Tree {
        /// Which.
        path: String,
        /// Why.
        source: TreeError,
    },
    /// A bound.
    #[error("the directory has more than {limit} {what}")]
    TooLarge {
        /// "entries" or "bytes of files".
        what: &'static str,
        /// The bound.
        limit: u64,
    },
    /// The store failed, or is full.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Stores what a plain tar archive holds as a tree. Blocking.
pub fn from_tar(store: &Store, archive: impl Read, limits: FromTarLimits) -> Result<TarSnapshot, FromTarError> {
    let mut archive = tar::Archive::new(archive);
    let mut maker = Maker::new(store);
    let mut entries = 0;
    // Raw: the crate would take in a long name of any length.
    for entry in archive.entries().map_err(FromTarError::Archive)?.raw(true) {
        entries += 1;
        if entries > limits.entries {
            return Err(FromTarError::TooLarge { what: "entries", limit: limits.entries });
        }
        maker.add(entry.map_err(FromTarError::Archive)?, limits)?;
    }
    maker.finish()
}

/// A directory that is not left yet.
struct Open {
    name: Vec<u8>,
    mode: u32,
    entries: Vec<Entry>,
}

struct Maker<'a> {
    store: &'a Store,
    /// From the root to where the archive is.
    open: Vec<Open>,
    batch: Vec<(Digest, Bytes)>,
    batch_bytes: u64,
    buffer: Vec<u8>,
    /// What entries of their own said of the next one: names and targets over 100 bytes.
    long_name: Option<Vec<u8>>,
    long_target: Option<Vec<u8>>,
    files: u64,
    bytes: u64,
    pins: Vec<PinGuard>,
}

fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).chars().take(200).collect()
}

/// The content of an entry that holds a long name or target, without the NUL at its end.
fn long(entry: &mut tar::Entry<'_, impl Read>) -> Result<Vec<u8>, FromTarError> {
    if entry.size() > MAX_LONG_BYTES {
        return Err(refused(b"@LongLink", format!("a name of {} bytes", entry.size())));
    }
    let mut name = Vec::new();
    entry.read_to_end(&mut name).map_err(FromTarError::Archive)?;
    if name.last() == Some(&0) {
        name.pop();
    }
    Ok(name)
}

fn refused(name: &[u8], problem: impl ToString) -> FromTarError {
    FromTarError::Entry { name: shown(name), problem: problem.to_string() }
}

impl<'a> Maker<'a> {
    fn new(store: &'a Store) -> Self {
        let root = Open { name: Vec::new(), mode: DEFAULT_DIRECTORY_MODE, entries: Vec::new() };
        Self {
            store,
            open: vec![root],
            batch: Vec::new(),
            batch_bytes: 0,
            buffer: vec![0; READ_BYTES],
            long_name: None,
            long_target: None,
            files: 0,
            bytes: 0,
            pins: Vec::new(),
        }
    }

    fn add(&mut self, mut entry: tar::Entry<'_, impl Read>, limits: FromTarLimits) -> Result<(), FromTarError> {
        let kind = entry.header().entry_type();
        if kind.is_gnu_longname() {
            self.long_name = Some(long(&mut entry)?);
            return Ok(());
        }
        if kind.is_gnu_longlink() {
            self.long_target = Some(long(&mut entry)?);
            return Ok(());
        }
        let path = self.long_name.take().unwrap_or_else(|| entry.path_bytes().into_owned());
        let long_target = self.long_target.take();
        let mut parts: Vec<&[u8]> = path.split(|b| *b == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
        let mode = entry.header().mode().map_err(FromTarError::Archive)? & MODE_BITS;
        if let Some(bad) = parts.iter().find(|part| !tree::is_valid_name(part)) {
            return Err(refused(&path, format!("{:?} can not be the name of anything", shown(bad))));
        }
        if parts.len() > MAX_DEPTH {
            return Err(refused(&path, format!("lies deeper than {MAX_DEPTH} directories")));
        }
        if kind.is_dir() {
            self.go_to(&parts)?;
            if let Some(here) = self.open.last_mut() {
                here.mode = mode;
            }
            return Ok(());
        }
        let Some(name) = parts.pop() else { return Err(refused(&path, "has no name")) };
        let kind = if kind.is_file() {
            let size = entry.size();
            if size > limits.bytes.saturating_sub(self.bytes) {
                return Err(FromTarError::TooLarge { what: "bytes of files", limit: limits.bytes });
            }
            let digest = self.content(&mut entry, size)?;
            self.files += 1;
            self.bytes += size;
            EntryKind::File { digest, mode }
        } else if kind.is_symlink() {
            let target = long_target.or_else(|| entry.link_name_bytes().map(|target| target.into_owned()));
            EntryKind::Symlink { target: target.ok_or_else(|| refused(&path, "is a link to nothing"))? }
        } else {
            return Err(refused(&path, format!("is of a kind ({kind:?}) that no snapshot has")));
        };
        self.go_to(&parts)?;
        if let Some(here) = self.open.last_mut() {
            here.entries.push(Entry { name: name.to_vec(), kind });
        }
        Ok(())
    }

    /// Leaves and enters directories until `parts` is where we are. A directory that was left before
    /// can not be entered again: its parent refuses the second entry of that name.
    fn go_to(&mut self, parts: &[&[u8]]) -> Result<(), FromTarError> {
        let shared = self.open[1..].iter().zip(parts).take_while(|(open, part)| open.name == **part).count();
        while self.open.len() > shared + 1 {
            self.leave()?;
        }
        for part in &parts[shared..] {
            let parent = &self.open[self.open.len() - 1];
            if parent.entries.len() >= tree::MAX_ENTRIES {
                return Err(self.failed(TreeError::TooMany(parent.entries.len())));
            }
            self.open.push(Open { name: part.to_vec(), mode: DEFAULT_DIRECTORY_MODE, entries: Vec::new() });
        }
        Ok(())
    }

    fn failed(&self, source: TreeError) -> FromTarError {
        let parts: Vec<String> = self.open[1..].iter().map(|open| shown(&open.name)).collect();
        FromTarError::Tree { path: parts.join("/").chars().take(400).collect(), source }
    }

    /// Encodes and stores the innermost directory; its parent gets the entry.
    fn leave(&mut self) -> Result<Digest, FromTarError> {
        let here = &self.open[self.open.len() - 1];
        let (digest, bytes) = tree::encode(here.mode, &here.entries).map_err(|source| self.failed(source))?;
        if bytes.len() as u64 > MAX_DIRECTORY_BYTES {
            return Err(self.failed(TreeError::TooMany(here.entries.len())));
        }
        self.put(digest, bytes)?;
        if let Some(left) = self.open.pop()
            && let Some(parent) = self.open.last_mut()
        {
            parent.entries.push(Entry { name: left.name, kind: EntryKind::Directory { digest } });
        }
        Ok(digest)
    }

    fn content(&mut self, content: &mut impl Read, size: u64) -> Result<Digest, FromTarError> {
        let short = || FromTarError::Archive(io::ErrorKind::UnexpectedEof.into());
        if size <= IN_MEMORY_BYTES {
            let mut bytes = Vec::new();
            content.read_to_end(&mut bytes).map_err(FromTarError::Archive)?;
            if bytes.len() as u64 != size {
                return Err(short());
            }
            let digest = Digest::of(&bytes);
            self.put(digest, bytes.into())?;
            return Ok(digest);
        }
        let mut large = self.store.begin_unnamed(size)?;
        let mut left = size;
        while left > 0 {
            match content.read(&mut self.buffer).map_err(FromTarError::Archive)? {
                0 => return Err(short()),
                read => {
                    large.write(&self.buffer[..read])?;
                    left = left.saturating_sub(read as u64);
                }
            }
        }
        let (digest, pin) = large.commit()?;
        self.pins.push(pin);
        Ok(digest)
    }

    fn put(&mut self, digest: Digest, bytes: Bytes) -> Result<(), FromTarError> {
        if digest == Digest::EMPTY {
            return Ok(());
        }
        self.batch_bytes += bytes.len() as u64;
        self.batch.push((digest, bytes));
        if self.batch_bytes >= BATCH_BYTES || self.batch.len() >= BATCH_BLOBS { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), FromTarError> {
        // Pinned first: what is found there already must not go any more either.
        self.pins.push(self.store.pin(self.batch.iter().map(|(digest, _)| *digest).collect()));
        self.store.put_verified(&self.batch)?;
        self.batch.clear();
        self.batch_bytes = 0;
        Ok(())
    }

    fn finish(mut self) -> Result<TarSnapshot, FromTarError> {
        while self.open.len() > 1 {
            self.leave()?;
        }
        let root = self.leave()?;
        self.flush()?;
        Ok(TarSnapshot { root, files: self.files, bytes: self.bytes, pins: self.pins })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{SnapshotOptions, StatCache, snapshot, stored_tree};
    use crate::store::StoreLimits;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::path::Path;

    const NO_LIMITS: FromTarLimits = FromTarLimits { entries: 1000, bytes: 1 << 30 };

    fn store(dir: &Path) -> Store {
        Store::open(&dir.join("cas"), StoreLimits::default()).unwrap()
    }

    fn tar_of(root: &Path) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        builder.follow_symlinks(false);
        builder.append_dir_all("", root).unwrap();
        builder.into_inner().unwrap()
    }

    fn entry(builder: &mut tar::Builder<Vec<u8>>, name: &[u8], kind: tar::EntryType, content: &[u8]) {
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name);
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, content).unwrap();
    }

    #[test]
    fn an_archive_becomes_the_tree_that_its_directory_would() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("tree");
        fs::create_dir_all(root.join("a/deep/er")).unwrap();
        fs::create_dir(root.join("empty")).unwrap();
        fs::write(root.join("a/script"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(root.join("a/script"), fs::Permissions::from_mode(0o750)).unwrap();
        fs::write(root.join("a/deep/er/nothing"), "").unwrap();
        fs::write(root.join("a.txt"), "twice").unwrap();
        fs::write(root.join("b.txt"), "twice").unwrap();
        fs::write(root.join("n".repeat(150)), "long name").unwrap();
        fs::write(root.join("large"), vec![7; 3 << 20]).unwrap();
        symlink("a/../nowhere", root.join("link")).unwrap();
        symlink("far/".repeat(60), root.join("l".repeat(200))).unwrap();
        let store = store(dir.path());
        let taken = from_tar(&store, &tar_of(&root)[..], NO_LIMITS).unwrap();
        let plain = SnapshotOptions { use_gitignore: false, ..SnapshotOptions::default() };
        let walked = snapshot(&root, &plain, &mut StatCache::default()).unwrap();
        assert_eq!((taken.root, taken.files, taken.bytes), (walked.root, walked.total_files, walked.total_bytes));
        let stored = stored_tree(taken.root, &store).unwrap();
        assert_eq!(stored.missing, []);
        assert!(walked.digests().all(|digest| stored.digests.contains(&digest)));
        let pinned = store.stats().pinned;
        assert!(pinned >= 7, "{pinned}");
        drop(taken);
        assert_eq!(store.stats().pinned, 0);
    }

    #[test]
    fn an_archive_of_nothing_is_the_empty_tree() {
        let dir = tempfile::tempdir().unwrap();
        let nothing = tar::Builder::new(Vec::new()).into_inner().unwrap();
        let taken = from_tar(&store(dir.path()), &nothing[..], NO_LIMITS).unwrap();
        assert_eq!((taken.root, taken.files), (Digest::EMPTY, 0));
    }

    #[test]
    fn what_no_tree_can_have_is_refused_by_name() {
        use tar::EntryType as T;
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let cases: [&[(&[u8], T)]; 7] = [
            &[(b"header", T::XHeader)],
            &[(b"../out", T::Regular)],
            &[(b"a/../../out", T::Directory)],
            &[(b"pipe", T::Fifo)],
            &[(b"hard", T::Link)],
            &[(b"a/x", T::Regular), (b"b/y", T::Regular), (b"a/z", T::Regular)],
            &[(b"f", T::Regular), (b"f/below", T::Regular)],
        ];
        for case in cases {
            let mut builder = tar::Builder::new(Vec::new());
            case.iter().for_each(|(name, kind)| entry(&mut builder, name, *kind, b""));
            let refused = from_tar(&store, &builder.into_inner().unwrap()[..], NO_LIMITS);
            assert!(matches!(refused, Err(FromTarError::Entry { .. } | FromTarError::Tree { .. })), "{refused:?}");
        }
    }

    #[test]
    fn bounds_hold_and_a_torn_archive_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let mut builder = tar::Builder::new(Vec::new());
        entry(&mut builder, b"a", tar::EntryType::Regular, &[1; 2000]);
        entry(&mut builder, b"b", tar::EntryType::Regular, &[2; 2000]);
        let whole = builder.into_inner().unwrap();
        let limited = |entries, bytes| from_tar(&store, &whole[..], FromTarLimits { entries, bytes });
        assert!(limited(2, 4000).is_ok());
        assert!(matches!(limited(1, 4000), Err(FromTarError::TooLarge { what: "entries", .. })));
        assert!(matches!(limited(2, 3999), Err(FromTarError::TooLarge { what: "bytes of files", .. })));
        let torn = from_tar(&store, &whole[..3000], NO_LIMITS);
        assert!(matches!(torn, Err(FromTarError::Archive(_))), "{torn:?}");
    }
}

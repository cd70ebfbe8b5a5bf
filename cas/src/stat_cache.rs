//! Digests of files remembered by their stat data, so that what did not change is not read again.
//!
//! A file's digest is believed if size, modification and change time, inode and mode are all what
//! they were. Like git, it is not enough that they *were* equal: a file changed again within one
//! tick of the file system's clock looks the same. So an entry is only made when the file's change
//! time lay [`RACY_NS`] before the moment its content was known; others are hashed again next time.
//!
//! The file is a cache: one that is damaged, cut off or of another version is an empty one.

use motefarm_core::{Clock as _, Digest, SystemClock};
use std::collections::HashMap;
use std::io::{self, Write as _};
use std::path::Path;

/// How old a change time must be to be trusted. Ticks are 1 to 10 ms; twice the longest.
pub(crate) const RACY_NS: i64 = 20_000_000;

/// What `stat(2)` tells of a regular file, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct FileStat {
    pub(crate) size: u64,
    pub(crate) mtime_ns: i64,
    pub(crate) ctime_ns: i64,
    pub(crate) inode: u64,
    /// Permission bits.
    pub(crate) mode: u32,
}

impl FileStat {
    /// Whether content known at `known_at_ns` can be told from later content by this stat data.
    pub(crate) fn is_settled(&self, known_at_ns: i64) -> bool {
        self.ctime_ns.saturating_add(RACY_NS) <= known_at_ns
    }
}

/// The wall clock in nanoseconds since the epoch, to the millisecond.
pub(crate) fn now_ns() -> i64 {
    SystemClock.now().as_millis().saturating_mul(1_000_000)
}

/// Stat data and digests of the files of one directory tree.
#[derive(Debug, Default)]
pub struct StatCache {
    /// By path of the directory, relative to the tree, parts joined by `/`.
    directories: HashMap<Vec<u8>, CachedDirectory>,
    changed: bool,
}

/// The files of one directory, sorted by name.
#[derive(Debug, Default)]
pub(crate) struct CachedDirectory(Vec<CachedFile>);

#[derive(Debug)]
pub(crate) struct CachedFile {
    pub(crate) name: Vec<u8>,
    pub(crate) stat: FileStat,
    pub(crate) hash: [u8; 32],
}

impl CachedDirectory {
    /// The digest of a file that looks as it did.
    pub(crate) fn lookup(&self, name: &[u8], stat: &FileStat) -> Option<Digest> {
        let at = self.0.binary_search_by(|file| file.name.as_slice().cmp(name)).ok()?;
        let file = &self.0[at];
        (file.stat == *stat).then(|| Digest::new(file.hash, stat.size))
    }

    /// How many files it knows.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

const MAGIC: &[u8; 8] = b"MOTESC01";
const CHECKSUM_BYTES: usize = 8;

impl StatCache {
    /// Reads a cache; one that can not be read or is not whole is empty.
    pub fn load(path: &Path) -> Self {
        std::fs::read(path).ok().and_then(|bytes| Self::parse(&bytes)).unwrap_or_default()
    }

    /// Writes it in place of what `path` holds, if it changed since it was loaded; a reader finds
    /// the old one or the new one. Parent directories are made.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        if !self.changed {
            return Ok(());
        }
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(parent)?;
        let mut temp_name = path.file_name().unwrap_or_default().to_owned();
        temp_name.push(format!(".{}.tmp", std::process::id()));
        let temp = parent.join(temp_name);
        let written = std::fs::File::create(&temp)
            .and_then(|mut file| file.write_all(&self.format()))
            .and_then(|()| std::fs::rename(&temp, path));
        if written.is_err() {
            let _ = std::fs::remove_file(&temp);
        }
        written
    }

    /// How many files it knows.
    pub fn len(&self) -> usize {
        self.directories.values().map(CachedDirectory::len).sum()
    }

    /// Whether it knows none.
    pub fn is_empty(&self) -> bool {
        self.directories.is_empty()
    }

    pub(crate) fn directory(&self, path: &[u8]) -> Option<&CachedDirectory> {
        self.directories.get(path)
    }

    /// Takes the place of what was known.
    pub(crate) fn replace(&mut self, directories: impl Iterator<Item = (Vec<u8>, Vec<CachedFile>)>) {
        self.changed = true;
        self.directories = directories
            .filter(|(_, files)| !files.is_empty())
            .map(|(path, mut files)| {
                files.sort_unstable_by(|a, b| a.name.cmp(&b.name));
                (path, CachedDirectory(files))
            })
            .collect();
    }

    fn format(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        let len = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes();
        for (path, directory) in &self.directories {
            out.extend_from_slice(&len(path.len()));
            out.extend_from_slice(path);
            out.extend_from_slice(&len(directory.0.len()));
            for CachedFile { name, stat, hash } in &directory.0 {
                out.extend_from_slice(&len(name.len()));
                out.extend_from_slice(name);
                out.extend_from_slice(&stat.size.to_le_bytes());
                out.extend_from_slice(&stat.mtime_ns.to_le_bytes());
                out.extend_from_slice(&stat.ctime_ns.to_le_bytes());
                out.extend_from_slice(&stat.inode.to_le_bytes());
                out.extend_from_slice(&stat.mode.to_le_bytes());
                out.extend_from_slice(hash);
            }
        }
        let checksum = Digest::of(&out);
        out.extend_from_slice(&checksum.hash()[..CHECKSUM_BYTES]);
        out
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (body, checksum) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM_BYTES)?)?;
        if Digest::of(body).hash()[..CHECKSUM_BYTES] != *checksum {
            return None;
        }
        let mut rest = Fields(body.strip_prefix(MAGIC)?);
        let mut directories = HashMap::new();
        while !rest.0.is_empty() {
            let path = rest.text()?;
            let count = u32::from_le_bytes(rest.array()?);
            let mut files = Vec::new();
            for _ in 0..count {
                let name = rest.text()?;
                let stat = FileStat {
                    size: u64::from_le_bytes(rest.array()?),
                    mtime_ns: i64::from_le_bytes(rest.array()?),
                    ctime_ns: i64::from_le_bytes(rest.array()?),
                    inode: u64::from_le_bytes(rest.array()?),
                    mode: u32::from_le_bytes(rest.array()?),
                };
                files.push(CachedFile { name, stat, hash: rest.array()? });
            }
            directories.insert(path, CachedDirectory(files));
        }
        Some(Self { directories, changed: false })
    }
}

/// What is left to parse.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk::<N>()?;
        self.0 = tail;
        Some(*head)
    }

    fn text(&mut self) -> Option<Vec<u8>> {
        let len = usize::try_from(u32::from_le_bytes(self.array()?)).ok()?;
        let (head, tail) = self.0.split_at_checked(len)?;
        self.0 = tail;
        Some(head.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> StatCache {
        let file = |n: u8| CachedFile {
            name: vec![n, 0xff],
            stat: FileStat { size: u64::from(n), mtime_ns: -1, ctime_ns: 2, inode: 3, mode: 0o644 },
            hash: [n; 32],
        };
        let mut cache = StatCache::default();
        cache.replace([(b"".to_vec(), vec![file(2), file(1)]), (b"a/b".to_vec(), vec![file(3)])].into_iter());
        cache
    }

    #[test]
    fn it_survives_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/cache");
        sample().save(&path).unwrap();
        let cache = StatCache::load(&path);
        assert_eq!(cache.len(), 3);
        let stat = FileStat { size: 3, mtime_ns: -1, ctime_ns: 2, inode: 3, mode: 0o644 };
        let directory = cache.directory(b"a/b").unwrap();
        assert_eq!(directory.lookup(&[3, 0xff], &stat), Some(Digest::new([3; 32], 3)));
        assert_eq!(directory.lookup(&[3, 0xff], &FileStat { ctime_ns: 1, ..stat }), None);
        assert_eq!(StatCache::load(&dir.path().join("none")).len(), 0);
    }

    proptest! {
        #[test]
        fn a_damaged_file_is_an_empty_cache(at in 0usize..200, cut in any::<bool>()) {
            let mut bytes = sample().format();
            let at = at % bytes.len();
            if cut { bytes.truncate(at) } else { bytes[at] ^= 0x10 }
            prop_assert!(StatCache::parse(&bytes).is_none());
        }
    }
}

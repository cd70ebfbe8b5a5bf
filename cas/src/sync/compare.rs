//! What is there against what should be.

use super::SyncError;
use super::dirs::{self, failed, join};
use super::keep::{Keeper, Rules, Verdict};
use super::load::Tree;
use crate::stat_cache::{self, CachedDirectory, CachedFile, FileStat, StatCache};
use crate::tree::{Contents, EntryKind};
use crate::work_queue::{self, WorkQueue};
use motefarm_core::Digest;
use motefarm_core::digest::DigestHasher;
use rustix::fs::{Dir, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat};
use rustix::io::Errno;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

/// Everything that has to be done. Directories come after those that hold them.
#[derive(Debug, Default)]
pub(super) struct Difference {
    pub(super) directories: Vec<DirDifference>,
    pub(super) unchanged: u64,
    pub(super) hashed: u64,
}

/// What has to be done in one directory.
#[derive(Debug)]
pub(super) struct DirDifference {
    /// Relative to the destination.
    pub(super) path: Vec<u8>,
    pub(super) contents: Arc<Contents>,
    pub(super) state: DirState,
    /// Files and links to be written.
    pub(super) writes: Vec<Write>,
    /// Files whose mode alone is wrong.
    pub(super) modes: Vec<ModeChange>,
    /// Directories below: index of the entry, and of the difference.
    pub(super) children: Vec<(usize, usize)>,
    /// Names of what the tree does not have and nothing keeps.
    pub(super) extra: Vec<Extra>,
    pub(super) rules: Rules,
    /// Files that are as they should be, for the stat index.
    pub(super) known: Vec<CachedFile>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DirState {
    /// It is there, with this mode.
    There(u32),
    /// There is nothing of that name, or the directory above is new as well.
    New,
    /// Something else is there.
    Instead,
}

/// A file or link to be written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Write {
    /// Index in the contents' entries.
    pub(super) entry: usize,
    /// A directory is there, which must go first.
    pub(super) over_directory: bool,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct ModeChange {
    pub(super) entry: usize,
    /// What its content was found to be.
    pub(super) digest: Digest,
}

#[derive(Debug)]
pub(super) struct Extra {
    pub(super) name: Vec<u8>,
    pub(super) is_dir: bool,
}

struct Job {
    id: usize,
    place: Place,
}

enum Place {
    /// The destination, opened.
    Top(OwnedFd),
    Below {
        parent: Arc<OwnedFd>,
        name: Vec<u8>,
    },
    /// Not there: nothing to look at.
    Nowhere,
}

struct Comparer<'a> {
    tree: &'a Tree,
    index: &'a StatCache,
    keeper: &'a Keeper,
    found: Mutex<Difference>,
}

/// Compares the destination (`None`: not there) with a tree that was loaded whole.
pub(super) fn compare(
    dest: Option<OwnedFd>,
    root: &Digest,
    tree: &Tree,
    index: &StatCache,
    keeper: &Keeper,
) -> Result<Difference, SyncError> {
    let Some(contents) = tree.directory(root) else { return Ok(Difference::default()) };
    let state = match &dest {
        Some(fd) => DirState::There(dirs::mode_of(&fstat(fd).map_err(failed(b""))?)),
        None => DirState::New,
    };
    let top = DirDifference::new(Vec::new(), contents, state, keeper.enter(&Rules::default(), b""));
    let comparer = Comparer {
        tree,
        index,
        keeper,
        found: Mutex::new(Difference { directories: vec![top], ..Difference::default() }),
    };
    let first = Job { id: 0, place: dest.map_or(Place::Nowhere, Place::Top) };
    work_queue::run(vec![first], |job, queue| comparer.directory(job, queue))?;
    Ok(comparer.found.into_inner().unwrap_or_else(PoisonError::into_inner))
}

impl DirDifference {
    fn new(path: Vec<u8>, contents: &Arc<Contents>, state: DirState, rules: Rules) -> Self {
        Self {
            path,
            contents: Arc::clone(contents),
            state,
            writes: Vec::new(),
            modes: Vec::new(),
            children: Vec::new(),
            extra: Vec::new(),
            rules,
            known: Vec::new(),
        }
    }
}

/// What one directory's comparison collects.
#[derive(Default)]
struct Findings {
    writes: Vec<Write>,
    modes: Vec<ModeChange>,
    below: Vec<(usize, DirState)>,
    extra: Vec<Extra>,
    known: Vec<CachedFile>,
    unchanged: u64,
    hashed: u64,
}

impl Comparer<'_> {
    fn directory(&self, job: Job, queue: &WorkQueue<Job>) -> Result<(), SyncError> {
        let (path, contents, rules) = {
            let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
            let this = &found.directories[job.id];
            (this.path.clone(), Arc::clone(&this.contents), this.rules.clone())
        };
        let dir = match job.place {
            Place::Top(fd) => Some(Arc::new(fd)),
            Place::Below { parent, name } => Some(Arc::new(dirs::open_dir(&*parent, &name).map_err(failed(&path))?)),
            Place::Nowhere => None,
        };
        let findings = match &dir {
            Some(dir) => self.existing(dir, &path, &contents, &rules)?,
            None => all_new(&contents),
        };
        // Outside the lock: entering a directory may compile its ignore rules.
        let below: Vec<(usize, DirDifference)> = findings
            .below
            .into_iter()
            .filter_map(|(entry, state)| {
                let EntryKind::Directory { digest } = &contents.entries[entry].kind else { return None };
                let path = join(&path, &contents.entries[entry].name);
                let rules = self.keeper.enter(&rules, &path);
                Some((entry, DirDifference::new(path, self.tree.directory(digest)?, state, rules)))
            })
            .collect();
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.unchanged += findings.unchanged;
        found.hashed += findings.hashed;
        let mut children = Vec::with_capacity(below.len());
        for (entry, directory) in below {
            let id = found.directories.len();
            let place = match (&dir, directory.state) {
                (Some(dir), DirState::There(_)) => {
                    Place::Below { parent: Arc::clone(dir), name: contents.entries[entry].name.clone() }
                }
                _ => Place::Nowhere,
            };
            found.directories.push(directory);
            children.push((entry, id));
            queue.push(Job { id, place });
        }
        let this = &mut found.directories[job.id];
        this.children = children;
        this.writes = findings.writes;
        this.modes = findings.modes;
        this.extra = findings.extra;
        this.known = findings.known;
        Ok(())
    }

    fn existing(&self, dir: &OwnedFd, path: &[u8], contents: &Contents, rules: &Rules) -> Result<Findings, SyncError> {
        let mut there = list(dir).map_err(failed(path))?;
        there.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let mut there = there.into_iter().peekable();
        let cached = self.index.directory(path);
        let mut findings = Findings::default();
        for (n, entry) in contents.entries.iter().enumerate() {
            while let Some((name, file_type)) = there.next_if(|(name, _)| *name < entry.name) {
                self.extra(dir, path, name, file_type, rules, &mut findings)?;
            }
            if there.next_if(|(name, _)| *name == entry.name).is_none() {
                match entry.kind {
                    EntryKind::Directory { .. } => findings.below.push((n, DirState::New)),
                    _ => findings.writes.push(Write { entry: n, over_directory: false }),
                }
                continue;
            }
            match dirs::stat(dir, &entry.name) {
                Ok(stat) => compare_entry(dir, path, contents, n, &stat, cached, &mut findings)?,
                Err(errno) => return Err(failed(&join(path, &entry.name))(errno)),
            }
        }
        for (name, file_type) in there {
            self.extra(dir, path, name, file_type, rules, &mut findings)?;
        }
        Ok(findings)
    }

    fn extra(
        &self,
        dir: &OwnedFd,
        path: &[u8],
        name: Vec<u8>,
        file_type: FileType,
        rules: &Rules,
        findings: &mut Findings,
    ) -> Result<(), SyncError> {
        let is_dir = match file_type {
            FileType::Unknown => match dirs::stat(dir, &name) {
                Ok(stat) => FileType::from_raw_mode(stat.st_mode) == FileType::Directory,
                Err(errno) => return Err(failed(&join(path, &name))(errno)),
            },
            known => known == FileType::Directory,
        };
        if self.keeper.judge(rules, &join(path, &name), is_dir) == Verdict::Goes {
            findings.extra.push(Extra { name, is_dir });
        }
        Ok(())
    }
}

/// A directory that is not there: everything in it has to be made.
fn all_new(contents: &Contents) -> Findings {
    let mut findings = Findings::default();
    for (n, entry) in contents.entries.iter().enumerate() {
        match entry.kind {
            EntryKind::Directory { .. } => findings.below.push((n, DirState::New)),
            _ => findings.writes.push(Write { entry: n, over_directory: false }),
        }
    }
    findings
}

fn compare_entry(
    dir: &OwnedFd,
    path: &[u8],
    contents: &Contents,
    n: usize,
    stat: &Stat,
    cached: Option<&CachedDirectory>,
    findings: &mut Findings,
) -> Result<(), SyncError> {
    let entry = &contents.entries[n];
    let file_type = FileType::from_raw_mode(stat.st_mode);
    let write = Write { entry: n, over_directory: file_type == FileType::Directory };
    match &entry.kind {
        EntryKind::Directory { .. } if file_type == FileType::Directory => {
            findings.below.push((n, DirState::There(dirs::mode_of(stat))));
        }
        EntryKind::Directory { .. } => findings.below.push((n, DirState::Instead)),
        EntryKind::Symlink { target } if file_type == FileType::Symlink => {
            let there = readlinkat(dir, entry.name.as_slice(), Vec::new()).map_err(failed(&join(path, &entry.name)))?;
            if there.as_bytes() == target.as_slice() {
                findings.unchanged += 1;
            } else {
                findings.writes.push(write);
            }
        }
        EntryKind::File { digest, mode } if file_type == FileType::RegularFile => {
            let mut file_stat = file_stat(stat);
            let mut settled = true;
            let mut found = (file_stat.size == digest.size_bytes())
                .then(|| cached.and_then(|cached| cached.lookup(&entry.name, &file_stat)))
                .flatten();
            if found.is_none() && file_stat.size == digest.size_bytes() {
                findings.hashed += 1;
                if let Some(hashed) = hash(dir, &entry.name) {
                    (file_stat, settled) = (hashed.stat, hashed.settled);
                    found = Some(hashed.digest);
                }
            }
            // Another name of the same file may lie anywhere: it is replaced, not changed.
            let own = stat.st_nlink == 1;
            match found {
                Some(found) if found == *digest && file_stat.mode == *mode => {
                    findings.unchanged += 1;
                    if settled {
                        findings.known.push(CachedFile {
                            name: entry.name.clone(),
                            stat: file_stat,
                            hash: *digest.hash(),
                        });
                    }
                }
                Some(found) if found == *digest && own => {
                    findings.modes.push(ModeChange { entry: n, digest: found });
                }
                _ => findings.writes.push(write),
            }
        }
        _ => findings.writes.push(write),
    }
    Ok(())
}

/// Names and types of a directory's entries.
fn list(dir: impl AsFd) -> Result<Vec<(Vec<u8>, FileType)>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push((name.to_vec(), entry.file_type()));
        }
    }
    Ok(names)
}

/// Stat data in the index's terms.
#[expect(clippy::unnecessary_cast, reason = "other systems have these fields in other widths")]
pub(super) fn file_stat(stat: &Stat) -> FileStat {
    let ns = |seconds: i64, nanoseconds: i64| seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds);
    FileStat {
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mtime_ns: ns(stat.st_mtime as i64, stat.st_mtime_nsec as i64),
        ctime_ns: ns(stat.st_ctime as i64, stat.st_ctime_nsec as i64),
        inode: stat.st_ino as u64,
        mode: dirs::mode_of(stat),
    }
}

struct Hashed {
    stat: FileStat,
    digest: Digest,
    settled: bool,
}

/// Hashes a file; `None` if it can not be read, is no file any more or changed meanwhile. Then it
/// is simply written anew.
fn hash(dir: &OwnedFd, name: &[u8]) -> Option<Hashed> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = openat(dir, name, flags, Mode::empty()).ok()?;
    let known_at_ns = stat_cache::now_ns();
    let before = fstat(&fd).ok()?;
    if FileType::from_raw_mode(before.st_mode) != FileType::RegularFile {
        return None;
    }
    let mut file = File::from(fd);
    let mut hasher = DigestHasher::new();
    let len = usize::try_from(before.st_size).unwrap_or(usize::MAX).clamp(1, 128 << 10);
    let mut buf = vec![0; len];
    loop {
        match file.read(&mut buf) {
            Ok(0) => break,
            Ok(read) => hasher.update(&buf[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    let stat = file_stat(&fstat(&file).ok()?);
    let digest = hasher.finish();
    let unchanged = stat == file_stat(&before) && stat.size == digest.size_bytes();
    unchanged.then(|| Hashed { stat, digest, settled: stat.is_settled(known_at_ns) })
}

//! Putting members where they belong.

use super::error::shown;
use super::members::{Member, Members};
use super::names::{Names, NodeId, TOP};
use super::{UnpackError, Unpacked, clash};
use crate::staging::Staging;
use motefarm_cas::beneath::{self, mode_of, open_dir, permitted};
use motefarm_core::Timestamp;
use rustix::fs::{FileType, Timespec, Timestamps, fchmod, fstat, fstatvfs, futimens, mkdirat};
use rustix::io::Errno;
use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Piece of a copy.
const COPY_BYTES: usize = 128 << 10;
/// Files of this size and more are held against the free space before they are begun.
const LARGE_BYTES: u64 = 1 << 20;

/// See the module.
pub(super) struct Writer<'a> {
    dir: OwnedFd,
    staging: &'a Staging,
    pub(super) names: Names,
    /// Directories opened on the way to the last member.
    way: Vec<(NodeId, OwnedFd)>,
    now: Timestamp,
    done: Unpacked,
    buffer: Vec<u8>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(dir: OwnedFd, staging: &'a Staging, most_names: u64, now: Timestamp) -> Self {
        let (names, buffer) = (Names::new(most_names), vec![0; COPY_BYTES]);
        Self { dir, staging, names, way: Vec::new(), now, done: Unpacked::default(), buffer }
    }

    /// Opens the directories `parts`, making those that are not there; `entry` needs them.
    pub(super) fn directories(&mut self, parts: &[&[u8]], entry: &[u8]) -> Result<NodeId, UnpackError> {
        let mut at = TOP;
        for (depth, part) in parts.iter().enumerate() {
            at = self.names.directory(at, part).map_err(clash(entry))?;
            if self.way.get(depth).is_some_and(|(id, _)| *id == at) {
                continue;
            }
            self.way.truncate(depth);
            let parent = self.deepest();
            let (dir, made) = match open_dir(parent, part) {
                Err(Errno::NOENT) => {
                    permitted(parent, || mkdirat(parent, *part, beneath::mode(0o755))).map_err(failed(entry))?;
                    (open_dir(parent, part), 1)
                }
                opened => (opened, 0),
            };
            let dir = dir.map_err(|errno| match errno {
                Errno::NOTDIR | Errno::LOOP => in_the_way(parent, part, entry, &parts[..=depth]),
                errno => failed(entry)(errno),
            })?;
            self.done.dirs += made;
            self.way.push((at, dir));
        }
        self.way.truncate(parts.len());
        Ok(at)
    }

    fn deepest(&self) -> BorrowedFd<'_> {
        self.way.last().map_or(self.dir.as_fd(), |(_, dir)| dir.as_fd())
    }

    /// Writes a file into the directory opened last.
    pub(super) fn file(
        &mut self,
        member: &Member,
        name: &[u8],
        size: u64,
        content: &mut Members<'_>,
    ) -> Result<(), UnpackError> {
        let failed = |errno| self::failed(&member.name)(errno);
        if size >= LARGE_BYTES {
            let disk = fstatvfs(&self.dir).map_err(failed)?;
            let free = disk.f_bavail.saturating_mul(disk.f_frsize);
            if size > free {
                let entry = shown(&member.name);
                let problem =
                    format!("entry {entry:?}: {size} bytes do not fit the {free} free on the instances' disk");
                return Err(UnpackError::Bound(problem));
            }
        }
        let (staged, mut file) = self.staging.file().map_err(failed)?;
        loop {
            let read = content.read(&mut self.buffer).map_err(|error| about("entry", &member.name, error))?;
            if read == 0 {
                break;
            }
            file.write_all(&self.buffer[..read]).map_err(|source| match Errno::from_io_error(&source) {
                Some(errno) => failed(errno),
                None => UnpackError::Io { entry: shown(&member.name), source },
            })?;
        }
        fchmod(&file, beneath::mode(member.mode)).map_err(failed)?;
        if let Some(modified) = self.modified(member.modified) {
            futimens(&file, &Timestamps { last_access: modified, last_modification: modified }).map_err(failed)?;
        }
        staged.place(self.deepest(), name).map_err(failed)?;
        self.done.files += 1;
        self.done.bytes += size;
        Ok(())
    }

    /// Makes a symbolic link in the directory opened last.
    pub(super) fn symlink(&mut self, member: &Member, name: &[u8], target: &[u8]) -> Result<(), UnpackError> {
        let staged = self.staging.symlink(target).map_err(failed(&member.name))?;
        if let Some(modified) = self.modified(member.modified) {
            staged.set_modified(modified).map_err(failed(&member.name))?;
        }
        staged.place(self.deepest(), name).map_err(failed(&member.name))?;
        self.done.links += 1;
        Ok(())
    }

    /// Makes another name, `above` and `name`, of the file at `target`.
    pub(super) fn hard_link(
        &mut self,
        member: &Member,
        above: &[&[u8]],
        name: &[u8],
        target: &[&[u8]],
    ) -> Result<(), UnpackError> {
        let gone = || UnpackError::entry(&member.name, "what it links to was changed while the archive was unpacked");
        let (target_name, target_above) = target.split_last().ok_or_else(gone)?;
        self.directories(target_above, &member.name)?;
        let staged = match self.staging.hard_link(self.deepest(), target_name) {
            Err(Errno::NOENT) => Err(gone()),
            linked => linked.map_err(failed(&member.name))?.ok_or_else(gone),
        }?;
        self.directories(above, &member.name)?;
        staged.place(self.deepest(), name).map_err(failed(&member.name))?;
        self.done.links += 1;
        Ok(())
    }

    /// Gives directories their modes and times, now that nothing is written into them any more.
    pub(super) fn finish(mut self) -> Result<Unpacked, UnpackError> {
        for (id, meta) in self.names.metas() {
            let way = self.names.way(id);
            let shared = way.iter().zip(&self.way).take_while(|((a, _), (b, _))| a == b).count();
            self.way.truncate(shared);
            let name = || way.iter().map(|(_, part)| *part).collect::<Vec<_>>().join(&b'/');
            let mut there = true;
            for (id, part) in &way[shared..] {
                match open_dir(self.way.last().map_or(self.dir.as_fd(), |(_, dir)| dir.as_fd()), part) {
                    Ok(dir) => self.way.push((*id, dir)),
                    // A command has taken it away meanwhile.
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                        there = false;
                        break;
                    }
                    Err(errno) => return Err(failed(&name())(errno)),
                }
            }
            let Some((_, dir)) = self.way.last().filter(|_| there) else { continue };
            let set = || {
                if mode_of(&fstat(dir)?) != meta.mode {
                    fchmod(dir, beneath::mode(meta.mode))?;
                }
                match self.modified(meta.modified) {
                    Some(at) => futimens(dir, &Timestamps { last_access: at, last_modification: at }),
                    None => Ok(()),
                }
            };
            set().map_err(failed(&name()))?;
        }
        Ok(self.done)
    }

    fn modified(&self, modified: Option<(i64, u32)>) -> Option<Timespec> {
        let (seconds, nanoseconds) = modified?;
        let now = self.now.as_millis();
        let (tv_sec, tv_nsec) = (seconds, nanoseconds).min((now.div_euclid(1000), 0));
        Some(Timespec { tv_sec, tv_nsec: tv_nsec.into() })
    }
}

fn failed(entry: &[u8]) -> impl FnOnce(Errno) -> UnpackError + '_ {
    move |errno| match errno {
        Errno::NOSPC | Errno::DQUOT => {
            UnpackError::Bound(format!("entry {:?}: the disk of the instances is full", shown(entry)))
        }
        Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST => UnpackError::entry(entry, "a directory has its place"),
        Errno::ACCESS | Errno::PERM => UnpackError::entry(entry, std::io::Error::from(errno).to_string()),
        errno => UnpackError::Io { entry: shown(entry), source: errno.into() },
    }
}

/// Names the entry at or after which (`place`) an error came up while the archive was read.
pub(super) fn about(place: &str, entry: &[u8], error: UnpackError) -> UnpackError {
    let name = shown(entry);
    match error {
        error if entry.is_empty() => error,
        UnpackError::Bound(problem) => UnpackError::Bound(format!("{place} {name:?}: {problem}")),
        UnpackError::Archive(problem) => UnpackError::Archive(format!("{place} {name:?}: {problem}")),
        other => other,
    }
}

fn in_the_way(parent: BorrowedFd<'_>, part: &[u8], entry: &[u8], way: &[&[u8]]) -> UnpackError {
    let is_link =
        beneath::stat(parent, part).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink);
    let way = shown(&way.join(&b'/'));
    let what = if is_link { "a link, and links are not followed" } else { "a file" };
    UnpackError::entry(entry, format!("{way} is {what}"))
}

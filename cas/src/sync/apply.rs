//! Carrying out a difference: directories, files, links and modes of files on a few threads, then
//! deletions and modes of directories.

use super::SyncError;
use super::compare::{Difference, DirDifference, DirState, Write};
use super::delete::Remover;
use super::dirs::{self, failed, join, permitted};
use super::keep::Keeper;
use super::plan::MAX_NAMED;
use super::write::{self, TempNames, Writer};
use crate::stat_cache::CachedFile;
use crate::store::BlobSource;
use crate::tree::EntryKind;
use crate::work_queue::{self, WorkQueue};
use rustix::fs::{AtFlags, fchmod, fstat, mkdirat, unlinkat};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

/// What was done, by kind.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) files: u64,
    pub(super) bytes: u64,
    pub(super) deleted: u64,
    pub(super) modes: u64,
    /// Written files, by directory, for the index.
    pub(super) written: Vec<(usize, CachedFile)>,
    /// Of a dry run: some of what would be deleted.
    pub(super) named: Vec<Vec<u8>>,
}

enum Job {
    Directory { id: usize, place: Place },
    Files { id: usize, dir: Arc<OwnedFd>, from: usize },
}

enum Place {
    Top(Arc<OwnedFd>),
    Below { parent: Arc<OwnedFd>, entry: Vec<u8>, parent_is_fresh: bool },
}

/// Files a thread writes before it looks for other work.
const FILES_A_JOB: usize = 64;

struct Applier<'a> {
    difference: &'a Difference,
    /// Whether there is something to write in or below a directory.
    busy: Vec<bool>,
    source: &'a dyn BlobSource,
    temp_names: TempNames,
    done: Mutex<Done>,
}

/// Writes everything; deletes nothing but what stands in the way.
pub(super) fn write_all(top: OwnedFd, difference: &Difference, source: &dyn BlobSource) -> Result<Done, SyncError> {
    let busy = spread_up(difference, |directory| {
        !directory.writes.is_empty() || !directory.modes.is_empty() || !matches!(directory.state, DirState::There(_))
    });
    if !busy.first().is_some_and(|busy| *busy) {
        return Ok(Done::default());
    }
    let applier = Applier { difference, busy, source, temp_names: TempNames::new(), done: Mutex::default() };
    let first = Job::Directory { id: 0, place: Place::Top(Arc::new(top)) };
    work_queue::run(vec![first], |job, queue| match job {
        Job::Directory { id, place } => applier.directory(id, place, queue),
        Job::Files { id, dir, from } => applier.files(id, &dir, from),
    })?;
    Ok(applier.done.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// For every directory, whether `has` holds for it or for one below it.
fn spread_up(difference: &Difference, has: impl Fn(&DirDifference) -> bool) -> Vec<bool> {
    let mut found: Vec<bool> = difference.directories.iter().map(has).collect();
    for (id, directory) in difference.directories.iter().enumerate().rev() {
        found[id] |= directory.children.iter().any(|(_, child)| found[*child]);
    }
    found
}

impl Applier<'_> {
    fn directory(&self, id: usize, place: Place, queue: &WorkQueue<Job>) -> Result<(), SyncError> {
        let this = &self.difference.directories[id];
        let dir = match place {
            Place::Top(dir) => dir,
            Place::Below { parent, entry, parent_is_fresh } => {
                Arc::new(make_directory(&parent, &entry, this, parent_is_fresh).map_err(failed(&this.path))?)
            }
        };
        for (entry, child) in this.children.iter().filter(|(_, child)| self.busy[*child]) {
            let place = Place::Below {
                parent: Arc::clone(&dir),
                entry: this.contents.entries[*entry].name.clone(),
                parent_is_fresh: this.is_fresh(),
            };
            queue.push(Job::Directory { id: *child, place });
        }
        // Last in, first out: the files of this directory come before what lies below it.
        let mut from = FILES_A_JOB;
        while from < this.writes.len() {
            queue.push(Job::Files { id, dir: Arc::clone(&dir), from });
            from += FILES_A_JOB;
        }
        self.files(id, &dir, 0)?;
        self.file_modes(id, &dir)
    }

    fn files(&self, id: usize, dir: &OwnedFd, from: usize) -> Result<(), SyncError> {
        let this = &self.difference.directories[id];
        let mut writer = Writer::new(self.source, &self.temp_names);
        let mut done = Done::default();
        for Write { entry, over_directory } in this.writes.iter().skip(from).take(FILES_A_JOB) {
            let entry = &this.contents.entries[*entry];
            if *over_directory {
                let mut remover = Remover::of_everything();
                remover.remove(dir, &entry.name, &join(&this.path, &entry.name), true, &this.rules)?;
                done.deleted += remover.removed;
            }
            let written = writer.write(dir, &this.path, entry, this.is_fresh())?;
            done.files += 1;
            if let EntryKind::File { digest, .. } = &entry.kind {
                done.bytes += digest.size_bytes();
            }
            done.written.extend(written.map(|file| (id, file)));
        }
        self.add(done);
        Ok(())
    }

    fn file_modes(&self, id: usize, dir: &OwnedFd) -> Result<(), SyncError> {
        let this = &self.difference.directories[id];
        let mut done = Done::default();
        for change in &this.modes {
            let entry = &this.contents.entries[change.entry];
            let EntryKind::File { mode, .. } = entry.kind else { continue };
            let stat = write::set_mode(dir, &entry.name, mode).map_err(failed(&join(&this.path, &entry.name)))?;
            done.modes += 1;
            let file = CachedFile { name: entry.name.clone(), stat, hash: *change.digest.hash() };
            // Changed between the comparison and now: not to be remembered.
            done.written.extend((stat.size == change.digest.size_bytes()).then_some((id, file)));
        }
        self.add(done);
        Ok(())
    }

    fn add(&self, one: Done) {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        done.files += one.files;
        done.bytes += one.bytes;
        done.deleted += one.deleted;
        done.modes += one.modes;
        done.written.extend(one.written);
    }
}

impl DirDifference {
    /// Whether this sync makes the directory.
    fn is_fresh(&self) -> bool {
        !matches!(self.state, DirState::There(_))
    }

    /// The mode to set in the end. One that lets the owner do everything is set when the directory
    /// is made (but for the destination itself, whose path is empty).
    fn mode_to_set(&self) -> Option<u32> {
        let wanted = self.contents.mode;
        match self.state {
            // One that kept its owner out was opened up while it was worked in.
            DirState::There(mode) => (mode != wanted || mode & 0o700 != 0o700).then_some(wanted),
            DirState::New | DirState::Instead => (wanted & 0o700 != 0o700 || self.path.is_empty()).then_some(wanted),
        }
    }
}

/// Makes a directory, or opens it if it is there. Its owner may do everything in it until the end.
fn make_directory(
    parent: &OwnedFd,
    name: &[u8],
    this: &DirDifference,
    parent_is_fresh: bool,
) -> Result<OwnedFd, Errno> {
    let made_mode = this.contents.mode | 0o700;
    if this.is_fresh() {
        if this.state == DirState::Instead && !parent_is_fresh {
            match permitted(parent, || unlinkat(parent, name, AtFlags::empty())) {
                Ok(()) | Err(Errno::NOENT | Errno::ISDIR | Errno::PERM) => {}
                Err(errno) => return Err(errno),
            }
        }
        match permitted(parent, || mkdirat(parent, name, dirs::mode(made_mode))) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    let dir = dirs::open_dir(parent, name)?;
    if this.is_fresh() && dirs::mode_of(&fstat(&dir)?) != made_mode {
        fchmod(&dir, dirs::mode(made_mode))?;
    }
    Ok(dir)
}

/// Deletes what is extra and sets directories' modes; a dry run only counts. `top_mode`: whether the
/// destination's own mode is the tree's to say.
pub(super) fn finish(
    top: BorrowedFd<'_>,
    difference: &Difference,
    keeper: &Keeper,
    top_mode: bool,
    dry_run: bool,
) -> Result<Done, SyncError> {
    let busy = spread_up(difference, |directory| !directory.extra.is_empty() || directory.mode_to_set().is_some());
    let mut finisher = Finisher { difference, busy, keeper, dry_run, done: Done::default() };
    if finisher.busy.first().is_some_and(|busy| *busy) {
        finisher.directory(0, top, top_mode)?;
    }
    Ok(finisher.done)
}

struct Finisher<'a> {
    difference: &'a Difference,
    busy: Vec<bool>,
    keeper: &'a Keeper,
    dry_run: bool,
    done: Done,
}

impl Finisher<'_> {
    /// Recursion as deep as the tree, which is bounded.
    fn directory(&mut self, id: usize, dir: BorrowedFd<'_>, set_mode: bool) -> Result<(), SyncError> {
        let difference = self.difference;
        let this = &difference.directories[id];
        for (entry, child) in &this.children {
            let fresh = difference.directories[*child].is_fresh();
            // A new directory with the usual mode has nothing to finish, nor has one that a dry run
            // did not make.
            if !self.busy[*child] || (fresh && self.dry_run) {
                continue;
            }
            let name = &this.contents.entries[*entry].name;
            let below = dirs::open_dir(dir, name).map_err(failed(&join(&this.path, name)))?;
            self.directory(*child, below.as_fd(), true)?;
        }
        let mut remover = Remover::new(self.keeper, self.dry_run);
        for extra in &this.extra {
            remover.remove(dir, &extra.name, &join(&this.path, &extra.name), extra.is_dir, &this.rules)?;
        }
        self.done.deleted += remover.removed;
        let room = MAX_NAMED - self.done.named.len();
        self.done.named.extend(remover.named.into_iter().take(room));
        if let Some(mode) = this.mode_to_set().filter(|_| set_mode) {
            if !self.dry_run {
                fchmod(dir, dirs::mode(mode)).map_err(failed(&this.path))?;
            }
            self.done.modes += u64::from(matches!(this.state, DirState::There(there) if there != mode));
        }
        Ok(())
    }
}

//! Directories of actions, kept for the next ones.
//!
//! What a sandbox shows needs a dozen directories and links to be shown on. Making and removing them on a
//! disk costs more than all else about a small action, so they stay, once it is certain that the action left
//! nothing else: what it made is moved aside, and whatever is not as it was costs the place its reuse.

use super::error::ActionError;
use super::place::Place;
use crate::agent::Agent;
use crate::runner::names;
use motefarm_cas::beneath::{DIRECTORY, mode, mode_of};
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, fchmod, flistxattr, fstat, mkdirat, openat, readlinkat, renameat, unlinkat,
};
use rustix::io::Errno;
use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use uuid::Uuid;

/// With more left in its root than this, a place is cheaper to give up.
const MOST_LEFT: usize = 64;
/// Attributes that an action can give a directory and that would mean something to the next.
const MEANINGFUL: [&[u8]; 2] = [b"user.", b"system.posix_acl"];
/// Names of all attributes of a directory that nobody gave any fit easily.
const ATTRIBUTES_BYTES: usize = 1024;

/// See the module.
pub(super) struct Places {
    agent: Arc<Agent>,
    /// As many as there may be.
    most: usize,
    idle: Mutex<Vec<Place>>,
}

impl Places {
    pub(super) fn new(agent: Arc<Agent>, most: usize) -> Self {
        Self { agent, most, idle: Mutex::default() }
    }

    /// One whose root has nothing of these names. Blocks.
    pub(super) fn take(&self, names: &HashSet<&[u8]>) -> Result<Place, ActionError> {
        let mut idle = self.idle();
        let is_fit = |place: &Place| !place.furniture.iter().any(|part| names.contains(part.name.as_bytes()));
        if let Some(at) = idle.iter().position(is_fit) {
            return Ok(idle.swap_remove(at));
        }
        drop(idle);
        Place::make(&self.agent)
    }

    /// Clears one and keeps it, if that is possible. Blocks.
    pub(super) fn give_back(&self, place: Place) {
        if self.idle().len() >= self.most || self.clear(&place).is_err() {
            return;
        }
        self.idle().push(place);
    }

    fn clear(&self, place: &Place) -> rustix::io::Result<()> {
        let wiping = rustix::fs::open(self.agent.data.actions_wiping(), DIRECTORY, Mode::empty())?;
        let aside = |dir: &OwnedFd, name: &[u8]| renameat(dir, name, &wiping, Uuid::new_v4().to_string());
        let mut left = 0;
        for (name, kind) in entries(&place.root)? {
            let part = place.furniture.iter().find(|part| part.name.as_bytes() == name);
            let is_as_it_was = match part {
                None => false,
                // Something was mounted on it, so that nobody could change it.
                Some(part) if part.link.is_empty() => kind == FileType::Directory,
                Some(part) => {
                    kind == FileType::Symlink
                        && readlinkat(&place.root, &name[..], Vec::new())?.as_bytes() == part.link.as_bytes()
                }
            };
            if !is_as_it_was {
                left += 1;
                if left > MOST_LEFT {
                    return Err(Errno::TOOBIG);
                }
                aside(&place.root, &name)?;
            }
        }
        if mode_of(&fstat(&place.root)?) != place.root_mode {
            fchmod(&place.root, mode(place.root_mode))?;
        }
        if has_attributes(&place.root) {
            return Err(Errno::INVAL);
        }
        for name in [names::STDOUT, names::STDERR] {
            match unlinkat(&place.dir, name, AtFlags::empty()) {
                Err(errno) if errno != Errno::NOENT => return Err(errno),
                _ => {}
            }
        }
        let tmp = openat(&place.dir, names::TMP, DIRECTORY, Mode::empty())?;
        let is_fresh = entries(&tmp)?.is_empty() && mode_of(&fstat(&tmp)?) == place.root_mode && !has_attributes(&tmp);
        if !is_fresh {
            aside(&place.dir, names::TMP.as_bytes())?;
            mkdirat(&place.dir, names::TMP, Mode::from_raw_mode(0o755))?;
        }
        if left > 0 || !is_fresh {
            self.agent.wipe_soon();
        }
        Ok(())
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Place>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn entries(dir: &OwnedFd) -> rustix::io::Result<Vec<(Vec<u8>, FileType)>> {
    let mut found = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            found.push((name.to_vec(), entry.file_type()));
        }
    }
    Ok(found)
}

fn has_attributes(dir: impl AsFd) -> bool {
    let mut names = [0_u8; ATTRIBUTES_BYTES];
    match flistxattr(dir, &mut names) {
        Ok(length) => {
            let mut names = names[..length].split(|byte| *byte == 0);
            names.any(|name| MEANINGFUL.iter().any(|meaningful| name.starts_with(meaningful)))
        }
        Err(Errno::OPNOTSUPP) => false,
        // Too many, for one.
        Err(_) => true,
    }
}

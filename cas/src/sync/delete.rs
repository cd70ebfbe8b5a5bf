//! Removing what the tree does not have.

use super::SyncError;
use super::dirs::{self, failed, join, permitted};
use super::keep::{Keeper, Rules, Verdict};
use super::plan::MAX_NAMED;
use crate::tree::MAX_DEPTH;
use rustix::fs::{AtFlags, Dir, FileType, unlinkat};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};

/// Removes entries, or only counts them.
pub(super) struct Remover<'a> {
    /// `None`: everything goes, whatever the rules say.
    keeper: Option<&'a Keeper>,
    dry_run: bool,
    /// Entries removed, or that would be.
    pub(super) removed: u64,
    /// Of a dry run: some of those, by path.
    pub(super) named: Vec<Vec<u8>>,
}

impl<'a> Remover<'a> {
    /// Follows the rules.
    pub(super) fn new(keeper: &'a Keeper, dry_run: bool) -> Self {
        Self { keeper: Some(keeper), dry_run, removed: 0, named: Vec::new() }
    }

    /// For what stands where the tree has something of another kind.
    pub(super) fn of_everything() -> Self {
        Self { keeper: None, dry_run: false, removed: 0, named: Vec::new() }
    }

    /// Removes the entry `name` of `dir`; whether it is gone: a directory that keeps something
    /// stays. What vanished by itself is gone, too. `path` is the entry's.
    pub(super) fn remove(
        &mut self,
        dir: impl AsFd,
        name: &[u8],
        path: &[u8],
        is_dir: bool,
        rules: &Rules,
    ) -> Result<bool, SyncError> {
        self.remove_below(dir.as_fd(), name, path, is_dir, rules, 0)
    }

    fn remove_below(
        &mut self,
        dir: impl AsFd,
        name: &[u8],
        path: &[u8],
        is_dir: bool,
        rules: &Rules,
        depth: usize,
    ) -> Result<bool, SyncError> {
        if is_dir && !self.empty(&dir, name, path, rules, depth)? {
            return Ok(false);
        }
        self.removed += 1;
        if self.dry_run {
            if self.named.len() < MAX_NAMED {
                self.named.push(path.to_vec());
            }
            return Ok(true);
        }
        let flags = if is_dir { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        match permitted(&dir, || unlinkat(&dir, name, flags)) {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            // A command has put something into it since.
            Err(Errno::NOTEMPTY | Errno::EXIST) if is_dir => Ok(false),
            Err(errno) => Err(failed(path)(errno)),
        }
    }

    /// Removes what is in the directory `name`; whether that was all.
    fn empty(
        &mut self,
        parent: impl AsFd,
        name: &[u8],
        path: &[u8],
        rules: &Rules,
        depth: usize,
    ) -> Result<bool, SyncError> {
        // Deeper than any tree, so a command made it; each level takes stack and a descriptor.
        if depth > 2 * MAX_DEPTH {
            return Err(failed(path)(Errno::NAMETOOLONG));
        }
        let dir: OwnedFd = match dirs::open_dir(&parent, name) {
            Ok(dir) => dir,
            Err(Errno::NOENT) => return Ok(true),
            Err(errno) => return Err(failed(path)(errno)),
        };
        let rules = self.keeper.map_or_else(Rules::default, |keeper| keeper.enter(rules, path));
        let mut empty = true;
        // Names first: removing while reading may skip some.
        let mut entries = Vec::new();
        for entry in Dir::read_from(&dir).map_err(failed(path))? {
            let entry = entry.map_err(failed(path))?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                entries.push((name.to_vec(), entry.file_type()));
            }
        }
        for (name, file_type) in entries {
            let path = join(path, &name);
            let is_dir = match file_type {
                FileType::Unknown => match dirs::stat(&dir, &name) {
                    Ok(stat) => FileType::from_raw_mode(stat.st_mode) == FileType::Directory,
                    Err(Errno::NOENT) => continue,
                    Err(errno) => return Err(failed(&path)(errno)),
                },
                known => known == FileType::Directory,
            };
            let stays = self.keeper.is_some_and(|keeper| keeper.judge(&rules, &path, is_dir) == Verdict::Stays);
            if stays || !self.remove_below(&dir, &name, &path, is_dir, &rules, depth + 1)? {
                empty = false;
            }
        }
        Ok(empty)
    }
}

//! Removing directories whole: what an instance leaves behind, and what its user has no use for.
//!
//! Works below directory descriptors and follows no link, so nothing outside can be reached; makes
//! unwritable directories writable first; and moves deep ones up instead of descending, so that no
//! tree is too deep.

use motefarm_cas::beneath::{DIRECTORY, mode_of, open_dir, permitted, stat};
use rustix::fs::{AtFlags, Dir, FileType, Mode, fchmod, fstat, renameat, unlinkat};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use uuid::Uuid;

/// Deeper directories are moved up to the top and removed from there.
const MOST_DEPTH: usize = 48;

/// How often a directory is emptied again because a command goes on filling it.
const MOST_ROUNDS: usize = 64;

/// Empties `dir`, which itself stays. Blocks for as long as it takes. An error names the first thing
/// that would not go; the rest was removed all the same.
pub(crate) fn empty(dir: &Path) -> io::Result<()> {
    empty_live(rustix::fs::open(dir, DIRECTORY, Mode::empty())?).map(drop)
}

/// The same, counting what went, for a directory that commands still use.
pub(crate) fn empty_live(dir: OwnedFd) -> io::Result<u64> {
    let mut wiper =
        Wiper { top: &dir, prefix: Uuid::new_v4().simple().to_string(), moved: 0, removed: 0, problem: None };
    let mut rounds = 0;
    loop {
        let (before, removed) = (wiper.moved, wiper.removed);
        wiper.clear(dir.as_fd(), 0);
        rounds += 1;
        // A directory that was found filled again has its problem noted only if it stays so.
        if wiper.moved != before && wiper.problem.is_none() {
            continue;
        }
        let refilled = wiper.problem.as_ref().is_some_and(|error| error.kind() == io::ErrorKind::DirectoryNotEmpty);
        if !refilled || wiper.removed == removed || rounds == MOST_ROUNDS {
            break;
        }
        wiper.problem = None;
    }
    wiper.problem.map_or(Ok(wiper.removed), Err)
}

/// Removes the entry `name` of `parent` with all below it and answers how many entries went; none
/// is no error. An error may come after some of it went.
pub(crate) fn remove(parent: impl AsFd, name: &[u8]) -> io::Result<u64> {
    let mut removed = 0;
    for _ in 0..MOST_ROUNDS {
        match permitted(&parent, || unlinkat(&parent, name, AtFlags::empty())) {
            Ok(()) => return Ok(removed + 1),
            Err(Errno::NOENT) => return Ok(removed),
            // Linux says the first of a directory, POSIX the second.
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(errno) => return Err(errno.into()),
        }
        let dir = match open_dir(&parent, name) {
            Err(Errno::NOENT) => return Ok(removed),
            // Replaced a moment ago.
            Err(Errno::NOTDIR | Errno::LOOP) => continue,
            dir => dir?,
        };
        removed += empty_live(dir)?;
        match permitted(&parent, || unlinkat(&parent, name, AtFlags::REMOVEDIR)) {
            Ok(()) => return Ok(removed + 1),
            Err(Errno::NOENT) => return Ok(removed),
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Err(Errno::NOTEMPTY.into())
}

struct Wiper<'a> {
    top: &'a OwnedFd,
    /// Of names that nothing else has.
    prefix: String,
    moved: u64,
    removed: u64,
    problem: Option<io::Error>,
}

impl Wiper<'_> {
    fn clear(&mut self, dir: BorrowedFd<'_>, depth: usize) {
        let entries = match Dir::read_from(dir) {
            Ok(entries) => entries,
            Err(error) => return self.blame("list a directory", error),
        };
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => return self.blame("list a directory", error),
            };
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let is_dir = match entry.file_type() {
                FileType::Directory => true,
                FileType::Unknown => stat(dir, name.to_bytes())
                    .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory),
                _ => false,
            };
            let gone = if is_dir {
                self.remove_dir(dir, name.to_bytes(), depth)
            } else {
                permitted(dir, || unlinkat(dir, name, AtFlags::empty())).map(|()| true)
            };
            match gone {
                Ok(true) => self.removed += 1,
                Ok(false) | Err(Errno::NOENT) => {}
                Err(error) => self.blame(&name.to_string_lossy(), error),
            }
        }
    }

    /// Whether it is gone: one too deep is only moved up, to be seen again from there.
    fn remove_dir(&mut self, parent: BorrowedFd<'_>, name: &[u8], depth: usize) -> Result<bool, Errno> {
        match permitted(parent, || unlinkat(parent, name, AtFlags::REMOVEDIR)) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            done => return done.map(|()| true),
        }
        let dir = open_dir(parent, name)?;
        // Removing its entries takes write permission.
        if mode_of(&fstat(&dir)?) & 0o700 != 0o700 {
            fchmod(&dir, Mode::RWXU)?;
        }
        if depth >= MOST_DEPTH {
            self.moved += 1;
            let up = format!(".deep-{}-{}", self.prefix, self.moved);
            renameat(parent, name, self.top, up.as_str())?;
            return Ok(false);
        }
        self.clear(dir.as_fd(), depth + 1);
        unlinkat(parent, name, AtFlags::REMOVEDIR).map(|()| true)
    }

    fn blame(&mut self, what: &str, error: Errno) {
        self.problem.get_or_insert_with(|| {
            let cause = io::Error::from(error);
            io::Error::new(cause.kind(), format!("{what}: {cause}"))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    #[test]
    fn unwritable_deep_and_linked_things_go_and_what_links_point_to_stays() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("kept"), "").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("i");
        fs::create_dir_all(top.join("locked/inner")).unwrap();
        fs::write(top.join("locked/inner/file"), "").unwrap();
        for name in ["locked/inner", "locked"] {
            fs::set_permissions(top.join(name), fs::Permissions::from_mode(0o000)).unwrap();
        }
        symlink(outside.path(), top.join("link")).unwrap();
        let mut deep = top.clone();
        for _ in 0..200 {
            deep.push("dddddddd");
        }
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("file"), "").unwrap();
        empty(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(outside.path().join("kept").exists());
    }
}

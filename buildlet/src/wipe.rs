//! Removing what an instance leaves behind.
//!
//! Works below directory descriptors and follows no link, so nothing outside can be reached; makes
//! unwritable directories writable first; and moves deep ones up instead of descending, so that no
//! tree is too deep.

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Deeper directories are moved up to the top and removed from there.
const MOST_DEPTH: usize = 48;

/// Empties `dir`, which itself stays. Blocks for as long as it takes. An error names the first thing
/// that would not go; the rest was removed all the same.
pub(crate) fn empty(dir: &Path) -> io::Result<()> {
    let top = open(rustix::fs::CWD, dir)?;
    let mut wiper = Wiper { top: &top, moved: 0, problem: None };
    loop {
        let before = wiper.moved;
        wiper.clear(top.as_fd(), 0);
        if wiper.moved == before || wiper.problem.is_some() {
            break;
        }
    }
    wiper.problem.map_or(Ok(()), Err)
}

fn open(at: BorrowedFd<'_>, name: impl rustix::path::Arg) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(rustix::fs::openat(at, name, flags, Mode::empty())?)
}

struct Wiper<'a> {
    top: &'a OwnedFd,
    moved: u64,
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
                FileType::Unknown => rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
                    .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory),
                _ => false,
            };
            let removed = if is_dir {
                self.remove_dir(dir, name, depth)
            } else {
                rustix::fs::unlinkat(dir, name, AtFlags::empty())
            };
            if let Err(error) = removed
                && error != rustix::io::Errno::NOENT
            {
                self.blame(&name.to_string_lossy(), error);
            }
        }
    }

    fn remove_dir(&mut self, parent: BorrowedFd<'_>, name: &std::ffi::CStr, depth: usize) -> rustix::io::Result<()> {
        match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
            Err(rustix::io::Errno::NOTEMPTY | rustix::io::Errno::EXIST) => {}
            done => return done,
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let dir = match rustix::fs::openat(parent, name, flags, Mode::empty()) {
            Err(rustix::io::Errno::ACCESS) => {
                // Ours, and known to be a directory a moment ago. Should a link have taken its
                // place, the open below refuses it; processes that could do that are dead by now.
                rustix::fs::chmodat(parent, name, Mode::RWXU, AtFlags::empty())?;
                rustix::fs::openat(parent, name, flags, Mode::empty())?
            }
            opened => opened?,
        };
        // Removing its entries takes write permission.
        rustix::fs::fchmod(&dir, Mode::RWXU)?;
        if depth >= MOST_DEPTH {
            self.moved += 1;
            let up = format!("deep-{}", self.moved);
            return rustix::fs::renameat(parent, name, self.top, up.as_str());
        }
        self.clear(dir.as_fd(), depth + 1);
        rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
    }

    fn blame(&mut self, what: &str, error: rustix::io::Errno) {
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

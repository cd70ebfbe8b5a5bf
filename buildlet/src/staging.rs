//! Where files lie until they are whole: beside the work directory, out of the commands' sight, on
//! the same file system, so that a rename puts them in their place in one step.
//!
//! What a killed buildlet leaves here is removed when the instance is taken up again.

use motefarm_cas::beneath::{DIRECTORY, permitted};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// The staging directory of an instance, opened by one caller.
pub(crate) struct Staging {
    dir: OwnedFd,
    prefix: String,
    next: AtomicU64,
}

/// Something staged. Unless it is placed, it goes when this does.
pub(crate) struct Staged<'a> {
    dir: BorrowedFd<'a>,
    name: String,
}

impl Staging {
    /// Opens the directory, which is made if it is not there.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        match rustix::fs::mkdir(dir, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        let dir = rustix::fs::openat(CWD, dir, DIRECTORY, Mode::empty())?;
        Ok(Self { dir, prefix: uuid::Uuid::new_v4().simple().to_string(), next: AtomicU64::new(0) })
    }

    fn reserve(&self) -> Staged<'_> {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        Staged { dir: self.dir.as_fd(), name: format!("{}-{n}", self.prefix) }
    }

    /// An empty file that only its owner can open.
    pub(crate) fn file(&self) -> Result<(Staged<'_>, File), Errno> {
        let staged = self.reserve();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(staged.dir, &staged.name, flags, Mode::RUSR | Mode::WUSR)?;
        Ok((staged, File::from(file)))
    }

    /// A symbolic link.
    pub(crate) fn symlink(&self, target: &[u8]) -> Result<Staged<'_>, Errno> {
        let staged = self.reserve();
        rustix::fs::symlinkat(target, staged.dir, &staged.name)?;
        Ok(staged)
    }

    /// Another name of a regular file; `None` if the name is no regular file (any more).
    pub(crate) fn hard_link(&self, dir: impl AsFd, name: &[u8]) -> Result<Option<Staged<'_>>, Errno> {
        let staged = self.reserve();
        rustix::fs::linkat(&dir, name, staged.dir, &staged.name, AtFlags::empty())?;
        let stat = rustix::fs::statat(staged.dir, &staged.name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok((FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile).then_some(staged))
    }
}

impl Staged<'_> {
    /// Puts it into `dir` as `name`, in place of a file or link there.
    pub(crate) fn place(self, dir: impl AsFd, name: &[u8]) -> Result<(), Errno> {
        permitted(&dir, || rustix::fs::renameat(self.dir, &self.name, &dir, name))
    }

    /// Sets when it was modified, of a link itself.
    pub(crate) fn set_modified(&self, modified: rustix::fs::Timespec) -> Result<(), Errno> {
        let times = rustix::fs::Timestamps { last_access: modified, last_modification: modified };
        rustix::fs::utimensat(self.dir, &self.name, &times, AtFlags::SYMLINK_NOFOLLOW)
    }
}

impl Drop for Staged<'_> {
    /// Also after a rename, which does nothing between two names of one file.
    fn drop(&mut self) {
        let _ = rustix::fs::unlinkat(self.dir, &self.name, AtFlags::empty());
    }
}

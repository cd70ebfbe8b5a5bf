//! Directory-relative file work that no link leads astray.

use super::SyncError;
use crate::tree::MODE_BITS;
use motefarm_core::WorkPath;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawMode, Stat, fchmod, fstat, mkdirat, openat, statat, unlinkat};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A path of bytes below another.
pub(super) fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() }
}

/// A path for an error message.
pub(super) fn shown(path: &[u8]) -> String {
    if path.is_empty() { ".".to_owned() } else { String::from_utf8_lossy(path).into_owned() }
}

/// The error for `errno` at `path`.
pub(super) fn failed(path: &[u8]) -> impl FnOnce(Errno) -> SyncError {
    let path = shown(path);
    move |errno| match errno {
        Errno::NOSPC | Errno::DQUOT => SyncError::Full(path),
        _ => SyncError::Io { path, source: errno.into() },
    }
}

pub(super) const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opens a directory. One that its mode keeps even its owner out of is given back to him first;
/// its mode is put right in the end.
pub(super) fn open_dir(parent: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    match openat(&parent, name, DIRECTORY, Mode::empty()) {
        Err(Errno::ACCESS) => {
            chmod_unopenable(&parent, name, FileType::Directory, 0o700)?;
            openat(&parent, name, DIRECTORY, Mode::empty())
        }
        result => result,
    }
}

/// Sets the mode of what can not be opened for want of permission, through a descriptor that is
/// only a path, so that it is what was looked at.
#[cfg(target_os = "linux")]
pub(super) fn chmod_unopenable(parent: impl AsFd, name: &[u8], kind: FileType, bits: u32) -> Result<(), Errno> {
    use std::os::fd::AsRawFd as _;
    let path = openat(parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    if FileType::from_raw_mode(fstat(&path)?.st_mode) != kind {
        return Err(Errno::ACCESS);
    }
    rustix::fs::chmod(format!("/proc/self/fd/{}", path.as_raw_fd()), mode(bits))
}

/// Elsewhere there is no such descriptor: it stays closed.
#[cfg(not(target_os = "linux"))]
pub(super) fn chmod_unopenable(_: impl AsFd, _: &[u8], _: FileType, _: u32) -> Result<(), Errno> {
    Err(Errno::ACCESS)
}

/// Permission bits.
#[expect(clippy::unnecessary_cast, reason = "other systems have this field in another width")]
pub(super) fn mode_of(stat: &Stat) -> u32 {
    stat.st_mode as u32 & MODE_BITS
}

/// Permission bits for a system call.
pub(super) fn mode(bits: u32) -> Mode {
    Mode::from_raw_mode((bits & MODE_BITS) as RawMode)
}

/// Stat data of an entry itself, link or not.
pub(super) fn stat(dir: impl AsFd, name: &[u8]) -> Result<Stat, Errno> {
    statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
}

/// Runs `change` in a directory; if its mode forbids it, lets the owner change it and runs it again.
pub(super) fn permitted<T>(dir: impl AsFd, change: impl Fn() -> Result<T, Errno>) -> Result<T, Errno> {
    match change() {
        Err(Errno::ACCESS) => {
            let bits = mode_of(&fstat(&dir)?);
            if bits & 0o700 == 0o700 {
                return Err(Errno::ACCESS);
            }
            fchmod(&dir, mode(bits | 0o700))?;
            change()
        }
        result => result,
    }
}

/// Opens the destination part by part; `None` if it is not there yet, or is something that a command
/// put in its place (see [`make_dest`]).
pub(super) fn open_dest(root: BorrowedFd<'_>, dest: &WorkPath) -> Result<Option<OwnedFd>, SyncError> {
    walk_dest(root, dest, |_, _| Ok(false))
}

/// Opens the destination and makes it and its parents if need be. A file or link in the place of the
/// destination itself is removed, as one anywhere below it would be; one in the place of a parent is
/// not the tree's to decide, and an error.
pub(super) fn make_dest(root: BorrowedFd<'_>, dest: &WorkPath) -> Result<OwnedFd, SyncError> {
    let made = walk_dest(root, dest, |parent, name| {
        let make = || permitted(parent, || mkdirat(parent, name, mode(0o755)));
        match make() {
            Err(Errno::EXIST) if open_dir(parent, name).is_err_and(in_the_way) => {
                permitted(parent, || unlinkat(parent, name, AtFlags::empty()))?;
                make().map(|()| true)
            }
            Ok(()) | Err(Errno::EXIST) => Ok(true),
            Err(errno) => Err(errno),
        }
    })?;
    made.ok_or_else(|| SyncError::NotDirectory(dest.to_string()))
}

/// Whether opening a directory failed because something else has its name.
fn in_the_way(errno: Errno) -> bool {
    matches!(errno, Errno::LOOP | Errno::NOTDIR)
}

/// `make` is called for a part that is not there, and for a last part that is no directory; false:
/// leave it so.
fn walk_dest(
    root: BorrowedFd<'_>,
    dest: &WorkPath,
    make: impl Fn(BorrowedFd<'_>, &[u8]) -> Result<bool, Errno>,
) -> Result<Option<OwnedFd>, SyncError> {
    let mut at = openat(root, ".", DIRECTORY, Mode::empty()).map_err(failed(b""))?;
    let mut path = Vec::new();
    for part in dest.parts().map(str::as_bytes) {
        path = join(&path, part);
        let mut opened = open_dir(&at, part);
        let last = path == dest.as_str().as_bytes();
        if opened.as_ref().is_err_and(|errno| *errno == Errno::NOENT || (last && in_the_way(*errno))) {
            if !make(at.as_fd(), part).map_err(failed(&path))? {
                return Ok(None);
            }
            opened = open_dir(&at, part);
        }
        at = opened.map_err(|errno| match errno {
            errno if in_the_way(errno) => SyncError::NotDirectory(shown(&path)),
            errno => failed(&path)(errno),
        })?;
    }
    Ok(Some(at))
}

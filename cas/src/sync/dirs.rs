//! The way to the destination, and errors that name paths.

use super::SyncError;
pub(super) use crate::beneath::{DIRECTORY, chmod_unopenable, create, mode, mode_of, open_dir, permitted, stat};
use motefarm_core::WorkPath;
use rustix::fs::{AtFlags, Mode, mkdirat, openat, unlinkat};
use rustix::io::Errno;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

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

//! Directory-relative file work that no link leads astray.
//!
//! Every name is one part of a path, opened relative to the descriptor of the directory that holds
//! it. Names are bytes. Errors are the system's; callers know what they were about.

use crate::tree::MODE_BITS;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawMode, Stat, fchmod, fstat, openat, statat};
use rustix::io::Errno;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

/// Flags that open a directory and never what a link points to.
pub const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opens a directory. One that its mode keeps even its owner out of is given back to him first;
/// its mode is put right in the end.
pub fn open_dir(parent: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    match openat(&parent, name, DIRECTORY, Mode::empty()) {
        Err(Errno::ACCESS) => {
            chmod_unopenable(&parent, name, FileType::Directory, 0o700)?;
            openat(&parent, name, DIRECTORY, Mode::empty())
        }
        result => result,
    }
}

/// Creates a file that is not there yet, for writing. The process's umask takes away from the mode.
pub fn create(dir: impl AsFd, name: &[u8], mode: u32) -> Result<File, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir, name, flags, self::mode(mode)).map(File::from)
}

/// Sets the mode of what can not be opened for want of permission, through a descriptor that is
/// only a path, so that it is what was looked at.
#[cfg(target_os = "linux")]
pub fn chmod_unopenable(parent: impl AsFd, name: &[u8], kind: FileType, bits: u32) -> Result<(), Errno> {
    use std::os::fd::AsRawFd as _;
    let path = openat(parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    if FileType::from_raw_mode(fstat(&path)?.st_mode) != kind {
        return Err(Errno::ACCESS);
    }
    rustix::fs::chmod(format!("/proc/self/fd/{}", path.as_raw_fd()), mode(bits))
}

/// Elsewhere there is no such descriptor: it stays closed.
#[cfg(not(target_os = "linux"))]
pub fn chmod_unopenable(_: impl AsFd, _: &[u8], _: FileType, _: u32) -> Result<(), Errno> {
    Err(Errno::ACCESS)
}

/// Permission bits.
#[expect(clippy::unnecessary_cast, reason = "other systems have this field in another width")]
pub fn mode_of(stat: &Stat) -> u32 {
    stat.st_mode as u32 & MODE_BITS
}

/// Permission bits for a system call.
pub fn mode(bits: u32) -> Mode {
    Mode::from_raw_mode((bits & MODE_BITS) as RawMode)
}

/// Stat data of an entry itself, link or not.
pub fn stat(dir: impl AsFd, name: &[u8]) -> Result<Stat, Errno> {
    statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
}

/// Runs `change` in a directory; if its mode forbids it, lets the owner change it and runs it again.
pub fn permitted<T>(dir: impl AsFd, change: impl Fn() -> Result<T, Errno>) -> Result<T, Errno> {
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

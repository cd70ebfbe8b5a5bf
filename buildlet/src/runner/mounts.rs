//! Mounting, with errors that name what and where.

use nix::mount::{MsFlags, mount};
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

pub(super) fn make_dir(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(at("make", path)(error)),
        _ => Ok(()),
    }
}

/// Mounts an empty file system in memory.
pub(super) fn memory(path: &Path) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some("mode=755")).map_err(|e| failed("mount", path, e))
}

#[derive(Clone, Copy)]
pub(super) enum Bind {
    AsIs,
    Writable,
    ReadOnly,
}

/// Shows `from`, with what is mounted in it, at `to`.
pub(super) fn bind(from: &Path, to: &Path, how: Bind) -> io::Result<()> {
    let nothing = None::<&str>;
    mount(Some(from), to, nothing, MsFlags::MS_BIND | MsFlags::MS_REC, nothing).map_err(|e| failed("show", from, e))?;
    match how {
        Bind::AsIs => Ok(()),
        Bind::Writable => set(to, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, true),
        Bind::ReadOnly => set(to, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, true),
    }
}

/// Shows at `to` what is in `over`, and what of `under` is not there. Nobody can change it.
pub(super) fn overlay(over: &Path, under: &Path, to: &Path) -> io::Result<()> {
    let mut layers = b"lowerdir=".to_vec();
    escape(over, &mut layers);
    layers.push(b':');
    escape(under, &mut layers);
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("overlay"), to, Some("overlay"), flags, Some(&layers[..]))
        .map_err(|e| failed("lay a directory over", under, e))
}

/// As overlayfs reads a list of directories.
fn escape(path: &Path, into: &mut Vec<u8>) {
    for byte in path.as_os_str().as_bytes() {
        if matches!(byte, b'\\' | b':' | b',') {
            into.push(b'\\');
        }
        into.push(*byte);
    }
}

// As linux/mount.h has them; Linux 5.12.
pub(super) const MOUNT_ATTR_RDONLY: u64 = 1;
pub(super) const MOUNT_ATTR_NOSUID: u64 = 2;
pub(super) const MOUNT_ATTR_NODEV: u64 = 4;

#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    user_ns: u64,
}

/// Makes what is there read-only, with all that is mounted in it.
pub(super) fn freeze(path: &Path) -> io::Result<()> {
    bind(path, path, Bind::ReadOnly)
}

/// Adds attributes to a mount and, if `all`, to those below it.
pub(super) fn set(path: &Path, attributes: u64, all: bool) -> io::Result<()> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let attributes = MountAttr { set: attributes, clear: 0, propagation: 0, user_ns: 0 };
    let flags = if all { libc::AT_RECURSIVE } else { 0 };
    #[expect(unsafe_code, reason = "mount_setattr has no safe wrapper")]
    // SAFETY: the kernel reads a NUL-terminated path and a structure of the size said; both outlive the call.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            name.as_ptr(),
            flags,
            &raw const attributes,
            size_of::<MountAttr>(),
        )
    };
    nix::errno::Errno::result(answer).map(drop).map_err(|e| failed("make read-only", path, e))
}

pub(super) fn at(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> io::Error {
    let path = path.to_owned();
    move |error| io::Error::new(error.kind(), format!("can not {what} {}: {error}", path.display()))
}

pub(super) fn failed(what: &'static str, path: &Path, errno: nix::errno::Errno) -> io::Error {
    at(what, path)(errno.into())
}

//! What differs between operating systems.

use crate::stat_cache::FileStat;
use std::borrow::Cow;
use std::ffi::OsStr;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::path::Path;

/// A name as bytes.
#[cfg(unix)]
pub(super) fn name_bytes(name: &OsStr) -> Cow<'_, [u8]> {
    use std::os::unix::ffi::OsStrExt as _;
    Cow::Borrowed(name.as_bytes())
}

/// A name as bytes; what is no Unicode is replaced.
#[cfg(not(unix))]
pub(super) fn name_bytes(name: &OsStr) -> Cow<'_, [u8]> {
    match name.to_string_lossy() {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}

/// Bytes as a name.
#[cfg(unix)]
pub(super) fn bytes_name(bytes: &[u8]) -> Cow<'_, OsStr> {
    use std::os::unix::ffi::OsStrExt as _;
    Cow::Borrowed(OsStr::from_bytes(bytes))
}

/// Bytes as a name.
#[cfg(not(unix))]
pub(super) fn bytes_name(bytes: &[u8]) -> Cow<'_, OsStr> {
    Cow::Owned(String::from_utf8_lossy(bytes).into_owned().into())
}

/// A link's target as Unix spells it.
pub(super) fn target_bytes(target: &Path) -> Vec<u8> {
    let bytes = name_bytes(target.as_os_str()).into_owned();
    if cfg!(windows) { bytes.into_iter().map(|b| if b == b'\\' { b'/' } else { b }).collect() } else { bytes }
}

/// Stat data of a file.
#[cfg(unix)]
pub(super) fn file_stat(meta: &Metadata) -> FileStat {
    use std::os::unix::fs::MetadataExt as _;
    let ns = |seconds: i64, nanoseconds: i64| seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds);
    FileStat {
        size: meta.len(),
        mtime_ns: ns(meta.mtime(), meta.mtime_nsec()),
        ctime_ns: ns(meta.ctime(), meta.ctime_nsec()),
        inode: meta.ino(),
        mode: meta.mode() & crate::tree::MODE_BITS,
    }
}

/// Stat data of a file; the time of last writing stands for the change time.
#[cfg(not(unix))]
pub(super) fn file_stat(meta: &Metadata) -> FileStat {
    let mtime = meta.modified().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    let mtime_ns = mtime.and_then(|since| i64::try_from(since.as_nanos()).ok()).unwrap_or(i64::MAX);
    FileStat { size: meta.len(), mtime_ns, ctime_ns: mtime_ns, inode: 0, mode: crate::tree::DEFAULT_FILE_MODE }
}

/// Permission bits of a directory.
#[cfg(unix)]
pub(super) fn directory_mode(meta: &Metadata) -> u32 {
    use std::os::unix::fs::MetadataExt as _;
    meta.mode() & crate::tree::MODE_BITS
}

/// Permission bits of a directory.
#[cfg(not(unix))]
pub(super) fn directory_mode(_: &Metadata) -> u32 {
    crate::tree::DEFAULT_DIRECTORY_MODE
}

/// Opens a file for reading: no link, and without waiting for a pipe's other end.
pub(super) fn open_plain(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    }
    options.open(path)
}

//! One output as it was found: how it is opened, and what its metadata says.

use super::declared::Properties;
use super::error::ActionError;
use motefarm_cas::beneath::{chmod_unopenable, mode_of};
use motefarm_cas::tree::{DEFAULT_DIRECTORY_MODE, DEFAULT_FILE_MODE, EXECUTABLE_FILE_MODE};
use motefarm_proto::reapi::NodeProperties;
use motefarm_proto::reapi::protobuf::{Timestamp, UInt32Value};
use rustix::fs::{FileType, Mode, OFlags, Stat, openat};
use rustix::io::Errno;
use std::fs::File;
use std::os::fd::BorrowedFd;

/// Opens a file that its mode may keep even its owner from.
pub(super) fn open_file(dir: BorrowedFd<'_>, name: &[u8], found: &Stat) -> Result<File, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let open = || openat(dir, name, flags, Mode::empty()).map(File::from);
    match open() {
        Err(Errno::ACCESS) => {
            chmod_unopenable(dir, name, FileType::RegularFile, mode_of(found) | 0o400)?;
            open()
        }
        opened => opened,
    }
}

/// The mode as it is told: as it is if that is wanted, and otherwise what it means.
pub(super) fn told_mode(found: &Stat, wanted: Properties, is_directory: bool) -> u32 {
    match mode_of(found) {
        mode if wanted.unix_mode => mode,
        _ if is_directory => DEFAULT_DIRECTORY_MODE,
        mode if mode & 0o100 != 0 => EXECUTABLE_FILE_MODE,
        _ => DEFAULT_FILE_MODE,
    }
}

pub(super) fn properties(found: &Stat, wanted: Properties) -> Option<NodeProperties> {
    (wanted != Properties::default()).then(|| NodeProperties {
        properties: Vec::new(),
        mtime: wanted
            .mtime
            .then(|| Timestamp { seconds: found.st_mtime, nanos: i32::try_from(found.st_mtime_nsec).unwrap_or(0) }),
        unix_mode: wanted.unix_mode.then(|| UInt32Value { value: mode_of(found) }),
    })
}

pub(super) fn special(path: &str, kind: FileType) -> ActionError {
    let kind = match kind {
        FileType::Fifo => "a pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        _ => "something strange",
    };
    ActionError::refused(format!("output {path:?} is {kind}; only files, directories and links can be outputs"))
}

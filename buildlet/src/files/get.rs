//! Reading one file.

use super::{Place, dir, failed};
use crate::error::AgentError;
use motefarm_cas::beneath::{self, mode_of};
use motefarm_core::WorkPath;
use motefarm_proto::convert::FieldError;
use rustix::fs::{FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;
use std::fs::File;
use std::os::fd::AsFd;

/// A file opened for reading, and what it was then.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) file: File,
    /// Permission bits.
    pub(crate) mode: u32,
    pub(crate) size: u64,
}

/// Opens the regular file at `path`.
pub(crate) fn open(place: &Place, path: &WorkPath) -> Result<Opened, AgentError> {
    let not_file = |what: &str| AgentError::from(FieldError::new("path", format!("{path} is {what}, not a file")));
    let Some(name) = path.parts().last() else { return Err(not_file("the work directory")) };
    let parent = dir(&place.work, "path", &path.parent())?;
    match open_regular(&parent, name.as_bytes()) {
        Ok(Some(opened)) => Ok(opened),
        Ok(None) | Err(Errno::LOOP | Errno::NXIO) => {
            let kind = beneath::stat(&parent, name.as_bytes()).map(|stat| FileType::from_raw_mode(stat.st_mode));
            Err(match kind {
                Ok(FileType::Directory) => not_file("a directory"),
                Ok(FileType::Symlink) => not_file("a link (which is not followed)"),
                _ => not_file("something else"),
            })
        }
        Err(Errno::NOENT) => Err(AgentError::NoFile(format!("there is no file {path}"))),
        Err(errno) => Err(failed(format!("can not read {path}"))(errno)),
    }
}

/// Opens a regular file without following a link or waiting for a pipe; `None` if it is none.
pub(super) fn open_regular(dir: impl AsFd, name: &[u8]) -> Result<Option<Opened>, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = File::from(openat(dir, name, flags, Mode::empty())?);
    let stat = fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(None);
    }
    Ok(Some(Opened { file, mode: mode_of(&stat), size: u64::try_from(stat.st_size).unwrap_or(0) }))
}

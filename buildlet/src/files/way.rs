//! The way from the work directory to a directory below it.

use crate::error::AgentError;
use motefarm_cas::beneath::{self, DIRECTORY, permitted};
use motefarm_core::WorkPath;
use motefarm_proto::convert::FieldError;
use rustix::fs::{FileType, Mode};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Opens a directory that is there. `field` is where the caller named it.
pub(crate) fn dir(work: &Path, field: &'static str, path: &WorkPath) -> Result<OwnedFd, AgentError> {
    walk(work, field, path, false)
}

/// Opens a directory; what is missing of the way is made.
pub(crate) fn make_dir(work: &Path, field: &'static str, path: &WorkPath) -> Result<OwnedFd, AgentError> {
    walk(work, field, path, true)
}

/// An error of the system while doing `what` to files of the instance. What their modes or names
/// make impossible is the caller's to put right.
pub(crate) fn failed(what: impl Into<String>) -> impl FnOnce(Errno) -> AgentError {
    let what = what.into();
    move |errno| match errno {
        Errno::ACCESS | Errno::PERM | Errno::NAMETOOLONG | Errno::ISDIR | Errno::NOTEMPTY => {
            AgentError::Refused(format!("{what}: {}", io::Error::from(errno)))
        }
        errno => AgentError::io(what)(errno.into()),
    }
}

fn walk(work: &Path, field: &'static str, path: &WorkPath, make: bool) -> Result<OwnedFd, AgentError> {
    let open_work = rustix::fs::open(work, DIRECTORY, Mode::empty());
    let mut at = open_work.map_err(failed("can not open the work directory"))?;
    let mut way = String::new();
    for part in path.parts() {
        if !way.is_empty() {
            way.push('/');
        }
        way.push_str(part);
        let open = || match make {
            true => beneath::open_dir(&at, part.as_bytes()),
            false => rustix::fs::openat(&at, part, DIRECTORY, Mode::empty()),
        };
        let mut opened = open();
        if make && matches!(opened, Err(Errno::NOENT)) {
            match permitted(&at, || rustix::fs::mkdirat(&at, part, beneath::mode(0o755))) {
                Ok(()) | Err(Errno::EXIST) => opened = open(),
                Err(errno) => return Err(failed(format!("can not make {way}"))(errno)),
            }
        }
        at = opened.map_err(|errno| not_opened(field, &at, part, &way, make, errno))?;
    }
    Ok(at)
}

fn not_opened(field: &'static str, parent: impl AsFd, part: &str, way: &str, make: bool, errno: Errno) -> AgentError {
    match errno {
        Errno::NOENT => AgentError::NoFile(format!("there is no directory {way}")),
        Errno::NOTDIR | Errno::LOOP => {
            let is_link = beneath::stat(parent, part.as_bytes())
                .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink);
            if is_link {
                return FieldError::new(field, format!("{way} is a link, and links are not followed")).into();
            }
            let problem = format!("{way} is not a directory");
            if make { FieldError::new(field, problem).into() } else { AgentError::NoFile(problem) }
        }
        errno => failed(format!("can not open {way}"))(errno),
    }
}

//! The file that lets an execution be started at most once, and tells whether its supervisor lives.
//!
//! It is made with link(2), which only one can do, and is locked from before it has its name: so a
//! claim that is not locked belongs to a supervisor that is gone.

use crate::layout::exec::CLAIM;
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// The right to start an execution. The lock ends when the last copy of the descriptor is closed.
pub(crate) struct Claim {
    _locked: OwnedFd,
}

/// Who has an execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holder {
    /// Nobody: it was never started.
    Nobody,
    /// A supervisor that lives.
    Alive,
    /// A supervisor that is gone.
    Gone,
}

impl Claim {
    /// Claims the execution in `dir`; `None` if it has been claimed before.
    pub(crate) fn make(dir: BorrowedFd<'_>) -> io::Result<Option<Self>> {
        const TEMPORARY: &str = "claim.tmp";
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let locked = rustix::fs::openat(dir, TEMPORARY, flags, Mode::RUSR | Mode::WUSR)?;
        match rustix::fs::flock(&locked, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            // The leftover of one who linked it and has not removed the first name yet.
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let linked = rustix::fs::linkat(dir, TEMPORARY, dir, CLAIM, AtFlags::empty());
        let _ = rustix::fs::unlinkat(dir, TEMPORARY, AtFlags::empty());
        match linked {
            Ok(()) => Ok(Some(Self { _locked: locked })),
            Err(rustix::io::Errno::EXIST) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Who has the execution in `dir`.
    pub(crate) fn holder(dir: BorrowedFd<'_>) -> io::Result<Holder> {
        let file =
            match rustix::fs::openat(dir, CLAIM, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty()) {
                Ok(file) => file,
                Err(rustix::io::Errno::NOENT) => return Ok(Holder::Nobody),
                Err(error) => return Err(error.into()),
            };
        match rustix::fs::flock(file.as_fd(), FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(Holder::Gone),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(Holder::Alive),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_claims_and_the_lock_tells_whether_he_lives() {
        let dir = tempfile::tempdir().unwrap();
        let fd = rustix::fs::open(dir.path(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let holder = || Claim::holder(fd.as_fd()).unwrap();
        assert_eq!(holder(), Holder::Nobody);
        let claim = Claim::make(fd.as_fd()).unwrap().expect("first");
        assert!(Claim::make(fd.as_fd()).unwrap().is_none());
        assert_eq!(holder(), Holder::Alive);
        drop(claim);
        assert_eq!(holder(), Holder::Gone);
        assert!(Claim::make(fd.as_fd()).unwrap().is_none(), "once is once");
    }
}

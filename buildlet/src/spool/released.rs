//! The durable mark of how much was let go.

use crate::layout::exec::RELEASED;
use crate::spool::frame::{INDEX_ENTRY_BYTES, decode_pair, encode_pair};
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::BorrowedFd;

/// Output before `offset`, which lay before `position`, is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Released {
    pub(crate) offset: u64,
    pub(crate) position: u64,
}

impl Released {
    /// The mark of the execution in `dir`; nothing released if there is none.
    pub(crate) fn load(dir: BorrowedFd<'_>) -> io::Result<Self> {
        let mut bytes = [0; INDEX_ENTRY_BYTES];
        match rustix::fs::openat(dir, RELEASED, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(file) => File::from(file).read_exact(&mut bytes)?,
            Err(rustix::io::Errno::NOENT) => return Ok(Self::default()),
            Err(error) => return Err(error.into()),
        }
        let (offset, position) = decode_pair(bytes);
        Ok(Self { offset, position })
    }

    /// Replaces the mark. To be done *before* the bytes go, so that no reader takes a hole for damage.
    pub(crate) fn save(&self, dir: BorrowedFd<'_>) -> io::Result<()> {
        const TEMPORARY: &str = "released.tmp";
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::openat(dir, TEMPORARY, flags, Mode::RUSR | Mode::WUSR)?;
        File::from(file).write_all(&encode_pair(self.offset, self.position))?;
        Ok(rustix::fs::renameat(dir, TEMPORARY, dir, RELEASED)?)
    }
}

//! The last word on an execution, written once.

use crate::layout::exec::OUTCOME;
use motefarm_core::exec::ExecOutcome;
use motefarm_proto::mote;
use prost::Message as _;
use rustix::fs::{Mode, OFlags, RenameFlags};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::BorrowedFd;

const TEMPORARY: &str = "outcome.tmp";
/// Far above any outcome; a reason is a sentence.
const MOST_BYTES: u64 = 1024 * 1024;

/// Puts the outcome in place. One that is there already stays. After an error call again.
pub(crate) fn save(dir: BorrowedFd<'_>, outcome: &ExecOutcome) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::openat(dir, TEMPORARY, flags, Mode::RUSR | Mode::WUSR)?;
    File::from(file).write_all(&mote::ExecOutcome::from(outcome).encode_to_vec())?;
    match rustix::fs::renameat_with(dir, TEMPORARY, dir, OUTCOME, RenameFlags::NOREPLACE) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        // A file system without RENAME_NOREPLACE; there is one writer at a time anyway.
        Err(rustix::io::Errno::INVAL) => Ok(rustix::fs::renameat(dir, TEMPORARY, dir, OUTCOME)?),
        Err(error) => Err(error.into()),
    }
}

/// The outcome of the execution in `dir`, if it has ended.
pub(crate) fn load(dir: BorrowedFd<'_>) -> io::Result<Option<mote::ExecOutcome>> {
    let file =
        match rustix::fs::openat(dir, OUTCOME, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
    let mut bytes = Vec::new();
    file.take(MOST_BYTES).read_to_end(&mut bytes)?;
    mote::ExecOutcome::decode(bytes.as_slice()).map(Some).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

//! One writer a store.

use super::StoreError;
use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::path::Path;

/// Held while the writer lives; the kernel gives it up when the process dies.
#[derive(Debug)]
pub(super) struct WriterLock(#[expect(dead_code, reason = "held, not read")] File);

/// Makes the store's directories if need be and becomes their writer.
pub(super) fn acquire(dir: &Path) -> Result<WriterLock, StoreError> {
    for sub in ["packs", "large", "tmp"] {
        let path = dir.join(sub);
        std::fs::create_dir_all(&path).map_err(StoreError::io(&path))?;
    }
    let path = dir.join("writer.lock");
    let file =
        OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(StoreError::io(&path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(WriterLock(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::Locked { dir: dir.to_owned() }),
        Err(error) => Err(StoreError::Io { path, source: error.into() }),
    }
}

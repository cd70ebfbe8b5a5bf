//! Blobs that are files of their own.

use super::{Blob, StoreError};
use motefarm_core::Digest;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, utimensat};
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// `large/<2 hex>/<hash>`. The size is the file's.
pub(super) fn path(dir: &Path, digest: &Digest) -> PathBuf {
    let hash = digest.hash_hex();
    dir.join("large").join(&hash[..2]).join(hash)
}

/// Opens a large blob; `None` if there is no such file or it has another size.
pub(super) fn open(dir: &Path, digest: &Digest) -> Result<Option<Blob>, StoreError> {
    let path = path(dir, digest);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io(&path)(error)),
    };
    let size = file.metadata().map_err(StoreError::io(&path))?.len();
    Ok((size == digest.size_bytes()).then(|| Blob::stretch(Arc::new(file), 0, size)))
}

/// Whether a large blob is there, without opening it.
pub(super) fn exists(dir: &Path, digest: &Digest) -> bool {
    std::fs::metadata(path(dir, digest)).is_ok_and(|meta| meta.len() == digest.size_bytes())
}

/// Notes a use on disk; a failure only makes the order of eviction less exact.
pub(super) fn set_mtime_now(path: &Path) {
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let times = Timestamps { last_access: now, last_modification: now };
    if let Err(error) = utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW) {
        tracing::debug!(path = %path.display(), %error, "use of a blob not noted");
    }
}

//! Reading the files that the cache does not know.

use super::walk::{FileContent, ItemKind, Walked};
use super::{SnapshotError, platform};
use crate::stat_cache::{self, FileStat};
use crate::work_queue;
use motefarm_core::Digest;
use motefarm_core::digest::DigestHasher;
use std::io::{self, ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Files a thread takes at a time.
const FILES_A_JOB: usize = 16;
const READ_BYTES: usize = 128 << 10;
/// How often a file that changes under the reader is read before giving up.
const TRIES: usize = 3;

/// Hashes what is unknown; how many files that were.
pub(super) fn hash_unknown(root: &Path, walked: &mut Walked) -> Result<u64, SnapshotError> {
    let mut unknown: Vec<(usize, usize, PathBuf)> = Vec::new();
    for (d, directory) in walked.directories.iter().enumerate() {
        for (i, item) in directory.items.iter().enumerate() {
            if let ItemKind::File { content: FileContent::Unknown, .. } = item.kind {
                unknown.push((d, i, root.join(&directory.path).join(platform::bytes_name(&item.name))));
            }
        }
    }
    let hashed = Mutex::new(Vec::with_capacity(unknown.len()));
    let jobs: Vec<&[(usize, usize, PathBuf)]> = unknown.chunks(FILES_A_JOB).collect();
    work_queue::run(jobs, |job, _| {
        let mut buf = vec![0; READ_BYTES];
        for (d, i, path) in job {
            let file = hash_file(path, &mut buf)?;
            hashed.lock().unwrap_or_else(PoisonError::into_inner).push((*d, *i, file));
        }
        Ok(())
    })?;
    for (d, i, file) in hashed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        let kind = &mut walked.directories[d].items[i].kind;
        *kind = match (file, &*kind) {
            (Some(Hashed { stat, digest, settled }), ItemKind::File { stat: walked, .. }) => ItemKind::File {
                // The mode a platform or rule made up stays.
                stat: if cfg!(unix) { stat } else { FileStat { mode: walked.mode, ..stat } },
                content: FileContent::Known { digest, settled },
            },
            _ => ItemKind::Vanished,
        };
    }
    Ok(unknown.len() as u64)
}

struct Hashed {
    stat: FileStat,
    digest: Digest,
    settled: bool,
}

/// Hashes one file; `None` if it is gone.
fn hash_file(path: &Path, buf: &mut [u8]) -> Result<Option<Hashed>, SnapshotError> {
    for _ in 0..TRIES {
        match try_hash(path, buf) {
            Ok(Some(hashed)) => return Ok(Some(hashed)),
            Ok(None) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            // Replaced by a link since it was walked: it can not be the file of this walk any more.
            #[cfg(unix)]
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => break,
            Err(error) => return Err(SnapshotError::io(path)(error)),
        }
    }
    Err(SnapshotError::Changing(path.to_owned()))
}

/// One reading; `None` if the file changed meanwhile.
fn try_hash(path: &Path, buf: &mut [u8]) -> io::Result<Option<Hashed>> {
    let mut file = platform::open_plain(path)?;
    let known_at_ns = stat_cache::now_ns();
    let before = file.metadata()?;
    if !before.is_file() {
        return Ok(None);
    }
    let mut hasher = DigestHasher::new();
    loop {
        match file.read(buf) {
            Ok(0) => break,
            Ok(read) => hasher.update(&buf[..read]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let stat = platform::file_stat(&file.metadata()?);
    let digest = hasher.finish();
    let unchanged = stat == platform::file_stat(&before) && stat.size == digest.size_bytes();
    Ok(unchanged.then(|| Hashed { stat, digest, settled: stat.is_settled(known_at_ns) }))
}

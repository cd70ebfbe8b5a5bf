//! Writing one file or link.

use super::SyncError;
use super::compare::file_stat;
use super::dirs::{self, create, failed, join, permitted, shown};
use crate::stat_cache::{CachedFile, FileStat};
use crate::store::{Blob, BlobSource};
use crate::tree::{Entry, EntryKind};
use motefarm_core::Digest;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, fchmod, fstat, openat, renameat, symlinkat, unlinkat};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};

/// How names of files under way begin. A sync that was killed leaves some; the next one removes them.
pub(super) const TEMP_PREFIX: &str = ".mote-sync-";

/// Most bytes copied at a time.
const COPY_BYTES: usize = 256 << 10;

/// Writes files into directories; one a thread.
pub(super) struct Writer<'a> {
    source: &'a dyn BlobSource,
    temp_names: &'a TempNames,
    buf: Vec<u8>,
}

/// Names that nothing else has.
pub(super) struct TempNames {
    prefix: String,
    next: AtomicU64,
}

impl TempNames {
    pub(super) fn new() -> Self {
        Self { prefix: format!("{TEMP_PREFIX}{}-", uuid::Uuid::new_v4().simple()), next: AtomicU64::new(0) }
    }

    fn next(&self) -> Vec<u8> {
        format!("{}{}", self.prefix, self.next.fetch_add(1, Ordering::Relaxed)).into_bytes()
    }
}

impl<'a> Writer<'a> {
    pub(super) fn new(source: &'a dyn BlobSource, temp_names: &'a TempNames) -> Self {
        Self { source, temp_names, buf: Vec::new() }
    }

    /// Writes `entry` into `dir`, whose path is `path`. In a directory that this sync has made
    /// (`fresh`) it is written in place: nobody can have seen it without. Returns what the index is
    /// to know of a file.
    pub(super) fn write(
        &mut self,
        dir: &OwnedFd,
        path: &[u8],
        entry: &Entry,
        fresh: bool,
    ) -> Result<Option<CachedFile>, SyncError> {
        let full_path = || join(path, &entry.name);
        match &entry.kind {
            EntryKind::File { digest, mode } => {
                let stat = self.file(dir, &entry.name, digest, *mode, fresh, &full_path())?;
                Ok(Some(CachedFile { name: entry.name.clone(), stat, hash: *digest.hash() }))
            }
            EntryKind::Symlink { target } => {
                if fresh {
                    match symlinkat(target.as_slice(), dir, entry.name.as_slice()) {
                        Err(Errno::EXIST) => {}
                        result => return result.map(|()| None).map_err(failed(&full_path())),
                    }
                }
                let temp = self.temp_names.next();
                permitted(dir, || symlinkat(target.as_slice(), dir, temp.as_slice())).map_err(failed(&full_path()))?;
                self.rename(dir, &temp, &entry.name, &full_path())?;
                Ok(None)
            }
            EntryKind::Directory { .. } => Ok(None),
        }
    }

    fn file(
        &mut self,
        dir: &OwnedFd,
        name: &[u8],
        digest: &Digest,
        mode: u32,
        fresh: bool,
        path: &[u8],
    ) -> Result<FileStat, SyncError> {
        let blob = self.source.open(digest)?;
        let blob = blob.ok_or_else(|| SyncError::Vanished { digest: *digest, path: shown(path) })?;
        if fresh {
            match create(dir, name, mode) {
                Ok(file) => return self.fill(&file, &blob, mode).map_err(|error| io_failed(path, error)),
                // A command was quicker. What it made is replaced like anything else.
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(failed(path)(errno)),
            }
        }
        let temp = self.temp_names.next();
        let file = permitted(dir, || create(dir, &temp, mode)).map_err(failed(path))?;
        if let Err(error) = self.fill(&file, &blob, mode) {
            let _ = unlinkat(dir, temp.as_slice(), AtFlags::empty());
            return Err(io_failed(path, error));
        }
        self.rename(dir, &temp, name, path)?;
        // Renaming moves the change time.
        Ok(file_stat(&fstat(&file).map_err(failed(path))?))
    }

    /// Content and mode of a file just created.
    fn fill(&mut self, mut file: &File, blob: &Blob, mode: u32) -> io::Result<FileStat> {
        let len = usize::try_from(blob.size()).unwrap_or(usize::MAX).min(COPY_BYTES);
        if self.buf.len() < len {
            self.buf.resize(len, 0);
        }
        let mut offset = 0;
        while offset < blob.size() {
            let read = blob.read_at(&mut self.buf, offset)?;
            file.write_all(&self.buf[..read])?;
            offset += read as u64;
        }
        let stat = fstat(file)?;
        if dirs::mode_of(&stat) == mode {
            return Ok(file_stat(&stat));
        }
        // What the process's umask took away.
        fchmod(file, dirs::mode(mode))?;
        Ok(file_stat(&fstat(file)?))
    }

    fn rename(&self, dir: &OwnedFd, temp: &[u8], name: &[u8], path: &[u8]) -> Result<(), SyncError> {
        permitted(dir, || renameat(dir, temp, dir, name)).map_err(|errno| {
            let _ = unlinkat(dir, temp, AtFlags::empty());
            failed(path)(errno)
        })
    }
}

fn io_failed(path: &[u8], error: io::Error) -> SyncError {
    match Errno::from_io_error(&error) {
        Some(errno) => failed(path)(errno),
        None => SyncError::Io { path: shown(path), source: error },
    }
}

/// Sets the mode of a file and tells its new stat data.
pub(super) fn set_mode(dir: &OwnedFd, name: &[u8], mode: u32) -> Result<FileStat, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match openat(dir, name, flags, Mode::empty()) {
        Ok(file) => {
            if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
                return Err(Errno::AGAIN);
            }
            fchmod(&file, dirs::mode(mode))?;
        }
        Err(Errno::ACCESS) => dirs::chmod_unopenable(dir, name, FileType::RegularFile, mode)?,
        Err(errno) => return Err(errno),
    }
    dirs::stat(dir, name).map(|stat| file_stat(&stat))
}

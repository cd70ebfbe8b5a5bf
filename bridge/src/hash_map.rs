//! What each hash key stands for in the backend's CAS: the one thing the bridge remembers.
//!
//! It says nothing of whether the content is still there; whoever asks for it finds out. Content never
//! changes under its key, so an entry is written once and is good for ever: the map is two append-only logs
//! (`log`), the current one and the one before it. When the current one is full it becomes the former, and
//! the former is removed; what is asked for in the former is written to the current one again. So the map is
//! bounded, and what is used stays.
//!
//! In memory are eight bytes of each key and a position; the rest is read from the page cache, but for what
//! was asked for lately (`recent`): hundreds of headers are in every request. Nothing is synced: the death of the process loses nothing, and after a power cut a record that is not whole ends its
//! log, which costs uploads and no truth.

mod index;
mod log;
mod recent;
mod record;

use crate::file_blob::{CHUNK_BYTES, HashKey};
use log::Log;
use motefarm_core::Digest;
use recent::Recent;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::{fs, io};

/// Entries in both logs together, unless told otherwise.
pub const DEFAULT_MAX_ENTRIES: usize = 4_000_000;

/// What a hash key stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A whole file of up to 2 MiB.
    File(Digest),
    /// A piece of a longer one.
    Chunk {
        /// Where in its file it belongs.
        offset: u64,
        /// The blob it lies in: one of its own, or the whole file.
        blob: Digest,
        /// Where in that blob.
        start: u64,
        /// How long it is.
        length: u64,
    },
    /// A longer file.
    Meta {
        /// The whole.
        whole: Digest,
        /// Its chunks, in order.
        chunks: Vec<HashKey>,
    },
}

impl Entry {
    /// The blob that must be in the CAS for this to be of use.
    pub const fn blob(&self) -> Digest {
        match self {
            Self::File(digest) | Self::Chunk { blob: digest, .. } | Self::Meta { whole: digest, .. } => *digest,
        }
    }

    /// Those of a longer file that lies in the CAS as one blob: its chunks, which are ranges of it, and itself.
    pub fn of_whole(key: HashKey, whole: Digest, chunks: Vec<HashKey>) -> Vec<(HashKey, Self)> {
        let range = |(n, key): (usize, &HashKey)| {
            let offset = n as u64 * CHUNK_BYTES as u64;
            let length = whole.size_bytes().saturating_sub(offset).min(CHUNK_BYTES as u64);
            (*key, Self::Chunk { offset, blob: whole, start: offset, length })
        };
        let mut entries: Vec<_> = chunks.iter().enumerate().map(range).collect();
        entries.push((key, Self::Meta { whole, chunks }));
        entries
    }
}

/// Why the map can not be used.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// A file could not be read or written.
    #[error("the hash map {} can not be used: {source}", .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another bridge has it.
    #[error("another mote-bridge uses {}; give this one a --data-dir of its own", .0.display())]
    InUse(PathBuf),
}

/// See the module. Cheap to clone. `get` and `put` block, for microseconds unless the disk is asked.
#[derive(Clone)]
pub struct HashMap(Arc<Inner>);

struct Inner {
    logs: Mutex<Logs>,
    /// Never locked for longer than memory takes.
    recent: Mutex<Recent>,
}

struct Logs {
    dir: PathBuf,
    max_in_log: usize,
    current: Log,
    former: Option<Log>,
    /// Held for as long as the map is.
    _lock: fs::File,
}

impl HashMap {
    /// Opens the map in `dir`, which is made if need be.
    pub fn open(dir: &Path, max_entries: usize) -> Result<Self, MapError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| MapError::Io { path, source }
        };
        motefarm_net::private_file::create_dir(dir).map_err(failed(dir))?;
        let lock_path = dir.join("lock");
        let lock = fs::File::create(&lock_path).map_err(failed(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(MapError::InUse(dir.to_owned())),
            Err(fs::TryLockError::Error(source)) => return Err(MapError::Io { path: lock_path, source }),
        }
        let (current, former) = (dir.join("current"), dir.join("former"));
        let former_log = if former.exists() { Some(Log::open(&former).map_err(failed(&former))?) } else { None };
        let logs = Logs {
            dir: dir.to_owned(),
            max_in_log: (max_entries / 2).max(1),
            current: Log::open(&current).map_err(failed(&current))?,
            former: former_log,
            _lock: lock,
        };
        Ok(Self(Arc::new(Inner { logs: Mutex::new(logs), recent: Mutex::default() })))
    }

    /// What each key stands for, in order, if all of them were asked for lately. Does not block.
    pub fn recent(&self, keys: &[HashKey]) -> Option<Vec<Option<Entry>>> {
        let recent = self.lately();
        let mut known = Vec::with_capacity(keys.len());
        for key in keys {
            known.push(Some(Entry::File(recent.get(key)?)));
        }
        Some(known)
    }

    /// Whether all of these were asked for or put lately. Does not block.
    pub fn knows(&self, entries: &[(HashKey, Entry)]) -> bool {
        let recent = self.lately();
        entries.iter().all(|(key, entry)| recent.get(key).is_some_and(|digest| *entry == Entry::File(digest)))
    }

    /// What each key stands for, in order.
    pub fn get(&self, keys: &[HashKey]) -> io::Result<Vec<Option<Entry>>> {
        let mut logs = self.logs();
        let mut found = Vec::with_capacity(keys.len());
        let mut again = Vec::new();
        for key in keys {
            let mut entry = logs.current.get(key)?;
            if entry.is_none()
                && let Some(former) = &logs.former
            {
                entry = former.get(key)?;
                again.extend(entry.clone().map(|entry| (*key, entry)));
            }
            found.push(entry);
        }
        let turned = logs.append(&again)?;
        drop(logs);
        let entries = keys.iter().zip(&found).filter_map(|(key, entry)| Some((key, entry.as_ref()?)));
        self.notice(turned, entries);
        Ok(found)
    }

    /// Remembers all of them. What is there already is written only if it says something else.
    pub fn put(&self, entries: &[(HashKey, Entry)]) -> io::Result<()> {
        let mut logs = self.logs();
        let mut fresh = Vec::with_capacity(entries.len());
        for (key, entry) in entries {
            if logs.current.get(key)?.as_ref() != Some(entry) {
                fresh.push((*key, entry.clone()));
            }
        }
        let turned = logs.append(&fresh)?;
        drop(logs);
        self.notice(turned, entries.iter().map(|(key, entry)| (key, entry)));
        Ok(())
    }

    /// Once the logs were turned, every key must be looked for in them again: what is used is kept by that.
    fn notice<'a>(&self, turned: bool, entries: impl Iterator<Item = (&'a HashKey, &'a Entry)>) {
        let mut recent = self.lately();
        if turned {
            *recent = Recent::default();
        }
        for (key, entry) in entries {
            if let Entry::File(digest) = entry {
                recent.insert(*key, *digest);
            }
        }
    }

    fn lately(&self) -> MutexGuard<'_, Recent> {
        self.0.recent.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// How many keys it knows; one in both logs counts twice.
    pub fn len(&self) -> usize {
        let logs = self.logs();
        logs.current.len() + logs.former.as_ref().map_or(0, Log::len)
    }

    /// Whether it knows nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn logs(&self) -> MutexGuard<'_, Logs> {
        self.0.logs.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Logs {
    /// Whether the current log was full and another was begun.
    fn append(&mut self, entries: &[(HashKey, Entry)]) -> io::Result<bool> {
        if entries.is_empty() {
            return Ok(false);
        }
        let full = self.current.len() >= self.max_in_log;
        if full {
            let (current, former) = (self.dir.join("current"), self.dir.join("former"));
            fs::rename(&current, &former)?;
            let fresh = Log::open(&current)?;
            self.former = Some(std::mem::replace(&mut self.current, fresh));
        }
        self.current.append(entries)?;
        Ok(full)
    }
}

/// For `fuzzing`: makes checksums right where they are not, and gives the keys.
pub(crate) fn mend(log: &mut [u8]) -> Vec<HashKey> {
    record::mend(log)
}

#[cfg(test)]
mod tests;

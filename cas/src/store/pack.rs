//! Pack files: appending to the active one, opening them all.

use super::StoreError;
use super::error::is_no_room;
use super::record::{RECORD_BYTES, Record};
use motefarm_core::Digest;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// `packs/<n>.pack`.
pub(super) fn pack_path(dir: &Path, number: u32) -> PathBuf {
    dir.join("packs").join(format!("{number:08x}.pack"))
}

/// `packs/<n>.idx`.
pub(super) fn index_path(dir: &Path, number: u32) -> PathBuf {
    dir.join("packs").join(format!("{number:08x}.idx"))
}

/// The number in the name of an index log.
pub(super) fn number_of_index(name: &str) -> Option<u32> {
    number_of(name, ".idx")
}

/// The number in the name of a pack.
pub(super) fn number_of_pack(name: &str) -> Option<u32> {
    number_of(name, ".pack")
}

fn number_of(name: &str, extension: &str) -> Option<u32> {
    let digits = name.strip_suffix(extension)?;
    (digits.len() == 8).then(|| u32::from_str_radix(digits, 16).ok()).flatten()
}

/// Where an unsealed pack ends, as recovery found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PackEnd {
    pub(super) number: u32,
    pub(super) data_bytes: u64,
    pub(super) index_bytes: u64,
}

/// Which pack is appended to next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Active {
    /// An unsealed one.
    Resume(PackEnd),
    /// A new one of this number.
    New(u32),
}

/// Appends to the active pack.
#[derive(Debug)]
pub(super) struct PackWriter {
    dir: PathBuf,
    full_at: u64,
    end: PackEnd,
    pack: File,
    index: File,
    /// At most one pack is being synced behind the scenes; the next to be sealed waits for it.
    sealing: Option<JoinHandle<()>>,
}

impl PackWriter {
    pub(super) fn resume(dir: &Path, full_at: u64, active: Active) -> Result<Self, StoreError> {
        let end = match active {
            Active::Resume(end) => end,
            Active::New(number) => PackEnd { number, data_bytes: 0, index_bytes: 0 },
        };
        let (pack, index) = open_for_append(dir, end.number)?;
        Ok(Self { dir: dir.to_owned(), full_at, end, pack, index, sealing: None })
    }

    /// The active pack.
    pub(super) fn number(&self) -> u32 {
        self.end.number
    }

    /// Whether the active pack holds anything.
    pub(super) fn is_empty(&self) -> bool {
        self.end.data_bytes == 0
    }

    /// Appends contents in one write and their records in another; the blobs' place in the order
    /// given. When it fails nothing of it is there. Seals the pack first if they do not fit.
    pub(super) fn append(&mut self, blobs: &[(Digest, &[u8])]) -> Result<Appended, StoreError> {
        let bytes: usize = blobs.iter().map(|(_, content)| content.len()).sum();
        let full = self.end.data_bytes + bytes as u64 > self.full_at || self.end.index_bytes > MAX_INDEX_BYTES;
        if full && !self.is_empty() {
            self.seal()?;
        }
        let mut data = Vec::with_capacity(bytes);
        let mut records = Vec::with_capacity(blobs.len() * RECORD_BYTES);
        let mut offsets = Vec::with_capacity(blobs.len());
        for (digest, content) in blobs {
            let offset = self.end.data_bytes + data.len() as u64;
            offsets.push(offset);
            data.extend_from_slice(content);
            Record::Blob { digest: *digest, offset }.encode(&mut records);
        }
        if let Err(error) = self.pack.write_all_at(&data, self.end.data_bytes) {
            return Err(self.undo(&self.pack, self.end.data_bytes, error, bytes as u64));
        }
        // From here on a reader may see records that are cut off again below: the place of the
        // data is not used a second time.
        self.end.data_bytes += data.len() as u64;
        if let Err(error) = self.index.write_all_at(&records, self.end.index_bytes) {
            return Err(self.undo(&self.index, self.end.index_bytes, error, bytes as u64));
        }
        self.end.index_bytes += records.len() as u64;
        Ok(Appended { number: self.end.number, offsets, disk_bytes: (data.len() + records.len()) as u64 })
    }

    /// Cuts off what a failed write left.
    fn undo(&self, file: &File, end: u64, error: io::Error, bytes: u64) -> StoreError {
        if let Err(error) = file.set_len(end) {
            tracing::warn!(pack = self.end.number, %error, "tail of a failed write stays until the next start");
        }
        if is_no_room(&error) {
            return StoreError::Full { dir: self.dir.clone(), bytes };
        }
        StoreError::Io { path: pack_path(&self.dir, self.end.number), source: error }
    }

    /// Starts the next pack and has this one synced behind the scenes.
    pub(super) fn seal(&mut self) -> Result<(), StoreError> {
        let next = PackEnd { number: self.end.number + 1, data_bytes: 0, index_bytes: 0 };
        let (pack, index) = open_for_append(&self.dir, next.number)?;
        let full_pack = std::mem::replace(&mut self.pack, pack);
        let full_index = std::mem::replace(&mut self.index, index);
        let full = std::mem::replace(&mut self.end, next);
        self.wait_for_seal();
        let sealing = std::thread::Builder::new().name("cas-seal".to_owned()).spawn(move || {
            if let Err(error) = write_seal(&full_pack, &full_index, full.index_bytes) {
                tracing::warn!(pack = full.number, %error, "pack not sealed; a reboot will have it verified");
            }
        });
        // Without a thread the pack stays unsealed, which costs a verification after a reboot.
        self.sealing = sealing.ok();
        Ok(())
    }

    fn wait_for_seal(&mut self) {
        if let Some(sealing) = self.sealing.take()
            && sealing.join().is_err()
        {
            tracing::warn!("the sealing thread panicked");
        }
    }
}

impl Drop for PackWriter {
    fn drop(&mut self) {
        self.wait_for_seal();
    }
}

/// Where an append went.
#[derive(Debug)]
pub(super) struct Appended {
    pub(super) number: u32,
    pub(super) offsets: Vec<u64>,
    /// What data and records take up.
    pub(super) disk_bytes: u64,
}

/// Syncs a full pack, then says so. The seal itself need not reach the disk: without it the pack
/// is verified.
pub(super) fn write_seal(pack: &File, index: &File, index_bytes: u64) -> io::Result<()> {
    pack.sync_data()?;
    index.sync_data()?;
    let mut seal = Vec::with_capacity(RECORD_BYTES);
    Record::Seal.encode(&mut seal);
    index.write_all_at(&seal, index_bytes)
}

fn open_for_append(dir: &Path, number: u32) -> Result<(File, File), StoreError> {
    let open = |path: &Path| {
        OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path).map_err(|source| {
            if is_no_room(&source) {
                return StoreError::Full { dir: dir.to_owned(), bytes: 0 };
            }
            StoreError::io(path)(source)
        })
    };
    // The pack first: an index log without a pack would name what is not there.
    Ok((open(&pack_path(dir, number))?, open(&index_path(dir, number))?))
}

/// Packs open for reading, a bounded number of them.
#[derive(Debug)]
pub(super) struct OpenPacks {
    dir: PathBuf,
    files: Mutex<HashMap<u32, Arc<File>>>,
}

impl OpenPacks {
    pub(super) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), files: Mutex::default() }
    }

    /// The pack's file; `None` if there is none.
    pub(super) fn get(&self, number: u32) -> Result<Option<Arc<File>>, StoreError> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = files.get(&number) {
            return Ok(Some(Arc::clone(file)));
        }
        let path = pack_path(&self.dir, number);
        let file = match File::open(&path) {
            Ok(file) => Arc::new(file),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io(&path)(error)),
        };
        if files.len() >= MAX_OPEN_PACKS {
            files.clear();
        }
        files.insert(number, Arc::clone(&file));
        Ok(Some(file))
    }

    /// Closes an evicted pack, so that its space is given back once nobody reads it.
    pub(super) fn close(&self, number: u32) {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
    }

    /// Closes the packs `stays` does not want.
    pub(super) fn retain(&self, stays: impl Fn(u32) -> bool) {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).retain(|number, _| stays(*number));
    }
}

/// A pack of tiny blobs is full when its index log is this large (some 300,000 records), which is
/// also what a reader takes into memory at once.
const MAX_INDEX_BYTES: u64 = 16 << 20;

/// A quarter of the usual limit of 1024 descriptors; the default store has 320 packs.
const MAX_OPEN_PACKS: usize = 256;

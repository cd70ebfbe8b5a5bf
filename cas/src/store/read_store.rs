//! Reading a store that another process writes.

use super::pack::{self, OpenPacks, index_path};
use super::record::{RECORD_BYTES, Record};
use super::{Blob, BlobSource, MAX_PACKED_BLOB_BYTES, StoreError, large};
use motefarm_core::Digest;
use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A view of a store in the hands of another process. It catches up with the index logs when it
/// does not find something, and takes evicted packs for what they are: gone. It changes nothing, so
/// what it reads does not count as used; whoever needs blobs to stay has the writer pin them.
#[derive(Debug, Clone)]
pub struct ReadStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    open_packs: OpenPacks,
    seen: Mutex<Seen>,
}

/// What the index logs have told so far.
#[derive(Debug, Default)]
struct Seen {
    places: HashMap<Digest, (u32, u64)>,
    /// The pack with the highest number, which alone grows.
    newest: Option<Newest>,
    /// Modification time of `packs/` before it was last listed.
    listed: Option<(i64, i64)>,
}

#[derive(Debug)]
struct Newest {
    number: u32,
    index: File,
    read_bytes: u64,
}

impl ReadStore {
    /// Looks at the store in `dir`, which need not exist yet.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let store =
            Self(Arc::new(Inner { dir: dir.to_owned(), open_packs: OpenPacks::new(dir), seen: Mutex::default() }));
        store.seen().catch_up(&store.0)?;
        Ok(store)
    }

    /// Where a blob lies is not believed any more: it is there again once the writer has written it again.
    pub fn forget(&self, digest: &Digest) {
        self.seen().places.remove(digest);
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(&self, digest: &Digest) -> Result<Option<(u32, u64)>, StoreError> {
        let mut seen = self.seen();
        if let Some(place) = seen.places.get(digest) {
            return Ok(Some(*place));
        }
        seen.catch_up(&self.0)?;
        Ok(seen.places.get(digest).copied())
    }
}

impl Seen {
    /// Reads what has been written since. When nothing has, this is three `stat` calls.
    fn catch_up(&mut self, store: &Inner) -> Result<(), StoreError> {
        self.read_newest(store)?;
        while let Some(newest) = &self.newest {
            let next = newest.number + 1;
            let Some(index) = open_if_there(&index_path(&store.dir, next))? else { break };
            // The writer appends to the older pack no more once the newer one is there; what it
            // wrote in between has to be read still.
            self.read_newest(store)?;
            self.newest = Some(Newest { number: next, index, read_bytes: 0 });
            self.read_newest(store)?;
        }
        let packs_dir = store.dir.join("packs");
        let stamp = match std::fs::metadata(&packs_dir) {
            Ok(meta) => Some((meta.mtime(), meta.mtime_nsec())),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(StoreError::io(&packs_dir)(error)),
        };
        if self.listed != stamp {
            self.list(store, &packs_dir)?;
            self.listed = stamp;
        }
        Ok(())
    }

    /// Finds packs by listing: at the beginning, and when some may have come and gone unseen.
    fn list(&mut self, store: &Inner, packs_dir: &Path) -> Result<(), StoreError> {
        let mut numbers = BTreeSet::new();
        for entry in std::fs::read_dir(packs_dir).map_err(StoreError::io(packs_dir))? {
            let name = entry.map_err(StoreError::io(packs_dir))?.file_name();
            numbers.extend(name.to_str().and_then(pack::number_of_index));
        }
        self.places.retain(|_, (number, _)| numbers.contains(number));
        store.open_packs.retain(|number| numbers.contains(&number));
        let known = self.newest.as_ref().map_or(0, |newest| newest.number);
        for number in numbers.into_iter().filter(|number| *number > known) {
            if let Some(index) = open_if_there(&index_path(&store.dir, number))? {
                self.newest = Some(Newest { number, index, read_bytes: 0 });
                self.read_newest(store)?;
            }
        }
        Ok(())
    }

    fn read_newest(&mut self, store: &Inner) -> Result<(), StoreError> {
        let Some(newest) = &mut self.newest else { return Ok(()) };
        let path = || index_path(&store.dir, newest.number);
        let bytes = newest.index.metadata().map_err(|e| StoreError::io(&path())(e))?.len();
        let whole = bytes - bytes % RECORD_BYTES as u64;
        if whole <= newest.read_bytes {
            return Ok(());
        }
        let mut log = vec![0; usize::try_from(whole - newest.read_bytes).unwrap_or(0)];
        match newest.index.read_exact_at(&mut log, newest.read_bytes) {
            Ok(()) => {}
            // Cut by a recovering writer between the two calls: the next miss reads again.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(StoreError::io(&path())(error)),
        }
        for record in Record::decode_all(&log) {
            newest.read_bytes += RECORD_BYTES as u64;
            if let Record::Blob { digest, offset } = record {
                self.places.insert(digest, (newest.number, offset));
            }
        }
        Ok(())
    }
}

fn open_if_there(path: &Path) -> Result<Option<File>, StoreError> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::io(path)(error)),
    }
}

impl BlobSource for ReadStore {
    fn contains(&self, digest: &Digest) -> bool {
        if *digest == Digest::EMPTY {
            return true;
        }
        if digest.size_bytes() > MAX_PACKED_BLOB_BYTES {
            return large::exists(&self.0.dir, digest);
        }
        // Opened, not just looked up: the pack may be gone.
        self.open(digest).is_ok_and(|blob| blob.is_some())
    }

    fn open(&self, digest: &Digest) -> Result<Option<Blob>, StoreError> {
        if *digest == Digest::EMPTY {
            return Ok(Some(Blob::empty()));
        }
        if digest.size_bytes() > MAX_PACKED_BLOB_BYTES {
            return large::open(&self.0.dir, digest);
        }
        // A pack that vanished may have been copied forward: forget the place and look again.
        while let Some((number, offset)) = self.place(digest)? {
            if let Some(file) = self.0.open_packs.get(number)? {
                return Ok(Some(Blob::stretch(file, offset, digest.size_bytes())));
            }
            self.seen().places.retain(|_, (n, _)| *n != number);
        }
        Ok(None)
    }
}

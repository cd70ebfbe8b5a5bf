//! Blobs and trees: which store this buildlet reads, and bringing directories to trees.

use crate::error::AgentError;
use crate::instance::Instance;
use crate::layout::{DataDir, instance};
use motefarm_cas::batch::{BatchError, BatchReceiver};
use motefarm_cas::store::{BlobSource, PinGuard, ReadStore, Store, StoreError, StoreLimits};
use motefarm_cas::sync::{SyncError, SyncPlan, sync_tree};
use motefarm_core::{Digest, WorkPath};
use motefarm_proto::convert::{self, FieldError};
use motefarm_proto::mote::{TreeSync, TreeSyncResult};
use sha2::Digest as _;
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where blobs come from.
#[derive(Clone)]
pub(crate) enum Blobs {
    /// The coordinator's store on this machine, read only.
    Farm(ReadStore),
    /// Our own.
    Own(Store),
}

impl Blobs {
    /// The coordinator's store in `farm`, or our own in the data directory.
    pub(crate) fn open(farm: Option<&Path>, data: &DataDir) -> Result<Self, StoreError> {
        match farm {
            Some(dir) => ReadStore::open(dir).map(Self::Farm),
            None => Store::open(&data.store(), StoreLimits::default()).map(Self::Own),
        }
    }

    /// Which of `digests` are not there. Blocks for the disk.
    pub(crate) fn missing(&self, digests: &[Digest]) -> Vec<Digest> {
        match self {
            Self::Farm(store) => digests.iter().filter(|digest| !store.contains(digest)).copied().collect(),
            Self::Own(store) => store.missing(digests),
        }
    }

    /// A receiver of uploads.
    pub(crate) fn receiver(&self) -> Result<BatchReceiver, AgentError> {
        match self {
            Self::Own(store) => Ok(BatchReceiver::new(store.clone())),
            Self::Farm(_) => {
                Err(AgentError::Refused("this buildlet reads the coordinator's store: upload there".to_owned()))
            }
        }
    }

    /// Throws out content that is not what its digest says, so that it counts as missing.
    pub(crate) fn discard(&self, digest: &Digest) {
        match self {
            Self::Farm(store) => store.forget(digest),
            Self::Own(store) => store.discard(digest),
        }
    }

    /// Keeps these from eviction while the guard lives. The coordinator's are the coordinator's to keep.
    pub(crate) fn pin(&self, digests: Vec<Digest>) -> Option<PinGuard> {
        match self {
            Self::Farm(_) => None,
            Self::Own(store) => Some(store.pin(digests)),
        }
    }

    pub(crate) fn source(&self) -> &dyn BlobSource {
        match self {
            Self::Farm(store) => store,
            Self::Own(store) => store,
        }
    }
}

/// Makes a directory of `instance` equal to a tree, after any other sync of that directory.
/// Finishes once begun only if the caller spawns it.
pub(crate) async fn sync(blobs: Blobs, of: Arc<Instance>, request: TreeSync) -> Result<TreeSyncResult, AgentError> {
    let dest = convert::work_path("sync.dest", &request.dest)?;
    let plan = parse(request)?;
    let lock = {
        let mut syncing = of.syncing.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        syncing.retain(|_, lock| Arc::strong_count(lock) > 1);
        syncing.entry(dest.as_str().to_owned()).or_default().clone()
    };
    let _syncing = lock.lock_owned().await;
    let life = of.life.read().await;
    of.check_alive()?;
    let (work, index) = (of.work_dir(), index_file(&of.dir, &dest));
    let syncing = tokio::task::spawn_blocking(move || {
        let work = File::open(&work).map_err(AgentError::io(format!("can not open {}", work.display())))?;
        sync_tree(work.as_fd(), &dest, &plan, blobs.source(), &index).map_err(explain)
    });
    let result = syncing.await.map_err(|e| AgentError::Unavailable(e.to_string()))?;
    drop(life);
    result
}

fn index_file(dir: &Path, dest: &WorkPath) -> PathBuf {
    dir.join(instance::TREES).join(hex::encode(sha2::Sha256::digest(dest.as_str())))
}

fn parse(request: TreeSync) -> Result<SyncPlan, AgentError> {
    let root = request.root.as_ref().ok_or_else(|| FieldError::new("sync.root", "is not set"))?;
    Ok(SyncPlan {
        root: convert::digest(root)?,
        ignore_files: request.ignore_files.into_iter().map(|file| (file.dir, file.content.to_vec())).collect(),
        keep: request.keep,
        dry_run: request.dry_run,
    })
}

fn explain(error: SyncError) -> AgentError {
    match error {
        SyncError::NotDirectory(_) => AgentError::Refused(error.to_string()),
        SyncError::Full(_) => AgentError::Exhausted(error.to_string()),
        SyncError::Tree { .. } | SyncError::TooLarge(_) => FieldError::new("sync.root", error).into(),
        SyncError::Vanished { .. } => AgentError::Unavailable(error.to_string()),
        SyncError::Io { path, source } => AgentError::io(path)(source),
        other => AgentError::Io { what: "the sync failed".to_owned(), source: io::Error::other(other.to_string()) },
    }
}

/// A batch's failure, as the caller hears of it.
pub(crate) fn explain_batch(error: BatchError) -> AgentError {
    if error.is_senders_fault() {
        return FieldError::new("batch", error).into();
    }
    AgentError::Io { what: "blobs could not be stored".to_owned(), source: io::Error::other(error.to_string()) }
}

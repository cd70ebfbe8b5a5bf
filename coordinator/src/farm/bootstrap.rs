//! The Go toolchain with which an instance builds Go, from a directory of the operator's.

use super::usage::Usage;
use super::{FarmError, transfer};
use crate::app::App;
use crate::identity::Identity;
use motefarm_cas::batch::{BatchPacker, BatchReceiver};
use motefarm_cas::snapshot::{SnapshotOptions, StatCache, snapshot};
use motefarm_cas::store::{PinGuard, Store as Cas};
use motefarm_core::{Digest, HostType};
use motefarm_proto::mote;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::Mutex;

/// Where it goes, as `gomote putbootstrap` has it.
const DEST: &str = "go1.4";

/// Toolchains that were asked for, by their directories: the tree each was last seen to be, pinned.
pub type Bootstraps = Mutex<HashMap<PathBuf, (Digest, Arc<PinGuard>)>>;

/// Puts the host type's toolchain in place, if there is one.
pub async fn install(
    app: &Arc<App>,
    caller: &Identity,
    instance: &str,
) -> Result<mote::InstallBootstrapResponse, FarmError> {
    let usage = Usage::begin(app, caller, instance).await?;
    let Some(dir) = app.config.bootstrap_of(&usage.row.host_type) else {
        return Ok(mote::InstallBootstrapResponse { configured: false, result: None });
    };
    let result = usage.during(async {
        let (root, _pinned) = current(app, dir, &usage.row.host_type).await?;
        let sync = mote::TreeSync { dest: DEST.to_owned(), root: Some(root.into()), ..Default::default() };
        let result = transfer::bring(app, &usage.session, &usage.row, &sync).await?;
        match result.missing.is_empty() {
            true => Ok(result),
            false => {
                Err(FarmError::Unavailable(format!("the toolchain changed while {DEST} was put in place; ask again")))
            }
        }
    });
    Ok(mote::InstallBootstrapResponse { configured: true, result: Some(result.await?) })
}

/// The tree that the directory is now, in the farm's store. Costs a walk; what changed is read.
async fn current(app: &Arc<App>, dir: &Path, host_type: &HostType) -> Result<(Digest, Arc<PinGuard>), FarmError> {
    // Held over the walk: who asks meanwhile would only walk the same directory beside it.
    let mut known = app.bootstraps.lock().await;
    let cache = app.config.data_dir.join("bootstrap").join(Digest::of(dir.as_os_str().as_encoded_bytes()).hash_hex());
    let (cas, from, before) = (app.cas.clone(), dir.to_owned(), known.get(dir).cloned());
    let taken = tokio::task::spawn_blocking(move || take(&cas, &from, &cache, before)).await;
    let problem = match taken {
        Ok(Ok((root, pinned))) => {
            known.insert(dir.to_owned(), (root, pinned.clone()));
            return Ok((root, pinned));
        }
        Ok(Err(problem)) => problem,
        Err(panic) => panic.to_string(),
    };
    tracing::error!(dir = %dir.display(), host.type = %host_type, "the bootstrap toolchain can not be used: {problem}");
    Err(FarmError::NotReady(format!(
        "the bootstrap toolchain of {host_type} can not be used: {problem}; \
         the farm's operator mends it (host_types.{host_type}.bootstrap)"
    )))
}

fn take(
    cas: &Cas,
    dir: &Path,
    cache_file: &Path,
    before: Option<(Digest, Arc<PinGuard>)>,
) -> Result<(Digest, Arc<PinGuard>), String> {
    let mut cache = StatCache::load(cache_file);
    let options = SnapshotOptions { use_gitignore: false, ..SnapshotOptions::default() };
    let taken = snapshot(dir, &options, &mut cache).map_err(|error| error.to_string())?;
    if let Err(error) = cache.save(cache_file) {
        tracing::warn!(file = %cache_file.display(), %error, "not remembered; the next start reads the toolchain again");
    }
    if let Some((root, pinned)) = before.filter(|(root, _)| *root == taken.root) {
        return Ok((root, pinned));
    }
    let digests: Vec<Digest> = taken.digests().collect();
    // Pinned before it is looked for, so that what is there does not go.
    let pinned = Arc::new(cas.pin(digests.clone()));
    let missing: HashSet<Digest> = cas.missing(&digests).into_iter().collect();
    let mut receiver = BatchReceiver::new(cas.clone());
    for batch in BatchPacker::new(taken.blobs(&missing)).uncompressed() {
        let batch = batch.map_err(|error| error.to_string())?;
        receiver.accept(batch).map_err(|error| error.to_string())?;
    }
    receiver.finish().map_err(|error| error.to_string())?;
    Ok((taken.root, pinned))
}

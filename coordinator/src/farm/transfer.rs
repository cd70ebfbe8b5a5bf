//! Trees into instances, archives out of them.

use super::usage::Usage;
use super::{FarmError, access};
use crate::app::App;
use crate::identity::Identity;
use crate::link::LinkError;
use crate::registry::Session;
use crate::store::InstanceRow;
use motefarm_cas::batch::{self, BatchPacker, Content, LocalBlob};
use motefarm_core::Digest;
use motefarm_proto::{convert, mote};
use std::sync::Arc;
use std::time::Instant;

/// Rounds of "what is missing" with a buildlet that keeps its own store: directories first, then
/// files, each in portions of at most 100,000.
const MOST_ROUNDS: usize = 64;

/// Brings a directory of an instance to a tree. Answers what blobs the farm lacks, if any.
pub async fn sync_tree(
    app: &Arc<App>,
    caller: &Identity,
    request: mote::SyncTreeRequest,
) -> Result<mote::TreeSyncResult, FarmError> {
    let sync = request.sync.ok_or_else(|| FarmError::Invalid("field sync: is missing".to_owned()))?;
    convert::work_path("sync.dest", &sync.dest)?;
    let root = sync.root.as_ref().ok_or_else(|| FarmError::Invalid("field sync.root: is missing".to_owned()))?;
    let root = convert::digest(root)?;
    let usage = Usage::begin(app, caller, &request.instance).await?;
    let _pinned = app.cas.pin(vec![root]);
    usage.during(bring(app, &usage.session, &usage.row, &sync)).await
}

/// Brings a directory of an instance to a tree; sends the buildlet what its own store lacks. Answers
/// what blobs the farm lacks, if any: then nothing was changed. A dry run sends nothing but directories.
pub async fn bring(
    app: &Arc<App>,
    session: &Arc<Session>,
    instance: &InstanceRow,
    sync: &mote::TreeSync,
) -> Result<mote::TreeSyncResult, FarmError> {
    for _ in 0..MOST_ROUNDS {
        let result = session.link.sync_tree(instance.id, sync.clone()).await?;
        if result.missing.is_empty() || session.reads_farm_store {
            return Ok(result);
        }
        let needed = result.missing.iter().map(convert::digest).collect::<Result<Vec<_>, _>>()?;
        let lacking = app.cas.missing(&needed);
        if !lacking.is_empty() || result.compared {
            return Ok(mote::TreeSyncResult { missing: lacking.into_iter().map(Into::into).collect(), ..result });
        }
        forward(app, session, needed).await?;
    }
    Err(FarmError::Unavailable(format!(
        "the buildlet of {} does not keep what it is sent; is its store full?",
        instance.name
    )))
}

/// Sends blobs of the farm's store to a buildlet's own.
pub(super) async fn forward(app: &App, session: &Session, digests: Vec<Digest>) -> Result<(), FarmError> {
    let _pinned = app.cas.pin(digests.clone());
    let store = Arc::new(app.cas.clone());
    let blobs = digests
        .into_iter()
        .map(move |digest| LocalBlob { digest, content: Content::Stored(store.clone()) })
        .collect::<Vec<_>>();
    let (batches, packed) = batch::stream(BatchPacker::new(blobs));
    let summary = session.link.upload(batches).await;
    if let Err(error) = packed.wait().await {
        return Err(FarmError::Unavailable(format!("blobs could not be read from the farm's store: {error}")));
    }
    match summary {
        Ok(summary) => {
            tracing::debug!(
                buildlet.id = session.buildlet_id,
                blobs = summary.stored,
                bytes = summary.stored_bytes,
                "forwarded"
            );
            Ok(())
        }
        Err(LinkError::Lost(why)) => {
            Err(FarmError::Unavailable(format!("the buildlet was lost while blobs were sent to it: {why}")))
        }
        Err(refused) => Err(refused.into()),
    }
}

/// Reaches an instance's buildlet. Answers the round trip's time in microseconds.
pub async fn ping(app: &Arc<App>, caller: &Identity, name: &str) -> Result<(mote::InstanceInfo, u64), FarmError> {
    let usage = Usage::begin(app, caller, name).await?;
    let asked = Instant::now();
    usage.session.link.describe().await?;
    let round_trip = u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX);
    let row = access::instance(app, caller, &usage.id()).await?;
    Ok((super::info::instance(app, &row), round_trip))
}

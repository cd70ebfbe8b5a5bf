//! Named trees: taken of an instance's directory, kept in the farm's store, put in place in instances
//! made from them.
//!
//! Pins are in memory, so what must stay is decided by rows: the trees of all snapshots, and those that
//! instances are still to be made from. They are pinned again before anything else happens at a start.

use super::usage::{Outgoing, Usage};
use super::{FarmError, groups, transfer};
use crate::app::App;
use crate::identity::Identity;
use crate::registry::Session;
use crate::store::{InstanceRow, SnapshotRow};
use bytes::Bytes;
use futures_util::StreamExt as _;
use motefarm_cas::snapshot::{FromTarError, FromTarLimits, TarSnapshot, from_tar, stored_tree};
use motefarm_cas::store::{PinGuard, StoreError as CasError};
use motefarm_core::Digest;
use motefarm_proto::{convert, mote};
use std::collections::{HashMap, HashSet};
use std::io::{self, Read};
use std::sync::Arc;
use tokio::sync::{Mutex, Semaphore, mpsc};

/// Most entries of a snapshot.
const MOST_ENTRIES: u64 = 2_000_000;
/// Snapshots taken at once; others wait their turn.
const AT_ONCE: usize = 2;
/// Pieces of an archive between its stream and its reader.
const PIECES_READY: usize = 4;

/// What keeps trees in the farm's store.
pub struct Kept {
    /// By root. Held while rows and pins change together.
    pins: Mutex<HashMap<Digest, Vec<PinGuard>>>,
    turns: Semaphore,
}

impl Default for Kept {
    fn default() -> Self {
        Self { pins: Mutex::default(), turns: Semaphore::new(AT_ONCE) }
    }
}

fn info(row: SnapshotRow) -> mote::SnapshotInfo {
    mote::SnapshotInfo {
        name: row.name.to_string(),
        owner: row.owner.to_string(),
        dir: row.dir,
        root: Some(row.root.into()),
        files: row.files,
        bytes: row.bytes,
        created_at_ms: row.created_at.as_millis(),
        host_type: row.host_type.to_string(),
    }
}

/// Keeps a directory of an instance as a named tree.
pub async fn create(
    app: &Arc<App>,
    caller: &Identity,
    request: mote::CreateSnapshotRequest,
) -> Result<mote::SnapshotInfo, FarmError> {
    let name = groups::label("name", &request.name)?;
    let dir = convert::work_path("dir", &request.dir)?;
    let usage = Usage::begin(app, caller, &request.instance).await?;
    // Half of the store at most, so that what is pinned leaves room for what comes and goes.
    let max_bytes = app.cas.limits().max_bytes / 2;
    let taken = usage.during(async {
        let _turn = app.kept.turns.acquire().await;
        let limits =
            FromTarLimits { entries: MOST_ENTRIES, bytes: max_bytes.saturating_sub(app.store.snapshot_bytes().await?) };
        let ask = mote::BuildletGetTarRequest {
            instance_id: usage.id(),
            dir: dir.as_str().to_owned(),
            compression: mote::TarCompression::None.into(),
        };
        let archive = usage.session.link.get_tar(ask).await?;
        take(app, usage.clone().pass(archive), limits).await
    });
    let taken = taken.await?;
    let row = SnapshotRow {
        owner: caller.user.clone(),
        name,
        dir: dir.as_str().to_owned(),
        root: taken.root,
        files: taken.files,
        bytes: taken.bytes,
        host_type: usage.row.host_type.clone(),
        created_at: app.now(),
        damaged: false,
    };
    let mut pins = app.kept.pins.lock().await;
    let row = app.store.add_snapshot(&row, max_bytes).await?;
    // Also in place of what a damaged one had left.
    pins.insert(taken.root, taken.pins);
    drop(pins);
    tracing::info!(user = %caller.user, snapshot = %row.name, root = %row.root, files = row.files, "snapshot taken");
    Ok(info(row))
}

/// Reads an archive into the farm's store.
async fn take(
    app: &App,
    mut archive: Outgoing<mote::TarChunk>,
    limits: FromTarLimits,
) -> Result<TarSnapshot, FarmError> {
    let (pieces, receiver) = mpsc::channel(PIECES_READY);
    let cas = app.cas.clone();
    let reader = Pieces { pieces: receiver, now: Bytes::new(), over: false };
    let made = tokio::task::spawn_blocking(move || from_tar(&cas, reader, limits));
    let mut broken = None;
    loop {
        let piece = match archive.next().await {
            Some(Ok(chunk)) => Some(chunk.data),
            Some(Err(error)) => {
                broken = Some(error);
                break;
            }
            None => None,
        };
        let over = piece.is_none();
        // Nobody reads any more: there is an error, or the archive's end came before the stream's.
        if pieces.send(piece).await.is_err() || over {
            break;
        }
    }
    drop(pieces);
    let made = made.await.unwrap_or_else(|panic| Err(FromTarError::Archive(io::Error::other(panic))));
    made.map_err(|error| broken.unwrap_or_else(|| refusal(error)))
}

fn refusal(error: FromTarError) -> FarmError {
    let text = error.to_string();
    match error {
        FromTarError::Archive(_) => FarmError::Unavailable(format!("{text}; ask again")),
        FromTarError::Entry { .. } | FromTarError::Tree { .. } => FarmError::NotReady(text),
        FromTarError::TooLarge { .. } => FarmError::Exhausted(text),
        FromTarError::Store(CasError::Full { .. } | CasError::TooLarge { .. }) => {
            FarmError::Exhausted(format!("the farm's content store has no room for this snapshot: {text}"))
        }
        FromTarError::Store(error) => FarmError::Content(error),
    }
}

/// An archive's pieces to read from; ends well only if the stream did.
struct Pieces {
    /// `None`: that was all.
    pieces: mpsc::Receiver<Option<Bytes>>,
    now: Bytes,
    over: bool,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.now.is_empty() && !self.over {
            match self.pieces.blocking_recv() {
                Some(Some(piece)) => self.now = piece,
                Some(None) => self.over = true,
                None => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it broke off")),
            }
        }
        let size = self.now.len().min(buffer.len());
        buffer[..size].copy_from_slice(&self.now.split_to(size));
        Ok(size)
    }
}

/// The caller's snapshots.
pub async fn list(app: &App, caller: &Identity) -> Result<Vec<mote::SnapshotInfo>, FarmError> {
    Ok(app.store.snapshots(&caller.user).await?.into_iter().map(info).collect())
}

/// Removes a snapshot. What is being made from it still is.
pub async fn remove(app: &App, caller: &Identity, name: &str) -> Result<(), FarmError> {
    app.store.remove_snapshot(&caller.user, &groups::label("name", name)?, app.now()).await?;
    unpin_unneeded(app).await
}

/// Lets go of trees that no row needs any more.
pub async fn unpin_unneeded(app: &App) -> Result<(), FarmError> {
    let mut pins = app.kept.pins.lock().await;
    if !pins.is_empty() {
        let needed: HashSet<Digest> = app.store.snapshot_roots().await?.into_iter().collect();
        pins.retain(|root, _| needed.contains(root));
    }
    Ok(())
}

/// Pins every tree that must stay, as a coordinator does first of all. What lacks content is logged,
/// and marked so that nothing is made from it.
pub async fn pin_again(app: &App) -> Result<(), FarmError> {
    let mut pins = app.kept.pins.lock().await;
    for root in app.store.snapshot_roots().await? {
        let cas = app.cas.clone();
        let walked = tokio::task::spawn_blocking(move || {
            let tree = stored_tree(root, &cas).map_err(|error| error.to_string())?;
            let (all, missing) = (tree.digests.len(), tree.missing.len());
            let pin = cas.pin(tree.digests);
            if missing > 0 {
                Err(format!("{missing} of the {all} blobs that are known of are missing"))
            } else {
                Ok(pin)
            }
        });
        match walked.await.unwrap_or_else(|panic| Err(panic.to_string())) {
            Ok(pin) => {
                pins.insert(root, vec![pin]);
            }
            Err(problem) => {
                tracing::error!(%root, "a snapshot is damaged: {problem}");
                app.store.snapshot_damaged(root, app.now()).await?;
            }
        }
    }
    Ok(())
}

/// Brings an instance that is being made to the tree it is to begin with. An error that repeating
/// would not mend comes back as [`Materialized::Never`].
pub async fn materialize(app: &Arc<App>, session: &Arc<Session>, row: &InstanceRow) -> Result<Materialized, FarmError> {
    let Some(wish) = &row.snapshot else { return Ok(Materialized::Done) };
    let sync = mote::TreeSync { dest: wish.dir.clone(), root: Some(wish.root.into()), ..Default::default() };
    let never = |why: String| Materialized::Never(format!("snapshot {} can not be put in place: {why}", wish.name));
    match transfer::bring(app, session, row, &sync).await {
        Ok(result) if result.missing.is_empty() => {
            if result.links_left_out > 0 {
                let (links, first) = (result.links_left_out, result.links_named.first());
                tracing::warn!(
                    instance.name = row.name,
                    snapshot = wish.name,
                    links,
                    first,
                    "links of a snapshot were left out"
                );
            }
            Ok(Materialized::Done)
        }
        Ok(result) => {
            let n = result.missing.len();
            app.store.snapshot_damaged(wish.root, app.now()).await?;
            tracing::error!(root = %wish.root, missing = n, "a snapshot is damaged");
            Ok(never(format!("{n} of its blobs are missing from the farm's store; remove it and take it again")))
        }
        Err(FarmError::Link(error)) => Ok(never(error.to_string())),
        Err(error) => Err(error),
    }
}

/// How a materialization ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Materialized {
    /// The tree is in place, or there was none to bring.
    Done,
    /// It can not be brought: why.
    Never(String),
}

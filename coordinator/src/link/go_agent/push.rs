//! A directory of a Go agent made equal to a tree of the farm's store.
//!
//! The agent lists what it has with SHA-1 hashes; what differs is removed and sent as one archive, straight
//! from the store. Unlike a buildlet's, its files are written in place: a sync that is cut off may leave one
//! torn, which the next finds.

use super::answer::Next;
use super::client::{LONG, encoded};
use super::compare::{self, Difference, There};
use super::files::removed;
use super::listing::Lines;
use super::sha1_cache::Hash;
use super::wanted::{self, Wanted};
use super::{GoAgentLink, refused, tar_out};
use crate::link::LinkError;
use motefarm_cas::store::{BlobSource as _, Store};
use motefarm_cas::sync::{Keeper, SyncError, SyncPlan, Tree};
use motefarm_core::{Digest, WorkPath};
use motefarm_proto::mote::{TreeSync, TreeSyncResult};
use motefarm_proto::{MAX_DIGESTS, convert};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tonic::{Code, Status};

/// Most entries that a directory may have to be compared.
const MOST_THERE: usize = 1_000_000;
/// Longest silence while the agent hashes a file.
const HASHING: Duration = Duration::from_secs(600);
/// Links that are left out and named.
const MOST_LINKS_NAMED: usize = 5;
/// Paths that a dry run names.
const MOST_NAMED: usize = 1000;

fn bad_field(error: convert::FieldError) -> LinkError {
    refused(Status::invalid_argument(error.to_string()))
}

fn missing(digests: impl IntoIterator<Item = Digest>) -> TreeSyncResult {
    let missing = digests.into_iter().take(MAX_DIGESTS).map(Into::into).collect();
    TreeSyncResult { missing, ..TreeSyncResult::default() }
}

/// See the module and `mote.v1.TreeSync`.
pub(super) async fn sync_tree(link: &GoAgentLink, sync: TreeSync) -> Result<TreeSyncResult, LinkError> {
    let dest = convert::work_path("sync.dest", &sync.dest).map_err(bad_field)?;
    let root = sync.root.as_ref().ok_or_else(|| refused(Status::invalid_argument("field sync.root: is missing")))?;
    let plan = SyncPlan {
        root: convert::digest(root).map_err(bad_field)?,
        ignore_files: sync.ignore_files.into_iter().map(|file| (file.dir, file.content.to_vec())).collect(),
        keep: sync.keep,
        dry_run: sync.dry_run,
    };
    let cas = link.around.cas.clone();
    let wanted = match blocking(move || load(&cas, plan.root)).await?? {
        Ok(wanted) => Arc::new(wanted),
        Err(result) => return Ok(result),
    };
    let there = Arc::new(list(link, &dest).await?);
    let (cas, sha1s) = (link.around.cas.clone(), link.around.sha1s.clone());
    let undecided = compare::undecided(&wanted, &there);
    let hashed = undecided.len() as u64;
    let dry_run = plan.dry_run;
    let hashes = blocking(move || {
        let mut hashes: HashMap<Digest, Hash> = HashMap::new();
        let mut lacking = Vec::new();
        for digest in undecided {
            match sha1s.of(&digest, &cas) {
                Ok(Some(hash)) => drop(hashes.insert(digest, hash)),
                Ok(None) => lacking.push(digest),
                Err(error) => return Err(store_failed(&error)),
            }
        }
        // A dry run takes what the farm has never seen for different.
        Ok(if lacking.is_empty() || dry_run { Ok(hashes) } else { Err(lacking) })
    });
    let hashes = match hashes.await?? {
        Ok(hashes) => hashes,
        Err(lacking) => return Ok(missing(lacking)),
    };
    let (has_modes, is_top, keeper) = (link.has_modes, dest.is_root(), Keeper::new(&plan));
    let difference = blocking(move || compare::compare(&wanted, &there, &hashes, &keeper, has_modes, is_top)).await?;
    let needed: BTreeSet<Digest> = difference.files.iter().map(|(_, digest, _)| *digest).collect();
    let _pinned = link.around.cas.pin(needed.iter().copied().collect());
    let lacking: Vec<Digest> = needed.into_iter().filter(|digest| !link.around.cas.contains(digest)).collect();
    if !lacking.is_empty() && !plan.dry_run {
        return Ok(missing(lacking));
    }
    let names = difference.links.iter().take(MOST_LINKS_NAMED).map(|path| String::from_utf8_lossy(path).into_owned());
    let mut result = TreeSyncResult {
        compared: true,
        files_written: difference.files.len() as u64 - difference.modes_changed,
        bytes_written: difference.files.iter().map(|(_, digest, _)| digest.size_bytes()).sum(),
        files_unchanged: difference.unchanged,
        entries_deleted: difference.deleted,
        modes_changed: difference.modes_changed,
        files_hashed: hashed,
        links_left_out: difference.links.len() as u64,
        links_named: names.collect(),
        ..missing(lacking)
    };
    if plan.dry_run {
        result.would_write = difference.files.iter().take(MOST_NAMED).map(|(path, ..)| path.clone().into()).collect();
        result.would_delete = difference.remove.iter().take(MOST_NAMED).cloned().collect();
    } else {
        apply(link, &dest, difference).await?;
    }
    Ok(result)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, LinkError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| refused(Status::internal(error.to_string())))
}

fn store_failed(error: &dyn std::error::Error) -> LinkError {
    refused(Status::unavailable(format!("the farm's store could not be read: {error}")))
}

/// What the tree wants, or what is missing to know that.
fn load(cas: &Store, root: Digest) -> Result<Result<Wanted, TreeSyncResult>, LinkError> {
    let tree = Tree::load(root, cas).map_err(|error| match error {
        SyncError::Store(_) => store_failed(&error),
        other => refused(Status::invalid_argument(other.to_string())),
    })?;
    if !tree.missing.is_empty() {
        let digests: BTreeSet<Digest> = tree.missing.iter().copied().collect();
        return Ok(Err(missing(digests)));
    }
    let wanted = wanted::of(&root, &tree);
    wanted.map(Ok).map_err(|problem| refused(Status::failed_precondition(format!("the tree has {problem}"))))
}

/// All that is in a directory, with hashes; nothing, if it is not there.
async fn list(link: &GoAgentLink, dest: &WorkPath) -> Result<There, LinkError> {
    let query = encoded([("dir", dest.as_str().as_bytes()), ("recursive", b"true"), ("digest", b"true")]);
    let mut answer = match link.client.get(&format!("/ls?{query}"), LONG).await {
        Ok(answer) => answer,
        Err(LinkError::Refused(status)) if status.code() == Code::NotFound => return Ok(There::new()),
        Err(error) => return Err(error),
    };
    let unreadable = |error| refused(Status::failed_precondition(format!("{dest}: {error}")));
    let (mut lines, mut entries, mut there) = (Lines::default(), Vec::new(), There::new());
    while let Next::Piece(piece) = answer.next(Some(HASHING)).await? {
        lines.push(&piece, &mut entries).map_err(unreadable)?;
        for entry in entries.drain(..) {
            if entry.path.is_empty() {
                return Err(refused(Status::failed_precondition(format!("{dest} is no directory"))));
            }
            there.insert(entry.path.clone(), entry);
        }
        if there.len() > MOST_THERE {
            let text = format!("{dest} has more than {MOST_THERE} entries, too many to compare over a Go agent");
            return Err(refused(Status::resource_exhausted(text)));
        }
    }
    lines.finish().map_err(unreadable)?;
    Ok(there)
}

async fn apply(link: &GoAgentLink, dest: &WorkPath, difference: Difference) -> Result<(), LinkError> {
    let Difference { remove, directories, files, .. } = difference;
    let below = |path: &[u8]| match dest.is_root() {
        true => path.to_vec(),
        false => [dest.as_str().as_bytes(), b"/", path].concat(),
    };
    removed(&link.client, remove.iter().map(|path| below(path))).await?;
    if directories.is_empty() && files.is_empty() && dest.is_root() {
        return Ok(());
    }
    let (cas, now) = (link.around.cas.clone(), link.around.clock.now());
    let dest = dest.as_str().to_owned();
    let (archive, packing) =
        super::blocking::write(move |sink| tar_out::write(sink, &cas, &dest, &directories, &files, now));
    let sent = link.client.put("/writetgz?dir=", archive).await;
    match (packing.await, sent) {
        (Ok(Ok(())), sent) => sent,
        // The agent's word explains why nobody read on.
        (Ok(Err(error)), Err(LinkError::Refused(status))) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            Err(LinkError::Refused(status))
        }
        (Ok(Err(error)), Err(lost)) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(lost),
        (Ok(Err(error)), _) => Err(refused(Status::unavailable(format!("the tree could not be packed: {error}")))),
        (Err(panic), _) => Err(refused(Status::internal(panic.to_string()))),
    }
}

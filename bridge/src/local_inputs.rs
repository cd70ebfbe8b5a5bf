//! Inputs that the bridge reads itself, where it sees the files that its client sees: a compile on a cold
//! server then needs no second request.
//!
//! A path is only a hint where the content may be. It is taken when its hash key is the announced one, and
//! stored as if the client had sent it; whatever else lies there is as good as nothing. The bridge reads with
//! its own rights, so it does this for its own user's calls and nobody else's ([`crate::access`]).
//!
//! A file system may hang. So reading has a number of turns and a time, a thread that hangs keeps its turn,
//! and who gets none goes on without: the client is asked, as ever.

mod file;

use crate::backend::{Fault, Stage};
use crate::content::Content;
use crate::file_blob::{Blob, HashKey};
use file::{LongFile, Read, Unread, read};
use motefarm_proto::goma::ExecReq;
use motefarm_proto::goma::requester_info::PathStyle;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Batches read at once. Each holds [`BATCH_BYTES`] and one more file.
const TURNS: usize = 4;
/// Content of one batch, before the last file.
const BATCH_BYTES: usize = 2 << 20;
/// Longest wait for a turn.
const TURN_WAIT: Duration = Duration::from_secs(5);
/// Longest time for the files of a batch; one long file is hashed at some hundred MiB a second.
const READ_TIME: Duration = Duration::from_secs(20);

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct LocalInputs {
    turns: Arc<Semaphore>,
}

/// A file that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// What it must be.
    pub key: HashKey,
    /// Where it may be.
    pub path: PathBuf,
}

/// Where an input of a request lies for whoever sees the client's files; `None` if its paths are not this
/// system's.
pub fn place(request: &ExecReq, filename: &str) -> Option<PathBuf> {
    let style = request.requester_info.as_ref().map_or(PathStyle::UnknownStyle, |info| info.path_style());
    // A client that made its directory anonymous says here which it is.
    let cwd = Some(request.original_cwd()).filter(|cwd| !cwd.is_empty()).unwrap_or(request.cwd());
    // Links and `..` are the file system's matter: it reads as the client did.
    (style != PathStyle::WindowsStyle && cwd.starts_with('/') && !filename.is_empty())
        .then(|| Path::new(cwd).join(filename))
}

impl Default for LocalInputs {
    fn default() -> Self {
        Self { turns: Arc::new(Semaphore::new(TURNS)) }
    }
}

impl LocalInputs {
    /// Reads and stores what it can of these; answers the keys that were stored. An error: the server did not
    /// take them, and the client's sending them would not help.
    pub async fn store(
        &self,
        content: &Content,
        stage: Stage,
        mut wanted: Vec<Wanted>,
    ) -> Result<HashSet<HashKey>, Fault> {
        let keys: Vec<HashKey> = wanted.iter().map(|file| file.key).collect();
        let known = content.entries(stage, keys.clone()).await?;
        let unknown: HashSet<HashKey> =
            keys.into_iter().zip(known).filter(|(_, entry)| entry.is_none()).map(|(key, _)| key).collect();
        let mut stored = HashSet::new();
        wanted.reverse();
        while !wanted.is_empty() {
            let Some(turn) = self.turn().await else { break };
            // On a cold server many compiles want the same headers; others may have read them meanwhile.
            let keys: Vec<HashKey> = wanted.iter().map(|file| file.key).filter(|key| unknown.contains(key)).collect();
            let known = content.entries(stage, keys.clone()).await?;
            stored.extend(keys.into_iter().zip(known).filter(|(_, entry)| entry.is_some()).map(|(key, _)| key));
            wanted.retain(|file| !stored.contains(&file.key));
            let Some(batch) = read_batch(turn, wanted).await else { break };
            let (mut blobs, mut long) = (Vec::new(), None);
            for (key, read) in batch.read {
                match read {
                    Read::Short(bytes) => blobs.push((key, Blob::File(bytes))),
                    Read::Long(file) => long = Some((key, file)),
                }
            }
            let keys: Vec<HashKey> = blobs.iter().map(|(key, _)| *key).collect();
            for (key, done) in keys.into_iter().zip(content.store(stage, blobs).await) {
                done?;
                stored.insert(key);
            }
            if let Some((key, file)) = long
                && send(content, stage, key, file).await?
            {
                stored.insert(key);
            }
            wanted = batch.left;
            drop(batch.turn);
        }
        Ok(stored)
    }

    async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        let turn = tokio::time::timeout(TURN_WAIT, self.turns.clone().acquire_owned()).await;
        if turn.is_err() {
            tracing::warn!("no turn to read inputs: file systems hang, or there is much to do; the client is asked");
        }
        // Nobody closes the semaphore.
        turn.ok()?.ok()
    }
}

/// Reads some of what is wanted, from the end on. `None`: it took too long.
async fn read_batch(turn: OwnedSemaphorePermit, wanted: Vec<Wanted>) -> Option<Batch> {
    let reading = tokio::task::spawn_blocking(move || batch(turn, wanted));
    match tokio::time::timeout(READ_TIME, reading).await {
        Ok(Ok(batch)) => Some(batch),
        Ok(Err(error)) => {
            tracing::error!(%error, "reading inputs failed");
            None
        }
        Err(_) => {
            tracing::warn!("inputs could not be read within {} s; the client is asked", READ_TIME.as_secs());
            None
        }
    }
}

/// What was read in one turn. Its content is held as long as the turn.
struct Batch {
    turn: OwnedSemaphorePermit,
    /// At most one long file, the last.
    read: Vec<(HashKey, Read)>,
    left: Vec<Wanted>,
}

fn batch(turn: OwnedSemaphorePermit, mut wanted: Vec<Wanted>) -> Batch {
    let (mut found, mut bytes) = (Vec::new(), 0);
    while let Some(next) = wanted.pop() {
        match read(&next.path, next.key) {
            Ok(Read::Short(content)) => {
                bytes += content.len();
                found.push((next.key, Read::Short(content)));
                if bytes >= BATCH_BYTES {
                    break;
                }
            }
            Ok(long) => {
                found.push((next.key, long));
                break;
            }
            Err(why) => tracing::debug!(path = %next.path.display(), %why, "an input is not read here"),
        }
    }
    Batch { turn, read: found, left: wanted }
}

/// Sends a long file; whether it was still what it had been.
async fn send(content: &Content, stage: Stage, key: HashKey, file: LongFile) -> Result<bool, Fault> {
    let (sender, receiver) = mpsc::channel(1);
    let (whole, chunks) = (file.whole, file.chunks.clone());
    let reading = tokio::task::spawn_blocking(move || file.send(&sender));
    let (sent, read) = tokio::join!(content.store_whole(stage, key, whole, chunks, receiver), reading);
    match (sent, read) {
        (_, Ok(Err(why @ (Unread::Changed | Unread::Io(_))))) => {
            tracing::debug!(%key, %why, "an input is not read here");
            Ok(false)
        }
        (sent, _) => sent.map(|()| true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use motefarm_proto::goma::RequesterInfo;

    #[test]
    fn inputs_lie_where_the_client_read_them() {
        let mut request = ExecReq { cwd: Some("/w/out".into()), ..ExecReq::default() };
        let at = |request: &ExecReq, name: &str| place(request, name).map(|path| path.display().to_string());
        assert_eq!(at(&request, "../a/../b.h").as_deref(), Some("/w/out/../a/../b.h"));
        assert_eq!(at(&request, "/usr/include/x.h").as_deref(), Some("/usr/include/x.h"));
        assert_eq!(at(&request, ""), None);
        request.cwd = Some("/this/path/is/set/by/goma".into());
        request.original_cwd = Some("/w/out".into());
        assert_eq!(at(&request, "b.h").as_deref(), Some("/w/out/b.h"));
        request.requester_info = Some(RequesterInfo { path_style: Some(2), ..RequesterInfo::default() });
        assert_eq!(at(&request, "b.h"), None);
        request.requester_info = None;
        request.original_cwd = Some("C:\\w".into());
        assert_eq!(at(&request, "b.h"), None);
    }
}

//! Asking one instance to be a tree.

use crate::connection::Farm;
use crate::error::Error;
use motefarm_core::Digest;
use motefarm_proto::{convert, mote};
use serde::Serialize;
use std::time::Duration;

/// For writing a tree of a million files to a slow disk.
const SYNC_DEADLINE: Duration = Duration::from_secs(30 * 60);

/// What it took (`TreeSyncResult`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Synced {
    pub(crate) files_written: u64,
    pub(crate) bytes_written: u64,
    pub(crate) files_unchanged: u64,
    pub(crate) entries_deleted: u64,
    pub(crate) modes_changed: u64,
    pub(crate) files_hashed: u64,
    /// Symbolic links that the machine can not have, and some of them.
    pub(crate) links_left_out: u64,
    #[serde(skip)]
    pub(crate) links_named: Vec<String>,
    /// Of a dry run: some of what would be written, below the tree.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) would_write: Vec<String>,
    /// Of a dry run: some of what would be deleted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) would_delete: Vec<String>,
}

pub(super) enum Answer {
    /// It is the tree now.
    Done(Synced),
    /// Nothing was done for want of these.
    Lacks(Vec<Digest>),
}

pub(super) async fn sync(farm: &Farm, instance: &str, sync: &mote::TreeSync) -> Result<Answer, Error> {
    let doing = format!("push to {instance}");
    let request = mote::SyncTreeRequest { instance: instance.to_owned(), sync: Some(sync.clone()) };
    let answer = farm.call_within(&doing, SYNC_DEADLINE, async |mut c| c.sync_tree(request.clone()).await).await?;
    read(answer).map_err(|problem| Error::protocol(&doing, problem))
}

fn read(answer: mote::TreeSyncResult) -> Result<Answer, convert::FieldError> {
    if !answer.missing.is_empty() && !answer.compared {
        return Ok(Answer::Lacks(answer.missing.iter().map(convert::digest).collect::<Result<_, _>>()?));
    }
    Ok(Answer::Done(Synced {
        files_written: answer.files_written,
        bytes_written: answer.bytes_written,
        files_unchanged: answer.files_unchanged,
        entries_deleted: answer.entries_deleted,
        modes_changed: answer.modes_changed,
        files_hashed: answer.files_hashed,
        would_write: names(&answer.would_write),
        would_delete: names(&answer.would_delete),
        links_left_out: answer.links_left_out,
        links_named: answer.links_named,
    }))
}

fn names(paths: &[impl AsRef<[u8]>]) -> Vec<String> {
    let mut names: Vec<String> = paths.iter().map(|path| String::from_utf8_lossy(path.as_ref()).into_owned()).collect();
    names.sort_unstable();
    names
}

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
    /// Of a dry run: contents that would be sent.
    #[serde(skip)]
    pub(crate) would_send: Vec<Digest>,
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
    read(answer, sync.dry_run).map_err(|problem| Error::protocol(&doing, problem))
}

fn read(answer: mote::TreeSyncResult, dry_run: bool) -> Result<Answer, convert::FieldError> {
    let missing = answer.missing.iter().map(convert::digest).collect::<Result<Vec<_>, _>>()?;
    let synced = Synced {
        files_written: answer.files_written,
        bytes_written: answer.bytes_written,
        files_unchanged: answer.files_unchanged,
        entries_deleted: answer.entries_deleted,
        modes_changed: answer.modes_changed,
        files_hashed: answer.files_hashed,
        links_left_out: answer.links_left_out,
        links_named: answer.links_named,
        would_send: if dry_run { missing.clone() } else { Vec::new() },
    };
    // A dry run that could count has all it needs: missing contents are what would be uploaded.
    let counted = synced.files_written + synced.files_unchanged + synced.entries_deleted + synced.modes_changed > 0;
    Ok(if missing.is_empty() || (dry_run && counted) { Answer::Done(synced) } else { Answer::Lacks(missing) })
}

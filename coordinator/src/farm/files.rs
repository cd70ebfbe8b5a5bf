//! Files of an instance: put, unpacked, got, listed, removed.

use super::FarmError;
use super::usage::{Incoming, Outgoing, Usage};
use crate::app::App;
use crate::identity::Identity;
use motefarm_core::WorkPath;
use motefarm_proto::{convert, mote};
use std::sync::Arc;

/// Most paths of one removal.
const MOST_PATHS: usize = 10_000;
/// Most directories that a listing leaves out.
const MOST_SKIPPED: usize = 1000;
/// Permission bits that a file may be given.
const MODE_BITS: u32 = 0o777;

fn missing(field: &str) -> FarmError {
    FarmError::Invalid(format!("field {field}: is missing"))
}

/// A path inside the work directory that is not the work directory itself.
fn file_path(field: &'static str, text: &str) -> Result<WorkPath, FarmError> {
    let path = convert::work_path(field, text)?;
    if path.is_root() || text.ends_with('/') {
        return Err(FarmError::Invalid(format!("field {field}: {text:?} names a directory, not a file")));
    }
    Ok(path)
}

/// Writes one file.
pub async fn put_file(
    app: &Arc<App>,
    caller: &Identity,
    target: mote::PutFileTarget,
    content: Incoming,
) -> Result<mote::PutFileResponse, FarmError> {
    let file = target.file.ok_or_else(|| missing("header.file"))?;
    file_path("header.file.path", &file.path)?;
    if file.mode & !MODE_BITS != 0 {
        return Err(FarmError::Invalid(format!("field header.file.mode: {:o} is not within 777", file.mode)));
    }
    let usage = Usage::begin(app, caller, &target.instance).await?;
    let target = mote::BuildletPutFileTarget { instance_id: usage.id(), file: Some(file) };
    usage.put(content, |pieces| usage.session.link.put_file(target, pieces)).await
}

/// Unpacks an archive.
pub async fn put_tar(
    app: &Arc<App>,
    caller: &Identity,
    target: mote::PutTarTarget,
    archive: Incoming,
) -> Result<mote::PutTarResponse, FarmError> {
    let tar = target.tar.unwrap_or_default();
    convert::work_path("header.tar.dir", &tar.dir)?;
    let usage = Usage::begin(app, caller, &target.instance).await?;
    let target = mote::BuildletPutTarTarget { instance_id: usage.id(), tar: Some(tar) };
    usage.put(archive, |pieces| usage.session.link.put_tar(target, pieces)).await
}

/// Streams a file.
pub async fn get_file(
    app: &Arc<App>,
    caller: &Identity,
    request: mote::GetFileRequest,
) -> Result<Outgoing<mote::FileChunk>, FarmError> {
    file_path("path", &request.path)?;
    let usage = Usage::begin(app, caller, &request.instance).await?;
    let ask = mote::BuildletGetFileRequest { instance_id: usage.id(), path: request.path };
    let chunks = usage.session.link.get_file(ask).await?;
    Ok(usage.pass(chunks))
}

/// Lists a directory.
pub async fn list_dir(
    app: &Arc<App>,
    caller: &Identity,
    request: mote::ListDirRequest,
) -> Result<Outgoing<mote::DirListing>, FarmError> {
    let list = request.list.unwrap_or_default();
    convert::work_path("list.dir", &list.dir)?;
    if list.skip.len() > MOST_SKIPPED {
        let n = list.skip.len();
        return Err(FarmError::Invalid(format!("field list.skip: {n} directories; at most {MOST_SKIPPED}")));
    }
    for skipped in &list.skip {
        convert::work_path("list.skip", skipped)?;
    }
    let usage = Usage::begin(app, caller, &request.instance).await?;
    let ask = mote::BuildletListDirRequest { instance_id: usage.id(), list: Some(list) };
    let listings = usage.session.link.list_dir(ask).await?;
    Ok(usage.pass(listings))
}

/// Streams an archive of a directory.
pub async fn get_tar(
    app: &Arc<App>,
    caller: &Identity,
    request: mote::GetTarRequest,
) -> Result<Outgoing<mote::TarChunk>, FarmError> {
    convert::work_path("dir", &request.dir)?;
    let usage = Usage::begin(app, caller, &request.instance).await?;
    let ask =
        mote::BuildletGetTarRequest { instance_id: usage.id(), dir: request.dir, compression: request.compression };
    let chunks = usage.session.link.get_tar(ask).await?;
    Ok(usage.pass(chunks))
}

/// Removes files and directories; answers how many entries that were.
pub async fn remove_paths(
    app: &Arc<App>,
    caller: &Identity,
    request: mote::RemovePathsRequest,
) -> Result<u64, FarmError> {
    let n = request.paths.len();
    if n == 0 || n > MOST_PATHS {
        return Err(FarmError::Invalid(format!("field paths: {n} paths; 1 to {MOST_PATHS}")));
    }
    for path in &request.paths {
        convert::work_path("paths", path)?;
    }
    let usage = Usage::begin(app, caller, &request.instance).await?;
    let ask = mote::BuildletRemovePathsRequest { instance_id: usage.id(), paths: request.paths };
    usage.during(async { Ok(usage.session.link.remove_paths(ask).await?) }).await
}

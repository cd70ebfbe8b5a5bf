//! The methods about files, between messages and `files`, `unpack`.

use super::incoming::{self, Piece};
use super::outgoing::{self, Outgoing, Stop};
use super::{Service, id};
use crate::error::AgentError;
use crate::files::{self, Listing, Opened};
use crate::staging::Staging;
use crate::unpack::{UnpackError, unpack};
use motefarm_core::{Clock as _, SystemClock};
use motefarm_proto::MAX_CHUNK_BYTES;
use motefarm_proto::convert::{self, FieldError};
use motefarm_proto::mote::*;
use std::io::Read as _;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

type Messages<T> = mpsc::Receiver<Result<T, Status>>;

impl Service {
    pub(super) async fn put_file_from(
        &self,
        mut stream: Streaming<BuildletPutFileRequest>,
    ) -> Result<PutFileResponse, Status> {
        let first = stream.message().await?.unwrap_or_default();
        let target = first.header.ok_or_else(|| FieldError::new("header", "is not in the first message"))?;
        let file = target.file.ok_or_else(|| FieldError::new("header.file", "is not set"))?;
        let path = convert::work_path("path", &file.path)?;
        let instance = self.agent.use_instance(id(&target.instance_id)?)?;
        let place = instance.place();
        let data = |message: BuildletPutFileRequest| only_data(message.header.is_some(), (message.data, message.end));
        let put = move |content| files::put(&place, &path, file.mode, content);
        let bytes_written = incoming::receive(instance, (first.data, first.end), stream, data, put).await?;
        Ok(PutFileResponse { bytes_written })
    }

    pub(super) async fn put_tar_from(
        &self,
        mut stream: Streaming<BuildletPutTarRequest>,
    ) -> Result<PutTarResponse, Status> {
        let first = stream.message().await?.unwrap_or_default();
        let target = first.header.ok_or_else(|| FieldError::new("header", "is not in the first message"))?;
        let dir = convert::work_path("dir", &target.tar.unwrap_or_default().dir)?;
        let instance = self.agent.use_instance(id(&target.instance_id)?)?;
        let (place, limits) = (instance.place(), self.agent.settings.unpack_limits);
        let data = |message: BuildletPutTarRequest| only_data(message.header.is_some(), (message.data, message.end));
        let work = move |archive| {
            let top = files::make_dir(&place.work, "dir", &dir)?;
            let staging = Staging::open(&place.staging).map_err(AgentError::io("can not stage files"))?;
            Ok(unpack(archive, top, &staging, limits, SystemClock.now())?)
        };
        let done = incoming::receive(instance, (first.data, first.end), stream, data, work).await?;
        Ok(PutTarResponse {
            files_written: done.files,
            bytes_written: done.bytes,
            dirs_made: done.dirs,
            links_made: done.links,
        })
    }

    pub(super) async fn file_chunks(&self, request: BuildletGetFileRequest) -> Result<Messages<FileChunk>, Status> {
        let instance = self.agent.use_instance(id(&request.instance_id)?)?;
        let path = convert::work_path("path", &request.path)?;
        let place = instance.place();
        // Opened before the answer begins, so that what is not there is said at once.
        let opened = blocking(move || files::open(&place, &path)).await?;
        Ok(outgoing::stream(instance, move |chunks| send_file(opened, chunks)))
    }

    pub(super) fn listing(&self, request: BuildletListDirRequest) -> Result<Messages<DirListing>, Status> {
        let instance = self.agent.use_instance(id(&request.instance_id)?)?;
        let listing = Listing::try_from(request.list.unwrap_or_default())?;
        let place = instance.place();
        Ok(outgoing::stream(instance, move |pages: &Outgoing<DirListing>| {
            files::list(&place, &listing, |page| pages.send(page))
        }))
    }

    pub(super) async fn remove(&self, request: BuildletRemovePathsRequest) -> Result<RemovePathsResponse, Status> {
        let instance = self.agent.use_instance(id(&request.instance_id)?)?;
        let place = instance.place();
        // Ends by itself even if its caller leaves.
        let removed = blocking(move || files::remove(&place, &request.paths)).await?;
        Ok(RemovePathsResponse { removed })
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, AgentError> + Send + 'static,
) -> Result<T, AgentError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| AgentError::Unavailable(format!("the work was cut short: {e}")))?
}

fn only_data(has_header: bool, piece: Piece) -> Result<Piece, FieldError> {
    if has_header {
        Err(FieldError::new("header", "is set again; it belongs into the first message"))
    } else {
        Ok(piece)
    }
}

/// Sends the file as long as it was when it was opened.
fn send_file(opened: Opened, chunks: &Outgoing<FileChunk>) -> Result<(), Stop> {
    let Opened { file, mode, size } = opened;
    let mut content = file.take(size);
    let mut sent = 0;
    loop {
        let left = usize::try_from(size - sent).unwrap_or(usize::MAX);
        let mut data = Vec::with_capacity(left.min(MAX_CHUNK_BYTES));
        content
            .by_ref()
            .take(MAX_CHUNK_BYTES as u64)
            .read_to_end(&mut data)
            .map_err(AgentError::io("can not read the file"))?;
        let read = data.len() as u64;
        if read == 0 && sent < size {
            let problem = format!("the file shrank to {sent} of {size} bytes while it was read; ask again");
            return Err(AgentError::Unavailable(problem).into());
        }
        if read > 0 || size == 0 {
            let (mode, size_bytes) = if sent == 0 { (mode, size) } else { (0, 0) };
            chunks.send(FileChunk { mode, size_bytes, data: data.into() })?;
        }
        sent += read;
        if sent >= size {
            return Ok(());
        }
    }
}

impl From<UnpackError> for AgentError {
    fn from(error: UnpackError) -> Self {
        match error {
            UnpackError::Entry { .. } | UnpackError::Archive(_) => FieldError::new("archive", error).into(),
            UnpackError::Bound(problem) => Self::Exhausted(problem),
            UnpackError::Cut(_) => Self::Cut(error.to_string()),
            UnpackError::Io { entry, source } => Self::io(format!("can not write entry {entry:?}"))(source),
        }
    }
}

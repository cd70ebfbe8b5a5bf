//! Files of instances of the farm in the tests.

use super::{Service, cut};
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use motefarm_proto::mote::dir_entry::Kind;
use motefarm_proto::mote::list_dir_spec::Hash;
use motefarm_proto::mote::*;
use std::time::Duration;
use tonic::{Response, Status, Streaming};

impl Service {
    /// Whether this put is one that breaks.
    fn breaks(&self) -> bool {
        let mut state = self.called("put");
        let breaks = state.cut_puts > 0;
        state.cut_puts = state.cut_puts.saturating_sub(1);
        breaks
    }

    /// Waits for ever, if that is what is asked for.
    pub(super) async fn maybe_stall(&self) {
        let stalls = self.state.lock().unwrap().stalls;
        if stalls {
            std::future::pending::<()>().await;
        }
    }

    async fn cut_now<T>(&self) -> Result<T, Status> {
        tokio::time::sleep(Duration::from_millis(10)).await;
        cut(&self.cutter);
        std::future::pending().await
    }

    pub(super) async fn take_file(
        &self,
        mut messages: Streaming<PutFileRequest>,
    ) -> Result<Response<PutFileResponse>, Status> {
        let breaks = self.breaks();
        let first = messages.message().await?.ok_or_else(|| Status::invalid_argument("no header"))?;
        self.maybe_stall().await;
        let target = first.header.ok_or_else(|| Status::invalid_argument("no header"))?;
        let file = target.file.ok_or_else(|| Status::invalid_argument("no file"))?;
        if target.instance == "nobody" {
            return Err(Status::not_found("no instance \"nobody\""));
        }
        let (mut content, mut whole) = (first.data.to_vec(), first.end);
        while let Some(message) = messages.message().await? {
            content.extend_from_slice(&message.data);
            whole |= message.end;
            if breaks {
                return self.cut_now().await;
            }
        }
        if !whole {
            return Err(Status::cancelled("the stream ended without its last message"));
        }
        let bytes_written = content.len() as u64;
        self.state.lock().unwrap().files.insert((target.instance, file.path), (file.mode, content));
        Ok(Response::new(PutFileResponse { bytes_written }))
    }

    pub(super) async fn take_tar(
        &self,
        mut messages: Streaming<PutTarRequest>,
    ) -> Result<Response<PutTarResponse>, Status> {
        let breaks = self.breaks();
        let first = messages.message().await?.ok_or_else(|| Status::invalid_argument("no header"))?;
        self.maybe_stall().await;
        let target = first.header.ok_or_else(|| Status::invalid_argument("no header"))?;
        let (mut content, mut whole) = (first.data.to_vec(), first.end);
        while let Some(message) = messages.message().await? {
            content.extend_from_slice(&message.data);
            whole |= message.end;
            if breaks {
                return self.cut_now().await;
            }
        }
        if !whole {
            return Err(Status::cancelled("the stream ended without its last message"));
        }
        let bytes_written = content.len() as u64;
        let dir = target.tar.unwrap_or_default().dir;
        self.state.lock().unwrap().tars.push((target.instance, dir, content));
        Ok(Response::new(PutTarResponse { files_written: 1, bytes_written, ..Default::default() }))
    }

    pub(super) fn give_file(
        &self,
        request: GetFileRequest,
    ) -> Result<Response<BoxStream<'static, Result<FileChunk, Status>>>, Status> {
        let state = self.called("get");
        let found = state.files.get(&(request.instance, request.path));
        let (mode, content) = found.cloned().ok_or_else(|| Status::not_found("no such file"))?;
        let size_bytes = content.len() as u64;
        let mut chunks: Vec<FileChunk> = content
            .chunks(100_000)
            .map(|data| FileChunk { data: data.to_vec().into(), ..Default::default() })
            .collect();
        if chunks.is_empty() {
            chunks.push(FileChunk::default());
        }
        chunks[0].mode = mode;
        chunks[0].size_bytes = size_bytes;
        Ok(Response::new(stream::iter(chunks.into_iter().map(Ok)).boxed()))
    }

    pub(super) fn give_listing(
        &self,
        request: ListDirRequest,
    ) -> Result<Response<BoxStream<'static, Result<DirListing, Status>>>, Status> {
        let list = request.list.clone().unwrap_or_default();
        let cut_it = {
            let mut state = self.called("ls");
            state.lists.push(request);
            let cut_it = state.cut_lists > 0;
            state.cut_lists = state.cut_lists.saturating_sub(1);
            cut_it
        };
        if list.dir == "none" {
            return Err(Status::not_found("no directory \"none\""));
        }
        let hash = match list.hash() {
            Hash::None => Vec::new(),
            Hash::Sha1 => vec![0x55; 20],
            Hash::Sha256 => vec![0x66; 32],
        };
        let entry = |path: &str, kind: Kind, mode| DirEntry {
            path: path.as_bytes().to_vec().into(),
            kind: kind.into(),
            mode,
            ..Default::default()
        };
        let file = DirEntry {
            size_bytes: 3,
            modified_at_ms: 1_795_345_264_000,
            hash: hash.into(),
            ..entry("go/VERSION", Kind::File, 0o644)
        };
        let link = DirEntry { target: "VERSION".into(), ..entry("go/link", Kind::Symlink, 0o777) };
        let first = DirListing { entries: vec![entry("go", Kind::Directory, 0o755)] };
        let second = DirListing { entries: vec![file, link] };
        let cutter = self.cutter.clone();
        let second = async move {
            if cut_it {
                tokio::time::sleep(Duration::from_millis(20)).await;
                cut(&cutter);
                std::future::pending::<()>().await;
            }
            Ok(second)
        };
        Ok(Response::new(stream::iter([Ok(first)]).chain(stream::once(second)).boxed()))
    }
}

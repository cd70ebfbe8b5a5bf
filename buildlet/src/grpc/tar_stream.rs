//! An archive as a stream of chunks, made on a thread that waits for its reader.

use crate::archive;
use crate::error::AgentError;
use crate::instance::Instance;
use bytes::{Bytes, BytesMut};
use motefarm_core::WorkPath;
use motefarm_proto::MAX_CHUNK_BYTES;
use motefarm_proto::mote::{TarChunk, TarCompression};
use std::io::{self, Write};
use std::sync::Arc;
use tokio::sync::mpsc;
use tonic::Status;

/// Chunks that wait for the connection.
const QUEUE: usize = 4;

/// Streams the archive of `dir`. Ends when the receiver goes.
pub(super) fn stream(
    instance: &Arc<Instance>,
    dir: &WorkPath,
    compression: TarCompression,
) -> Result<mpsc::Receiver<Result<TarChunk, Status>>, AgentError> {
    let dir = archive::open_dir(&instance.work_dir(), dir)?;
    let (chunks, receiver) = mpsc::channel(QUEUE);
    let instance = instance.clone();
    tokio::task::spawn_blocking(move || {
        let mut sink = Chunks { chunks: chunks.clone(), held: BytesMut::with_capacity(MAX_CHUNK_BYTES) };
        let written = archive::write(dir, compression, &mut sink).and_then(|()| sink.finish());
        match written {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                let error = match error.kind() {
                    _ if instance.is_ending() => AgentError::Ending(instance.id),
                    io::ErrorKind::PermissionDenied => AgentError::Refused(format!("can not archive {error}")),
                    _ => AgentError::io("can not archive")(error),
                };
                let _ = chunks.blocking_send(Err(error.into()));
            }
            _ => {}
        }
    });
    Ok(receiver)
}

/// Collects what is written into chunks of the largest size.
struct Chunks {
    chunks: mpsc::Sender<Result<TarChunk, Status>>,
    held: BytesMut,
}

impl Chunks {
    fn send(&mut self, data: Bytes) -> io::Result<()> {
        self.chunks.blocking_send(Ok(TarChunk { data })).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn finish(mut self) -> io::Result<()> {
        let rest = self.held.split().freeze();
        if rest.is_empty() { Ok(()) } else { self.send(rest) }
    }
}

impl Write for Chunks {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let taken = data.len().min(MAX_CHUNK_BYTES - self.held.len());
        self.held.extend_from_slice(&data[..taken]);
        if self.held.len() == MAX_CHUNK_BYTES {
            let full = std::mem::replace(&mut self.held, BytesMut::with_capacity(MAX_CHUNK_BYTES)).freeze();
            self.send(full)?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

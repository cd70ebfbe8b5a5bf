//! An archive as a stream of chunks.

use super::outgoing::{Outgoing, Stop};
use crate::archive;
use crate::error::AgentError;
use bytes::{Bytes, BytesMut};
use motefarm_proto::MAX_CHUNK_BYTES;
use motefarm_proto::mote::{TarChunk, TarCompression};
use std::io::{self, Write};
use std::os::fd::OwnedFd;

/// Sends the archive of `dir`.
pub(super) fn send(chunks: &Outgoing<TarChunk>, dir: OwnedFd, compression: TarCompression) -> Result<(), Stop> {
    let mut sink = Chunks { chunks, held: BytesMut::with_capacity(MAX_CHUNK_BYTES), stopped: None };
    let written = archive::write(dir, compression, &mut sink).and_then(|()| sink.finish());
    match (sink.stopped, written) {
        (Some(stopped), _) => Err(stopped),
        (None, Ok(())) => Ok(()),
        (None, Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(AgentError::Refused(format!("can not archive {error}")).into())
        }
        (None, Err(error)) => Err(AgentError::io("can not archive")(error).into()),
    }
}

/// Collects what is written into chunks of the largest size.
struct Chunks<'a> {
    chunks: &'a Outgoing<TarChunk>,
    held: BytesMut,
    /// What the archiver, who knows only its own errors, is not told.
    stopped: Option<Stop>,
}

impl Chunks<'_> {
    fn send(&mut self, data: Bytes) -> io::Result<()> {
        self.chunks.send(TarChunk { data }).map_err(|stop| {
            self.stopped = Some(stop);
            io::ErrorKind::BrokenPipe.into()
        })
    }

    fn finish(&mut self) -> io::Result<()> {
        let rest = self.held.split().freeze();
        if rest.is_empty() { Ok(()) } else { self.send(rest) }
    }
}

impl Write for Chunks<'_> {
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

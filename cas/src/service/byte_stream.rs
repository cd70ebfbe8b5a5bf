//! `google.bytestream.ByteStream`: single blobs of any size.

use super::compression::Packer;
use super::resource_name::{BlobName, Compressor, WriteName};
use super::status;
use super::writes::{PartialWrite, Writes};
use crate::store::{Blob, BlobSource as _, Store};
use motefarm_proto::reapi::bytestream::byte_stream_server::ByteStream;
use motefarm_proto::reapi::bytestream::{
    QueryWriteStatusRequest, QueryWriteStatusResponse, ReadRequest, ReadResponse, WriteRequest, WriteResponse,
};
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Content of one message of a read: loopback gets a quarter of its speed from 16 KiB, most of it
/// from 256.
const READ_BYTES: usize = 256 << 10;
/// Messages made ready and not yet taken.
const READY: usize = 4;

/// Reads and writes of one store's blobs.
#[derive(Clone)]
pub struct ByteStreamService {
    store: Store,
    writes: Writes,
}

impl ByteStreamService {
    /// Serves `store`. Clones share the writes that can be resumed.
    pub fn new(store: Store) -> Self {
        Self { store, writes: Writes::default() }
    }

    /// Takes a whole write; the committed size.
    async fn take_write(&self, mut stream: Streaming<WriteRequest>) -> Result<i64, Status> {
        let first = stream.message().await?.ok_or_else(|| Status::invalid_argument("a write without a message"))?;
        let name = WriteName::parse(&first.resource_name)?;
        let size = i64::try_from(name.blob.digest.size_bytes()).unwrap_or(i64::MAX);
        if self.store.contains(&name.blob.digest) {
            // Early: the client need not send what is here.
            return Ok(if name.blob.compressor == Compressor::Identity { size } else { -1 });
        }
        let (writes, store, offset) = (self.writes.clone(), self.store.clone(), offset_of(&first)?);
        if first.finish_write {
            // Most blobs are small and come in one message: one trip to where blocking is allowed.
            return blocking(move || {
                let mut write = writes.take_up(&store, &name, offset)?;
                let counter = write.counter();
                let committed = write.write(&first.data).and_then(|()| finish(write, &name));
                writes.forget(&name, &counter);
                committed
            })
            .await;
        }
        let (write, name) = blocking(move || writes.take_up(&store, &name, offset).map(|write| (write, name))).await?;
        match feed(write, first, &mut stream).await? {
            Fed::Whole(write) => {
                let (writes, counter) = (self.writes.clone(), write.counter());
                blocking(move || {
                    let committed = finish(write, &name);
                    writes.forget(&name, &counter);
                    committed
                })
                .await
            }
            Fed::Cut(write, status) => {
                self.writes.park(&name, write);
                Err(status)
            }
            Fed::Refused(counter, status) => {
                self.writes.forget(&name, &counter);
                Err(status)
            }
        }
    }
}

/// Commits; the committed size, as the form of the write has it.
fn finish(write: PartialWrite, name: &WriteName) -> Result<i64, Status> {
    let committed = match name.blob.compressor {
        Compressor::Identity => name.blob.digest.size_bytes(),
        Compressor::Zstd => write.received(),
    };
    write.commit()?;
    Ok(i64::try_from(committed).unwrap_or(-1))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Status> + Send + 'static) -> Result<T, Status> {
    tokio::task::spawn_blocking(work).await.map_err(|error| status::of_join(&error))?
}

#[tonic::async_trait]
impl ByteStream for ByteStreamService {
    type ReadStream = ReceiverStream<Result<ReadResponse, Status>>;

    /// Stops when the caller leaves.
    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let request = request.into_inner();
        let name = BlobName::parse(&request.resource_name)?;
        let offset = u64::try_from(request.read_offset)
            .map_err(|_| Status::out_of_range(format!("read_offset {} is negative", request.read_offset)))?;
        let limit = u64::try_from(request.read_limit)
            .map_err(|_| Status::invalid_argument(format!("read_limit {} is negative", request.read_limit)))?;
        if limit > 0 && name.compressor == Compressor::Zstd {
            return Err(Status::invalid_argument("read_limit with a compressed blob"));
        }
        let size = name.digest.size_bytes();
        let store = self.store.clone();
        let blob = blocking(move || store.open(&name.digest).map_err(|error| status::of_store(&error))).await?;
        let blob = blob.ok_or_else(|| Status::not_found(format!("blob {} is not in the store", name.digest)))?;
        if offset > size {
            return Err(Status::out_of_range(format!("read_offset {offset} is beyond the {size} bytes of the blob")));
        }
        let end = if limit == 0 { size } else { size.min(offset.saturating_add(limit)) };
        let (sender, receiver) = mpsc::channel(READY);
        tokio::task::spawn_blocking(move || {
            let sent = match name.compressor {
                Compressor::Identity => send_plain(&blob, offset, end, &sender),
                Compressor::Zstd => send_packed(blob, offset, &sender),
            };
            if let Err(error) = sent {
                tracing::error!(digest = %name.digest, %error, "blob not readable");
                let _ = sender.blocking_send(Err(Status::internal("the blob could not be read")));
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    /// Runs apart from the call: when the caller leaves, what came is kept for a while to be resumed.
    async fn write(&self, request: Request<Streaming<WriteRequest>>) -> Result<Response<WriteResponse>, Status> {
        let (service, stream) = (self.clone(), request.into_inner());
        let written = tokio::spawn(async move { service.take_write(stream).await }).await;
        let committed_size = written.map_err(|error| status::of_join(&error))??;
        Ok(Response::new(WriteResponse { committed_size }))
    }

    async fn query_write_status(
        &self,
        request: Request<QueryWriteStatusRequest>,
    ) -> Result<Response<QueryWriteStatusResponse>, Status> {
        let name = WriteName::parse(&request.into_inner().resource_name)?;
        if self.store.contains(&name.blob.digest) {
            let committed_size = i64::try_from(name.blob.digest.size_bytes()).unwrap_or(i64::MAX);
            return Ok(Response::new(QueryWriteStatusResponse { committed_size, complete: true }));
        }
        let received =
            self.writes.received(&name).ok_or_else(|| Status::not_found(format!("no upload {:?}", name.upload)))?;
        let committed_size = i64::try_from(received).unwrap_or(i64::MAX);
        Ok(Response::new(QueryWriteStatusResponse { committed_size, complete: false }))
    }
}

/// How feeding a write ended.
enum Fed {
    /// With `finish_write`.
    Whole(PartialWrite),
    /// The stream broke; the write can be resumed.
    Cut(PartialWrite, Status),
    /// The content or the protocol was wrong.
    Refused(Arc<AtomicU64>, Status),
}

/// Messages taken from the stream and not yet written: as few as keep the writer busy.
const AHEAD: usize = 2;

/// Checks messages here and writes them on a thread of their own, since a trip there for each would cost as
/// much as the writing. An error is one of ours.
async fn feed(write: PartialWrite, first: WriteRequest, stream: &mut Streaming<WriteRequest>) -> Result<Fed, Status> {
    let (counter, mut received) = (write.counter(), write.received());
    let (pieces, waiting) = mpsc::channel(AHEAD);
    let writing = tokio::task::spawn_blocking(move || write_all(write, waiting));
    let resource_name = first.resource_name.clone();
    let mut message = first;
    let ended = loop {
        if let Err(status) = check_next(&message, &resource_name, received) {
            break Ended::Refused(status);
        }
        let last = message.finish_write;
        received += message.data.len() as u64;
        if pieces.send(message.data).await.is_err() || last {
            // Either it is all here, or the writer has failed and says why.
            break Ended::Whole;
        }
        message = match stream.message().await {
            Ok(Some(message)) => message,
            Ok(None) => break Ended::Cut(Status::invalid_argument("the stream ended without finish_write")),
            Err(status) => break Ended::Cut(status),
        };
    };
    drop(pieces);
    let (write, written) = writing.await.map_err(|error| status::of_join(&error))?;
    Ok(match (written, ended) {
        (Err(status), _) | (Ok(()), Ended::Refused(status)) => Fed::Refused(counter, status),
        (Ok(()), Ended::Whole) => Fed::Whole(write),
        (Ok(()), Ended::Cut(status)) => Fed::Cut(write, status),
    })
}

/// How a stream of messages ended.
enum Ended {
    Whole,
    Cut(Status),
    Refused(Status),
}

fn write_all(mut write: PartialWrite, mut pieces: mpsc::Receiver<Vec<u8>>) -> (PartialWrite, Result<(), Status>) {
    while let Some(piece) = pieces.blocking_recv() {
        if let Err(status) = write.write(&piece) {
            return (write, Err(status));
        }
    }
    (write, Ok(()))
}

fn check_next(message: &WriteRequest, resource_name: &str, received: u64) -> Result<(), Status> {
    if !message.resource_name.is_empty() && message.resource_name != resource_name {
        return Err(Status::invalid_argument("resource_name changed within one write"));
    }
    let offset = offset_of(message)?;
    if offset != received {
        return Err(Status::invalid_argument(format!("write_offset {offset} where {received} was next")));
    }
    Ok(())
}

fn offset_of(message: &WriteRequest) -> Result<u64, Status> {
    u64::try_from(message.write_offset)
        .map_err(|_| Status::invalid_argument(format!("write_offset {} is negative", message.write_offset)))
}

type Sender = mpsc::Sender<Result<ReadResponse, Status>>;

/// Ends early, without an error, when nobody listens any more.
fn send_plain(blob: &Blob, mut offset: u64, end: u64, sender: &Sender) -> io::Result<()> {
    while offset < end {
        let len = usize::try_from(end - offset).unwrap_or(usize::MAX).min(READ_BYTES);
        let mut data = vec![0; len];
        blob.read_exact_at(&mut data, offset)?;
        offset += len as u64;
        if sender.blocking_send(Ok(ReadResponse { data })).is_err() {
            break;
        }
    }
    Ok(())
}

fn send_packed(blob: Blob, offset: u64, sender: &Sender) -> io::Result<()> {
    let mut packer = Packer::new(blob, offset)?;
    while let Some(data) = packer.next(READ_BYTES)? {
        if sender.blocking_send(Ok(ReadResponse { data })).is_err() {
            break;
        }
    }
    Ok(())
}

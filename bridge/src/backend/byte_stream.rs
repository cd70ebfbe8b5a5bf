//! Single blobs, of any size, in pieces.

use super::cas::{check, in_time};
use super::in_flight::{self, Claimed};
use super::retry::retrying;
use super::{Backend, Fault, Stage};
use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use motefarm_core::Digest;
use motefarm_core::digest::DigestHasher;
use motefarm_proto::reapi::bytestream::{ReadRequest, WriteRequest};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};
use uuid::Uuid;

/// Content of one message.
const PIECE_BYTES: usize = 256 << 10;
/// Longest silence of a stream.
const PIECE_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(600);

/// Pieces of a blob as they come.
pub struct Pieces {
    stage: Stage,
    stream: Streaming<motefarm_proto::reapi::bytestream::ReadResponse>,
}

impl Pieces {
    /// The next one; `None` after the last. Unchecked.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Fault> {
        let piece = tokio::time::timeout(PIECE_TIMEOUT, self.stream.message()).await;
        let piece = piece.unwrap_or_else(|_| Err(Status::unavailable("the stream stood still for a minute")));
        Ok(piece.map_err(|status| Fault::of(self.stage, &status))?.map(|piece| piece.data.into()))
    }
}

impl Backend {
    fn name(&self, of: impl FnOnce(&str) -> String) -> String {
        // An empty instance has no slash either; casd refuses one.
        if self.instance.is_empty() { of("") } else { of(&format!("{}/", self.instance)) }
    }

    /// Reads from `offset` on; `limit` 0: to the end.
    pub async fn pieces(&self, stage: Stage, digest: Digest, offset: u64, limit: u64) -> Result<Pieces, Fault> {
        let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let request = ReadRequest {
            resource_name: self.name(|i| format!("{i}blobs/{}/{}", digest.hash_hex(), digest.size_bytes())),
            read_offset: signed(offset),
            read_limit: signed(limit),
        };
        let begun = retrying(stage, || {
            let (mut client, request) = (self.byte_stream_client(), request.clone());
            async move { in_time(client.read(request)).await }
        });
        Ok(Pieces { stage, stream: begun.await?.into_inner() })
    }

    /// A whole blob, checked. For blobs that may be held in memory.
    pub async fn read(&self, stage: Stage, digest: Digest) -> Result<Bytes, Fault> {
        if digest == Digest::EMPTY {
            return Ok(Bytes::new());
        }
        check(stage, digest, self.read_range(stage, digest, 0, digest.size_bytes()).await?)
    }

    /// Part of a blob, unchecked but for its length.
    pub async fn read_range(&self, stage: Stage, digest: Digest, start: u64, length: u64) -> Result<Bytes, Fault> {
        let wrong = |got: usize| {
            let message = format!("{got} bytes of blob {digest} came instead of {length} from {start} on");
            Fault::new(stage, Code::DataLoss, message)
        };
        let wanted = usize::try_from(length).map_err(|_| wrong(0))?;
        let mut content = BytesMut::new();
        let mut pieces = self.pieces(stage, digest, start, length).await?;
        while let Some(piece) = pieces.next().await? {
            if content.len() + piece.len() > wanted {
                return Err(wrong(content.len() + piece.len()));
            }
            content.extend_from_slice(&piece);
        }
        if content.len() == wanted { Ok(content.freeze()) } else { Err(wrong(content.len())) }
    }

    /// Writes a blob that is in memory.
    pub async fn write(&self, stage: Stage, digest: Digest, content: Bytes) -> Result<(), Fault> {
        retrying(stage, || {
            let mut rest = content.clone();
            let pieces =
                std::iter::from_fn(move || (!rest.is_empty()).then(|| rest.split_to(rest.len().min(PIECE_BYTES))));
            self.write_once(stage, digest, tokio_stream::iter(pieces))
        })
        .await
    }

    /// Writes a blob from pieces that are made as they are taken. Not tried again: who makes them must.
    pub async fn write_pieces(&self, stage: Stage, digest: Digest, pieces: mpsc::Receiver<Bytes>) -> Result<(), Fault> {
        let written = self.write_once(stage, digest, ReceiverStream::new(pieces)).await;
        written.map_err(|status| Fault::of(stage, &status))
    }

    /// Sees to it that a blob is in the CAS, from pieces as above: asks whether it is, and waits for who sends it
    /// just now.
    pub async fn put_pieces(&self, stage: Stage, digest: Digest, pieces: mpsc::Receiver<Bytes>) -> Result<(), Fault> {
        loop {
            let Claimed { ours, theirs } = self.in_flight.claim([digest]);
            match theirs.into_iter().next() {
                Some((_, other)) => {
                    if in_flight::ended(other).await {
                        return Ok(());
                    }
                }
                None => {
                    if !self.missing(stage, &[digest]).await?.is_empty() {
                        self.write_pieces(stage, digest, pieces).await?;
                    }
                    ours.succeeded();
                    return Ok(());
                }
            }
        }
    }

    async fn write_once(
        &self,
        stage: Stage,
        digest: Digest,
        pieces: impl Stream<Item = Bytes> + Send + 'static,
    ) -> Result<(), Status> {
        let id = Uuid::new_v4();
        let name = self.name(|i| format!("{i}uploads/{id}/blobs/{}/{}", digest.hash_hex(), digest.size_bytes()));
        let size = digest.size_bytes();
        let (mut at, sent) = (0, self.sent.clone());
        let messages = futures_util::StreamExt::map(pieces, move |piece: Bytes| {
            sent.add(stage, piece.len());
            let message = WriteRequest {
                resource_name: if at == 0 { name.clone() } else { String::new() },
                write_offset: i64::try_from(at).unwrap_or(i64::MAX),
                finish_write: at + piece.len() as u64 == size,
                data: piece.to_vec(),
            };
            at += piece.len() as u64;
            message
        });
        let mut client = self.byte_stream_client();
        let written = tokio::time::timeout(WRITE_TIMEOUT, client.write(messages)).await;
        let written = written.unwrap_or_else(|_| Err(Status::unavailable("a blob could not be written in time")))?;
        match written.into_inner().committed_size {
            // -1: it was there before we were done.
            -1 => Ok(()),
            committed if u64::try_from(committed) == Ok(size) => Ok(()),
            committed => Err(Status::internal(format!("the server took {committed} bytes of blob {digest}"))),
        }
    }

    /// Reads a whole blob through, checked, without holding it.
    pub async fn read_through(&self, stage: Stage, digest: Digest, mut each: impl FnMut(&[u8])) -> Result<(), Fault> {
        let mut hasher = DigestHasher::new();
        let mut pieces = self.pieces(stage, digest, 0, 0).await?;
        while let Some(piece) = pieces.next().await? {
            hasher.update(&piece);
            each(&piece);
        }
        let actual = hasher.finish();
        if actual == digest {
            return Ok(());
        }
        Err(Fault::new(
            stage,
            Code::DataLoss,
            format!("the server's blob {digest} is {actual}: its content is damaged"),
        ))
    }
}

//! From messages to the store.

use super::BatchError;
use crate::store::{Store, StoreError, Upload};
use bytes::Bytes;
use motefarm_core::Digest;
use motefarm_proto::mote::blob_batch::Compression;
use motefarm_proto::mote::{self, BlobBatch};
use motefarm_proto::{MAX_BATCH_BYTES, convert};

pub use motefarm_proto::mote::UploadSummary;

/// Takes the messages of one stream apart and stores their blobs. Blocking.
#[derive(Debug)]
pub struct BatchReceiver {
    store: Store,
    summary: UploadSummary,
    /// The blob that comes in pieces just now.
    upload: Option<Upload>,
}

impl BatchReceiver {
    /// A receiver for one stream of messages.
    pub fn new(store: Store) -> Self {
        Self { store, summary: UploadSummary::default(), upload: None }
    }

    /// Verifies and stores a message's blobs. After an error the stream is to be given up; what
    /// earlier messages brought stays.
    pub fn accept(&mut self, batch: BlobBatch) -> Result<(), BatchError> {
        let digests: Vec<Digest> = batch.digests.iter().map(convert::digest).collect::<Result<_, _>>()?;
        if batch.is_piece { self.accept_piece(&digests, &batch) } else { self.accept_whole(&digests, batch) }
    }

    /// The end of the stream: what came is stored.
    pub fn finish(self) -> Result<UploadSummary, BatchError> {
        match self.upload {
            Some(upload) => Err(incomplete(&upload)),
            None => Ok(self.summary),
        }
    }

    fn accept_whole(&mut self, digests: &[Digest], batch: BlobBatch) -> Result<(), BatchError> {
        if let Some(upload) = &self.upload {
            return Err(incomplete(upload));
        }
        let first = digests.first().copied();
        let bytes = digests.iter().fold(0u64, |sum, digest| sum.saturating_add(digest.size_bytes()));
        let limit = MAX_BATCH_BYTES as u64;
        if bytes > limit {
            return Err(BatchError::TooLarge { first, bytes, limit });
        }
        let mut content = unpack(&batch, bytes, first)?;
        if content.len() as u64 != bytes {
            return Err(BatchError::Size {
                first,
                problem: format!("{} bytes, not the {bytes} announced", content.len()),
            });
        }
        let blobs: Vec<(Digest, Bytes)> = digests
            .iter()
            .map(|digest| (*digest, content.split_to(usize::try_from(digest.size_bytes()).unwrap_or(usize::MAX))))
            .collect();
        let put = self.store.put_batch(&blobs)?;
        self.summary.stored += put.stored;
        self.summary.stored_bytes += put.stored_bytes;
        Ok(())
    }

    fn accept_piece(&mut self, digests: &[Digest], batch: &BlobBatch) -> Result<(), BatchError> {
        let [digest] = digests else {
            let problem = format!("a piece of {} blobs", digests.len());
            return Err(BatchError::Size { first: digests.first().copied(), problem });
        };
        let mut upload = match self.upload.take() {
            Some(upload) if upload.digest() != *digest => return Err(incomplete(&upload)),
            Some(upload) => upload,
            None => self.store.begin(*digest)?,
        };
        if batch.piece_offset != upload.written() {
            return Err(BatchError::Gap { digest: *digest, offset: batch.piece_offset, expected: upload.written() });
        }
        let left = digest.size_bytes() - upload.written();
        let piece = unpack(batch, left.min(MAX_BATCH_BYTES as u64), Some(*digest))?;
        if piece.is_empty() && left > 0 {
            return Err(BatchError::Size { first: Some(*digest), problem: "an empty piece".to_owned() });
        }
        upload.write(&piece)?;
        if upload.written() < digest.size_bytes() {
            self.upload = Some(upload);
        } else if upload.commit()? {
            self.summary.stored += 1;
            self.summary.stored_bytes += digest.size_bytes();
        }
        Ok(())
    }
}

/// The message's content, never more than `limit` bytes of it.
fn unpack(batch: &BlobBatch, limit: u64, first: Option<Digest>) -> Result<Bytes, BatchError> {
    let limit_bytes = usize::try_from(limit).unwrap_or(usize::MAX);
    let too_much = |problem: String| BatchError::Size { first, problem };
    match mote::blob_batch::Compression::try_from(batch.compression) {
        Ok(Compression::None) if batch.data.len() > limit_bytes => {
            Err(too_much(format!("{} bytes, over the {limit} announced", batch.data.len())))
        }
        Ok(Compression::None) => Ok(batch.data.clone()),
        Ok(Compression::Zstd) => zstd::bulk::decompress(&batch.data, limit_bytes)
            .map(Bytes::from)
            .map_err(|error| too_much(format!("no zstd of at most {limit} bytes: {error}"))),
        Err(_) => Err(BatchError::Compression(batch.compression)),
    }
}

fn incomplete(upload: &Upload) -> BatchError {
    BatchError::Incomplete { digest: upload.digest(), received: upload.written() }
}

impl BatchError {
    /// Whether the sender is at fault: the same batch would be refused again.
    pub fn is_senders_fault(&self) -> bool {
        match self {
            Self::Store(error) => matches!(error, StoreError::Mismatch { .. } | StoreError::TooLarge { .. }),
            _ => true,
        }
    }
}

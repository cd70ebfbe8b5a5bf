//! `ContentAddressableStorage`.

use super::tree_pages::TreePages;
use super::{MAX_BATCH_TOTAL_BYTES, compression, status};
use crate::store::{BlobSource as _, Store};
use bytes::Bytes;
use motefarm_core::Digest;
use motefarm_proto::convert;
use motefarm_proto::reapi::content_addressable_storage_server::ContentAddressableStorage;
use motefarm_proto::reapi::{
    BatchReadBlobsRequest, BatchReadBlobsResponse, BatchUpdateBlobsRequest, BatchUpdateBlobsResponse,
    FindMissingBlobsRequest, FindMissingBlobsResponse, GetChunkMappingRequest, GetChunkMappingResponse, GetTreeRequest,
    GetTreeResponse, RegisterChunkMappingRequest, RegisterChunkMappingResponse, SpliceBlobRequest, SpliceBlobResponse,
    SplitBlobRequest, SplitBlobResponse, batch_read_blobs_response, batch_update_blobs_request,
    batch_update_blobs_response, compressor,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// The CAS of one store.
#[derive(Debug, Clone)]
pub struct CasService {
    store: Store,
}

/// Content below this is not worth compressing.
const MIN_COMPRESS_BYTES: usize = 512;
/// What an entry of an answer has besides content: its digest (at most 78 bytes), status and compressor.
const ENTRY_BYTES: usize = 110;
/// Largest answer with contents: what peers that were told nothing receive, less room for the frame.
const MAX_ANSWER_BYTES: u64 = (4 << 20) - 1024;
/// Pages of a tree made ready and not yet taken.
const READY_PAGES: usize = 2;

impl CasService {
    /// Serves `store`.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, Status> + Send + 'static,
    ) -> Result<T, Status> {
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || work(&store)).await.map_err(|error| status::of_join(&error))?
    }
}

#[tonic::async_trait]
impl ContentAddressableStorage for CasService {
    /// What is found counts as used just now.
    async fn find_missing_blobs(
        &self,
        request: Request<FindMissingBlobsRequest>,
    ) -> Result<Response<FindMissingBlobsResponse>, Status> {
        let request = request.into_inner();
        status::check_digest_function(request.digest_function)?;
        let digests = status::digests("blob_digests", &request.blob_digests)?;
        let missing = self.blocking(move |store| Ok(store.missing(&digests))).await?;
        let missing_blob_digests = missing.into_iter().map(convert::to_reapi_digest).collect();
        Ok(Response::new(FindMissingBlobsResponse { missing_blob_digests }))
    }

    /// Each blob succeeds or fails by itself. Finishes once begun, also when the caller leaves.
    async fn batch_update_blobs(
        &self,
        request: Request<BatchUpdateBlobsRequest>,
    ) -> Result<Response<BatchUpdateBlobsResponse>, Status> {
        let request = request.into_inner();
        status::check_digest_function(request.digest_function)?;
        let sizes = request.requests.iter().map(|blob| {
            blob.data.len() as u64 + blob.digest.as_ref().map_or(0, |d| u64::try_from(d.size_bytes).unwrap_or(0))
        });
        // Plain content is counted twice, as announced and as sent; packed content as what it
        // unpacks to and as sent. Either way this bounds what the call takes in memory.
        check_batch(sizes.fold(0, u64::saturating_add), 2 * MAX_BATCH_TOTAL_BYTES)?;
        self.blocking(move |store| Ok(Response::new(update(store, request.requests)))).await
    }

    async fn batch_read_blobs(
        &self,
        request: Request<BatchReadBlobsRequest>,
    ) -> Result<Response<BatchReadBlobsResponse>, Status> {
        let request = request.into_inner();
        status::check_digest_function(request.digest_function)?;
        let digests = status::digests("digests", &request.digests)?;
        let total = digests.iter().map(Digest::size_bytes).fold(0, u64::saturating_add);
        check_batch(total, MAX_BATCH_TOTAL_BYTES)?;
        // Of small blobs most of the answer is what stands around them.
        let encoded = total + (digests.len() * ENTRY_BYTES) as u64;
        if encoded > MAX_ANSWER_BYTES {
            return Err(Status::invalid_argument(format!(
                "an answer with {} blobs is over the {MAX_ANSWER_BYTES} bytes that every peer receives; ask for fewer",
                digests.len()
            )));
        }
        let zstd = request.acceptable_compressors.contains(&compressor::Value::Zstd.into());
        self.blocking(move |store| {
            let responses = digests.into_iter().map(|digest| read_one(store, digest, zstd)).collect();
            Ok(Response::new(BatchReadBlobsResponse { responses }))
        })
        .await
    }

    type GetTreeStream = ReceiverStream<Result<GetTreeResponse, Status>>;

    /// Streams all pages, whatever their size; stops when the caller leaves.
    async fn get_tree(&self, request: Request<GetTreeRequest>) -> Result<Response<Self::GetTreeStream>, Status> {
        let request = request.into_inner();
        status::check_digest_function(request.digest_function)?;
        let root = status::required(request.root_digest.as_ref())?;
        let open = move |store: &Store| TreePages::new(store.clone(), root, request.page_size, &request.page_token);
        let pages = self.blocking(open).await?;
        let (sender, receiver) = mpsc::channel(READY_PAGES);
        tokio::task::spawn_blocking(move || {
            for page in pages {
                if sender.blocking_send(page).is_err() {
                    break;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn split_blob(&self, _: Request<SplitBlobRequest>) -> Result<Response<SplitBlobResponse>, Status> {
        Err(no_chunks())
    }

    async fn splice_blob(&self, _: Request<SpliceBlobRequest>) -> Result<Response<SpliceBlobResponse>, Status> {
        Err(no_chunks())
    }

    type GetChunkMappingStream = ReceiverStream<Result<GetChunkMappingResponse, Status>>;

    async fn get_chunk_mapping(
        &self,
        _: Request<GetChunkMappingRequest>,
    ) -> Result<Response<Self::GetChunkMappingStream>, Status> {
        Err(no_chunks())
    }

    async fn register_chunk_mapping(
        &self,
        _: Request<tonic::Streaming<RegisterChunkMappingRequest>>,
    ) -> Result<Response<RegisterChunkMappingResponse>, Status> {
        Err(no_chunks())
    }
}

fn no_chunks() -> Status {
    Status::unimplemented("blobs are not chunked here")
}

fn check_batch(bytes: u64, limit: u64) -> Result<(), Status> {
    if bytes > limit {
        return Err(Status::invalid_argument(format!(
            "the batch is over max_batch_total_size_bytes = {MAX_BATCH_TOTAL_BYTES}; use ByteStream"
        )));
    }
    Ok(())
}

/// Verifies each blob, then stores all good ones in one go.
fn update(store: &Store, requests: Vec<batch_update_blobs_request::Request>) -> BatchUpdateBlobsResponse {
    let mut statuses = Vec::with_capacity(requests.len());
    let mut good = Vec::with_capacity(requests.len());
    for request in requests {
        let checked = check_one(&request);
        statuses.push((request.digest, checked.as_ref().err().cloned()));
        good.extend(checked.ok());
    }
    let stored = store.put_verified(&good).map_err(|error| status::of_store(&error));
    let responses = statuses.into_iter().map(|(digest, bad)| {
        let bad = bad.or_else(|| stored.as_ref().err().cloned());
        let status = Some(bad.as_ref().map_or_else(Default::default, status::inner));
        batch_update_blobs_response::Response { digest, status }
    });
    BatchUpdateBlobsResponse { responses: responses.collect() }
}

fn check_one(request: &batch_update_blobs_request::Request) -> Result<(Digest, Bytes), Status> {
    let digest = status::required(request.digest.as_ref())?;
    let content = match compressor::Value::try_from(request.compressor) {
        Ok(compressor::Value::Identity) => request.data.clone(),
        Ok(compressor::Value::Zstd) => {
            let size = usize::try_from(digest.size_bytes()).unwrap_or(usize::MAX);
            compression::unpack(&request.data, size)
                .map_err(|error| Status::invalid_argument(format!("{digest}: not its zstd: {error}")))?
        }
        _ => return Err(Status::invalid_argument(format!("compressor {} is not supported", request.compressor))),
    };
    let actual = Digest::of(&content);
    if actual != digest {
        return Err(Status::invalid_argument(format!("content announced as {digest} is {actual}")));
    }
    Ok((digest, content.into()))
}

fn read_one(store: &Store, digest: Digest, zstd: bool) -> batch_read_blobs_response::Response {
    let read = store.read(&digest, MAX_BATCH_TOTAL_BYTES).map_err(|error| status::of_store(&error));
    let found = read.and_then(|content| content.ok_or_else(|| Status::not_found("not in the store")));
    let mut response = batch_read_blobs_response::Response {
        digest: Some(convert::to_reapi_digest(digest)),
        status: Some(Default::default()),
        ..Default::default()
    };
    match found {
        Ok(content) => {
            let packed =
                (zstd && content.len() >= MIN_COMPRESS_BYTES).then(|| compression::pack(&content).ok()).flatten();
            match packed.filter(|packed| packed.len() < content.len()) {
                Some(packed) => {
                    response.data = packed;
                    response.compressor = compressor::Value::Zstd.into();
                }
                None => response.data = content.to_vec(),
            }
        }
        Err(error) => response.status = Some(status::inner(&error)),
    }
    response
}

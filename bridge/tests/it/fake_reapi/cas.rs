//! Its CAS and ByteStream.

use super::FakeReapi;
use bytes::Bytes;
use futures_util::Stream;
use motefarm_core::Digest;
use motefarm_proto::convert::{reapi_digest, to_reapi_digest};
use motefarm_proto::reapi::bytestream::byte_stream_server::ByteStream;
use motefarm_proto::reapi::bytestream::{
    QueryWriteStatusRequest, QueryWriteStatusResponse, ReadRequest, ReadResponse, WriteRequest, WriteResponse,
};
use motefarm_proto::reapi::content_addressable_storage_server::ContentAddressableStorage;
use motefarm_proto::reapi::rpc;
use motefarm_proto::reapi::{
    BatchReadBlobsRequest, BatchReadBlobsResponse, BatchUpdateBlobsRequest, BatchUpdateBlobsResponse,
    FindMissingBlobsRequest, FindMissingBlobsResponse, GetChunkMappingRequest, GetChunkMappingResponse, GetTreeRequest,
    GetTreeResponse, RegisterChunkMappingRequest, RegisterChunkMappingResponse, SpliceBlobRequest, SpliceBlobResponse,
    SplitBlobRequest, SplitBlobResponse, batch_read_blobs_response, batch_update_blobs_response,
};
use prost::Message as _;
use std::pin::Pin;
use tonic::{Request, Response, Status, Streaming};

#[derive(Clone)]
pub(super) struct CasSide(pub(super) FakeReapi);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn inner(result: &Result<(), Status>) -> Option<rpc::Status> {
    let (code, message) = match result {
        Ok(()) => (0, String::new()),
        Err(status) => (status.code().into(), status.message().to_owned()),
    };
    Some(rpc::Status { code, message, details: vec![] })
}

impl CasSide {
    fn limit(&self) -> usize {
        usize::try_from(self.0.rules.batch_bytes).unwrap()
    }
}

#[tonic::async_trait]
impl ContentAddressableStorage for CasSide {
    async fn find_missing_blobs(
        &self,
        request: Request<FindMissingBlobsRequest>,
    ) -> Result<Response<FindMissingBlobsResponse>, Status> {
        let request = request.into_inner();
        self.0.called("find_missing", &request.instance_name)?;
        let state = self.0.state();
        let missing = request.blob_digests.into_iter().filter(|digest| {
            let digest = reapi_digest(digest).unwrap();
            digest != Digest::EMPTY && !state.blobs.contains_key(&digest)
        });
        Ok(Response::new(FindMissingBlobsResponse { missing_blob_digests: missing.collect() }))
    }

    async fn batch_update_blobs(
        &self,
        request: Request<BatchUpdateBlobsRequest>,
    ) -> Result<Response<BatchUpdateBlobsResponse>, Status> {
        let request = request.into_inner();
        self.0.called("batch_update", &request.instance_name)?;
        let size = request.encoded_len();
        let largest = self.0.state().largest_batch.max(size);
        self.0.state().largest_batch = largest;
        if self.limit() > 0 && size > self.limit() {
            return Err(Status::invalid_argument("over max_batch_total_size_bytes"));
        }
        let responses = request.requests.into_iter().map(|blob| {
            let digest = reapi_digest(blob.digest.as_ref().unwrap()).unwrap();
            let status = inner(&self.0.put(digest, blob.data.into()));
            batch_update_blobs_response::Response { digest: blob.digest, status }
        });
        Ok(Response::new(BatchUpdateBlobsResponse { responses: responses.collect() }))
    }

    async fn batch_read_blobs(
        &self,
        request: Request<BatchReadBlobsRequest>,
    ) -> Result<Response<BatchReadBlobsResponse>, Status> {
        let request = request.into_inner();
        self.0.called("batch_read", &request.instance_name)?;
        let total: i64 = request.digests.iter().map(|digest| digest.size_bytes).sum();
        if self.limit() > 0 && total > self.0.rules.batch_bytes {
            return Err(Status::invalid_argument("over max_batch_total_size_bytes"));
        }
        let responses = request.digests.into_iter().map(|digest| {
            let (data, result) = match self.0.get(reapi_digest(&digest).unwrap()) {
                Ok(content) => (content.to_vec(), Ok(())),
                Err(status) => (vec![], Err(status)),
            };
            let status = inner(&result);
            batch_read_blobs_response::Response { digest: Some(digest), data, status, ..Default::default() }
        });
        Ok(Response::new(BatchReadBlobsResponse { responses: responses.collect() }))
    }

    type GetTreeStream = Answers<GetTreeResponse>;

    async fn get_tree(&self, _: Request<GetTreeRequest>) -> Result<Response<Self::GetTreeStream>, Status> {
        Err(Status::unimplemented("the bridge does not ask"))
    }

    async fn split_blob(&self, _: Request<SplitBlobRequest>) -> Result<Response<SplitBlobResponse>, Status> {
        Err(Status::unimplemented("chunks"))
    }

    async fn splice_blob(&self, _: Request<SpliceBlobRequest>) -> Result<Response<SpliceBlobResponse>, Status> {
        Err(Status::unimplemented("chunks"))
    }

    type GetChunkMappingStream = Answers<GetChunkMappingResponse>;

    async fn get_chunk_mapping(
        &self,
        _: Request<GetChunkMappingRequest>,
    ) -> Result<Response<Self::GetChunkMappingStream>, Status> {
        Err(Status::unimplemented("chunks"))
    }

    async fn register_chunk_mapping(
        &self,
        _: Request<Streaming<RegisterChunkMappingRequest>>,
    ) -> Result<Response<RegisterChunkMappingResponse>, Status> {
        Err(Status::unimplemented("chunks"))
    }
}

/// The instance before the keyword, and the digest behind `blobs`.
fn parse(name: &str, keyword: &str) -> Option<(String, Digest)> {
    let parts: Vec<&str> = name.split('/').collect();
    let at = parts.iter().position(|part| *part == keyword)?;
    let blobs = parts.iter().position(|part| *part == "blobs")?;
    let digest = Digest::parse(parts.get(blobs + 1)?, parts.get(blobs + 2)?.parse().ok()?).ok()?;
    Some((parts[..at].join("/"), digest))
}

#[tonic::async_trait]
impl ByteStream for CasSide {
    type ReadStream = Answers<ReadResponse>;

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let request = request.into_inner();
        let name = parse(&request.resource_name, "blobs");
        let (instance, digest) = name.ok_or_else(|| Status::invalid_argument("resource name"))?;
        self.0.called("read", &instance)?;
        let content = self.0.get(digest)?;
        let start = usize::try_from(request.read_offset).unwrap().min(content.len());
        let end = match request.read_limit {
            0 => content.len(),
            limit => (start + usize::try_from(limit).unwrap()).min(content.len()),
        };
        // 64 KiB a message, as NativeLink has it.
        let pieces: Vec<_> =
            content.slice(start..end).chunks(64 << 10).map(|piece| Ok(ReadResponse { data: piece.to_vec() })).collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(pieces))))
    }

    async fn write(&self, request: Request<Streaming<WriteRequest>>) -> Result<Response<WriteResponse>, Status> {
        let mut messages = request.into_inner();
        let first = messages.message().await?.ok_or_else(|| Status::invalid_argument("no message"))?;
        let name = parse(&first.resource_name, "uploads");
        let (instance, digest) = name.ok_or_else(|| Status::invalid_argument("resource name"))?;
        self.0.called("write", &instance)?;
        let mut content = Vec::new();
        let mut message = Some(first);
        let mut finished = false;
        while let Some(piece) = message {
            if piece.write_offset != content.len() as i64 || finished {
                return Err(Status::invalid_argument("write_offset"));
            }
            content.extend(piece.data);
            finished = piece.finish_write;
            message = messages.message().await?;
        }
        if !finished || content.len() as u64 != digest.size_bytes() {
            return Err(Status::invalid_argument("not finished, or another size"));
        }
        self.0.put(digest, Bytes::from(content))?;
        let committed_size = to_reapi_digest(digest).size_bytes;
        Ok(Response::new(WriteResponse { committed_size }))
    }

    async fn query_write_status(
        &self,
        _: Request<QueryWriteStatusRequest>,
    ) -> Result<Response<QueryWriteStatusResponse>, Status> {
        Err(Status::unimplemented("as at BuildGrid and casd"))
    }
}

//! The content store's service of the farm in the tests: three blobs, one of them wrong.

use super::Service;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use motefarm_core::Digest;
use motefarm_proto::mote::content_server::Content;
use motefarm_proto::mote::*;
use tonic::{Request, Response, Status};

/// The wrong one.
pub(crate) fn wrong() -> Digest {
    Digest::of(b"wrong")
}

#[tonic::async_trait]
impl Content for Service {
    async fn describe_content(
        &self,
        _: Request<DescribeContentRequest>,
    ) -> Result<Response<DescribeContentResponse>, Status> {
        Ok(Response::new(DescribeContentResponse { blobs: 3, blob_bytes: 3_000, ..Default::default() }))
    }

    async fn collect_content(
        &self,
        request: Request<CollectContentRequest>,
    ) -> Result<Response<CollectContentResponse>, Status> {
        let left = request.into_inner().target_bytes.unwrap_or(7_000);
        Ok(Response::new(CollectContentResponse { blobs: 2, freed_bytes: 2_000, disk_bytes: left }))
    }

    type VerifyContentStream = BoxStream<'static, Result<VerifyContentEvent, Status>>;

    async fn verify_content(
        &self,
        request: Request<VerifyContentRequest>,
    ) -> Result<Response<Self::VerifyContentStream>, Status> {
        let bad = vec![wrong().into()];
        let first =
            VerifyContentEvent { blobs: 1, bytes: 5, all_blobs: 3, all_bytes: 3_000, bad, ..Default::default() };
        let discarded = request.get_ref().discard.into();
        let last = VerifyContentEvent { blobs: 3, bytes: 3_000, end: true, discarded, bad: vec![], ..first.clone() };
        Ok(Response::new(stream::iter([Ok(first), Ok(last)]).boxed()))
    }
}

//! Any bytes as a request of the Remote Execution API, given to the service as a peer's would be.
//!
//! The first byte chooses the call; the rest is the message. What is answered must be true: a blob said to be
//! stored is there and is what its digest says, and one that is not missing can be read.
#![no_main]

mod ground;
mod store;

use libfuzzer_sys::fuzz_target;
use motefarm_cas::service::{ByteStreamService, CasService};
use motefarm_cas::store::BlobSource as _;
use motefarm_core::Digest;
use motefarm_proto::convert::{reapi_digest, to_reapi_digest};
use motefarm_proto::reapi::bytestream::byte_stream_server::ByteStream as _;
use motefarm_proto::reapi::bytestream::{QueryWriteStatusRequest, ReadRequest};
use motefarm_proto::reapi::content_addressable_storage_server::ContentAddressableStorage as _;
use motefarm_proto::reapi::{
    self, BatchReadBlobsRequest, BatchUpdateBlobsRequest, FindMissingBlobsRequest, GetTreeRequest,
};
use prost::Message;
use std::sync::LazyLock;
use store::STORE;
use tokio::runtime::Runtime;
use tokio_stream::StreamExt as _;
use tonic::Request;

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"));
static STREAMS: LazyLock<ByteStreamService> = LazyLock::new(|| ByteStreamService::new(STORE.clone()));
static CAS: LazyLock<CasService> = LazyLock::new(|| CasService::new(STORE.clone()));

fn parse<M: Message + Default>(bytes: &[u8]) -> Option<Request<M>> {
    M::decode(bytes).ok().map(Request::new)
}

/// A fuzzer can not guess a digest: one without a hash, of the size -1, becomes that of `content`.
fn guessed(digest: &mut Option<reapi::Digest>, content: &[u8]) {
    if digest.as_ref().is_none_or(|digest| digest.hash.is_empty() && digest.size_bytes == -1) {
        *digest = Some(to_reapi_digest(Digest::of(content)));
    }
}

async fn find_missing(request: Request<FindMissingBlobsRequest>) {
    let asked: Vec<_> = request.get_ref().blob_digests.iter().filter_map(|digest| reapi_digest(digest).ok()).collect();
    let Ok(answer) = CAS.find_missing_blobs(request).await else { return };
    let missing = answer.into_inner().missing_blob_digests;
    assert!(missing.len() <= asked.len());
    for digest in missing.iter().map(|digest| reapi_digest(digest).expect("what we encode")) {
        assert!(asked.contains(&digest) && digest != Digest::EMPTY);
    }
}

async fn update(mut request: Request<BatchUpdateBlobsRequest>) {
    for entry in &mut request.get_mut().requests {
        guessed(&mut entry.digest, &entry.data);
    }
    let Ok(answer) = CAS.batch_update_blobs(request).await else { return };
    for entry in answer.into_inner().responses {
        if entry.status.unwrap_or_default().code != 0 {
            continue;
        }
        let digest =
            entry.digest.as_ref().and_then(|digest| reapi_digest(digest).ok()).expect("a digest that was good");
        // It may have been evicted by what came in the same call.
        if let Some(content) = STORE.read(&digest, u64::MAX).expect("the store works") {
            assert_eq!(Digest::of(&content), digest);
        }
    }
}

async fn batch_read(request: Request<BatchReadBlobsRequest>) {
    let Ok(answer) = CAS.batch_read_blobs(request).await else { return };
    let answer = answer.into_inner();
    assert!(answer.encoded_len() < 4 << 20, "more than peers receive");
    for entry in answer.responses.iter().filter(|entry| entry.status.clone().unwrap_or_default().code == 0) {
        let digest = reapi_digest(entry.digest.as_ref().expect("it has one")).expect("what we encode");
        if entry.compressor == 0 {
            assert_eq!(Digest::of(&entry.data), digest);
        }
    }
}

async fn get_tree(mut request: Request<GetTreeRequest>, bytes: &[u8]) {
    // A root of the fuzzer's own making.
    if request.get_ref().root_digest.is_none() {
        let content = bytes::Bytes::copy_from_slice(bytes);
        let _ = STORE.put_batch(&[(Digest::of(bytes), content)]);
        guessed(&mut request.get_mut().root_digest, bytes);
    }
    let Ok(pages) = CAS.get_tree(request).await else { return };
    let mut pages = pages.into_inner();
    while let Some(page) = pages.next().await {
        if page.is_err() {
            break;
        }
    }
}

async fn read(request: Request<ReadRequest>) {
    let limit = request.get_ref().read_limit;
    let Ok(pieces) = STREAMS.read(request).await else { return };
    let mut pieces = pieces.into_inner();
    let mut total = 0;
    while let Some(Ok(piece)) = pieces.next().await {
        total += piece.data.len() as i64;
    }
    assert!(limit == 0 || total <= limit);
}

fuzz_target!(|bytes: &[u8]| {
    let Some((call, bytes)) = bytes.split_first() else { return };
    RUNTIME.block_on(async {
        // What does not decode never comes as far as the service.
        let _: Option<()> = async {
            match call % 6 {
                0 => find_missing(parse(bytes)?).await,
                1 => update(parse(bytes)?).await,
                2 => batch_read(parse(bytes)?).await,
                3 => get_tree(parse(bytes)?, bytes).await,
                4 => read(parse(bytes)?).await,
                _ => drop(STREAMS.query_write_status(parse::<QueryWriteStatusRequest>(bytes)?).await),
            }
            Some(())
        }
        .await;
    });
});

//! A client of the Remote Execution API that does one thing to a server and says how long it took, for
//! `bench/`: the same program asks every server. Times are of the calls alone; content is made, and digests are
//! taken, before the clock runs. What was asked for is checked.
//!
//! ```text
//! reapi_load URL SEED find N         FindMissingBlobs of N digests, half of them there
//! reapi_load URL SEED put N SIZE     N blobs in batches just under 4 MiB; over 1 MiB each by ByteStream
//! reapi_load URL SEED get N SIZE     the same back, every byte compared
//! reapi_load URL SEED true N JOBS    N different actions of /bin/true, JOBS at a time
//! ```

#![expect(clippy::print_stdout, reason = "its output is what it is for")]
#![expect(clippy::unwrap_used, reason = "whoever runs it wants to see the cause at once")]

use motefarm_core::Digest;
use motefarm_proto::convert::to_reapi_digest;
use motefarm_proto::reapi::bytestream::byte_stream_client::ByteStreamClient;
use motefarm_proto::reapi::bytestream::{ReadRequest, WriteRequest};
use motefarm_proto::reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use motefarm_proto::reapi::execution_client::ExecutionClient;
use motefarm_proto::reapi::longrunning::operation;
use motefarm_proto::reapi::{
    Action, BatchReadBlobsRequest, BatchUpdateBlobsRequest, Command, ExecuteRequest, ExecuteResponse,
    FindMissingBlobsRequest, batch_update_blobs_request,
};
use prost::Message as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tonic::transport::{Channel, Endpoint};

/// Content of a batch, by ones that announce no limit at most this.
const BATCH_BYTES: usize = 3 << 20;
/// Larger blobs go by ByteStream, in pieces of this.
const PIECE_BYTES: usize = 1 << 20;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |n: usize| args[n].parse::<usize>().unwrap();
    let channel = Endpoint::from_shared(args[0].clone()).unwrap().connect().await.unwrap();
    let seed = args[1].parse::<u64>().unwrap();
    let took = match (args[2].as_str(), number(3)) {
        ("find", count) => find(channel, seed, count).await,
        ("put", count) => put(channel, &blobs(seed, count, number(4))).await,
        ("get", count) => get(channel, &blobs(seed, count, number(4))).await,
        ("true", count) => execute(channel, seed, count, number(4)).await,
        (other, _) => panic!("{other}?"),
    };
    println!("{:.6}", took.as_secs_f64());
}

/// Bytes that do not compress, the same for the same seed.
fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size + 8);
    let mut state = seed;
    while bytes.len() < size {
        // SplitMix64.
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bytes.extend_from_slice(&(z ^ (z >> 31)).to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

fn blobs(seed: u64, count: usize, size: usize) -> Vec<(Digest, Vec<u8>)> {
    let content = |n: usize| noise(seed.wrapping_mul(1_000_003).wrapping_add(n as u64), size);
    (0..count).map(content).map(|content| (Digest::of(&content), content)).collect()
}

fn cas(channel: &Channel) -> ContentAddressableStorageClient<Channel> {
    ContentAddressableStorageClient::new(channel.clone())
}

async fn find(channel: Channel, seed: u64, count: usize) -> Duration {
    let there = blobs(seed, count / 2, 100);
    put(channel.clone(), &there).await;
    let absent = (0..count - there.len()).map(|n| Digest::of(&noise(seed ^ (n as u64) << 20, 32)));
    let digests: Vec<_> = there.iter().map(|(digest, _)| *digest).chain(absent).map(to_reapi_digest).collect();
    let mut client = cas(&channel);
    let request = FindMissingBlobsRequest { blob_digests: digests, ..Default::default() };
    let began = Instant::now();
    let answer = client.find_missing_blobs(request).await.unwrap().into_inner();
    let took = began.elapsed();
    assert_eq!(answer.missing_blob_digests.len(), count - there.len());
    took
}

async fn put(channel: Channel, blobs: &[(Digest, Vec<u8>)]) -> Duration {
    if blobs.iter().any(|(_, content)| content.len() > PIECE_BYTES) {
        let began = Instant::now();
        for (digest, content) in blobs {
            write(channel.clone(), digest, content).await;
        }
        return began.elapsed();
    }
    let size = blobs.first().map_or(1, |(_, content)| content.len() + 100);
    let entry = |(digest, content): &(Digest, Vec<u8>)| batch_update_blobs_request::Request {
        digest: Some(to_reapi_digest(*digest)),
        data: content.clone(),
        ..Default::default()
    };
    let batches = blobs.chunks((BATCH_BYTES / size).max(1));
    let requests: Vec<BatchUpdateBlobsRequest> = batches
        .map(|batch| BatchUpdateBlobsRequest { requests: batch.iter().map(entry).collect(), ..Default::default() })
        .collect();
    let began = Instant::now();
    for request in requests {
        let answer = cas(&channel).batch_update_blobs(request).await.unwrap().into_inner();
        assert!(answer.responses.iter().all(|it| it.status.clone().unwrap_or_default().code == 0));
    }
    began.elapsed()
}

async fn write(channel: Channel, digest: &Digest, content: &[u8]) {
    let name = format!("uploads/{}/blobs/{}/{}", uuid::Uuid::new_v4(), digest.hash_hex(), content.len());
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    let call = tokio::spawn(async move {
        let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
        ByteStreamClient::new(channel).write(stream).await
    });
    for (n, piece) in content.chunks(PIECE_BYTES).enumerate() {
        let write_offset = (n * PIECE_BYTES) as i64;
        let finish_write = (n + 1) * PIECE_BYTES >= content.len();
        let resource_name = if n == 0 { name.clone() } else { String::new() };
        let message = WriteRequest { resource_name, write_offset, finish_write, data: piece.to_vec() };
        if sender.send(message).await.is_err() {
            break;
        }
    }
    drop(sender);
    assert_eq!(call.await.unwrap().unwrap().into_inner().committed_size, content.len() as i64);
}

async fn get(channel: Channel, blobs: &[(Digest, Vec<u8>)]) -> Duration {
    let mut took = Duration::ZERO;
    if blobs.iter().any(|(_, content)| content.len() > PIECE_BYTES) {
        for (digest, content) in blobs {
            let resource_name = format!("blobs/{}/{}", digest.hash_hex(), content.len());
            let began = Instant::now();
            let request = ReadRequest { resource_name, ..Default::default() };
            let mut pieces = ByteStreamClient::new(channel.clone()).read(request).await.unwrap().into_inner();
            let mut offset = 0;
            while let Some(piece) = pieces.message().await.unwrap() {
                assert!(content[offset..].starts_with(&piece.data));
                offset += piece.data.len();
            }
            took += began.elapsed();
            assert_eq!(offset, content.len());
        }
        return took;
    }
    let size = blobs.first().map_or(1, |(_, content)| content.len() + 100);
    for batch in blobs.chunks((BATCH_BYTES / size).max(1)) {
        let digests = batch.iter().map(|(digest, _)| to_reapi_digest(*digest)).collect();
        let request = BatchReadBlobsRequest { digests, ..Default::default() };
        let began = Instant::now();
        let answer = cas(&channel).batch_read_blobs(request).await.unwrap().into_inner();
        took += began.elapsed();
        let by_hash: std::collections::HashMap<_, _> =
            answer.responses.into_iter().map(|it| (it.digest.unwrap_or_default().hash, it.data)).collect();
        assert!(batch.iter().all(|(digest, content)| by_hash.get(&digest.hash_hex()) == Some(content)));
    }
    took
}

async fn execute(channel: Channel, seed: u64, count: usize, jobs: usize) -> Duration {
    let command = Command { arguments: vec!["/bin/true".to_owned()], ..Default::default() }.encode_to_vec();
    let mut uploads = vec![(Digest::of(&command), command)];
    let mut actions = Vec::with_capacity(count);
    for n in 0..count {
        let action = Action {
            command_digest: Some(to_reapi_digest(uploads[0].0)),
            input_root_digest: Some(to_reapi_digest(Digest::EMPTY)),
            salt: noise(seed ^ (n as u64) << 20, 16),
            ..Default::default()
        };
        let bytes = action.encode_to_vec();
        actions.push(Digest::of(&bytes));
        uploads.push((Digest::of(&bytes), bytes));
    }
    uploads.push((Digest::EMPTY, Vec::new()));
    put(channel.clone(), &uploads).await;
    let (actions, next) = (Arc::new(actions), Arc::new(AtomicUsize::new(0)));
    let began = Instant::now();
    let workers: Vec<_> = (0..jobs)
        .map(|_| {
            let (actions, next, channel) = (actions.clone(), next.clone(), channel.clone());
            tokio::spawn(async move {
                while let Some(action) = actions.get(next.fetch_add(1, Ordering::Relaxed)) {
                    one(&channel, *action).await;
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
    began.elapsed()
}

async fn one(channel: &Channel, action: Digest) {
    let action_digest = Some(to_reapi_digest(action));
    let request = ExecuteRequest { action_digest, skip_cache_lookup: true, ..Default::default() };
    let mut operations = ExecutionClient::new(channel.clone()).execute(request).await.unwrap().into_inner();
    while let Some(operation) = operations.message().await.unwrap() {
        if let Some(operation::Result::Response(any)) = operation.result {
            let response = ExecuteResponse::decode(&any.value[..]).unwrap();
            let status = response.status.unwrap_or_default();
            assert!(status.code == 0 && response.result.unwrap().exit_code == 0, "{}", status.message);
            return;
        }
    }
    panic!("no response");
}

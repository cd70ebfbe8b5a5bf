//! Through real gRPC on a port of its own.

use super::*;
use crate::store::{BlobSource as _, Store, StoreLimits};
use crate::tree::{self, Entry, EntryKind};
use bytes::Bytes;
use motefarm_core::Digest;
use motefarm_proto::convert::to_reapi_digest;
use motefarm_proto::reapi::bytestream::byte_stream_client::ByteStreamClient;
use motefarm_proto::reapi::bytestream::byte_stream_server::ByteStreamServer;
use motefarm_proto::reapi::bytestream::{QueryWriteStatusRequest, ReadRequest, WriteRequest};
use motefarm_proto::reapi::capabilities_client::CapabilitiesClient;
use motefarm_proto::reapi::capabilities_server::CapabilitiesServer;
use motefarm_proto::reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use motefarm_proto::reapi::content_addressable_storage_server::ContentAddressableStorageServer;
use motefarm_proto::reapi::{
    BatchReadBlobsRequest, BatchUpdateBlobsRequest, FindMissingBlobsRequest, GetCapabilitiesRequest, GetTreeRequest,
    SplitBlobRequest, batch_update_blobs_request, compressor,
};
use std::collections::HashSet;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Channel, Server};
use tonic::{Code, Status};

struct Bench {
    _dir: tempfile::TempDir,
    store: Store,
    channel: Channel,
}

const MIB: usize = 1 << 20;

impl Bench {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), StoreLimits::default()).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let cas = ContentAddressableStorageServer::new(CasService::new(store.clone()));
        let byte_stream = ByteStreamServer::new(ByteStreamService::new(store.clone()));
        let server = Server::builder()
            .add_service(cas.max_decoding_message_size(8 * MIB))
            .add_service(byte_stream.max_decoding_message_size(8 * MIB))
            .add_service(CapabilitiesServer::new(CapabilitiesService::default()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        Self { _dir: dir, store, channel }
    }

    fn cas(&self) -> ContentAddressableStorageClient<Channel> {
        ContentAddressableStorageClient::new(self.channel.clone()).max_decoding_message_size(8 * MIB)
    }

    fn byte_stream(&self) -> ByteStreamClient<Channel> {
        ByteStreamClient::new(self.channel.clone())
    }

    fn put(&self, content: &[u8]) -> Digest {
        let digest = Digest::of(content);
        self.store.put_batch(&[(digest, Bytes::copy_from_slice(content))]).unwrap();
        digest
    }

    async fn write(&self, messages: Vec<WriteRequest>) -> Result<i64, Status> {
        let written = self.byte_stream().write(tokio_stream::iter(messages)).await;
        written.map(|answer| answer.into_inner().committed_size)
    }

    async fn read(&self, name: &str, read_offset: i64, read_limit: i64) -> Result<Vec<u8>, Status> {
        let request = ReadRequest { resource_name: name.to_owned(), read_offset, read_limit };
        let mut pieces = self.byte_stream().read(request).await?.into_inner();
        let mut content = Vec::new();
        while let Some(piece) = pieces.next().await {
            content.extend(piece?.data);
        }
        Ok(content)
    }

    async fn query(&self, name: &str) -> Result<(i64, bool), Status> {
        let request = QueryWriteStatusRequest { resource_name: name.to_owned() };
        let answer = self.byte_stream().query_write_status(request).await?.into_inner();
        Ok((answer.committed_size, answer.complete))
    }
}

fn noise(size: usize) -> Vec<u8> {
    (0u32..).flat_map(|n| *Digest::of(&n.to_le_bytes()).hash()).take(size).collect()
}

/// A write in messages of `step` bytes; the name on all of them or on the first only.
fn messages(name: &str, stream: &[u8], step: usize, name_on_all: bool) -> Vec<WriteRequest> {
    let mut messages: Vec<WriteRequest> = stream
        .chunks(step)
        .enumerate()
        .map(|(n, piece)| WriteRequest {
            resource_name: if n == 0 || name_on_all { name.to_owned() } else { String::new() },
            write_offset: (n * step) as i64,
            finish_write: false,
            data: piece.to_vec(),
        })
        .collect();
    if messages.is_empty() {
        messages.push(WriteRequest { resource_name: name.to_owned(), ..WriteRequest::default() });
    }
    messages.last_mut().unwrap().finish_write = true;
    messages
}

#[tokio::test]
async fn capabilities_satisfy_old_and_new_clients() {
    let bench = Bench::new().await;
    let request = GetCapabilitiesRequest { instance_name: "any/thing".into() };
    let answer = CapabilitiesClient::new(bench.channel.clone()).get_capabilities(request).await.unwrap().into_inner();
    let cache = answer.cache_capabilities.unwrap();
    assert_eq!((cache.digest_functions, cache.supported_compressors), (vec![1], vec![1]));
    assert_eq!((cache.max_batch_total_size_bytes, cache.symlink_absolute_path_strategy), (3 << 20, 2));
    assert_eq!(answer.execution_capabilities, None);
    assert_eq!(answer.low_api_version.map(|v| (v.major, v.minor)), Some((2, 0)));
    assert_eq!(answer.high_api_version.map(|v| (v.major, v.minor)), Some((2, 3)));
}

#[tokio::test]
async fn batches_succeed_and_fail_blob_by_blob() {
    let bench = Bench::new().await;
    let (good, packed) = (b"good".to_vec(), noise(100).repeat(50));
    let request = |digest: Digest, data: &[u8], compressor: compressor::Value| batch_update_blobs_request::Request {
        digest: Some(to_reapi_digest(digest)),
        data: data.to_vec(),
        compressor: compressor.into(),
    };
    let bomb = zstd::bulk::compress(&vec![0; 64 * MIB], 1).unwrap();
    let requests = vec![
        request(Digest::of(&good), &good, compressor::Value::Identity),
        request(Digest::of(b"other"), b"wrong", compressor::Value::Identity),
        request(Digest::of(&packed), &zstd::bulk::compress(&packed, 1).unwrap(), compressor::Value::Zstd),
        request(Digest::of(b"small"), &bomb, compressor::Value::Zstd),
        request(Digest::EMPTY, b"", compressor::Value::Identity),
        request(Digest::of(b"x"), b"x", compressor::Value::Deflate),
    ];
    let update = BatchUpdateBlobsRequest { requests, ..BatchUpdateBlobsRequest::default() };
    let answer = bench.cas().batch_update_blobs(update).await.unwrap().into_inner();
    let codes: Vec<i32> = answer.responses.iter().map(|response| response.status.as_ref().unwrap().code).collect();
    assert_eq!(codes, [0, 3, 0, 3, 0, 3]);

    let asked = [Digest::of(&good), Digest::of(b"other"), Digest::EMPTY, Digest::of(&packed)];
    let digests: Vec<_> = asked.iter().map(|digest| to_reapi_digest(*digest)).collect();
    let find = FindMissingBlobsRequest { blob_digests: digests.clone(), digest_function: 1, ..Default::default() };
    let missing = bench.cas().find_missing_blobs(find).await.unwrap().into_inner().missing_blob_digests;
    assert_eq!(missing, [to_reapi_digest(asked[1])]);
    for acceptable_compressors in [vec![], vec![1]] {
        let read = BatchReadBlobsRequest { digests: digests.clone(), acceptable_compressors, ..Default::default() };
        let responses = bench.cas().batch_read_blobs(read).await.unwrap().into_inner().responses;
        let codes: Vec<i32> = responses.iter().map(|response| response.status.as_ref().unwrap().code).collect();
        assert_eq!(codes, [0, 5, 0, 0]);
        assert_eq!((&responses[0].data, responses[2].data.len()), (&good, 0));
        let last = &responses[3];
        let content =
            if last.compressor == 1 { zstd::bulk::decompress(&last.data, MIB).unwrap() } else { last.data.clone() };
        assert_eq!(content, packed);
    }
}

#[tokio::test]
async fn batches_over_the_limit_and_other_hashes_are_refused() {
    let bench = Bench::new().await;
    let big = bench.put(&vec![0; 2 * MIB]);
    let read = BatchReadBlobsRequest { digests: vec![to_reapi_digest(big); 2], ..Default::default() };
    assert_eq!(bench.cas().batch_read_blobs(read).await.unwrap_err().code(), Code::InvalidArgument);
    let huge = Digest::new(*big.hash(), 1 << 60);
    let request =
        batch_update_blobs_request::Request { digest: Some(to_reapi_digest(huge)), data: vec![], compressor: 1 };
    let update = BatchUpdateBlobsRequest { requests: vec![request], ..Default::default() };
    assert_eq!(bench.cas().batch_update_blobs(update).await.unwrap_err().code(), Code::InvalidArgument);
    // Small blobs, in an answer that would be larger than what peers receive.
    let many = (0..40_000).map(|n| to_reapi_digest(Digest::new(*big.hash(), n))).collect();
    let read = BatchReadBlobsRequest { digests: many, ..Default::default() };
    assert_eq!(bench.cas().batch_read_blobs(read).await.unwrap_err().code(), Code::InvalidArgument);
    let find = FindMissingBlobsRequest { digest_function: 9, ..Default::default() };
    assert_eq!(bench.cas().find_missing_blobs(find).await.unwrap_err().code(), Code::InvalidArgument);
    let split = bench.cas().split_blob(SplitBlobRequest::default()).await;
    assert_eq!(split.unwrap_err().code(), Code::Unimplemented);
}

#[tokio::test]
async fn what_is_no_digest_is_named_by_its_place() {
    let bench = Bench::new().await;
    let good = to_reapi_digest(Digest::of(b"x"));
    for (hash, size_bytes) in [("abc".to_owned(), 1), (good.hash.to_uppercase(), 1), (good.hash.clone(), -1)] {
        let blob_digests = vec![good.clone(), motefarm_proto::reapi::Digest { hash, size_bytes }];
        let find = FindMissingBlobsRequest { blob_digests: blob_digests.clone(), ..Default::default() };
        let read = BatchReadBlobsRequest { digests: blob_digests, ..Default::default() };
        for status in [
            bench.cas().find_missing_blobs(find).await.unwrap_err(),
            bench.cas().batch_read_blobs(read).await.unwrap_err(),
        ] {
            assert_eq!(status.code(), Code::InvalidArgument);
            assert!(status.message().contains("digests[1]"), "{status}");
        }
    }
}

#[tokio::test]
async fn blobs_are_written_and_read_in_every_spelling() {
    let bench = Bench::new().await;
    for (n, size) in [0, 5, 70_000, 3 * MIB].into_iter().enumerate() {
        let content = [noise(size), vec![n as u8; size]].concat();
        let digest = Digest::of(&content);
        let address = format!("{}/{}", digest.hash_hex(), digest.size_bytes());
        let name = format!("/a/b/uploads/u{n}/blobs/{address}/meta/data");
        let committed = bench.write(messages(&name, &content, 16 << 10, n % 2 == 0)).await.unwrap();
        assert_eq!(committed, content.len() as i64);
        assert_eq!(bench.write(messages(&name, &content, MIB, true)).await.unwrap(), content.len() as i64);
        assert_eq!(bench.query(&name).await.unwrap(), (content.len() as i64, true));
        assert_eq!(bench.read(&format!("blobs/{address}"), 0, 0).await.unwrap(), content);
        let packed = bench.read(&format!("/compressed-blobs/zstd/{address}"), 0, 0).await.unwrap();
        assert_eq!(zstd::stream::decode_all(&packed[..]).unwrap(), content);

        let other = [content, b"!".to_vec()].concat();
        let digest = Digest::of(&other);
        let stream = zstd::stream::encode_all(&other[..], 3).unwrap();
        let name = format!("uploads/z{n}/compressed-blobs/zstd/{}/{}", digest.hash_hex(), digest.size_bytes());
        assert_eq!(bench.write(messages(&name, &stream, 3400, false)).await.unwrap(), stream.len() as i64);
        assert_eq!(bench.write(messages(&name, &stream, 3400, false)).await.unwrap(), -1, "early");
        assert!(bench.store.contains(&digest));
    }
}

#[tokio::test]
async fn reads_keep_to_offset_and_limit() {
    let bench = Bench::new().await;
    let content = noise(1000);
    let digest = bench.put(&content);
    let name = format!("main/blobs/{}/1000", digest.hash_hex());
    assert_eq!(bench.read(&name, 10, 20).await.unwrap(), content[10..30]);
    assert_eq!(bench.read(&name, 990, 20).await.unwrap(), content[990..]);
    assert_eq!(bench.read(&name, 1000, 0).await.unwrap(), b"");
    assert_eq!(bench.read(&name, 1001, 0).await.unwrap_err().code(), Code::OutOfRange);
    assert_eq!(bench.read(&name, -1, 0).await.unwrap_err().code(), Code::OutOfRange);
    assert_eq!(bench.read(&name, 0, -1).await.unwrap_err().code(), Code::InvalidArgument);
    let packed = name.replace("/blobs", "/compressed-blobs/zstd");
    assert_eq!(bench.read(&packed, 0, 5).await.unwrap_err().code(), Code::InvalidArgument);
    let tail = bench.read(&packed, 900, 0).await.unwrap();
    assert_eq!(zstd::stream::decode_all(&tail[..]).unwrap(), content[900..]);
    let wrong_size = format!("blobs/{}/999", digest.hash_hex());
    assert_eq!(bench.read(&wrong_size, 0, 0).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn bad_writes_store_nothing() {
    let bench = Bench::new().await;
    let content = noise(2 * MIB);
    let digest = Digest::of(&content);
    let name = format!("uploads/u/blobs/{}/{}", digest.hash_hex(), content.len());
    let good = messages(&name, &content, MIB, true);
    let mut wrong = content.clone();
    wrong[9] ^= 1;
    let mut gap = good.clone();
    gap[1].write_offset += 1;
    let mut renamed = good.clone();
    renamed[1].resource_name = name.replace("/u/", "/v/");
    let mut unfinished = good.clone();
    unfinished[1].finish_write = false;
    let long = [content.clone(), vec![0]].concat();
    for bad in [
        messages(&name, &wrong, MIB, true),
        messages(&name, &content[..MIB], MIB, true),
        messages(&name, &long, MIB, true),
        gap,
        renamed,
        unfinished,
        good[1..].to_vec(),
        vec![],
    ] {
        assert_eq!(bench.write(bad).await.unwrap_err().code(), Code::InvalidArgument);
    }
    let zstd_name = name.replace("/blobs", "/compressed-blobs/zstd");
    let bomb = zstd::stream::encode_all(&vec![0; 64 * MIB][..], 1).unwrap();
    for bad in [&bomb[..], b"rubbish"] {
        assert_eq!(bench.write(messages(&zstd_name, bad, MIB, true)).await.unwrap_err().code(), Code::InvalidArgument);
    }
    assert!(!bench.store.contains(&digest));
    assert_eq!(bench.write(good).await.unwrap(), content.len() as i64);
}

#[tokio::test]
async fn a_write_cut_off_is_resumed_where_it_stopped() {
    let bench = Bench::new().await;
    for zstd in [false, true] {
        let content = noise(3 * MIB + usize::from(zstd));
        let digest = Digest::of(&content);
        let (spelling, stream) = if zstd {
            ("compressed-blobs/zstd", zstd::stream::encode_all(&content[..], 1).unwrap())
        } else {
            ("blobs", content.clone())
        };
        let name = format!("uploads/u/{spelling}/{}/{}", digest.hash_hex(), content.len());
        assert_eq!(bench.query(&name).await.unwrap_err().code(), Code::NotFound);
        let all = messages(&name, &stream, MIB, true);
        // The sender goes away without an end.
        let (sender, receiver) = tokio::sync::mpsc::channel(4);
        let mut client = bench.byte_stream();
        let call = tokio::spawn(async move { client.write(ReceiverStream::new(receiver)).await });
        sender.send(all[0].clone()).await.unwrap();
        sender.send(all[1].clone()).await.unwrap();
        while bench.query(&name).await.map_or(0, |(size, _)| size) < 2 * MIB as i64 {
            tokio::task::yield_now().await;
        }
        call.abort();
        assert!(call.await.is_err());
        // Refused until the server has noticed that the first stream is gone.
        let rest = all[2..].to_vec();
        let committed = loop {
            match bench.write(rest.clone()).await {
                Ok(committed) => break committed,
                Err(status) => assert_eq!(status.code(), Code::InvalidArgument),
            }
        };
        assert_eq!(committed, stream.len() as i64);
        assert!(bench.store.contains(&digest));
        assert_eq!(bench.query(&name).await.unwrap(), (content.len() as i64, true));
    }
}

#[tokio::test]
async fn a_tree_comes_in_pages_of_different_directories() {
    let bench = Bench::new().await;
    let entry = |name: &str, kind| Entry { name: name.into(), kind };
    let put = |entries: &[Entry]| {
        let (digest, bytes) = tree::encode(0o755, entries).unwrap();
        bench.store.put_batch(&[(digest, bytes)]).unwrap();
        digest
    };
    let leaf = |n: u8| put(&[entry("f", EntryKind::File { digest: Digest::of(&[n]), mode: 0o644 })]);
    let gone = EntryKind::Directory { digest: Digest::of(b"gone") };
    let mut entries: Vec<Entry> =
        (0..9).map(|n| entry(&format!("d{n}"), EntryKind::Directory { digest: leaf(n) })).collect();
    entries.push(entry("twice", entries[0].kind.clone()));
    entries.push(entry("gone", gone));
    let root = put(&entries);
    for (page_size, pages_expected) in [(0, 1), (1, 10), (4, 3)] {
        let request = GetTreeRequest { root_digest: Some(to_reapi_digest(root)), page_size, ..Default::default() };
        let pages: Vec<_> =
            bench.cas().get_tree(request.clone()).await.unwrap().into_inner().collect::<Result<_, _>>().await.unwrap();
        let directories: Vec<_> = pages.iter().flat_map(|page| &page.directories).collect();
        assert_eq!(directories[0].directories.len(), 11, "root first");
        let different: HashSet<String> = directories.iter().map(|directory| format!("{directory:?}")).collect();
        assert_eq!((directories.len(), different.len()), (10, 10));
        assert!(pages.len().abs_diff(pages_expected) <= 1, "{}", pages.len());
        assert_eq!(pages.last().unwrap().next_page_token, "");
        if page_size == 4 {
            let page_token = pages[0].next_page_token.clone();
            let rest = bench.cas().get_tree(GetTreeRequest { page_token, ..request }).await.unwrap().into_inner();
            let rest: Vec<_> = rest.collect::<Result<_, _>>().await.unwrap();
            assert_eq!(rest, pages[1..]);
        }
    }
    let file = bench.put(&[0xff; 9]);
    let no_tree = GetTreeRequest { root_digest: Some(to_reapi_digest(file)), ..Default::default() };
    assert_eq!(bench.cas().get_tree(no_tree).await.unwrap_err().code(), Code::InvalidArgument);
    let unknown = GetTreeRequest { root_digest: Some(to_reapi_digest(Digest::of(b"none"))), ..Default::default() };
    assert_eq!(bench.cas().get_tree(unknown).await.unwrap_err().code(), Code::NotFound);
}

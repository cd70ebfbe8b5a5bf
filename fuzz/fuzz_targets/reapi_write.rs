//! Any bytes as the stream of a ByteStream.Write, plain or zstd, as they come off the wire.
//!
//! The first byte says how the content is named: by its own digest or by another, plain or packed, under which
//! of two uploads, so that a later input may resume an earlier one. Then come messages, each after a byte with its
//! flags and one with its length. What was said to be stored must be there, whole.
#![no_main]

mod ground;
mod store;

use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::Full;
use libfuzzer_sys::fuzz_target;
use motefarm_cas::service::ByteStreamService;
use motefarm_cas::store::BlobSource as _;
use motefarm_core::Digest;
use motefarm_proto::reapi::bytestream::byte_stream_server::ByteStream as _;
use motefarm_proto::reapi::bytestream::{WriteRequest, WriteResponse};
use prost::Message as _;
use std::sync::LazyLock;
use store::STORE;
use tokio::runtime::Runtime;
use tonic::codec::{Codec as _, Streaming};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"));
static STREAMS: LazyLock<ByteStreamService> = LazyLock::new(|| ByteStreamService::new(STORE.clone()));

/// Messages as the fuzzer wants them: data of the input, offsets that run on unless told otherwise.
fn messages(mut bytes: &[u8]) -> Vec<WriteRequest> {
    let mut messages = Vec::new();
    let mut offset: i64 = 0;
    while let [flags, len, rest @ ..] = bytes {
        // A shift makes long messages of few bytes.
        let len = (usize::from(*len) << (flags >> 6)).min(rest.len());
        messages.push(WriteRequest {
            resource_name: String::new(),
            write_offset: if flags & 1 == 0 { offset } else { offset + i64::from(flags >> 3) - 3 },
            finish_write: flags & 2 != 0,
            data: rest[..len].to_vec(),
        });
        offset += len as i64;
        bytes = &rest[len..];
    }
    messages
}

/// What the messages' data unpacks to, if it does.
fn content(shape: u8, messages: &[WriteRequest]) -> Vec<u8> {
    let sent: Vec<u8> = messages.iter().flat_map(|message| message.data.iter().copied()).collect();
    let is_packed = shape & 1 != 0;
    if is_packed { zstd::bulk::decompress(&sent, 1 << 20).unwrap_or_default() } else { sent }
}

/// As HTTP/2 would bring them.
fn frames(messages: &[WriteRequest]) -> Bytes {
    let mut body = BytesMut::new();
    for message in messages {
        body.put_u8(0);
        body.put_u32(message.encoded_len() as u32);
        message.encode(&mut body).expect("there is room");
    }
    body.freeze()
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&shape, bytes)) = bytes.split_first() else { return };
    let mut messages = messages(bytes);
    let content = content(shape, &messages);
    let (hash, size) = (Digest::of(&content).hash_hex(), content.len() as u64);
    let size = if shape & 2 == 0 { size } else { size.saturating_add(u64::from(shape >> 4)) };
    let spelling = if shape & 1 == 0 { "blobs" } else { "compressed-blobs/zstd" };
    let upload = if shape & 4 == 0 { "one" } else { "other" };
    if let Some(first) = messages.first_mut() {
        first.resource_name = format!("uploads/{upload}/{spelling}/{hash}/{size}");
    }
    RUNTIME.block_on(async {
        let body = Full::new(frames(&messages));
        let decoder = ProstCodec::<WriteResponse, WriteRequest>::default().decoder();
        let stream: Streaming<WriteRequest> = Streaming::new_request(decoder, body, None, Some(8 << 20));
        let written: Result<_, Status> = STREAMS.write(Request::new(stream)).await;
        if written.is_ok() {
            let digest = Digest::of(&content);
            assert_eq!(digest.size_bytes(), size, "stored under another size");
            let stored = STORE.read(&digest, u64::MAX).expect("the store works");
            assert_eq!(stored.as_deref(), Some(&content[..]), "what was stored is there");
        }
    });
});

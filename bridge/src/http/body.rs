//! A request's body, read and unpacked within the memory that is there: who comes when there is none waits.

use super::Edge;
use super::encoding::{Encoding, ExpandError, Expanded, USUAL_RATIO};
use super::header;
use crate::admission::Held;
use crate::pipeline::weight::{MAX_FIELDS, Shape};
use bytes::{Bytes, BytesMut};
use http::Request;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Longest silence of a sender.
const PIECE_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest time for a whole body: what it holds of the memory others wait for.
const BODY_TIMEOUT: Duration = Duration::from_secs(300);
/// Bodies from this size on are unpacked beside the runtime.
const APART_BYTES: usize = 64 << 10;

/// A body in memory, and its share of that.
pub(super) struct Unpacked {
    pub(super) bytes: Bytes,
    pub(super) held: Held,
}

/// Why a body was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    #[error("content-encoding {0:?} is not spoken here: gzip, deflate and identity are")]
    Encoding(String),
    #[error("the request is larger than {limit} bytes")]
    TooLarge { limit: usize },
    #[error(transparent)]
    Expand(#[from] ExpandError),
    #[error("the request ended early: {0}")]
    Broken(#[from] hyper::Error),
    #[error("the request stood still for {} s, or took {} s in all", PIECE_TIMEOUT.as_secs(), BODY_TIMEOUT.as_secs())]
    Slow,
    #[error("the request has more than {MAX_FIELDS} fields")]
    TooHeavy,
    #[error("unpacking was stopped: {0}")]
    Stopped(#[from] tokio::task::JoinError),
}

/// Reads a whole body, which shall be a message of this shape. What is held is for the message as it will be
/// decoded. Cancellation safe.
pub(super) async fn read(
    edge: &Edge,
    request: Request<Incoming>,
    shape: &'static Shape,
) -> Result<Unpacked, BodyError> {
    let limit = edge.request_bytes;
    let name = header(request.headers(), CONTENT_ENCODING);
    let encoding =
        Encoding::of_request(name).ok_or_else(|| BodyError::Encoding(name.unwrap_or_default().to_owned()))?;
    let announced = header(request.headers(), CONTENT_LENGTH).and_then(|text| text.parse::<usize>().ok());
    // Goma's clients always say a length; whoever does not is taken for the worst.
    let expected = announced.unwrap_or(limit);
    if expected > limit {
        return Err(BodyError::TooLarge { limit });
    }
    let packed_held = edge.packed.hold(expected as u64).await;
    let received = receive(request.into_body(), expected, announced.unwrap_or(0));
    let packed = tokio::time::timeout(BODY_TIMEOUT, received).await.unwrap_or(Err(BodyError::Slow))?;
    edge.records.metrics().received_bytes.fetch_add(packed.len() as u64, Ordering::Relaxed);
    let unpacked = match encoding {
        Encoding::Identity => {
            let weight = shape.weigh(&packed).ok_or(BodyError::TooHeavy)?;
            let held = edge.unpacked.hold(packed.len() as u64 + weight).await;
            Unpacked { bytes: packed, held }
        }
        _ => unpack(edge, encoding, packed, limit, shape).await?,
    };
    drop(packed_held);
    edge.records.metrics().unpacked_bytes.fetch_add(unpacked.bytes.len() as u64, Ordering::Relaxed);
    Ok(unpacked)
}

/// Takes a body that nobody wants, so that the connection can go on.
pub(super) async fn discard(request: Request<Incoming>) {
    let mut body = request.into_body();
    while let Ok(Some(Ok(_))) = tokio::time::timeout(PIECE_TIMEOUT, body.frame()).await {}
}

async fn receive(mut body: Incoming, limit: usize, announced: usize) -> Result<Bytes, BodyError> {
    // At once: a buffer that doubles as it grows is half air in the end.
    let mut all = BytesMut::with_capacity(announced);
    loop {
        let frame = tokio::time::timeout(PIECE_TIMEOUT, body.frame()).await.map_err(|_| BodyError::Slow)?;
        let Some(frame) = frame else { return Ok(all.freeze()) };
        let Ok(piece) = frame?.into_data() else { continue };
        if all.len() + piece.len() > limit {
            return Err(BodyError::TooLarge { limit });
        }
        all.extend_from_slice(&piece);
    }
}

/// With what such a body usually needs; if it needs more and there is no more just now, all of it again with
/// as much as it may ever need. Nothing of the pool is held while waiting for more of it.
async fn unpack(
    edge: &Edge,
    encoding: Encoding,
    packed: Bytes,
    limit: usize,
    shape: &'static Shape,
) -> Result<Unpacked, BodyError> {
    let usual = ((packed.len() * USUAL_RATIO) as u64).min(limit as u64);
    for bytes in [usual, limit as u64] {
        let mut held = edge.unpacked.hold(bytes).await;
        let (pool, body) = (edge.unpacked.clone(), packed.clone());
        let apart = body.len() >= APART_BYTES;
        let work = move || {
            let mut grow = |size: u64| pool.try_grow(&mut held, size.min(limit as u64));
            let Expanded::Whole(bytes) = encoding.expand(body, limit, |size| grow(size as u64))? else {
                return Ok(None);
            };
            let weight = shape.weigh(&bytes).ok_or(BodyError::TooHeavy)?;
            Ok(grow(bytes.len() as u64 + weight).then_some(Unpacked { bytes, held }))
        };
        let unpacked: Result<_, BodyError> = if apart { tokio::task::spawn_blocking(work).await? } else { work() };
        if let Some(unpacked) = unpacked? {
            return Ok(unpacked);
        }
    }
    Err(ExpandError::TooLarge { limit }.into())
}

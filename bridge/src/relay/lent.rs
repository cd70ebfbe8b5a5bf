//! A request's body while it is passed on. It is lent, not given: when passing it on fails, what is left of it
//! is still to be read, because a client reads no answer before it has written all.

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

/// Longest silence of a client while the rest of its body is thrown away.
const PIECE_TIMEOUT: Duration = Duration::from_secs(10);
/// Most of it that is.
const MOST_BYTES: usize = 256 << 20;

/// See the module. Cheap to clone; one reads at a time.
#[derive(Clone)]
pub(super) struct Lent(Arc<Mutex<Incoming>>);

impl Lent {
    pub(super) fn new(body: Incoming) -> Self {
        Self(Arc::new(Mutex::new(body)))
    }

    fn body(&self) -> MutexGuard<'_, Incoming> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Reads what is left.
    pub(super) async fn discard(mut self) {
        let mut taken = 0;
        while let Ok(Some(Ok(frame))) = tokio::time::timeout(PIECE_TIMEOUT, self.frame()).await {
            taken += frame.data_ref().map_or(0, Bytes::len);
            if taken > MOST_BYTES {
                return;
            }
        }
    }
}

impl Body for Lent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut *self.body()).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body().size_hint()
    }
}

//! A call that ends when its caller's right ends.
//!
//! A token that is revoked or runs out, or a user who is removed, is refused by the next call anyway;
//! this ends the calls that are under way, some of which would go on for hours.

use crate::app::App;
use crate::farm::access::LOOK_AGAIN;
use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use motefarm_net::token::SecretHash;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// The token that a call was made with.
#[derive(Clone, Copy)]
pub struct UsedToken(pub SecretHash);

/// Ends when the token is no longer good.
pub type Lost = Pin<Box<dyn Future<Output = ()> + Send>>;

/// See [`Lost`]. Looks again whenever a right is taken away, and every few seconds: rights end by the
/// clock and by other processes too.
pub fn lost(app: &Arc<App>, token: SecretHash) -> Lost {
    let app = app.clone();
    Box::pin(async move {
        let mut taken = app.store.rights_taken();
        loop {
            tokio::select! {
                _ = taken.changed() => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
            match app.store.is_good(&token, app.now()).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => tracing::warn!(%error, "a caller's token could not be looked up; trying again"),
            }
        }
    })
}

/// Why an answer stopped in the middle.
#[derive(Debug, thiserror::Error)]
#[error("the caller's token is no longer good")]
struct NoLongerGood;

/// An answer's body that breaks off when the right to it ends.
pub fn body(inner: Body, lost: Lost) -> Body {
    Body::new(Guarded { inner, lost: Some(lost), frames: 0 })
}

/// A body that is never short of data is asked about its right once in so many frames.
const FRAMES: u32 = 32;

struct Guarded {
    inner: Body,
    /// `None`: it has ended.
    lost: Option<Lost>,
    frames: u32,
}

impl http_body::Body for Guarded {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.lost.is_none() {
            return Poll::Ready(None);
        }
        // Short answers, which are most, need no second look.
        let look = self.frames >= FRAMES;
        if look && self.is_lost(cx) {
            return self.broken();
        }
        let frame = Pin::new(&mut self.inner).poll_frame(cx);
        self.frames = if look { 0 } else { self.frames + 1 };
        if frame.is_pending() && self.is_lost(cx) {
            return self.broken();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Guarded {
    fn is_lost(&mut self, cx: &mut Context<'_>) -> bool {
        self.lost.as_mut().is_none_or(|lost| lost.as_mut().poll(cx).is_ready())
    }

    fn broken(&mut self) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.lost = None;
        Poll::Ready(Some(Err(axum::Error::new(NoLongerGood))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{StreamExt as _, stream};
    use http_body_util::BodyExt as _;
    use std::time::Duration;

    async fn outcome(inner: Body, lost: Lost) -> Result<usize, axum::Error> {
        let collected = tokio::time::timeout(Duration::from_secs(60), body(inner, lost).collect()).await;
        Ok(collected.expect("it ends")?.to_bytes().len())
    }

    fn pieces(n: usize) -> impl stream::Stream<Item = Result<Bytes, std::io::Error>> {
        stream::repeat_with(|| Ok(Bytes::from_static(b"x"))).take(n)
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_breaks_off_when_its_right_ends_whether_it_waits_or_flows() {
        let never = || -> Lost { Box::pin(std::future::pending()) };
        let soon = || -> Lost { Box::pin(tokio::time::sleep(Duration::from_secs(1))) };
        assert_eq!(outcome(Body::from_stream(pieces(1000)), never()).await.unwrap(), 1000);
        assert!(outcome(Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>()), soon()).await.is_err());
        let gone: Lost = Box::pin(std::future::ready(()));
        assert!(outcome(Body::from_stream(pieces(usize::MAX)), gone).await.is_err(), "one that never waits");
    }
}

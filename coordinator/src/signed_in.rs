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
    Body::new(Guarded { inner, lost })
}

struct Guarded {
    inner: Body,
    lost: Lost,
}

impl http_body::Body for Guarded {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(cx);
        // Only an answer that waits can outlive a right by much.
        if frame.is_pending() && self.lost.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(axum::Error::new(NoLongerGood))));
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

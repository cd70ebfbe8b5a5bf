//! A request's body while it is passed on. It is lent, not given: when passing it on fails, what is left of it
//! is still to be read, because a client reads no answer before it has written all.

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Longest silence of a client while the rest of its body is thrown away.
const PIECE_TIMEOUT: Duration = Duration::from_secs(10);
/// Most of it that is.
const MOST_BYTES: usize = 256 << 20;

/// The lender's side.
pub(super) struct Lent(Arc<Mutex<State>>);

/// The body of the request that is passed on.
pub(super) struct Loan(Arc<Mutex<State>>);

struct State {
    body: Incoming,
    /// Loans end; the lender reads.
    is_recalled: bool,
    /// Who waits on a loan.
    reader: Option<Waker>,
}

/// Why a loan ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoanError {
    #[error(transparent)]
    Body(#[from] hyper::Error),
    #[error("the request is not passed on any more")]
    Recalled,
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Lent {
    pub(super) fn new(body: Incoming) -> Self {
        Self(Arc::new(Mutex::new(State { body, is_recalled: false, reader: None })))
    }

    /// For one request; the one before it has failed.
    pub(super) fn loan(&self) -> Loan {
        Loan(self.0.clone())
    }

    /// Takes it back and reads what is left.
    pub(super) async fn discard(self) {
        let reader = {
            let mut state = locked(&self.0);
            state.is_recalled = true;
            state.reader.take()
        };
        if let Some(reader) = reader {
            reader.wake();
        }
        let mut taken = 0;
        let next = || poll_fn(|cx| Pin::new(&mut locked(&self.0).body).poll_frame(cx));
        while let Ok(Some(Ok(frame))) = tokio::time::timeout(PIECE_TIMEOUT, next()).await {
            taken += frame.data_ref().map_or(0, Bytes::len);
            if taken > MOST_BYTES {
                return;
            }
        }
    }
}

impl Body for Loan {
    type Data = Bytes;
    type Error = LoanError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, LoanError>>> {
        let mut state = locked(&self.0);
        if state.is_recalled {
            return Poll::Ready(Some(Err(LoanError::Recalled)));
        }
        state.reader = Some(cx.waker().clone());
        Pin::new(&mut state.body).poll_frame(cx).map_err(LoanError::Body)
    }

    fn is_end_stream(&self) -> bool {
        let state = locked(&self.0);
        !state.is_recalled && state.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        locked(&self.0).body.size_hint()
    }
}

//! How fast one user may bring content: a budget of bytes a second, shared by all their calls.
//!
//! Content is not refused but taken more slowly: what is not read stays with the sender, by HTTP's own
//! flow control. Memory is bounded by the number of users who upload at the moment.

use axum::body::Body;
use bytes::Bytes;
use http_body::Frame;
use motefarm_core::name::UserName;
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// How much may come at once after a pause, as time at the full rate.
const BURST: Duration = Duration::from_secs(2);

/// The users' budgets.
pub struct UploadRate {
    bytes_per_second: u64,
    /// Until when a user's past uploads fill the rate.
    paid_until: Mutex<HashMap<UserName, Instant>>,
}

impl UploadRate {
    /// `bytes_per_second` for each user; 0: as fast as it goes.
    pub fn new(bytes_per_second: u64) -> Arc<Self> {
        Arc::new(Self { bytes_per_second, paid_until: Mutex::default() })
    }

    /// A request's body, taken no faster than its user may send.
    pub fn limit(self: &Arc<Self>, user: &UserName, body: Body) -> Body {
        if self.bytes_per_second == 0 {
            return body;
        }
        Body::new(Limited { inner: body, rate: self.clone(), user: user.clone(), wait: None })
    }

    /// Counts `bytes` at `now`; until when the next ones must wait.
    fn count(&self, user: &UserName, bytes: usize, now: Instant) -> Instant {
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let mut paid_until = self.paid_until.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        paid_until.retain(|_, until| *until > now);
        let until = paid_until.entry(user.clone()).or_insert(now);
        *until += cost;
        *until - BURST.min(*until - now)
    }
}

struct Limited {
    inner: Body,
    rate: Arc<UploadRate>,
    user: UserName,
    wait: Option<Pin<Box<Sleep>>>,
}

impl http_body::Body for Limited {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(wait) = self.wait.as_mut() {
            ready!(wait.as_mut().poll(cx));
            self.wait = None;
        }
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            let now = Instant::now();
            let until = self.rate.count(&self.user, data.len(), now);
            self.wait = (until > now).then(|| Box::pin(tokio::time::sleep_until(until)));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;
    use http_body_util::BodyExt as _;

    async fn take(rate: &Arc<UploadRate>, user: &str, kilobytes: usize) -> Duration {
        let begin = Instant::now();
        let pieces = stream::iter((0..kilobytes).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![0; 1000]))));
        let body = rate.limit(&user.parse().unwrap(), Body::from_stream(pieces));
        let got = body.collect().await.unwrap().to_bytes();
        assert_eq!(got.len(), kilobytes * 1000);
        begin.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_user_has_one_rate_over_all_calls_and_others_have_theirs() {
        let rate = UploadRate::new(100_000);
        assert!(take(&rate, "alice", 150).await < Duration::from_millis(100), "within the burst");
        let (one, two, bob) =
            tokio::join!(take(&rate, "alice", 500), take(&rate, "alice", 500), take(&rate, "bob", 100));
        let longest = one.max(two);
        assert!((Duration::from_secs(9)..Duration::from_secs(11)).contains(&longest), "{longest:?}");
        assert!(bob < Duration::from_millis(100), "{bob:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_nothing_is_counted() {
        assert!(take(&UploadRate::new(0), "alice", 10_000).await < Duration::from_millis(100));
    }
}

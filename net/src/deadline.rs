//! Deadlines of calls: the `grpc-timeout` header, which axum and hyper do not enforce.
//!
//! Header form (gRPC over HTTP/2, "Timeout"): 1 to 8 digits and a unit of `H M S m u n`.

use futures_util::future::{Either, select};
use http::{HeaderValue, Request, Response};
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;
use tower::{Layer, Service};

/// Answers DEADLINE_EXCEEDED when a call has not answered its headers by the deadline it came with.
/// Streams that have begun run on: their callers end them.
#[derive(Debug, Clone, Copy, Default)]
pub struct DeadlineLayer;

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;
    fn layer(&self, inner: S) -> Deadline<S> {
        Deadline(inner)
    }
}

/// See [`DeadlineLayer`].
#[derive(Debug, Clone)]
pub struct Deadline<S>(S);

impl<S, In, Out> Service<Request<In>> for Deadline<S>
where
    S: Service<Request<In>, Response = Response<Out>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    Out: Default + Send + 'static,
{
    type Response = Response<Out>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Out>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<In>) -> Self::Future {
        let limit = request.headers().get("grpc-timeout").and_then(parse);
        let answer = self.0.call(request);
        let Some(limit) = limit else { return Box::pin(answer) };
        Box::pin(async move {
            match select(pin!(answer), pin!(tokio::time::sleep(limit))).await {
                Either::Left((answer, _)) => answer,
                Either::Right(_) => Ok(exceeded()),
            }
        })
    }
}

fn exceeded<Out: Default>() -> Response<Out> {
    let mut response = Response::new(Out::default());
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from_static("4"));
    headers.insert("grpc-message", HeaderValue::from_static("the call's deadline passed"));
    response
}

fn parse(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(n * 3600),
        "M" => Duration::from_secs(n * 60),
        "S" => Duration::from_secs(n),
        "m" => Duration::from_millis(n),
        "u" => Duration::from_micros(n),
        "n" => Duration::from_nanos(n),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use tower::ServiceExt as _;

    #[test]
    fn headers_are_read_as_the_protocol_writes_them() {
        for (text, expected) in [
            ("200m", Some(Duration::from_millis(200))),
            ("1H", Some(Duration::from_secs(3600))),
            ("99999999S", Some(Duration::from_secs(99_999_999))),
            ("100000000S", None),
            ("m", None),
            ("-1S", None),
            ("1x", None),
            ("", None),
        ] {
            assert_eq!(parse(&HeaderValue::from_static(text)), expected, "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_past_its_deadline_is_answered_with_status_4() {
        let never = tower::service_fn(|_: Request<()>| std::future::pending::<Result<Response<String>, Infallible>>());
        let request = Request::builder().header("grpc-timeout", "50m").body(()).unwrap();
        let answer = DeadlineLayer.layer(never).oneshot(request).await.unwrap();
        assert_eq!(answer.headers()["grpc-status"], "4");
    }
}

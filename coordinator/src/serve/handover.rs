//! A connection that begins as HTTP/1.1 and is then handed over whole: the reverse dial of Go agents.
//!
//! Those ask for it without an `Upgrade` header, and hyper offers its own way of taking a connection
//! over only with one. So the request is answered here, and what is left of the connection goes to
//! whom the handler named. The answer is flushed before that: Go's agent throws away what it receives
//! in one TLS record with it.

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use futures_util::future::BoxFuture;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use motefarm_net::dial::BoxStream;
use motefarm_net::serve::ConnectionError;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tower::ServiceExt as _;

/// Beginnings of the requests that ask for it.
const BEGINNINGS: [&[u8]; 2] = [b"GET /reverse ", b"GET /revdial?"];
/// Time for a request's header.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Time to write an answer. It is short, so this is about a peer that does not read.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(10);

type Taker = Box<dyn FnOnce(BoxStream) -> BoxFuture<'static, ()> + Send>;

/// By which a handler asks for the connection, an extension of its request.
#[derive(Clone, Default)]
pub struct Handover(Arc<Mutex<Option<Taker>>>);

impl Handover {
    /// Has the connection handed to `taker` after the handler's answer, which should be a 101. What it
    /// answers is awaited as part of the connection.
    pub fn to<F>(&self, taker: impl FnOnce(BoxStream) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let taker: Taker = Box::new(move |stream| Box::pin(taker(stream)));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(taker);
    }

    fn taker(&self) -> Option<Taker> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Whether a connection that begins with these bytes may ask to be handed over.
pub(super) fn is_asked_for(beginning: &[u8]) -> bool {
    BEGINNINGS.iter().any(|word| beginning.starts_with(word))
}

/// Serves such a connection: one request, and then whatever the handler wished.
pub(super) async fn serve<Io>(io: Io, router: Router) -> Result<(), ConnectionError>
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handover = Handover::default();
    let router = router.layer(axum::Extension(handover.clone()));
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let router = router.clone();
        async move { router.oneshot(request.map(Body::new)).await }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).keep_alive(false);
    let parts = builder.serve_connection(TokioIo::new(io), service).without_shutdown().await?;
    let mut io = parts.io.into_inner();
    tokio::time::timeout(FLUSH_TIMEOUT, io.flush()).await??;
    let Some(taker) = handover.taker() else {
        tokio::time::timeout(FLUSH_TIMEOUT, io.shutdown()).await??;
        return Ok(());
    };
    let (reader, writer) = tokio::io::split(io);
    let early = std::io::Cursor::new(parts.read_buf);
    taker(Box::new(tokio::io::join(early.chain(reader), writer))).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Extension;
    use axum::http::StatusCode;
    use axum::routing::get;

    #[tokio::test]
    async fn the_handler_gets_what_follows_its_answer() {
        let handler = |Extension(handover): Extension<Handover>| async move {
            handover.to(|mut stream: BoxStream| async move {
                let mut word = [0; 5];
                stream.read_exact(&mut word).await.unwrap();
                stream.write_all(&word.map(|byte| byte.to_ascii_uppercase())).await.unwrap();
                stream.flush().await.unwrap();
            });
            StatusCode::SWITCHING_PROTOCOLS
        };
        let router = Router::new().route("/reverse", get(handler));
        let (mut near, far) = tokio::io::duplex(4096);
        let served = tokio::spawn(serve(far, router));
        // No Upgrade, an empty Host, and the first bytes that follow come along.
        near.write_all(b"GET /reverse HTTP/1.1\r\nHost: \r\nUser-Agent: Go-http-client/1.1\r\n\r\nhel").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(near.read_u8().await.unwrap());
        }
        assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer));
        near.write_all(b"lo").await.unwrap();
        let mut said = [0; 5];
        near.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"HELLO");
        served.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn an_answer_without_a_taker_is_all_there_is() {
        let router = Router::new().route("/reverse", get(|| async { (StatusCode::PRECONDITION_FAILED, "no\n") }));
        let (mut near, far) = tokio::io::duplex(4096);
        let served = tokio::spawn(serve(far, router));
        near.write_all(b"GET /reverse HTTP/1.1\r\nHost: \r\n\r\n").await.unwrap();
        let mut answer = String::new();
        near.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 412 ") && answer.ends_with("\r\n\r\nno\n"), "{answer}");
        served.await.unwrap().unwrap();
    }

    #[test]
    fn only_those_two_requests_ask_for_it() {
        assert!(
            is_asked_for(b"GET /reverse HTTP/1.1\r\n") && is_asked_for(b"GET /revdial?revdial.dialer=abc HTTP/1.1")
        );
        for other in [&b"GET / HTTP/1.1"[..], b"GET /reverser", b"PRI * HTTP/2.0", b"GET /rev", b""] {
            assert!(!is_asked_for(other));
        }
    }
}

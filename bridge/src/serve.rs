//! The port: TLS and cleartext by the first byte, every connection's caller known before its first request,
//! and a way to stop that no client notices.

use crate::http::{Arrival, Edge};
use http::{Request, Response};
use hyper::body::Incoming;
use motefarm_net::accept::accept;
use motefarm_net::first_byte::{TLS_HANDSHAKE, first_byte};
use motefarm_net::own_user;
use motefarm_net::serve::{ConnectionError, serve_idle_connection};
use rustls::ServerConfig;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::Service;

/// Time for a connection to say its first byte, to finish its handshake, and to begin its first request.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may be kept for later. Clients reuse one for 5 s, and must never write into one that
/// is being closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// How long connections are answered with `close` before idle ones are closed: longer than clients reuse them.
const OVERLAP: Duration = Duration::from_secs(6);
/// Time for what is in progress after that.
const DRAIN: Duration = Duration::from_secs(20);

/// Serves until `shutdown`, then drains.
pub async fn serve(
    edge: Arc<Edge>,
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    max_connections: usize,
    shutdown: CancellationToken,
) {
    let acceptor = TlsAcceptor::from(tls);
    connections(listener, max_connections, &shutdown, &edge.draining, |stream, from, closing| {
        connection(edge.clone(), stream, from, acceptor.clone(), closing)
    })
    .await;
}

/// Runs `connection` on each that comes, until `shutdown`. Then accepts nothing more, has each client told that
/// its connection is over (`draining`), and has it closed (the token) when the client no longer reuses it.
pub(crate) async fn connections<F>(
    listener: TcpListener,
    most: usize,
    shutdown: &CancellationToken,
    draining: &AtomicBool,
    connection: impl Fn(TcpStream, SocketAddr, CancellationToken) -> F,
) where
    F: Future<Output = Result<(), ConnectionError>> + Send + 'static,
{
    let closing = CancellationToken::new();
    let open = accept(listener, most, shutdown, |stream, from| connection(stream, from, closing.clone())).await;
    draining.store(true, Ordering::Relaxed);
    open.end_within(OVERLAP).await;
    closing.cancel();
    open.drain(DRAIN).await;
}

/// What a connection begins with.
pub(crate) struct Beginning {
    pub(crate) is_own_user: bool,
    pub(crate) is_tls: bool,
}

/// Waits for the first byte, and finds out whose it is.
pub(crate) async fn begin(stream: &TcpStream, from: SocketAddr) -> Result<Beginning, ConnectionError> {
    stream.set_nodelay(true)?;
    let first = tokio::time::timeout(HANDSHAKE_TIMEOUT, first_byte(stream)).await??;
    let local = stream.local_addr()?;
    let is_own_user = tokio::task::spawn_blocking(move || own_user::is_own_user(from, local)).await?;
    Ok(Beginning { is_own_user, is_tls: first == TLS_HANDSHAKE })
}

async fn connection(
    edge: Arc<Edge>,
    stream: TcpStream,
    from: SocketAddr,
    acceptor: TlsAcceptor,
    closing: CancellationToken,
) -> Result<(), ConnectionError> {
    let Beginning { is_own_user, is_tls } = begin(&stream, from).await?;
    let arrival = Arrival { is_own_user, is_tls, at: stream.local_addr()? };
    let service = tower::service_fn(move |request| edge.clone().answer(request, arrival));
    if is_tls {
        let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await??;
        return requests(stream, service, closing).await;
    }
    requests(stream, service, closing).await
}

/// Serves the requests of one connection.
pub(crate) async fn requests<Io, S, B>(
    stream: Io,
    service: S,
    closing: CancellationToken,
) -> Result<(), ConnectionError>
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<ConnectionError>,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<ConnectionError>,
{
    let mut stream = BufReader::new(stream);
    let beginning = tokio::time::timeout(HANDSHAKE_TIMEOUT, stream.fill_buf()).await??;
    if let Some(problem) = bad_target(beginning) {
        tracing::warn!(problem, "a request is no request");
        let body = format!("mote-bridge: {problem}\n");
        let head = format!("HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
        stream.shutdown().await?;
        return Ok(());
    }
    serve_idle_connection(stream, service, closing, IDLE_TIMEOUT).await
}

/// The HTTP library refuses such a request without a word; a person who mistook the path prefix for the place
/// of the port deserves one.
fn bad_target(beginning: &[u8]) -> Option<&'static str> {
    let target = beginning.strip_prefix(b"POST ").or_else(|| beginning.strip_prefix(b"GET "))?;
    match target.first() {
        Some(b':') => Some(
            "the request's path begins with ':'. GOMA_URL_PATH_PREFIX is a path and begins with '/'; \
             the port belongs into GOMA_SERVER_PORT",
        ),
        Some(b'/' | b'h' | b'H' | b'*') | None => None,
        Some(_) => Some("the request's path does not begin with '/': look at GOMA_URL_PATH_PREFIX"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_that_is_a_port_is_told() {
        assert!(bad_target(b"POST :5050/cxx-compiler-service/ping HTTP/1.1").unwrap().contains("GOMA_SERVER_PORT"));
        assert!(bad_target(b"POST cxx/ping HTTP/1.1").unwrap().contains("GOMA_URL_PATH_PREFIX"));
        for good in ["POST /e HTTP/1.1", "POST http://h:1/e HTTP/1.1", "GET / HTTP/1.1", "PRI * HTTP/2.0", "POST "] {
            assert_eq!(bad_target(good.as_bytes()), None, "{good}");
        }
    }
}

//! The port: TLS and cleartext by the first byte, every connection's caller known before its first request,
//! and a way to stop that no client notices.

use crate::http::Edge;
use motefarm_net::accept::accept;
use motefarm_net::first_byte::{TLS_HANDSHAKE, first_byte};
use motefarm_net::own_user;
use motefarm_net::serve::{ConnectionError, serve_idle_connection};
use rustls::ServerConfig;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// Time for a connection to say its first byte, to finish its handshake, and to begin its first request.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may be kept for later. Clients reuse one for 5 s, and must never write into one that
/// is being closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// How long connections are answered with `close` before idle ones are closed: longer than clients reuse them.
const OVERLAP: Duration = Duration::from_secs(6);
/// Time for what is in progress after that.
const DRAIN: Duration = Duration::from_secs(20);

/// Serves until `shutdown`, then drains: accepts nothing more, tells each client that its connection is over,
/// and closes it when the client no longer reuses it.
pub async fn serve(
    edge: Arc<Edge>,
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    max_connections: usize,
    shutdown: CancellationToken,
) {
    let (acceptor, closing) = (TlsAcceptor::from(tls), CancellationToken::new());
    let open = accept(listener, max_connections, &shutdown, |stream, from| {
        connection(edge.clone(), stream, from, acceptor.clone(), closing.clone())
    });
    let open = open.await;
    edge.draining.store(true, Ordering::Relaxed);
    open.end_within(OVERLAP).await;
    closing.cancel();
    open.drain(DRAIN).await;
}

async fn connection(
    edge: Arc<Edge>,
    stream: TcpStream,
    from: SocketAddr,
    acceptor: TlsAcceptor,
    closing: CancellationToken,
) -> Result<(), ConnectionError> {
    stream.set_nodelay(true)?;
    let first = tokio::time::timeout(HANDSHAKE_TIMEOUT, first_byte(&stream)).await??;
    let local = stream.local_addr()?;
    let is_own_user = tokio::task::spawn_blocking(move || own_user::is_own_user(from, local)).await?;
    if first == TLS_HANDSHAKE {
        let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await??;
        return requests(edge, stream, is_own_user, closing).await;
    }
    requests(edge, stream, is_own_user, closing).await
}

async fn requests<Io>(
    edge: Arc<Edge>,
    stream: Io,
    is_own_user: bool,
    closing: CancellationToken,
) -> Result<(), ConnectionError>
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
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
    let service = tower::service_fn(move |request| edge.clone().answer(request, is_own_user));
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

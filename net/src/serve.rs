//! Serving one connection, whatever it came over.
//!
//! hyper's automatic HTTP/1.1-or-HTTP/2 server with the settings every program of the farm wants:
//! upgrades, wide flow-control windows (output and trees are bulk), and keep-alive pings so that a
//! dead peer is noticed.

use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use std::error::Error;
use std::pin::pin;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tower::Service;

/// Flow-control window of one stream, both ways: what a bulk transfer may have in flight.
pub const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// Flow-control window of one connection: bounds what a peer can make us hold.
pub const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
/// Largest HTTP/2 frame accepted: large frames cost fewer reads and copies.
pub const FRAME_BYTES: u32 = 1024 * 1024;
/// Silence after which the peer is pinged.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// How long the peer may take to answer a ping.
pub const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Calls at once on one connection.
pub const MAX_STREAMS: u32 = 1024;
/// Time for the header of an HTTP/1.1 request, counted from the end of the one before.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Boxed error of a connection's end.
pub type ConnectionError = Box<dyn Error + Send + Sync>;

/// Serves `io` until the peer leaves, or, after `shutdown`, until the calls in progress are
/// answered (the caller bounds that wait). Dropping the future closes the connection at once.
pub async fn serve_connection<Io, S, B>(io: Io, service: S, shutdown: CancellationToken) -> Result<(), ConnectionError>
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<ConnectionError>,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<ConnectionError>,
{
    serve_idle_connection(io, service, shutdown, HEADER_TIMEOUT).await
}

/// The same for peers that keep a connection of HTTP/1.1 for later: for `idle` nothing need come.
pub async fn serve_idle_connection<Io, S, B>(
    io: Io,
    service: S,
    shutdown: CancellationToken,
    idle: Duration,
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
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(idle);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .max_concurrent_streams(MAX_STREAMS)
        .max_send_buf_size(1024 * 1024)
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(io), TowerToHyperService::new(service));
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = shutdown.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}

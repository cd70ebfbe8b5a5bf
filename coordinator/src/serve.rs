//! The one port: accepts, tells TLS from cleartext by the first byte, serves each connection.

use crate::app::App;
use crate::identity::{Rule, rule};
use crate::peer::{self, Peer};
use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use motefarm_net::serve::{ConnectionError, serve_connection};
use rustls::ServerConfig;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// First byte of a TLS record that begins a handshake (RFC 8446, section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;
/// Time for a connection to say its first byte and finish its handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for calls in progress when stopping.
const DRAIN: Duration = Duration::from_secs(8);

/// Serves until `app.shutdown`, then drains: accepts nothing more, lets short calls finish, and
/// cuts what is left after the deadline. Streams end by themselves on `app.shutdown`.
pub async fn serve(app: Arc<App>, listener: TcpListener, tls: Arc<ServerConfig>, router: Router) {
    let acceptor = TlsAcceptor::from(tls);
    let permits = Arc::new(Semaphore::new(app.config.limits.connections));
    let cut = CancellationToken::new();
    let connections = tokio_util::task::TaskTracker::new();
    loop {
        let permit = tokio::select! {
            permit = permits.clone().acquire_owned() => permit,
            () = app.shutdown.cancelled() => break,
        };
        let Ok(permit) = permit else { break };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = app.shutdown.cancelled() => break,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, or a connection gone before it was taken: neither lasts.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (acceptor, router, shutdown, cut) = (acceptor.clone(), router.clone(), app.shutdown.clone(), cut.clone());
        connections.spawn(async move {
            let _permit = permit;
            tokio::select! {
                ended = connection(stream, from, acceptor, router, shutdown) => {
                    if let Err(error) = ended {
                        tracing::debug!(peer = %from, %error, "a connection ended early");
                    }
                }
                () = cut.cancelled() => {}
            }
        });
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(DRAIN, connections.wait()).await.is_err() {
        tracing::warn!(connections = connections.len(), "calls did not end in time; cutting them off");
        cut.cancel();
        connections.wait().await;
    }
}

async fn connection(
    stream: TcpStream,
    from: SocketAddr,
    acceptor: TlsAcceptor,
    router: Router,
    shutdown: CancellationToken,
) -> Result<(), ConnectionError> {
    stream.set_nodelay(true)?;
    let first = tokio::time::timeout(HANDSHAKE_TIMEOUT, first_byte(&stream)).await??;
    let local = stream.local_addr()?;
    if first == TLS_HANDSHAKE {
        let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await??;
        let router = router.layer(axum::Extension(Peer { local, remote: from, own_user_in_clear: false }));
        return serve_connection(stream, router, shutdown).await;
    }
    if !peer::is_loopback(from, local) {
        return Err(format!("{from} speaks cleartext and is not on loopback").into());
    }
    let own = tokio::task::spawn_blocking(move || peer::is_own_user(from, local)).await?;
    let router = router.layer(axum::Extension(Peer { local, remote: from, own_user_in_clear: own }));
    if own {
        return serve_connection(stream, router, shutdown).await;
    }
    // Another user of this machine: whoever has an unguessable name may use it, and nothing else is
    // even answered.
    let capabilities = tower::service_fn(move |request: Request<Incoming>| named(router.clone(), from, request));
    serve_connection(stream, capabilities, shutdown).await
}

async fn named(
    router: Router,
    from: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response<Body>, ConnectionError> {
    match rule(request.uri().path()) {
        Some(Rule::Capability) => Ok(router.oneshot(request).await?),
        _ => Err(format!("{from} speaks cleartext and is not the farm's own user").into()),
    }
}

async fn first_byte(stream: &TcpStream) -> io::Result<u8> {
    let mut byte = [0];
    match stream.peek(&mut byte).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(byte[0]),
    }
}

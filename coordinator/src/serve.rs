//! The one port: accepts, tells TLS from cleartext by the first byte, serves each connection.

mod connect;
mod handover;

pub use handover::Handover;

use crate::app::App;
use crate::identity::{Rule, rule};
use crate::peer::{self, Peer};
use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use motefarm_net::accept::accept;
use motefarm_net::first_byte::{TLS_HANDSHAKE, first_byte};
use motefarm_net::serve::{ConnectionError, serve_connection};
use rustls::ServerConfig;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// Time for a connection to say its first byte and finish its handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for calls in progress when stopping.
const DRAIN: Duration = Duration::from_secs(8);

/// Serves until `app.shutdown`, then drains: accepts nothing more, lets short calls finish, and
/// cuts what is left after the deadline. Streams end by themselves on `app.shutdown`.
pub async fn serve(app: Arc<App>, listener: TcpListener, tls: Arc<ServerConfig>, router: Router) {
    let acceptor = TlsAcceptor::from(tls);
    let (most, shutdown) = (app.config.limits.connections, &app.shutdown);
    let open = accept(listener, most, shutdown, |stream, from| {
        connection(stream, from, acceptor.clone(), router.clone(), shutdown.clone())
    });
    open.await.drain(DRAIN).await;
}

async fn connection(
    mut stream: TcpStream,
    from: SocketAddr,
    acceptor: TlsAcceptor,
    router: Router,
    shutdown: CancellationToken,
) -> Result<(), ConnectionError> {
    stream.set_nodelay(true)?;
    let first = tokio::time::timeout(HANDSHAKE_TIMEOUT, first_byte(&stream)).await??;
    let local = stream.local_addr()?;
    if first == TLS_HANDSHAKE {
        return secure_connection(stream, Peer::unknown(local, from), acceptor, router, shutdown).await;
    }
    if is_connect(&stream, first).await? {
        tokio::time::timeout(HANDSHAKE_TIMEOUT, connect::answer(&mut stream)).await??;
        let first = tokio::time::timeout(HANDSHAKE_TIMEOUT, first_byte(&stream)).await??;
        if first != TLS_HANDSHAKE {
            return Err(format!("{from} asked for CONNECT and does not speak TLS").into());
        }
        let peer = Peer { by_connect: true, ..Peer::unknown(local, from) };
        return secure_connection(stream, peer, acceptor, router, shutdown).await;
    }
    if !peer::is_loopback(from, local) {
        return Err(format!("{from} speaks cleartext and is not on loopback").into());
    }
    let own = tokio::task::spawn_blocking(move || peer::is_own_user(from, local)).await?;
    let router = router.layer(axum::Extension(Peer { own_user_in_clear: own, ..Peer::unknown(local, from) }));
    if own {
        return serve_connection(stream, router, shutdown).await;
    }
    // Another user of this machine: whoever has an unguessable name may use it, and nothing else is
    // even answered.
    let capabilities = tower::service_fn(move |request: Request<Incoming>| named(router.clone(), from, request));
    serve_connection(stream, capabilities, shutdown).await
}

async fn secure_connection(
    stream: TcpStream,
    peer: Peer,
    acceptor: TlsAcceptor,
    router: Router,
    shutdown: CancellationToken,
) -> Result<(), ConnectionError> {
    let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await??;
    let router = router.layer(axum::Extension(peer));
    // All our own clients, and gomote, offer protocols; Go agents offer none.
    if stream.get_ref().1.alpn_protocol().is_some() {
        return serve_connection(stream, router, shutdown).await;
    }
    let mut stream = BufReader::new(stream);
    let beginning = tokio::time::timeout(HANDSHAKE_TIMEOUT, stream.fill_buf()).await??;
    if handover::is_asked_for(beginning) {
        return handover::serve(stream, router).await;
    }
    serve_connection(stream, router, shutdown).await
}

/// Whether a connection in the clear begins with a `CONNECT`. No other request of ours begins with its
/// first letter, so there is something to wait for only then.
async fn is_connect(stream: &TcpStream, first: u8) -> Result<bool, ConnectionError> {
    if first != b'C' {
        return Ok(false);
    }
    let mut beginning = [0; 8];
    let whole = async {
        while stream.peek(&mut beginning).await? < beginning.len() {
            // Peeking does not wait for more than there is.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        io::Result::Ok(())
    };
    tokio::time::timeout(HANDSHAKE_TIMEOUT, whole).await??;
    Ok(connect::is_begun_by(&beginning))
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

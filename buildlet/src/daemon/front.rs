//! What stands before the service on every connection, and how connections end.

use crate::grpc::Service;
use motefarm_net::serve::serve_connection;
use motefarm_net::token::SecretHash;
use motefarm_proto::MAX_MESSAGE_BYTES;
use motefarm_proto::mote::buildlet_server::BuildletServer;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Status};

/// How long calls in progress may take once the buildlet stops. Streams are cut: whoever follows
/// an execution attaches again.
pub(super) const STOP_GRACE: Duration = Duration::from_millis(500);

/// After a failed accept (no descriptors left): others may be closed meanwhile.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The service behind its guard.
#[derive(Clone)]
pub(super) struct Front {
    routes: Routes,
    pub(super) connections: TaskTracker,
}

impl Front {
    /// With a hash every call must show the token; without one the connection itself is the proof.
    pub(super) fn new(service: Service, token: Option<SecretHash>) -> Self {
        let server = BuildletServer::new(service)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let guarded = InterceptedService::new(server, move |request| check(token.as_ref(), request));
        Self { routes: Routes::new(guarded).prepare(), connections: TaskTracker::new() }
    }

    /// Serves a connection until it ends or, after `stop`, a moment longer.
    pub(super) async fn serve<Io>(&self, io: Io, stop: CancellationToken)
    where
        Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let serving = serve_connection(io, self.routes.clone(), stop.clone());
        let cut = async {
            stop.cancelled().await;
            tokio::time::sleep(STOP_GRACE).await;
        };
        tokio::select! {
            ended = serving => if let Err(error) = ended {
                tracing::debug!(%error, "a connection broke");
            },
            () = cut => {}
        }
    }

    /// Serves a connection in a task of its own.
    pub(super) fn spawn<Io>(&self, io: Io, stop: &CancellationToken)
    where
        Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (front, stop) = (self.clone(), stop.clone());
        self.connections.spawn(async move { front.serve(io, stop).await });
    }

    /// Waits for every connection's end.
    pub(super) async fn drain(&self) {
        self.connections.close();
        self.connections.wait().await;
    }
}

fn check(token: Option<&SecretHash>, request: Request<()>) -> Result<Request<()>, Status> {
    let Some(token) = token else { return Ok(request) };
    let shown = request
        .metadata()
        .get("authorization")
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "));
    if shown.is_some_and(|shown| token.matches(shown)) {
        Ok(request)
    } else {
        Err(Status::unauthenticated("this buildlet wants its token: authorization: Bearer <token>"))
    }
}

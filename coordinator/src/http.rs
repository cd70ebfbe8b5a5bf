//! The port's routes, and the one layer that authorises every call.

use crate::app::App;
use crate::gomote::{self, Gomote};
use crate::grpc;
use crate::identity::{Identity, Role, Rule, ShownToken, rule};
use crate::peer::Peer;
use crate::provider::join::{Hello, Joins};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use hyper_util::rt::TokioIo;
use motefarm_core::name::UserName;
use motefarm_net::deadline::DeadlineLayer;
use motefarm_net::token::ApiToken;
use std::sync::Arc;
use tonic::Status;

#[derive(Clone)]
struct Edge {
    app: Arc<App>,
    joins: Arc<Joins>,
    gomote: Arc<Gomote>,
    /// Whom the farm's own system user is on loopback.
    own_user: UserName,
}

/// Everything the port answers.
pub fn router(app: &Arc<App>, own_user: UserName) -> Router {
    let gomote = Gomote::new(app);
    let edge = Edge { app: app.clone(), joins: Arc::new(Joins::default()), gomote: gomote.clone(), own_user };
    Router::new()
        .route("/healthz", get(healthz))
        .route("/v1/buildlet/join", get(join))
        .with_state(edge.clone())
        .merge(grpc::routes(app))
        .merge(gomote::routes(&gomote))
        .layer(middleware::from_fn_with_state(edge, authorise))
        .layer(DeadlineLayer)
}

async fn healthz() -> &'static str {
    "ok\n"
}

/// Lets a call through if its path's rule allows its caller, with the caller's [`Identity`] attached.
async fn authorise(State(edge): State<Edge>, mut request: Request, next: Next) -> Response {
    let is_grpc = request
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    let Some(rule) = rule(request.uri().path()) else {
        return if is_grpc {
            Status::unimplemented("there is no such method here").into_http::<axum::body::Body>()
        } else {
            StatusCode::NOT_FOUND.into_response()
        };
    };
    let peer = request.extensions().get::<Peer>().copied();
    let needed = match rule {
        Rule::Open | Rule::JoinToken | Rule::Capability => return next.run(request).await,
        Rule::OwnUser if peer.is_some_and(|peer| peer.own_user_in_clear) => return next.run(request).await,
        Rule::OwnUser => {
            let text = "only the farm's own user is answered here, in the clear on loopback; see docs/gomote.md\n";
            return (StatusCode::FORBIDDEN, text).into_response();
        }
        Rule::User => Role::User,
        Rule::Admin => Role::Admin,
    };
    let refusal = match identify(&edge, request.headers().get(header::AUTHORIZATION).cloned(), peer).await {
        Ok((identity, shown)) if needed == Role::User || identity.role == Role::Admin => {
            request.extensions_mut().insert(shown);
            request.extensions_mut().insert(identity);
            return next.run(request).await;
        }
        Ok((identity, _)) => Status::permission_denied(format!("{} is no admin of this farm", identity.user)),
        Err(status) => status,
    };
    if is_grpc {
        return refusal.into_http::<axum::body::Body>();
    }
    let code = match refusal.code() {
        tonic::Code::PermissionDenied => StatusCode::FORBIDDEN,
        tonic::Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    (code, format!("{}\n", refusal.message())).into_response()
}

/// The farm's own system user, known by a socket or by what was given to one.
fn own_user(edge: &Edge) -> Identity {
    Identity { user: edge.own_user.clone(), role: Role::Admin }
}

async fn identify(
    edge: &Edge,
    authorization: Option<HeaderValue>,
    peer: Option<Peer>,
) -> Result<(Identity, ShownToken), Status> {
    let Some(value) = authorization else {
        // Without a token only the farm's own user in the clear on loopback is known, by its socket.
        return match peer {
            Some(Peer { own_user_in_clear: true, .. }) => Ok((own_user(edge), ShownToken::default())),
            _ => Err(Status::unauthenticated("no token; `mote login` or a profile supplies one")),
        };
    };
    let token: Option<ApiToken> =
        value.to_str().ok().and_then(|text| text.strip_prefix("Bearer ")).and_then(|text| text.parse().ok());
    let unknown = || Status::unauthenticated("the token is not valid here: unknown, expired or revoked");
    let token = token.ok_or_else(unknown)?;
    if edge.gomote.tokens.knows(&token, edge.app.now()) {
        return Ok((own_user(edge), ShownToken::default()));
    }
    match edge.app.store.identify(&token.hash(), edge.app.now()).await {
        Ok(identity) => Ok((identity.ok_or_else(unknown)?, ShownToken(Some(token.hash())))),
        Err(error) => Err(crate::farm::FarmError::from(error).into()),
    }
}

/// Turns a buildlet's request into the stream on which it serves us.
async fn join(State(edge): State<Edge>, mut request: Request) -> Response {
    let hello = match Hello::from_headers(request.headers()) {
        Ok(hello) => hello,
        Err(problem) => return (StatusCode::BAD_REQUEST, format!("{problem}\n")).into_response(),
    };
    let id = hello.buildlet_id.to_string();
    match edge.app.store.admit(&hello.token, &id, &hello.host_type, edge.app.now()).await {
        Ok(true) => {}
        Ok(false) => {
            tracing::warn!(buildlet.id = id, host.type = %hello.host_type, token = hello.token.id, "a buildlet was refused");
            let text =
                "this join token does not let you in: unknown, expired, used up, revoked, or for another host type\n";
            return (StatusCode::UNAUTHORIZED, text).into_response();
        }
        Err(error) => {
            tracing::error!(%error, "a join token could not be checked");
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
    }
    let upgrade = hyper::upgrade::on(&mut request);
    let Edge { app, joins, .. } = edge;
    app.clone().spawn(async move {
        let shutdown = app.shutdown.clone();
        let serve = async {
            match upgrade.await {
                Ok(stream) => joins.lane(app, hello, Box::new(TokioIo::new(stream))).await,
                Err(error) => tracing::info!(buildlet.id = id, %error, "a joining buildlet left before the upgrade"),
            }
        };
        tokio::select! {
            () = serve => {}
            () = shutdown.cancelled() => {}
        }
    });
    let headers = [(header::CONNECTION, "upgrade"), (header::UPGRADE, "mote-buildlet")];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

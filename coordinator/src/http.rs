//! The port's routes, and the one layer that authorises every call.

mod go_agent;

use crate::app::App;
use crate::gate::{Failure, Gate};
use crate::gomote::{self, Gomote};
use crate::grpc;
use crate::identity::{Identity, Role, Rule, is_upload, rule};
use crate::peer::Peer;
use crate::provider::go_agent::GoAgents;
use crate::provider::join::{Hello, Joins};
use crate::signed_in::{self, UsedToken};
use crate::upload_rate::UploadRate;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use hyper_util::rt::TokioIo;
use motefarm_core::Timestamp;
use motefarm_core::name::UserName;
use motefarm_net::deadline::DeadlineLayer;
use motefarm_net::token::ApiToken;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tonic::Status;

/// How long a call whose token is no longer good has for its answer.
const LAST_WORDS: Duration = Duration::from_millis(500);

#[derive(Clone)]
struct Edge {
    app: Arc<App>,
    joins: Arc<Joins>,
    go_agents: Arc<GoAgents>,
    gomote: Arc<Gomote>,
    gate: Arc<Gate>,
    uploads: Arc<UploadRate>,
    /// Whom the farm's own system user is on loopback.
    own_user: UserName,
}

/// Everything the port answers.
pub fn router(app: &Arc<App>, own_user: UserName) -> Router {
    let gomote = Gomote::new(app);
    let edge = Edge {
        app: app.clone(),
        joins: Arc::new(Joins::default()),
        go_agents: Arc::new(GoAgents::default()),
        gomote: gomote.clone(),
        gate: Arc::default(),
        uploads: UploadRate::new(app.config.limits.upload_bytes_per_second),
        own_user,
    };
    Router::new()
        .route("/healthz", get(healthz))
        .route("/v1/buildlet/join", get(join))
        .route("/reverse", get(go_agent::reverse))
        .route("/revdial", get(go_agent::revdial))
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
            Status::unimplemented("there is no such method here").into_http::<Body>()
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
        Ok((identity, token)) if needed == Role::User || identity.role == Role::Admin => {
            if is_upload(request.uri().path()) {
                request = request.map(|body| edge.uploads.limit(&identity.user, body));
            }
            request.extensions_mut().insert(identity);
            let Some(token) = token else { return next.run(request).await };
            request.extensions_mut().insert(token);
            return while_signed_in(&edge, token, next.run(request)).await;
        }
        Ok((identity, _)) => Status::permission_denied(format!("{} is no admin of this farm", identity.user)),
        Err(status) => status,
    };
    if is_grpc {
        return refusal.into_http::<Body>();
    }
    let code = match refusal.code() {
        tonic::Code::PermissionDenied => StatusCode::FORBIDDEN,
        tonic::Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        tonic::Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    (code, format!("{}\n", refusal.message())).into_response()
}

/// A call's answer, as long as its token is good. One that is about to come is let: it may be about this token.
async fn while_signed_in(edge: &Edge, token: UsedToken, answer: impl Future<Output = Response>) -> Response {
    let mut answer = pin!(answer);
    let mut lost = signed_in::lost(&edge.app, token.0);
    let response = tokio::select! {
        biased;
        response = &mut answer => return response.map(|inner| signed_in::body(inner, lost)),
        () = &mut lost => tokio::time::timeout(LAST_WORDS, answer).await,
    };
    match response {
        Ok(response) => response.map(|inner| signed_in::body(inner, signed_in::lost(&edge.app, token.0))),
        Err(_) => no_good().into_http::<Body>(),
    }
}

fn no_good() -> Status {
    Status::unauthenticated("the token is not valid here: unknown, expired or revoked")
}

/// The farm's own system user, known by a socket or by what was given to one.
fn own_user(edge: &Edge) -> Identity {
    Identity { user: edge.own_user.clone(), role: Role::Admin }
}

/// Who calls, and the token of the database by which we know.
async fn identify(
    edge: &Edge,
    authorization: Option<HeaderValue>,
    peer: Option<Peer>,
) -> Result<(Identity, Option<UsedToken>), Status> {
    let Some(value) = authorization else {
        // Without a token only the farm's own user in the clear on loopback is known, by its socket.
        return match peer {
            Some(Peer { own_user_in_clear: true, .. }) => Ok((own_user(edge), None)),
            _ => Err(Status::unauthenticated("no token; `mote login` or a profile supplies one")),
        };
    };
    let token: Option<ApiToken> =
        value.to_str().ok().and_then(|text| text.strip_prefix("Bearer ")).and_then(|text| text.parse().ok());
    let Some(token) = token else { return Err(no_good()) };
    let (hash, now) = (token.hash(), edge.app.now());
    if edge.gomote.tokens.knows(&token, now) {
        return Ok((own_user(edge), None));
    }
    let address = peer.map(|peer| peer.remote.ip());
    if let Some(wait) = address.and_then(|address| edge.gate.admit(address, &hash, now).err()) {
        let seconds = wait.as_secs().max(1);
        return Err(Status::resource_exhausted(format!(
            "too many calls from your address had a token that is not valid here; try again in {seconds} s"
        )));
    }
    let origin = address.map(|address| address.to_canonical().to_string()).unwrap_or_default();
    match edge.app.store.identify(&hash, &origin, now).await {
        Ok(Some(identity)) => {
            edge.gate.passed(&hash, now);
            Ok((identity, Some(UsedToken(hash))))
        }
        Ok(None) => {
            if let Some(address) = address {
                refused(edge, address, "a token that is not valid here", now).await;
            }
            Err(no_good())
        }
        Err(error) => Err(crate::farm::FarmError::from(error).into()),
    }
}

/// Counts a failed sign-in; the first of an address, and the one that uses up its budget, leave a trace.
async fn refused(edge: &Edge, address: IpAddr, why: &str, now: Timestamp) {
    let origin = address.to_canonical();
    match edge.gate.failed(address, now) {
        Failure::First => edge.app.audit("", "sign-in refused", &origin.to_string(), why).await,
        Failure::Last => tracing::warn!(address = %origin, "too many failed sign-ins from one address; it has to wait"),
        Failure::Again => {}
    }
}

/// Turns a buildlet's request into the stream on which it serves us.
async fn join(State(edge): State<Edge>, mut request: Request) -> Response {
    let hello = match Hello::from_headers(request.headers()) {
        Ok(hello) => hello,
        Err(problem) => return (StatusCode::BAD_REQUEST, format!("{problem}\n")).into_response(),
    };
    let id = hello.buildlet_id.to_string();
    let (hash, now) = (hello.token.hash(), edge.app.now());
    let address = request.extensions().get::<Peer>().map(|peer| peer.remote.ip());
    if address.is_some_and(|address| edge.gate.admit(address, &hash, now).is_err()) {
        let text = "too many join tokens from your address did not let anybody in; try again later\n";
        return (StatusCode::TOO_MANY_REQUESTS, text).into_response();
    }
    match edge.app.store.admit(&hello.token, &id, &hello.host_type, edge.app.now()).await {
        Ok(true) => edge.gate.passed(&hash, now),
        Ok(false) => {
            if let Some(address) = address {
                refused(&edge, address, "a join token that lets nobody in", now).await;
            }
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

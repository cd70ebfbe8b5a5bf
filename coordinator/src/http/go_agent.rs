//! Where Go agents register and pick up connections.
//!
//! Both calls end in the connection being handed over, so they come over TLS and on connections that the
//! port tells by their first words. Answers are short: agents quote them in lines of bounded length.

use super::Edge;
use crate::peer::Peer;
use crate::provider::go_agent::{Registration, RegistrationError};
use crate::serve::Handover;
use axum::Extension;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};

fn refused(status: StatusCode, text: &str) -> Response {
    (status, format!("{text}\n")).into_response()
}

fn not_handed_over() -> Response {
    refused(StatusCode::BAD_REQUEST, "this is for Go agents, which come over TLS and name no protocol (ALPN)")
}

/// `GET /reverse`: lets an agent in and makes its connection the control channel.
pub(super) async fn reverse(
    State(edge): State<Edge>,
    handover: Option<Extension<Handover>>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
) -> Response {
    let Some(Extension(handover)) = handover else { return not_handed_over() };
    let registration = match Registration::from_headers(&headers) {
        Ok(registration) => registration,
        Err(error @ RegistrationError::Pool) => return refused(StatusCode::PRECONDITION_FAILED, &error.to_string()),
        Err(error) => return refused(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    let (id, token) = (registration.buildlet_id().to_string(), &registration.token);
    let (hash, now) = (token.hash(), edge.app.now());
    let address = peer.as_ref().map(|Extension(peer)| peer.remote.ip());
    if address.is_some_and(|address| edge.gate.admit(address, &hash, now).is_err()) {
        return refused(
            StatusCode::TOO_MANY_REQUESTS,
            "too many join tokens from your address let nobody in; try later",
        );
    }
    match edge.app.store.admit(token, &id, &registration.host_type, now).await {
        Ok(true) => edge.gate.passed(&hash, now),
        Ok(false) => {
            if let Some(address) = address {
                super::refused(&edge, address, "a join token that lets nobody in", now).await;
            }
            let (hostname, host_type) = (&registration.hostname, &registration.host_type);
            tracing::warn!(hostname, host.type = %host_type, token = token.id, "a Go agent was refused");
            let text =
                "this join token does not let you in: unknown, expired, used up, revoked, or for another host type";
            return refused(StatusCode::PRECONDITION_FAILED, text);
        }
        Err(error) => {
            tracing::error!(%error, "a join token could not be checked");
            return refused(StatusCode::SERVICE_UNAVAILABLE, "try again");
        }
    }
    if let Err(problem) = edge.go_agents.make_way(&registration).await {
        tracing::warn!(hostname = registration.hostname, problem, "a Go agent was refused");
        return refused(StatusCode::CONFLICT, &problem);
    }
    let by_connect = peer.is_some_and(|Extension(peer)| peer.by_connect);
    let Edge { app, go_agents, .. } = edge;
    handover.to(move |channel| async move { go_agents.serve(&app, registration, by_connect, channel).await });
    StatusCode::SWITCHING_PROTOCOLS.into_response()
}

/// `GET /revdial`: brings a connection to who waits for it.
pub(super) async fn revdial(
    State(edge): State<Edge>,
    handover: Option<Extension<Handover>>,
    RawQuery(query): RawQuery,
) -> Response {
    let Some(Extension(handover)) = handover else { return not_handed_over() };
    let dialer = query.as_deref().and_then(|query| query.strip_prefix("revdial.dialer=")).map(str::to_owned);
    let Some(dialer) = dialer.filter(|dialer| edge.go_agents.pickups.expects(dialer)) else {
        return refused(StatusCode::BAD_REQUEST, "unknown dialer");
    };
    handover.to(move |stream| async move { edge.go_agents.pickups.deliver(&dialer, stream) });
    StatusCode::SWITCHING_PROTOCOLS.into_response()
}

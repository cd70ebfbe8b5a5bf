//! The Go client's HTTP side: uploads, archives, metadata. Parses and answers; keeps nothing itself.

use super::Gomote;
use super::address::{self, Key};
use super::form::{Form, FormError};
use super::metadata;
use super::objects::ObjectError;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use futures_util::StreamExt as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;

/// An upload that stands still this long is over.
const SILENCE: Duration = Duration::from_secs(60);

/// The routes, without their state.
pub(super) fn routes() -> Router<Arc<Gomote>> {
    let (uploads, archives) = (address::UPLOADS, address::ARCHIVES);
    Router::new()
        .route(&format!("{uploads}{{key}}/"), post(upload))
        .route(&format!("{archives}{{name}}"), get(archive))
        .route("/computeMetadata/v1/project/project-id", get(project))
        .route("/computeMetadata/v1/instance/service-accounts/default/identity", get(identity))
}

/// Why an upload was not taken.
#[derive(Debug, thiserror::Error)]
enum UploadError {
    #[error(transparent)]
    Object(#[from] ObjectError),
    #[error(transparent)]
    Form(#[from] FormError),
    #[error("nothing came on this upload for {} s", SILENCE.as_secs())]
    Silence,
    #[error("the upload was cut off: {0}")]
    Cut(axum::Error),
    #[error("the coordinator is stopping")]
    Stopping,
}

impl UploadError {
    fn code(&self) -> StatusCode {
        match self {
            Self::Object(ObjectError::NotThere) => StatusCode::NOT_FOUND,
            Self::Object(ObjectError::Taken) => StatusCode::CONFLICT,
            Self::Object(ObjectError::Full(_)) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Object(ObjectError::Io(_)) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Form(_) | Self::Cut(_) => StatusCode::BAD_REQUEST,
            Self::Silence => StatusCode::REQUEST_TIMEOUT,
            Self::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// Takes one file. The client takes 204, and nothing else, for success.
async fn upload(State(gomote): State<Arc<Gomote>>, Path(key): Path<String>, request: Request) -> Response {
    let stopping = gomote.app.shutdown.clone();
    let taken = tokio::select! {
        taken = take(&gomote, &key, request) => taken,
        () = stopping.cancelled() => Err(UploadError::Stopping),
    };
    match taken {
        Ok(bytes) => {
            tracing::debug!(bytes, "uploaded");
            StatusCode::NO_CONTENT.into_response()
        }
        Err(error) => {
            if let UploadError::Object(ObjectError::Io(_)) = &error {
                tracing::error!(%error, "an upload could not be kept");
            }
            (error.code(), format!("{error}\n")).into_response()
        }
    }
}

async fn take(gomote: &Gomote, key: &str, request: Request) -> Result<u64, UploadError> {
    let key = Key::parse(key).ok_or(ObjectError::NotThere)?;
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let mut form = Form::new(content_type.unwrap_or_default())?;
    let (arrival, file) = gomote.objects.begin(&key, gomote.app.now())?;
    let mut file = tokio::fs::File::from_std(file);
    let (mut body, mut bytes) = (request.into_body().into_data_stream(), 0);
    while let Some(chunk) = tokio::time::timeout(SILENCE, body.next()).await.map_err(|_| UploadError::Silence)? {
        for piece in form.feed(&chunk.map_err(UploadError::Cut)?)? {
            arrival.grow(piece.len() as u64)?;
            file.write_all(&piece).await.map_err(ObjectError::from)?;
            bytes += piece.len() as u64;
        }
    }
    form.finish()?;
    file.flush().await.map_err(ObjectError::from)?;
    arrival.finish(gomote.app.now());
    Ok(bytes)
}

/// Streams an archive, once. Without a content encoding: the client would undo it and save a plain
/// tar under the name of a compressed one.
async fn archive(State(gomote): State<Arc<Gomote>>, Path(name): Path<String>) -> Response {
    let archive = address::archive_key(&name).and_then(|key| gomote.archives.take(&key, gomote.app.now()));
    match archive {
        // An error in the middle breaks the connection off: never a short archive that looks whole.
        Some(archive) => {
            ([(header::CONTENT_TYPE, "application/octet-stream")], Body::from_stream(archive)).into_response()
        }
        None => (StatusCode::NOT_FOUND, "there is no such archive; it can be fetched once, within a minute\n")
            .into_response(),
    }
}

/// A metadata server's answer, for whom it is.
fn answer(request: &Request, text: impl FnOnce() -> String) -> Response {
    let named = request.headers().get(header::HOST).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let host = named.or_else(|| request.uri().authority().map(ToString::to_string));
    match metadata::check(request.headers(), host.as_deref()) {
        Ok(()) => metadata::answer(text()),
        Err(refusal) => (StatusCode::FORBIDDEN, refusal).into_response(),
    }
}

async fn project(request: Request) -> Response {
    answer(&request, || metadata::PROJECT.to_owned())
}

async fn identity(State(gomote): State<Arc<Gomote>>, request: Request) -> Response {
    answer(&request, || gomote.tokens.give(gomote.app.now()).secret().to_owned())
}

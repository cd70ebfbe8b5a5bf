//! Archives that the farm fetches for a user, from where its operator allows.
//!
//! Only the address goes out: no token, cookie or other header of the caller or the farm. Redirects
//! are followed within what is allowed; proxies of the environment are not used.

use super::FarmError;
use super::usage::{Incoming, Usage};
use crate::app::App;
use crate::config::{Fetch, has_credentials};
use crate::identity::Identity;
use bytes::Bytes;
use futures_util::stream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use motefarm_proto::{MAX_CHUNK_BYTES, convert, mote};
use reqwest::{Client, Response, StatusCode, redirect};
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// Time to a connection.
const CONNECT: Duration = Duration::from_secs(15);
/// How long a server may be silent.
const SILENCE: Duration = Duration::from_secs(60);
const MOST_REDIRECTS: usize = 5;
const MOST_URL_BYTES: usize = 8 << 10;

/// Fetches an archive and has it unpacked.
pub async fn put_tar_from_url(
    app: &Arc<App>,
    caller: &Identity,
    request: mote::PutTarFromUrlRequest,
) -> Result<mote::PutTarResponse, FarmError> {
    let tar = request.tar.unwrap_or_default();
    convert::work_path("tar.dir", &tar.dir)?;
    let url = parse(&request.url)?;
    check_allowed(&app.config.fetch, &url)?;
    let usage = Usage::begin(app, caller, &request.instance).await?;
    app.audit(caller.user.as_str(), "fetch", &usage.row.name, &shown(&url)).await;
    let archive = usage.during(open(app, &url)).await?;
    let archive = pieces(archive, &url, app.config.fetch.max_bytes);
    let target = mote::BuildletPutTarTarget { instance_id: usage.id(), tar: Some(tar) };
    usage.put(archive, |pieces| usage.session.link.put_tar(target, pieces)).await
}

fn parse(text: &str) -> Result<Url, FarmError> {
    let bad = |problem: String| FarmError::Invalid(format!("field url: {problem}"));
    if text.len() > MOST_URL_BYTES {
        return Err(bad(format!("{} bytes; at most {MOST_URL_BYTES}", text.len())));
    }
    let url = Url::parse(text).map_err(|error| bad(format!("is not an address: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad(format!("{}: is neither http nor https", url.scheme())));
    }
    if has_credentials(&url) {
        return Err(bad("holds a user name or password, which the farm does not pass on".to_owned()));
    }
    Ok(url)
}

/// An address without what may be secret in it.
fn shown(url: &Url) -> String {
    let mut plain = url.clone();
    plain.set_query(None);
    plain.set_fragment(None);
    plain.to_string().chars().take(500).collect()
}

fn check_allowed(fetch: &Fetch, url: &Url) -> Result<(), FarmError> {
    match fetch.allows(url) {
        true => Ok(()),
        false => Err(FarmError::Forbidden(format!(
            "this farm does not fetch {}: its operator allows {} (fetch.allow of the coordinator's configuration)",
            shown(url),
            fetch.describe()
        ))),
    }
}

async fn client(app: &App) -> Result<&Client, FarmError> {
    let make = || async {
        // reqwest takes the process's provider; the first one stays.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let fetch = app.config.fetch.clone();
        let policy = redirect::Policy::custom(move |attempt| {
            if attempt.previous().len() > MOST_REDIRECTS {
                return attempt.error(Refused(format!("more than {MOST_REDIRECTS} redirects")));
            }
            match fetch.allows(attempt.url()) {
                true => attempt.follow(),
                false => {
                    let to = shown(attempt.url());
                    attempt.error(Refused(format!("it redirects to {to}, which fetch.allow does not allow")))
                }
            }
        });
        Client::builder()
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .redirect(policy)
            .referer(false)
            .no_proxy()
            .user_agent(concat!("motefarm/", env!("CARGO_PKG_VERSION")))
            .build()
    };
    app.fetcher.get_or_try_init(make).await.map_err(|error| {
        tracing::error!(error = chain(&error), "the farm can not fetch anything");
        FarmError::NotReady("this farm can not fetch; its operator finds the cause in the coordinator's log".to_owned())
    })
}

/// Why a redirect was not followed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

/// An error with what caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn failed(url: &Url, error: reqwest::Error) -> FarmError {
    let redirected = error.is_redirect();
    let text = format!("{} can not be fetched: {}", shown(url), chain(&error.without_url()));
    if redirected { FarmError::Forbidden(text) } else { FarmError::Unavailable(text) }
}

async fn open(app: &App, url: &Url) -> Result<Response, FarmError> {
    let response = client(app).await?.get(url.clone()).send().await.map_err(|error| failed(url, error))?;
    let status = response.status();
    if status != StatusCode::OK {
        let text = format!("{} answers {status}", shown(url));
        return Err(if status.is_client_error() { FarmError::Invalid(text) } else { FarmError::Unavailable(text) });
    }
    match response.content_length() {
        Some(size) if size > app.config.fetch.max_bytes => Err(too_large(url, app.config.fetch.max_bytes)),
        _ => Ok(response),
    }
}

fn too_large(url: &Url, limit: u64) -> FarmError {
    FarmError::Exhausted(format!("{} is larger than the {limit} bytes of fetch.max_bytes", shown(url)))
}

/// A response's body as it comes, as long as it is within the bound.
fn pieces(response: Response, url: &Url, limit: u64) -> Incoming {
    let url = url.clone();
    let mut left = limit;
    let bounded = response.bytes_stream().map(move |piece| {
        let piece = piece.map_err(|error| failed(&url, error))?;
        left = left.checked_sub(piece.len() as u64).ok_or_else(|| too_large(&url, limit))?;
        Ok::<_, FarmError>(stream::iter(split(piece).map(Ok)))
    });
    bounded.try_flatten().boxed()
}

/// In messages' sizes.
fn split(mut piece: Bytes) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || {
        let size = piece.len().min(MAX_CHUNK_BYTES);
        (size > 0).then(|| piece.split_to(size))
    })
}

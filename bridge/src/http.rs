//! Goma's calls over HTTP, and pages for people: from a request to a whole answer, never a part of one.
//!
//! What a client makes of a status code decides what it is given. Trouble of the backend is a good answer
//! that says so; 400 and 415 stop it compressing, 401 disables it for minutes, and nothing else is ever sent
//! but 404 and 503 (`status` in the reference's words: one HTTP error fails the others of the same second).

mod body;
pub mod encoding;
mod pages;
mod settings;

use crate::access::{Access, OTHER_USER, Who};
use crate::admission::Pool;
use crate::backend::Stage;
use crate::file_blob::{self, HashKey};
use crate::pipeline::compile::Compiler;
use crate::pipeline::{decode, weight};
use crate::records::Records;
use body::{BodyError, Unpacked};
use bytes::Bytes;
use encoding::{ACCEPTED, Encoding};
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use motefarm_core::Clock;
use motefarm_proto::goma::{FileBlob, LookupFileReq, LookupFileResp, StoreFileResp};
use prost::Message;
pub use settings::Settings;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What Goma's messages are called.
const PROTOBUF: &str = "binary/x-protocol-buffer";
/// Most keys of one lookup; clients send 5.
const MAX_KEYS: usize = 1000;
/// Answers from this size on are packed beside the runtime.
const PACK_APART_BYTES: usize = 256 << 10;
/// How long a ping waits for what the backend says.
const PING_WAIT: Duration = Duration::from_secs(2);

/// Everything an answer needs.
pub struct Edge {
    /// The work.
    pub compiler: Compiler,
    /// Who may.
    pub access: Access,
    /// What was.
    pub records: Records,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Each empty, or beginning and not ending with `/`.
    pub path_prefixes: Vec<String>,
    /// What clients are told of where to find it.
    pub settings: Settings,
    /// Largest request, unpacked.
    pub request_bytes: usize,
    /// Requests as they came.
    pub packed: Pool,
    /// Requests unpacked.
    pub unpacked: Pool,
    /// Contents of answers.
    pub answers: Pool,
    /// Stopping: every answer is the last of its connection.
    pub draining: AtomicBool,
}

/// The way a request came.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// Over loopback, from a socket of the bridge's own user.
    pub is_own_user: bool,
    /// Not in the clear.
    pub is_tls: bool,
    /// Which of the bridge's addresses the client dialled.
    pub at: SocketAddr,
}

type Answer = Response<Full<Bytes>>;

/// What a path asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Ping,
    Exec,
    Store,
    Lookup,
    SaveLog,
    Status,
    Metrics,
    Explain,
}

impl Edge {
    /// Answers one request.
    pub async fn answer(self: Arc<Self>, request: Request<Incoming>, arrival: Arrival) -> Result<Answer, Infallible> {
        let is_own_user = arrival.is_own_user && !request.headers().contains_key(OTHER_USER);
        let mut answer = self.route(request, Arrival { is_own_user, ..arrival }).await;
        if answer.status() == StatusCode::OK {
            answer.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static(ACCEPTED));
        }
        if self.draining.load(Ordering::Relaxed) {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(answer)
    }

    async fn route(&self, request: Request<Incoming>, arrival: Arrival) -> Answer {
        if request.uri().path() == self.settings.path {
            return settings::answer(self, request, arrival).await;
        }
        let Some((call, rest)) = self.call(request.uri().path()) else {
            let known = self.path_prefixes.join("' or '");
            return text(
                StatusCode::NOT_FOUND,
                &format!(
                    "mote-bridge has nothing at {}; clients are answered below '{known}' (GOMA_URL_PATH_PREFIX)\n",
                    request.uri().path()
                ),
            );
        };
        let shown = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes);
        let Some(who) = self.access.admit(arrival.is_own_user, shown) else {
            self.records.metrics().refused.fetch_add(1, Ordering::Relaxed);
            let what =
                if shown.is_some() { "the Authorization shown is not known" } else { "no Authorization was shown" };
            return text(
                StatusCode::UNAUTHORIZED,
                &format!(
                    "mote-bridge (auth={}): {what}, and you are not the user that the bridge runs as; \
                 GOMA_HTTP_AUTHORIZATION_FILE names a file with the token\n",
                    self.access
                ),
            );
        };
        match call {
            Call::Ping => self.ping().await,
            Call::Status => pages::status(self).await,
            Call::Metrics => text(StatusCode::OK, &pages::metrics(self)),
            Call::Explain => pages::explain(self, &rest),
            Call::SaveLog => {
                body::discard(request).await;
                message_answer(Vec::new(), Encoding::Identity)
            }
            Call::Exec | Call::Store | Call::Lookup => {
                // On one machine packing gains nothing, and is a third of what a cached compile costs. Whoever
                // shows a token may as well come through a tunnel, and is taken at its word.
                let answer_by = match who == Who::OwnUser && shown.is_none() {
                    true => Encoding::Identity,
                    false => Encoding::for_answer(header(request.headers(), ACCEPT_ENCODING)),
                };
                let shape = match call {
                    Call::Exec => &weight::EXEC,
                    Call::Store => &weight::STORE,
                    _ => &weight::LOOKUP,
                };
                match body::read(self, request, shape).await {
                    Ok(body) => self.message(call, body, &who, answer_by).await,
                    Err(error) => body_refused(&error),
                }
            }
        }
    }

    /// The call, and what follows `/explain/`.
    fn call(&self, path: &str) -> Option<(Call, String)> {
        let plain = |call| Some((call, String::new()));
        match path {
            "/" => return plain(Call::Status),
            "/metrics" => return plain(Call::Metrics),
            _ => {}
        }
        if let Some(id) = path.strip_prefix("/explain/") {
            return Some((Call::Explain, id.to_owned()));
        }
        self.path_prefixes.iter().find_map(|prefix| match path.strip_prefix(prefix.as_str())? {
            "/ping" => plain(Call::Ping),
            "/e" => plain(Call::Exec),
            "/s" => plain(Call::Store),
            "/l" => plain(Call::Lookup),
            "/sl" => plain(Call::SaveLog),
            _ => None,
        })
    }

    async fn ping(&self) -> Answer {
        let backend = pages::backend_state(self, PING_WAIT).await;
        text(StatusCode::OK, &format!("ok {} auth={} backend={backend}\n", env!("CARGO_PKG_VERSION"), self.access))
    }

    async fn message(&self, call: Call, body: Unpacked, who: &Who, answer_by: Encoding) -> Answer {
        let Unpacked { bytes, held } = body;
        let encoded = match call {
            Call::Exec => match decode::exec_request(bytes) {
                Ok(received) => {
                    let now = self.clock.now();
                    let info = received.request.requester_info.as_ref();
                    let mut trace = self.records.begin(now, &who.to_string(), info);
                    self.compiler.compile(received, held, who, &mut trace).await.encode_to_vec()
                }
                Err(error) => return bad(&error.to_string()),
            },
            Call::Store => match decode::store_request(bytes) {
                Ok(received) => {
                    let answer = self.store(received).await;
                    drop(held);
                    answer.encode_to_vec()
                }
                Err(error) => return bad(&error.to_string()),
            },
            _ => match LookupFileReq::decode(bytes) {
                Ok(request) if request.hash_key.len() <= MAX_KEYS => {
                    drop(held);
                    self.look_up(request).await.encode_to_vec()
                }
                Ok(request) => return bad(&format!("{} keys in one lookup", request.hash_key.len())),
                Err(error) => return bad(&format!("not a LookupFileReq: {error}")),
            },
        };
        if encoded.len() < PACK_APART_BYTES {
            return message_answer(answer_by.pack(encoded), answer_by);
        }
        match tokio::task::spawn_blocking(move || answer_by.pack(encoded)).await {
            Ok(packed) => message_answer(packed, answer_by),
            Err(error) => {
                tracing::error!(%error, "an answer could not be packed");
                text(StatusCode::SERVICE_UNAVAILABLE, "mote-bridge: the answer could not be packed\n")
            }
        }
    }

    /// One key for each blob, in order; empty for one that was not taken.
    async fn store(&self, received: decode::Received<motefarm_proto::goma::StoreFileReq>) -> StoreFileResp {
        let (mut keys, mut blobs, mut places) = (Vec::new(), Vec::new(), Vec::new());
        for (place, (blob, raw)) in received.request.blob.into_iter().zip(received.raw).enumerate() {
            keys.push(String::new());
            match file_blob::verify(blob, raw.as_deref(), None) {
                Ok(blob) => {
                    places.push((place, blob.0));
                    blobs.push(blob);
                }
                Err(error) => tracing::warn!(%error, "a blob to be stored is not taken"),
            }
        }
        let stored = self.compiler.content().store(Stage::Ingest, blobs).await;
        for ((place, key), stored) in places.into_iter().zip(stored) {
            match stored {
                Ok(()) => keys[place] = key.to_string(),
                Err(fault) => tracing::warn!(%fault, %key, "a blob could not be stored"),
            }
        }
        StoreFileResp { hash_key: keys }
    }

    /// One blob for each key, in order; one that says nothing for what is not to be had.
    async fn look_up(&self, request: LookupFileReq) -> LookupFileResp {
        let content = self.compiler.content();
        let keys: Vec<Option<HashKey>> = request.hash_key.iter().map(|text| HashKey::parse(text)).collect();
        let known = keys.iter().flatten().copied().collect();
        let _held = match content.look_up_bytes(known).await {
            Ok(bytes) => self.answers.hold(bytes).await,
            Err(fault) => {
                tracing::warn!(%fault, "a lookup failed");
                return LookupFileResp { blob: vec![FileBlob::default(); keys.len()] };
            }
        };
        let mut blobs = Vec::with_capacity(keys.len());
        for (key, text) in keys.into_iter().zip(&request.hash_key) {
            let found = match key {
                Some(key) => content.look_up(key).await,
                None => Ok(None),
            };
            blobs.push(match found {
                Ok(Some(blob)) => blob.into_message(),
                Ok(None) => {
                    tracing::info!(key = text, "looked up and not here; the client makes it again");
                    FileBlob::default()
                }
                Err(fault) => {
                    tracing::warn!(%fault, key = text, "a lookup failed");
                    FileBlob::default()
                }
            });
        }
        LookupFileResp { blob: blobs }
    }
}

fn header(headers: &HeaderMap, name: http::HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// For people and for clients' logs.
fn text(status: StatusCode, text: &str) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::copy_from_slice(text.as_bytes())));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}

fn bad(problem: &str) -> Answer {
    tracing::warn!(problem, "a request is no request");
    text(StatusCode::BAD_REQUEST, &format!("mote-bridge: {problem}\n"))
}

fn body_refused(error: &BodyError) -> Answer {
    tracing::warn!(%error, "a request was not taken");
    let status = match error {
        BodyError::Encoding(_) | BodyError::Expand(_) | BodyError::TooLarge { .. } | BodyError::TooHeavy => {
            StatusCode::BAD_REQUEST
        }
        BodyError::Broken(_) | BodyError::Slow | BodyError::Stopped(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    text(status, &format!("mote-bridge: {error}\n"))
}

fn message_answer(body: Vec<u8>, encoding: Encoding) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROTOBUF));
    if let Some(name) = encoding.name() {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(name));
    }
    answer
}

//! The one way besides Google to give a client tokens that it can renew: the authentication service that LUCI
//! has on every machine. The client finds it by a file (`LUCI_CONTEXT`) that names a port of loopback and a
//! secret; who shows the secret is given a token.
//!
//! A client with such a source starts without asking Google, and tries again what failed: without one it gives
//! up whatever it throttled. So it is of use even where the server wants no token; then it gives a word.

use crate::authorization::Authorization;
use crate::secret_file::SecretFile;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use motefarm_core::Clock;
use motefarm_net::accept::accept;
use motefarm_net::private_file;
use motefarm_net::serve::serve_connection;
use motefarm_net::token::SecretHash;
use serde::Deserialize;
use serde_json::json;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Where tokens are asked for.
pub const PATH: &str = "/rpc/LuciLocalAuthService.GetOAuthToken";
/// Given where no token is needed.
pub const NO_TOKEN: &str = "own-user";
/// The one account.
const ACCOUNT: &str = "mote-bridge";
/// How long a token is said to be good. A client that is refused asks before; this bounds how late a token that
/// was replaced is noticed.
const GOOD_FOR: Duration = Duration::from_secs(15 * 60);
/// Largest question.
const MAX_BYTES: usize = 16 << 10;
/// Longest time for one.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Connections at once.
const CONNECTIONS: usize = 32;
/// Time for answers under way, at the end.
const DRAIN: Duration = Duration::from_secs(2);

/// See the module.
pub struct LocalAuth {
    context: PathBuf,
    written: Vec<u8>,
    listener: TcpListener,
    desk: Arc<Desk>,
}

/// What an answer needs.
struct Desk {
    secret: SecretHash,
    token: Option<Arc<SecretFile<Authorization>>>,
    clock: Arc<dyn Clock>,
}

/// What clients ask. They say scopes, too.
#[derive(Deserialize)]
struct Question {
    secret: String,
    #[serde(default)]
    account_id: String,
}

impl LocalAuth {
    /// Listens, and writes the file by which clients find it. `token`: where tokens are; none are needed without.
    pub async fn open(
        context: &Path,
        token: Option<Arc<SecretFile<Authorization>>>,
        clock: Arc<dyn Clock>,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let secret = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        let file = json!({ "local_auth": {
            "rpc_port": listener.local_addr()?.port(),
            "secret": &secret,
            "accounts": [{ "id": ACCOUNT }],
            "default_account_id": ACCOUNT,
        }});
        let context = std::path::absolute(context)?;
        let written = file.to_string().into_bytes();
        private_file::write(&context, &written)?;
        let desk = Desk { secret: SecretHash::of(&secret), token, clock };
        Ok(Self { context, written, listener, desk: Arc::new(desk) })
    }

    /// The file, absolute.
    pub fn context(&self) -> &Path {
        &self.context
    }

    /// Answers until `shutdown`. Then the file is removed, if it is still this one's.
    pub async fn serve(self, shutdown: CancellationToken) {
        let closing = shutdown.clone();
        let desk = self.desk;
        let open = accept(self.listener, CONNECTIONS, &shutdown, |stream, _| {
            let desk = desk.clone();
            let service = tower::service_fn(move |request| answer(desk.clone(), request));
            serve_connection(stream, service, closing.clone())
        });
        open.await.drain(DRAIN).await;
        if fs::read(&self.context).is_ok_and(|now| now == self.written) {
            let _ = fs::remove_file(&self.context);
        }
    }
}

async fn answer(desk: Arc<Desk>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, body) = match reply(&desk, request).await {
        Ok(body) => (StatusCode::OK, body.to_string()),
        Err((status, why)) => {
            tracing::warn!(%status, why, "a token was asked for and not given");
            (status, format!("mote-bridge: {why}\n"))
        }
    };
    let kind = if status == StatusCode::OK { "application/json" } else { "text/plain; charset=utf-8" };
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok(answer)
}

async fn reply(desk: &Desk, request: Request<Incoming>) -> Result<serde_json::Value, (StatusCode, &'static str)> {
    if request.uri().path() != PATH {
        return Err((StatusCode::NOT_FOUND, "there is nothing here but LuciLocalAuthService.GetOAuthToken"));
    }
    if request.method() != Method::POST {
        return Err((StatusCode::METHOD_NOT_ALLOWED, "tokens are asked for by POST"));
    }
    let no_question = (StatusCode::BAD_REQUEST, "the question is not JSON with a secret, or did not come in time");
    let body = tokio::time::timeout(TIMEOUT, Limited::new(request.into_body(), MAX_BYTES).collect()).await;
    let body = body.map_err(|_| no_question)?.map_err(|_| no_question)?.to_bytes();
    let question: Question = serde_json::from_slice(&body).map_err(|_| no_question)?;
    if !desk.secret.matches(&question.secret) {
        return Err((StatusCode::FORBIDDEN, "the secret is not the one in the LUCI_CONTEXT file"));
    }
    if !matches!(question.account_id.as_str(), "" | ACCOUNT) {
        return Err((StatusCode::NOT_FOUND, "there is no such account; the LUCI_CONTEXT file names the one there is"));
    }
    let expiry = desk.clock.now() + GOOD_FOR;
    let token = match &desk.token {
        Some(file) => file.get().bearer_token().map(str::to_owned),
        None => Some(NO_TOKEN.to_owned()),
    };
    Ok(match token {
        Some(token) => json!({ "access_token": token, "expiry": expiry.as_millis() / 1000 }),
        None => json!({ "error_code": 1, "error_message": "the token file of mote-bridge holds no bearer's token" }),
    })
}

//! In the place of Goma's `http_proxy`: takes the client's calls on loopback, in the clear, and passes them on to
//! a server that may be anywhere, over TLS or not, on whichever port. What goes through is not changed.
//!
//! * [`arguments`]: the command line of `http_proxy`. [`config`]: what is configured.
//! * [`upstream`]: what people write of where the server is. `way` finds out which of its meanings is true,
//!   and `speech` which of TLS and cleartext is spoken there. `dialler` makes the connections.
//! * `verdict`: what of the server's answers a client can survive. `headers` of a request and `lent`, its body, on
//!   their way.
//!
//! To the server, what comes through here comes from the relay's user. So only his own calls are given his
//! token, and other users' are marked ([`OTHER_USER`]).
//!
//! **Absent on purpose:** Goma's messages, but for the one that says what is wrong; content; retries of what was
//! sent: the client has its own.

pub mod arguments;
pub mod config;
mod dialler;
mod headers;
mod lent;
pub mod run;
mod speech;
pub mod upstream;
mod verdict;
mod way;

use crate::access::OTHER_USER;
use crate::authorization::Authorization;
use crate::causes::causes;
use crate::http::encoding::ACCEPTED;
use crate::secret_file::SecretFile;
use crate::serve;
use bytes::Bytes;
use config::RelayConfig;
use dialler::Dialler;
use http::header::{ACCEPT_ENCODING, CONNECTION, CONTENT_TYPE, LOCATION};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, request};
use http_body_util::{BodyExt as _, Either, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use lent::{Lent, Loan};
use motefarm_net::serve::ConnectionError;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use upstream::Endpoint;
use verdict::{Call, Verdict};
use way::Way;

/// Connections to the server that are kept for later.
const POOLED: usize = 64;
/// How long. Servers close theirs after a minute or more.
const POOLED_FOR: Duration = Duration::from_secs(30);
/// Read of an answer that is not passed on, to say what was in it.
const QUOTED_BYTES: usize = 8 << 10;
/// Longest time for that.
const QUOTE_TIMEOUT: Duration = Duration::from_secs(3);

/// Passed on as it comes, or made here.
type Body = Either<Full<Bytes>, Incoming>;

/// See the module.
pub struct Relay {
    way: Way,
    pool: Client<Dialler, Loan>,
    authorization: Option<Arc<SecretFile<Authorization>>>,
    /// Stopping: every answer is the last of its connection.
    draining: AtomicBool,
}

/// Serves until `shutdown`, then drains.
pub async fn serve(relay: Arc<Relay>, listener: TcpListener, max_connections: usize, shutdown: CancellationToken) {
    serve::connections(listener, max_connections, &shutdown, &relay.draining, |stream, from, closing| {
        connection(relay.clone(), stream, from, closing)
    })
    .await;
}

async fn connection(
    relay: Arc<Relay>,
    stream: TcpStream,
    from: SocketAddr,
    closing: CancellationToken,
) -> Result<(), ConnectionError> {
    let beginning = serve::begin(&stream, from).await?;
    if beginning.is_tls {
        tracing::warn!("a client speaks TLS to the relay, which is spoken to in the clear: GOMA_USE_SSL=false");
        return Ok(());
    }
    let is_own_user = beginning.is_own_user;
    if !is_own_user && relay.authorization.is_some() {
        tracing::warn!("a connection that is not known to be this user's: its calls are not given the token");
    }
    let service = tower::service_fn(move |request| relay.clone().answer(request, is_own_user));
    serve::requests(stream, service, closing).await
}

impl Relay {
    /// By a configuration whose files are there. Nothing is dialled yet.
    pub fn new(config: &RelayConfig, authorization: Option<Arc<SecretFile<Authorization>>>) -> anyhow::Result<Self> {
        let tls = Arc::new(config.client_tls()?);
        let pool = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(POOLED)
            .pool_idle_timeout(POOLED_FOR)
            .http2_initial_stream_window_size(motefarm_net::serve::STREAM_WINDOW_BYTES)
            .http2_initial_connection_window_size(motefarm_net::serve::CONNECTION_WINDOW_BYTES)
            .http2_keep_alive_interval(motefarm_net::serve::KEEP_ALIVE_INTERVAL)
            .http2_keep_alive_timeout(motefarm_net::serve::KEEP_ALIVE_TIMEOUT)
            .build(Dialler::new(tls.clone()));
        let way = Way::new(config.upstream.clone(), config.default_port, config.switch_scheme, tls);
        Ok(Self { way, pool, authorization, draining: AtomicBool::new(false) })
    }

    /// Where the server is found to be, or why it is not.
    pub async fn look(&self) -> Result<Endpoint, String> {
        self.way.endpoint().await
    }

    /// Whether what it serves is being ended.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Passes one request on.
    pub async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        is_own_user: bool,
    ) -> Result<Response<Body>, Infallible> {
        let (head, body) = request.into_parts();
        // Another relay of this user's may have passed on what is not his.
        let is_own_user = is_own_user && !head.headers.contains_key(OTHER_USER);
        let (call, body) = (Call::of(head.uri.path()), Lent::new(body));
        let sent = tokio::time::timeout(call.patience(), self.send(&head, is_own_user, &body)).await;
        let sent = sent.unwrap_or_else(|_| {
            Err(format!("upstream {}: no answer within {} s", self.way, call.patience().as_secs()))
        });
        let answered = match sent {
            Ok((endpoint, answer)) => self.judge(call, &endpoint, answer, is_own_user).await,
            Err(why) => Err(why),
        };
        let mut answer = match answered {
            Ok(answer) => answer,
            Err(why) => {
                tracing::warn!(path = head.uri.path(), "{why}");
                // A client writes all of its request before it reads.
                body.discard().await;
                instead(call, &why)
            }
        };
        if self.is_draining() {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(answer)
    }

    /// The server's answer. What was not begun is tried once more, on what is found then.
    async fn send(
        &self,
        head: &request::Parts,
        is_own_user: bool,
        body: &Lent,
    ) -> Result<(Endpoint, Response<Incoming>), String> {
        let mut tries = 0;
        loop {
            let endpoint = self.way.endpoint().await?;
            let request = self.request(head, is_own_user, &endpoint, body.loan())?;
            match self.pool.request(request).await {
                Ok(answer) => return Ok((endpoint, answer)),
                Err(error) => {
                    self.way.doubt(&endpoint).await;
                    tries += 1;
                    if !error.is_connect() || tries == 2 {
                        return Err(format!("upstream {endpoint}: {}", causes(error.to_string(), &error)));
                    }
                }
            }
        }
    }

    fn request(
        &self,
        head: &request::Parts,
        is_own_user: bool,
        endpoint: &Endpoint,
        body: Loan,
    ) -> Result<Request<Loan>, String> {
        if head.method == Method::CONNECT {
            return Err("CONNECT is not passed on: the relay is a server to its client (GOMA_SERVER_HOST), and no \
                        proxy (GOMA_PROXY_HOST)"
                .to_owned());
        }
        let path = head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let uri = format!("{endpoint}{path}").parse().map_err(|error| format!("{path:?} is no path: {error}"))?;
        let ours = self.authorization.as_ref().filter(|_| is_own_user).and_then(|file| file.get().header());
        let mut request = Request::new(body);
        (*request.method_mut(), *request.uri_mut(), *request.version_mut()) =
            (head.method.clone(), uri, Version::HTTP_11);
        *request.headers_mut() = headers::of_request(&head.headers, is_own_user, ours);
        Ok(request)
    }

    /// The answer as the client is to have it, or why it is not to have it.
    async fn judge(
        &self,
        call: Call,
        endpoint: &Endpoint,
        answer: Response<Incoming>,
        is_own_user: bool,
    ) -> Result<Response<Body>, String> {
        let is_ours = is_own_user && self.authorization.is_some();
        if verdict::judge(call, answer.status(), is_ours) == Verdict::Withhold {
            let status = answer.status();
            let to = answer.headers().get(LOCATION).and_then(|to| to.to_str().ok()).map(str::to_owned);
            let body = Limited::new(answer.into_body(), QUOTED_BYTES).collect();
            let said = tokio::time::timeout(QUOTE_TIMEOUT, body).await;
            let said = said.ok().and_then(Result::ok).map(|said| said.to_bytes()).unwrap_or_default();
            return Err(format!("upstream {endpoint} {}", verdict::words(status, to.as_deref(), &said, is_ours)));
        }
        let (mut head, body) = answer.into_parts();
        head.headers = headers::end_to_end(&head.headers);
        head.version = Version::HTTP_11;
        if head.status == StatusCode::OK && !head.headers.contains_key(ACCEPT_ENCODING) {
            // Whatever took it away on the way: a client that does not see it stops compressing for ever.
            head.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(ACCEPTED));
        }
        Ok(Response::from_parts(head, Either::Right(body)))
    }
}

/// In the place of an answer that is not there.
fn instead(call: Call, why: &str) -> Response<Body> {
    let (status, kind, body) = verdict::instead(call, why);
    let mut answer = Response::new(Either::Left(Full::new(body)));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if status == StatusCode::OK {
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(ACCEPTED));
    }
    answer
}

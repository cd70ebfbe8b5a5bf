//! Requests to a Go agent's HTTP server, each on a connection of its own that the agent dialled.
//!
//! A connection costs the agent a TLS handshake. In return a request never waits behind another, and giving
//! one up is dropping its connection, which is also the agent's only way of cancelling.

use super::dialer::{Dialer, Dialled};
use crate::link::LinkError;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, Stream, StreamExt as _};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// Time for an answer that needs no work worth the name.
pub(super) const SHORT: Duration = Duration::from_secs(20);
/// Time for one that reads or removes many files first.
pub(super) const LONG: Duration = Duration::from_secs(600);
/// How long nothing may move on a stream of content.
const SILENCE: Duration = Duration::from_secs(120);
/// Most of a refusal's text.
const MAX_REFUSAL: usize = 4096;

/// Content of a request, in pieces. An error breaks the connection, so that the agent never takes a part
/// for the whole.
pub(super) type Content = BoxStream<'static, io::Result<Bytes>>;
type Body = StreamBody<BoxStream<'static, io::Result<Frame<Bytes>>>>;

/// That the contact has ended, and why.
#[derive(Default)]
pub(super) struct End {
    token: CancellationToken,
    why: OnceLock<String>,
}

impl End {
    /// Ends it; the first reason stands.
    pub(super) fn because(&self, why: &str) {
        let _ = self.why.set(why.to_owned());
        self.token.cancel();
    }

    /// Waits for it.
    pub(super) async fn wait(&self) {
        self.token.cancelled().await;
    }

    /// Whether it has come.
    pub(super) fn is_here(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Why, for people.
    pub(super) fn why(&self) -> String {
        self.why.get().cloned().unwrap_or_else(|| "its channel ended".to_owned())
    }
}

/// See the module.
pub(super) struct Client {
    dialer: Dialer,
    end: Arc<End>,
}

/// An answer whose content is still to come. Dropping it closes the connection.
pub(super) struct Answer {
    status: StatusCode,
    body: Incoming,
    end: Arc<End>,
    _connection: Connection,
}

struct Connection {
    io: JoinHandle<()>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.io.abort();
    }
}

/// What comes next of an answer.
pub(super) enum Next {
    /// A piece.
    Piece(Bytes),
    /// Its end, which said so, with the trailers there were.
    Over(HeaderMap),
}

impl Client {
    pub(super) fn new(dialer: Dialer, end: Arc<End>) -> Self {
        Self { dialer, end }
    }

    /// Asks without content. Refusals are errors.
    pub(super) async fn get(&self, target: &str, limit: Duration) -> Result<Answer, LinkError> {
        self.ask(Method::GET, target, stream::empty().boxed(), limit).await?.accepted().await
    }

    /// Sends a form. Refusals are errors.
    pub(super) async fn post(&self, target: &str, form: String, limit: Duration) -> Result<Answer, LinkError> {
        let content = stream::once(std::future::ready(Ok(Bytes::from(form)))).boxed();
        self.ask(Method::POST, target, content, limit).await?.accepted().await
    }

    /// Sends content for as long as it moves. Refusals are errors.
    pub(super) async fn put(&self, target: &str, content: Content) -> Result<(), LinkError> {
        let moved = Arc::new(Notify::new());
        let tell = moved.clone();
        let content = content.inspect(move |_| tell.notify_one()).boxed();
        let stands_still = async { while tokio::time::timeout(SILENCE, moved.notified()).await.is_ok() {} };
        tokio::select! {
            answer = self.ask(Method::PUT, target, content, Duration::MAX) => answer?.accepted().await?.text().await.map(drop),
            () = stands_still => Err(silent()),
        }
    }

    /// Asks, whatever the answer.
    pub(super) async fn ask(
        &self,
        method: Method,
        target: &str,
        content: Content,
        limit: Duration,
    ) -> Result<Answer, LinkError> {
        let asking = async {
            let dialled = self.dialer.dial().await?;
            let answering = self.send(dialled, method, target, content);
            tokio::time::timeout(limit, answering)
                .await
                .unwrap_or_else(|_| Err(LinkError::Lost(format!("no answer within {} s", limit.as_secs()))))
        };
        tokio::select! {
            answer = asking => answer,
            () = self.end.wait() => Err(LinkError::Lost(self.end.why())),
        }
    }

    async fn send(
        &self,
        dialled: Dialled,
        method: Method,
        target: &str,
        content: Content,
    ) -> Result<Answer, LinkError> {
        let Dialled { stream, permit } = dialled;
        let broken = |error: hyper::Error| LinkError::Lost(format!("the connection to the agent broke: {error}"));
        let (mut sender, connection) = http1::handshake::<_, Body>(TokioIo::new(stream)).await.map_err(broken)?;
        // Also driven while nobody reads the answer; ended with it.
        let io = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to a Go agent broke");
            }
        });
        let connection = Connection { io, _permit: permit };
        let has_content = method != Method::GET;
        let mut request =
            Request::builder().method(method).uri(target).header("host", "agent").header("te", "trailers");
        if has_content && target.bytes().all(|byte| byte != b'?') {
            request = request.header("content-type", "application/x-www-form-urlencoded");
        }
        let body: Body = StreamBody::new(content.map(|piece| piece.map(Frame::data)).boxed());
        let request = request
            .body(body)
            .map_err(|error| LinkError::Refused(Box::new(Status::invalid_argument(format!("can not ask: {error}")))))?;
        let (parts, body) = sender.send_request(request).await.map_err(broken)?.into_parts();
        Ok(Answer { status: parts.status, body, end: self.end.clone(), _connection: connection })
    }
}

fn silent() -> LinkError {
    LinkError::Lost(format!("nothing moved for {} s", SILENCE.as_secs()))
}

impl Answer {
    /// Whether the agent did what it was asked.
    pub(super) fn is_ok(&self) -> bool {
        self.status == StatusCode::OK
    }

    /// The answer if it is 200, else its text as an error.
    pub(super) async fn accepted(self) -> Result<Self, LinkError> {
        if self.is_ok() {
            return Ok(self);
        }
        let status = self.status;
        let text = self.text().await?;
        Err(refusal(status, text.trim()))
    }

    /// What comes next. Whoever waits for a command has nothing to wait with: without `silence` the wait
    /// ends only with the contact.
    pub(super) async fn next(&mut self, silence: Option<Duration>) -> Result<Next, LinkError> {
        let frame = async {
            loop {
                match self.body.frame().await {
                    None => return Ok(Next::Over(HeaderMap::new())),
                    Some(Err(error)) => {
                        return Err(LinkError::Lost(format!("the agent's answer broke off: {error}")));
                    }
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(piece) if piece.is_empty() => {}
                        Ok(piece) => return Ok(Next::Piece(piece)),
                        Err(frame) => {
                            if let Ok(trailers) = frame.into_trailers() {
                                return Ok(Next::Over(trailers));
                            }
                        }
                    },
                }
            }
        };
        tokio::select! {
            next = frame => next,
            () = self.end.wait() => Err(LinkError::Lost(self.end.why())),
            () = async { match silence { Some(limit) => tokio::time::sleep(limit).await, None => std::future::pending().await } } => Err(silent()),
        }
    }

    /// All of a short answer.
    pub(super) async fn text(mut self) -> Result<String, LinkError> {
        let mut text = Vec::new();
        let reading = async {
            while let Next::Piece(piece) = self.next(None).await? {
                text.extend_from_slice(&piece[..piece.len().min(MAX_REFUSAL - text.len())]);
                if text.len() == MAX_REFUSAL {
                    break;
                }
            }
            Ok(())
        };
        match tokio::time::timeout(SHORT, reading).await {
            Ok(read) => read.map(|()| String::from_utf8_lossy(&text).into_owned()),
            Err(_) => Err(LinkError::Lost(format!("no whole answer within {} s", SHORT.as_secs()))),
        }
    }

    /// The content in pieces. Its end is whole, or an error says that it is not.
    pub(super) fn pieces(self) -> impl Stream<Item = Result<Bytes, LinkError>> + Send + 'static {
        stream::unfold(Some(self), |answer| async move {
            let mut answer = answer?;
            match answer.next(Some(SILENCE)).await {
                Ok(Next::Piece(piece)) => Some((Ok(piece), Some(answer))),
                Ok(Next::Over(_)) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
    }
}

/// A refusal in gRPC's terms. What the agent says for "not there" depends on its system.
pub(super) fn refusal(status: StatusCode, text: &str) -> LinkError {
    let text: String = text.chars().take(1000).collect();
    let lower = text.to_lowercase();
    let absent = ["no such file", "cannot find", "does not exist", "file does not exist"];
    LinkError::Refused(Box::new(match status {
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => Status::invalid_argument(text),
        _ if absent.iter().any(|words| lower.contains(words)) => Status::not_found(text),
        _ if lower.contains("no space left") || lower.contains("disk quota") => Status::resource_exhausted(text),
        _ => Status::failed_precondition(format!("{} {text}", status.as_u16())),
    }))
}

/// `key=value` joined by `&`, as forms and queries are written.
pub(super) fn encoded<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> String {
    let mut text = String::new();
    for (key, value) in pairs {
        if !text.is_empty() {
            text.push('&');
        }
        text.push_str(key);
        text.push('=');
        text.extend(url::form_urlencoded::byte_serialize(value));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    #[test]
    fn refusals_say_whose_fault_it_is() {
        let code = |status: StatusCode, text: &str| match refusal(status, text) {
            LinkError::Refused(status) => status.code(),
            LinkError::Lost(why) => panic!("{why}"),
        };
        let internal = StatusCode::INTERNAL_SERVER_ERROR;
        assert_eq!(code(StatusCode::BAD_REQUEST, "invalid 'dir' parameter"), Code::InvalidArgument);
        assert_eq!(code(internal, "Walk error: lstat /w/x: no such file or directory"), Code::NotFound);
        assert_eq!(
            code(internal, "Walk error: CreateFile x: The system cannot find the file specified."),
            Code::NotFound
        );
        assert_eq!(code(internal, "write /w/x: no space left on device"), Code::ResourceExhausted);
        assert_eq!(code(internal, "permission denied"), Code::FailedPrecondition);
    }

    #[test]
    fn any_bytes_can_be_said() {
        let pairs = [("path", &b"a b/\xff&=+"[..]), ("dir", b"")];
        assert_eq!(encoded(pairs), "path=a+b%2F%FF%26%3D%2B&dir=");
    }
}

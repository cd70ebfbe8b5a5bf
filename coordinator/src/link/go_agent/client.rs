//! Requests to a Go agent's HTTP server, each on a connection of its own that the agent dialled.
//!
//! A connection costs the agent a TLS handshake. In return a request never waits behind another, and giving
//! one up is dropping its connection, which is also the agent's only way of cancelling.

use super::answer::{Answer, Connection, SILENCE, silent};
use super::dialer::{Dialer, Dialled};
use super::end::End;
use crate::link::LinkError;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use http::{Method, Request};
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tonic::Status;

/// Time for an answer that needs no work worth the name.
pub(super) const SHORT: Duration = Duration::from_secs(20);
/// Time for one that reads or removes many files first.
pub(super) const LONG: Duration = Duration::from_secs(600);

/// Content of a request, in pieces. An error breaks the connection, so that the agent never takes a part
/// for the whole.
pub(super) type Content = BoxStream<'static, io::Result<Bytes>>;
type Body = StreamBody<BoxStream<'static, io::Result<Frame<Bytes>>>>;

/// See the module.
pub(super) struct Client {
    dialer: Dialer,
    end: Arc<End>,
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
        let connection = Connection::new(io, permit);
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
        Ok(Answer::new(parts.status, body, self.end.clone(), connection))
    }
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

    #[test]
    fn any_bytes_can_be_said() {
        let pairs = [("path", &b"a b/\xff&=+"[..]), ("dir", b"")];
        assert_eq!(encoded(pairs), "path=a+b%2F%FF%26%3D%2B&dir=");
    }
}

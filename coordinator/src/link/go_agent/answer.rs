//! What a Go agent answers: content as it comes, with what follows it, or why it refuses.

use super::client::SHORT;
use super::end::End;
use crate::link::LinkError;
use bytes::Bytes;
use futures_util::stream::{self, Stream};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;
use tonic::Status;

/// How long nothing may move on a stream of content.
pub(super) const SILENCE: Duration = Duration::from_secs(120);
/// Most of a refusal's text.
const MAX_REFUSAL: usize = 4096;

/// An answer whose content is still to come. Dropping it closes the connection.
pub(super) struct Answer {
    status: StatusCode,
    body: Incoming,
    end: Arc<End>,
    _connection: Connection,
}

/// What is closed by being dropped, and counts as one of the agent's connections until then.
pub(super) struct Connection {
    io: JoinHandle<()>,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    /// Driven by `io`.
    pub(super) fn new(io: JoinHandle<()>, permit: OwnedSemaphorePermit) -> Self {
        Self { io, _permit: permit }
    }
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

/// That it was waited for in vain.
pub(super) fn silent() -> LinkError {
    LinkError::Lost(format!("nothing moved for {} s", SILENCE.as_secs()))
}

impl Answer {
    /// One whose header has come.
    pub(super) fn new(status: StatusCode, body: Incoming, end: Arc<End>, connection: Connection) -> Self {
        Self { status, body, end, _connection: connection }
    }

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
fn refusal(status: StatusCode, text: &str) -> LinkError {
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
}

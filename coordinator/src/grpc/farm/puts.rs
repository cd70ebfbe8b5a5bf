//! Streams of requests that carry content: a header first, then pieces.

use crate::farm::FarmError;
use crate::farm::usage::Incoming;
use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt as _};
use motefarm_proto::{MAX_CHUNK_BYTES, mote};
use std::time::Duration;
use tonic::Status;

/// A put that stands still this long is over.
const SILENCE: Duration = Duration::from_secs(60);

/// A message of such a stream.
pub(super) trait Put: Send + 'static {
    /// What its header says.
    type Target: Send;
    /// The header, if it has one, its piece, and whether it is the last.
    fn split(self) -> (Option<Self::Target>, Bytes, bool);
}

impl Put for mote::PutFileRequest {
    type Target = mote::PutFileTarget;
    fn split(self) -> (Option<Self::Target>, Bytes, bool) {
        (self.header, self.data, self.end)
    }
}

impl Put for mote::PutTarRequest {
    type Target = mote::PutTarTarget;
    fn split(self) -> (Option<Self::Target>, Bytes, bool) {
        (self.header, self.data, self.end)
    }
}

/// Waits for the header; answers it and the content that follows. One message is held at a time.
pub(super) async fn open<M: Put>(
    messages: impl Stream<Item = Result<M, Status>> + Send + Unpin + 'static,
) -> Result<(M::Target, Incoming), FarmError> {
    let mut messages = messages;
    let Some(first) = next(&mut messages).await? else {
        return Err(FarmError::Invalid("field header: is missing; nothing was sent".to_owned()));
    };
    let (target, piece, end) = first.split();
    let target = target.ok_or_else(|| FarmError::Invalid("field header: the first message has none".to_owned()))?;
    let first = check(piece)?;
    let rest = stream::unfold((!end).then_some(messages), |messages| async {
        let mut messages = messages?;
        let (piece, end) = match next(&mut messages).await {
            // Also what a caller who left looks like: hence the mark.
            Ok(None) => (Err(FarmError::Cut("what was sent ended without its last message".to_owned())), true),
            Ok(Some(message)) => match message.split() {
                (None, piece, end) => (check(piece), end),
                (Some(_), _, _) => {
                    (Err(FarmError::Invalid("field header: only the first message may have one".to_owned())), true)
                }
            },
            Err(error) => (Err(error), true),
        };
        let rest = (piece.is_ok() && !end).then_some(messages);
        Some((piece, rest))
    });
    let content = stream::once(std::future::ready(Ok(first))).chain(rest);
    // Empty pieces are allowed, and of no use to anybody further on.
    let content = content.filter(|piece| std::future::ready(!matches!(piece, Ok(piece) if piece.is_empty())));
    Ok((target, content.boxed()))
}

async fn next<M>(messages: &mut (impl Stream<Item = Result<M, Status>> + Unpin)) -> Result<Option<M>, FarmError> {
    match tokio::time::timeout(SILENCE, messages.next()).await {
        Ok(Some(Ok(message))) => Ok(Some(message)),
        Ok(Some(Err(status))) => Err(FarmError::Unavailable(format!("what was sent broke off: {}", status.message()))),
        Ok(None) => Ok(None),
        Err(_) => Err(FarmError::TimedOut(format!("nothing came on this put for {} s", SILENCE.as_secs()))),
    }
}

fn check(piece: Bytes) -> Result<Bytes, FarmError> {
    match piece.len() > MAX_CHUNK_BYTES {
        true => Err(FarmError::Invalid(format!("field data: {} bytes; at most {MAX_CHUNK_BYTES}", piece.len()))),
        false => Ok(piece),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(header: bool, data: &'static [u8]) -> Result<mote::PutTarRequest, Status> {
        let header = header.then(mote::PutTarTarget::default);
        Ok(mote::PutTarRequest { header, data: Bytes::from_static(data), end: false })
    }

    fn last(data: &'static [u8]) -> Result<mote::PutTarRequest, Status> {
        Ok(mote::PutTarRequest { header: None, data: Bytes::from_static(data), end: true })
    }

    async fn read(messages: Vec<Result<mote::PutTarRequest, Status>>) -> Result<Vec<u8>, FarmError> {
        let (_, mut content) = open(stream::iter(messages)).await?;
        let mut all = Vec::new();
        while let Some(piece) = content.next().await {
            all.extend_from_slice(&piece?);
        }
        Ok(all)
    }

    #[tokio::test]
    async fn the_header_comes_first_and_once() {
        let whole = vec![message(true, b"a"), message(false, b""), message(false, b"b"), last(b"c")];
        assert_eq!(read(whole).await.unwrap(), b"abc");
        assert_eq!(read(vec![message(true, b""), last(b"")]).await.unwrap(), b"");
        let behind = vec![message(true, b"a"), last(b"b"), message(false, b"c")];
        assert_eq!(read(behind).await.unwrap(), b"ab", "nothing is behind the last");
        let cut = read(vec![message(true, b"a"), message(false, b"b")]).await;
        assert!(matches!(cut, Err(FarmError::Cut(_))), "{cut:?}");
        let large = Box::leak(vec![0; MAX_CHUNK_BYTES + 1].into_boxed_slice());
        for (bad, named) in [
            (vec![], "header"),
            (vec![message(false, b"a")], "header"),
            (vec![message(true, b"a"), message(true, b"b")], "header"),
            (vec![message(true, b"a"), message(false, large)], "data"),
            (vec![message(true, large)], "data"),
        ] {
            let error = read(bad).await.unwrap_err();
            assert!(matches!(&error, FarmError::Invalid(text) if text.contains(named)), "{error}");
        }
        let broken = vec![message(true, b"a"), Err(Status::cancelled("gone"))];
        assert!(matches!(read(broken).await, Err(FarmError::Unavailable(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_it() {
        let silent = stream::iter([message(true, b"a")]).chain(stream::pending());
        let (_, mut content) = open(silent).await.unwrap();
        assert_eq!(content.next().await.unwrap().unwrap(), "a");
        assert!(matches!(content.next().await, Some(Err(FarmError::TimedOut(_)))));
        assert!(content.next().await.is_none());
    }
}

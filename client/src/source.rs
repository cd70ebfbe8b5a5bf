//! Local content on its way into a call: read in pieces, never held whole.
//!
//! The last message of such a call says "that was all". So a source that can not be read to its end
//! never gets to it: the call is dropped instead, and the farm keeps nothing of it.

use crate::error::Error;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use tokio::sync::{mpsc, oneshot};
use tonic::{Response, Status};

/// As much as one message takes.
const PIECE_BYTES: usize = 256 * 1024;
/// Pieces read ahead.
const AHEAD: usize = 4;

/// Where content comes from.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// May be read again, and by several.
    File(PathBuf),
    /// Can be read once.
    Stdin,
    /// Made here.
    Memory(Bytes),
}

/// Why content did not arrive.
#[derive(Debug)]
pub(crate) enum Broken {
    /// It could not be read.
    Here(io::Error),
    /// The farm refused it, or was lost.
    There(Status),
}

/// A source being read on a thread of its own.
pub(crate) struct Feed {
    pieces: mpsc::Receiver<Bytes>,
    failed: oneshot::Receiver<(io::Error, mpsc::Sender<Bytes>)>,
}

impl Source {
    /// Whether another try would read the same.
    pub(crate) const fn is_repeatable(&self) -> bool {
        !matches!(self, Self::Stdin)
    }

    /// How large it is, if that can be known.
    pub(crate) fn size(&self) -> Option<u64> {
        match self {
            Self::File(path) => std::fs::metadata(path).ok().filter(|m| m.is_file()).map(|m| m.len()),
            Self::Memory(bytes) => Some(bytes.len() as u64),
            Self::Stdin => None,
        }
    }

    /// For people.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Stdin => "stdin".to_owned(),
            Self::Memory(_) => "what mote made".to_owned(),
        }
    }

    /// Starts reading; each piece read is told to `passed`.
    pub(crate) fn open(&self, passed: impl Fn(u64) + Send + 'static) -> Result<Feed, Error> {
        let reader: Box<dyn Read + Send> = match self {
            Self::File(path) => Box::new(File::open(path).map_err(|e| Error::file("open", path, e))?),
            Self::Stdin => Box::new(io::stdin()),
            Self::Memory(bytes) => Box::new(io::Cursor::new(bytes.clone())),
        };
        let (sender, pieces) = mpsc::channel(AHEAD);
        let (report, failed) = oneshot::channel();
        let work = move || {
            if let Err(cause) = pump(reader, &sender, passed) {
                // With the sender, so that the stream does not end.
                let _ = report.send((cause, sender));
            }
        };
        let named = std::thread::Builder::new().name("source".to_owned());
        named.spawn(work).map_err(|e| Error::local("start a thread to read", e))?;
        Ok(Feed { pieces, failed })
    }

    /// A copy in a temporary file for several readers, if it can be read only once.
    pub(crate) fn repeatable(self) -> Result<(Self, Option<tempfile::NamedTempFile>), Error> {
        if self.is_repeatable() {
            return Ok((self, None));
        }
        let keep = || -> io::Result<tempfile::NamedTempFile> {
            let mut copy = tempfile::NamedTempFile::with_prefix("mote-stdin-")?;
            io::copy(&mut io::stdin().lock(), copy.as_file_mut())?;
            Ok(copy)
        };
        let copy = keep().map_err(|e| Error::local("keep stdin for several instances", e))?;
        Ok((Self::File(copy.path().to_owned()), Some(copy)))
    }
}

fn pump(mut reader: impl Read, sender: &mpsc::Sender<Bytes>, passed: impl Fn(u64)) -> io::Result<()> {
    loop {
        let mut piece = vec![0; PIECE_BYTES];
        let n = match reader.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        piece.truncate(n);
        if sender.blocking_send(piece.into()).is_err() {
            return Ok(());
        }
        passed(n as u64);
    }
}

impl Feed {
    /// Makes the call: `first`, then a message for each piece, then `last`.
    pub(crate) async fn send<M, T, F>(
        self,
        first: M,
        message: fn(Bytes) -> M,
        last: M,
        call: impl FnOnce(BoxStream<'static, M>) -> F,
    ) -> Result<T, Broken>
    where
        M: Send + 'static,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let Self { pieces, failed } = self;
        let pieces = stream::unfold(pieces, |mut pieces| async { Some((pieces.recv().await?, pieces)) });
        let messages = stream::once(std::future::ready(first)).chain(pieces.map(message));
        let messages = messages.chain(stream::once(std::future::ready(last))).boxed();
        tokio::select! {
            Ok((cause, _unended)) = failed => Err(Broken::Here(cause)),
            answer = call(messages) => answer.map(Response::into_inner).map_err(Broken::There),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a stream as a farm does: the answer is what there was at its end.
    async fn take(messages: BoxStream<'static, Bytes>) -> Result<Response<Vec<u8>>, Status> {
        Ok(Response::new(messages.map(|piece| piece.to_vec()).concat().await))
    }

    #[tokio::test]
    async fn all_of_it_arrives_in_order() {
        let content: Vec<u8> = (0..1_000_000u32).flat_map(u32::to_le_bytes).collect();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, &content).unwrap();
        let source = Source::File(path);
        assert_eq!(source.size(), Some(4_000_000));
        for _ in 0..2 {
            let feed = source.open(|_| ()).unwrap();
            let sent: Vec<u8> =
                feed.send(Bytes::from("first"), |piece| piece, Bytes::from("last"), take).await.unwrap();
            assert!(sent.strip_prefix(b"first").and_then(|sent| sent.strip_suffix(b"last")) == Some(&content[..]));
        }
    }

    #[tokio::test]
    async fn what_can_not_be_read_to_its_end_never_ends_the_stream() {
        let dir = tempfile::tempdir().unwrap();
        // Opening a directory succeeds on Unix; reading it does not.
        let Ok(feed) = Source::File(dir.path().to_owned()).open(|_| ()) else { return };
        let sent: Result<Vec<u8>, Broken> = feed.send(Bytes::new(), |piece| piece, Bytes::new(), take).await;
        assert!(matches!(sent, Err(Broken::Here(_))), "{sent:?}");
    }
}

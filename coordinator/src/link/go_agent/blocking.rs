//! Between code that blocks, such as archives and compression, and streams.

use bytes::{Bytes, BytesMut};
use futures_util::stream::{BoxStream, StreamExt as _};
use std::io::{self, Read, Write};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::{StreamReader, SyncIoBridge};

/// Bytes a piece has.
const PIECE: usize = 256 * 1024;
/// Pieces between one side and the other.
const PIECES_READY: usize = 4;

/// What is read from a stream. To be used where blocking is allowed; made where the runtime is.
pub(super) fn reader(pieces: BoxStream<'static, io::Result<Bytes>>) -> impl Read + Send + 'static {
    SyncIoBridge::new(StreamReader::new(pieces))
}

/// Collects what is written into pieces for a stream.
pub(super) struct Pieces {
    sender: mpsc::Sender<io::Result<Bytes>>,
    held: BytesMut,
}

impl Pieces {
    fn send(&mut self) -> io::Result<()> {
        let piece = std::mem::replace(&mut self.held, BytesMut::with_capacity(PIECE)).freeze();
        self.sender.blocking_send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Pieces {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let taken = data.len().min(PIECE - self.held.len());
        self.held.extend_from_slice(&data[..taken]);
        if self.held.len() == PIECE {
            self.send()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs what writes on a thread where blocking is allowed. The stream is what it wrote; if it failed, the
/// stream ends with an error, never short and whole-looking. The other value is what it made of it.
pub(super) fn write<T, E>(
    work: impl FnOnce(&mut Pieces) -> Result<T, E> + Send + 'static,
) -> (BoxStream<'static, io::Result<Bytes>>, tokio::task::JoinHandle<Result<T, E>>)
where
    T: Send + 'static,
    E: std::fmt::Display + From<io::Error> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(PIECES_READY);
    let task = tokio::task::spawn_blocking(move || {
        let mut pieces = Pieces { sender, held: BytesMut::with_capacity(PIECE) };
        let done = work(&mut pieces).and_then(|done| match pieces.held.is_empty() {
            true => Ok(done),
            false => pieces.send().map(|()| done).map_err(E::from),
        });
        if let Err(error) = &done {
            // Nobody to tell: then it is the reader who gave up.
            let _ = pieces.sender.blocking_send(Err(io::Error::other(error.to_string())));
        }
        done
    });
    (ReceiverStream::new(receiver).boxed(), task)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::TryStreamExt as _;

    #[tokio::test]
    async fn what_is_written_comes_out_in_pieces_and_a_failure_never_looks_whole() {
        let (stream, task) = write(|pieces| {
            pieces.write_all(&vec![1; PIECE + 5])?;
            Ok::<_, io::Error>(7)
        });
        let pieces: Vec<Bytes> = stream.try_collect().await.unwrap();
        assert_eq!(pieces.iter().map(Bytes::len).collect::<Vec<_>>(), [PIECE, 5]);
        assert_eq!(task.await.unwrap().unwrap(), 7);
        let (stream, task) = write(|pieces| {
            pieces.write_all(b"half")?;
            Err::<(), _>(io::Error::other("no more"))
        });
        let failed = stream.try_collect::<Vec<Bytes>>().await.unwrap_err();
        assert_eq!(failed.to_string(), "no more");
        assert!(task.await.unwrap().is_err());
    }

    #[tokio::test]
    async fn what_is_read_is_the_stream_and_its_error() {
        let pieces = [Ok(Bytes::from("ab")), Ok(Bytes::from("c")), Err(io::Error::other("cut"))];
        let mut reader = reader(futures_util::stream::iter(pieces).boxed());
        let read = tokio::task::spawn_blocking(move || {
            let mut begin = [0; 3];
            reader.read_exact(&mut begin).unwrap();
            (begin, reader.read(&mut [0]).unwrap_err().to_string())
        });
        assert_eq!(read.await.unwrap(), (*b"abc", "cut".to_owned()));
    }
}

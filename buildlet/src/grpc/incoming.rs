//! What a caller streams to us, as a reader for a thread that may wait.
//!
//! Only a stream that ended properly has an end for that thread; one that was cut is an error there,
//! so that what is half there is not taken for whole.

use crate::error::AgentError;
use crate::instance::Instance;
use bytes::Bytes;
use motefarm_proto::MAX_CHUNK_BYTES;
use motefarm_proto::convert::FieldError;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

/// Messages that wait for the disk.
const QUEUE: usize = 4;
/// How often one who waits for his caller looks whether the instance ends.
const LOOK: Duration = Duration::from_secs(1);
/// A caller who sends nothing for this long has left, whatever his connection says.
const MOST_SILENCE: Duration = Duration::from_secs(15 * 60);

/// Reads what was queued.
pub(super) struct Incoming {
    queued: mpsc::Receiver<Bytes>,
    held: Bytes,
    ended: bool,
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.held.is_empty() && !self.ended {
            match self.queued.blocking_recv() {
                // An empty one marks the proper end.
                Some(data) if data.is_empty() => self.ended = true,
                Some(data) => self.held = data,
                None => return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "its sender has left")),
            }
        }
        let taken = buffer.len().min(self.held.len());
        buffer[..taken].copy_from_slice(&self.held.split_to(taken));
        Ok(taken)
    }
}

/// What a message brings: its data, and whether it is the last.
pub(super) type Piece = (Bytes, bool);

/// Runs `work` on `first` and the data of every message of `stream` up to the last, in order. If the
/// caller leaves before that, `work` is cut off.
pub(super) async fn receive<M, T: Send + 'static>(
    instance: Arc<Instance>,
    first: Piece,
    mut stream: Streaming<M>,
    data: impl Fn(M) -> Result<Piece, FieldError>,
    work: impl FnOnce(Incoming) -> Result<T, AgentError> + Send + 'static,
) -> Result<T, Status> {
    let (queue, queued) = mpsc::channel(QUEUE);
    let working = tokio::task::spawn_blocking(move || work(Incoming { queued, held: Bytes::new(), ended: false }));
    let received = forward(&instance, first, &mut stream, data, &queue).await;
    drop(queue);
    let worked = working.await.map_err(|e| AgentError::Unavailable(format!("the work was cut short: {e}")))?;
    received?;
    Ok(worked?)
}

async fn forward<M>(
    instance: &Instance,
    first: Piece,
    stream: &mut Streaming<M>,
    data: impl Fn(M) -> Result<Piece, FieldError>,
    queue: &mpsc::Sender<Bytes>,
) -> Result<(), Status> {
    let (mut piece, mut last) = first;
    loop {
        if piece.len() > MAX_CHUNK_BYTES {
            let problem = format!("{} bytes; at most {MAX_CHUNK_BYTES} a message", piece.len());
            return Err(FieldError::new("data", problem).into());
        }
        // A worker that ended early has a reason, which the caller hears.
        if !piece.is_empty() && queue.send(piece).await.is_err() {
            return Ok(());
        }
        if last {
            let _ = queue.send(Bytes::new()).await;
            return Ok(());
        }
        match next(instance, stream, queue).await? {
            Some(message) => (piece, last) = data(message)?,
            None if queue.is_closed() => return Ok(()),
            // Also what tonic makes of a call that its caller cancelled: hence the mark.
            None => return Err(AgentError::Cut("it ended without its last message".to_owned()).into()),
        }
    }
}

/// The next message; `None` at the end, and when nobody reads any more.
async fn next<M>(
    instance: &Instance,
    stream: &mut Streaming<M>,
    queue: &mpsc::Sender<Bytes>,
) -> Result<Option<M>, Status> {
    let mut silence = Duration::ZERO;
    loop {
        tokio::select! {
            message = stream.message() => {
                instance.touch();
                return message;
            }
            () = queue.closed() => return Ok(None),
            () = tokio::time::sleep(LOOK) => {
                instance.check_alive()?;
                silence += LOOK;
                if silence >= MOST_SILENCE {
                    let minutes = MOST_SILENCE.as_secs() / 60;
                    return Err(AgentError::Cut(format!("nothing came for {minutes} minutes")).into());
                }
            }
        }
    }
}

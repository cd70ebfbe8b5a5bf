//! A packer as an asynchronous stream.

use super::{BatchPacker, PackError};
use futures_util::Stream;
use motefarm_proto::mote::BlobBatch;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::{mpsc, oneshot};

/// Messages made ready and not yet taken; with the one in the making, about 8 MiB.
const READY: usize = 2;

/// The messages of a [`BatchPacker`]. Ends after the last one, or early after an error, which
/// [`PackOutcome::wait`] then tells.
#[derive(Debug)]
pub struct BatchStream(mpsc::Receiver<BlobBatch>);

/// How the packing ended.
#[derive(Debug)]
pub struct PackOutcome(oneshot::Receiver<Result<(), PackError>>);

/// Runs `packer` on a blocking thread of the current tokio runtime. Dropping the stream stops it at
/// the next message.
pub fn stream(packer: BatchPacker) -> (BatchStream, PackOutcome) {
    let (batches, receiver) = mpsc::channel(READY);
    let (done, outcome) = oneshot::channel();
    tokio::task::spawn_blocking(move || {
        let mut result = Ok(());
        for batch in packer {
            match batch {
                Ok(batch) => {
                    // Nobody listens: the call has failed, and its caller knows better why.
                    if batches.blocking_send(batch).is_err() {
                        break;
                    }
                }
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        // The outcome is there before the stream ends.
        let _ = done.send(result);
        drop(batches);
    });
    (BatchStream(receiver), PackOutcome(outcome))
}

impl Stream for BatchStream {
    type Item = BlobBatch;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<BlobBatch>> {
        self.0.poll_recv(context)
    }
}

impl PackOutcome {
    /// Waits for the packing to end. Ask it first when a call that was fed by the stream is over,
    /// whatever its result: a file that changed makes the server see a short stream.
    pub async fn wait(self) -> Result<(), PackError> {
        self.0.await.unwrap_or(Err(PackError::Stopped))
    }
}

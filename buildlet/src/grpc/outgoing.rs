//! A stream of messages made on a thread that waits for its reader. It ends when the reader goes or
//! the instance ends; every message is a use of the instance.

use crate::error::AgentError;
use crate::instance::Instance;
use std::sync::Arc;
use tokio::sync::mpsc;
use tonic::Status;

/// Messages that wait for the connection.
const QUEUE: usize = 4;

/// Why the work of a stream stops early.
pub(super) enum Stop {
    /// Its reader has gone: nobody is to be told.
    Gone,
    Failed(AgentError),
}

impl From<AgentError> for Stop {
    fn from(error: AgentError) -> Self {
        Self::Failed(error)
    }
}

/// The sending end.
pub(super) struct Outgoing<T> {
    messages: mpsc::Sender<Result<T, Status>>,
    instance: Arc<Instance>,
}

impl<T> Outgoing<T> {
    /// Sends a message, waiting for room.
    pub(super) fn send(&self, message: T) -> Result<(), Stop> {
        self.instance.check_alive()?;
        self.instance.touch();
        self.messages.blocking_send(Ok(message)).map_err(|_| Stop::Gone)
    }
}

/// Runs `work` on a thread of its own and gives what it sends.
pub(super) fn stream<T: Send + 'static>(
    instance: Arc<Instance>,
    work: impl FnOnce(&Outgoing<T>) -> Result<(), Stop> + Send + 'static,
) -> mpsc::Receiver<Result<T, Status>> {
    let (messages, receiver) = mpsc::channel(QUEUE);
    tokio::task::spawn_blocking(move || {
        let outgoing = Outgoing { messages, instance };
        let error = match work(&outgoing) {
            Ok(()) | Err(Stop::Gone) => return,
            // Its directory went away under us.
            Err(Stop::Failed(_)) if outgoing.instance.is_ending() => AgentError::Ending(outgoing.instance.id),
            Err(Stop::Failed(error)) => error,
        };
        let _ = outgoing.messages.blocking_send(Err(error.into()));
    });
    receiver
}

//! `OpenSession`: a stream each way for one process.

use super::{BoxStream, Service, id};
use crate::session;
use motefarm_proto::convert::FieldError;
use motefarm_proto::mote::session_input::Input;
use motefarm_proto::mote::{SessionInput, SessionOutput};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// Answers that wait for the connection. What they hold is bounded by the caller's window.
const QUEUE: usize = 8;
/// For a caller to say what he wants.
const FIRST_PATIENCE: Duration = Duration::from_secs(15);

impl Service {
    pub(super) async fn session(&self, mut asked: Streaming<SessionInput>) -> Result<BoxStream<SessionOutput>, Status> {
        let first = tokio::time::timeout(FIRST_PATIENCE, asked.message())
            .await
            .map_err(|_| Status::deadline_exceeded("a session's first message did not come"))??;
        let Some(Input::Start(start)) = first.and_then(|first| first.input) else {
            return Err(FieldError::new("start", "must come first").into());
        };
        let instance = self.agent.use_instance(id(&start.instance_id)?)?;
        let window = start.window;
        let ends = session::open(&self.agent, &instance, start).await?;
        let (answers, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(session::pump(instance, ends, window, asked, answers));
        Ok(Box::pin(ReceiverStream::new(receiver)))
    }
}

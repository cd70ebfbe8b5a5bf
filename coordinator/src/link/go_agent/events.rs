//! What a reader of an execution gets. Works only while it is polled; what nobody takes stays in the spool.

use super::execution::Execution;
use crate::link::{LinkError, LinkStream};
use futures_util::StreamExt as _;
use futures_util::stream;
use motefarm_proto::MAX_CHUNK_BYTES;
use motefarm_proto::mote::exec_event::Event;
use motefarm_proto::mote::output_chunk::Stream;
use motefarm_proto::mote::{ExecEvent, ExecStarted, OutputChunk};
use std::sync::Arc;
use tonic::Status;

/// What was just written is in memory and read at once; more is read on a thread that may wait.
const READ_INLINE_BYTES: u64 = 256 * 1024;

struct Reading {
    execution: Arc<Execution>,
    standing: tokio::sync::watch::Receiver<super::execution::Standing>,
    next: u64,
    follow: bool,
    said_started: bool,
    over: bool,
}

/// Streams from `offset`, to the outcome or, without `follow`, to what is there now.
pub(super) fn stream(execution: Arc<Execution>, offset: u64, follow: bool) -> LinkStream<ExecEvent> {
    let standing = execution.watch();
    let reading = Reading { execution, standing, next: offset, follow, said_started: false, over: false };
    stream::unfold(reading, |mut reading| async move {
        if reading.over {
            return None;
        }
        match reading.next().await {
            Ok(Some(event)) => Some((Ok(ExecEvent { event: Some(event) }), reading)),
            Ok(None) => None,
            Err(error) => {
                reading.over = true;
                Some((Err(error), reading))
            }
        }
    })
    .boxed()
}

fn out_of_range(problem: String) -> LinkError {
    LinkError::Refused(Box::new(Status::out_of_range(problem)))
}

impl Reading {
    async fn next(&mut self) -> Result<Option<Event>, LinkError> {
        let id = self.execution.id;
        if !self.said_started {
            self.said_started = true;
            let started_at_ms = self.execution.started_at_ms;
            return Ok(Some(Event::Started(ExecStarted { exec_id: id.to_string(), started_at_ms })));
        }
        loop {
            let standing = self.standing.borrow_and_update().clone();
            if self.next < standing.released {
                let text = format!("output of {id} before offset {} was acknowledged and is gone", standing.released);
                return Err(out_of_range(text));
            }
            if self.next < standing.end {
                return self.read(standing.end).await.map(Some);
            }
            if let Some(outcome) = standing.outcome {
                if self.next > standing.end {
                    let end = standing.end;
                    return Err(out_of_range(format!(
                        "{id} ended after {end} bytes; there is nothing at {}",
                        self.next
                    )));
                }
                self.over = true;
                return Ok(Some(Event::Outcome(outcome)));
            }
            if !self.follow {
                return Ok(None);
            }
            if self.standing.changed().await.is_err() {
                return Err(LinkError::Lost("its instance has ended".to_owned()));
            }
        }
    }

    async fn read(&mut self, end: u64) -> Result<Event, LinkError> {
        let (execution, offset) = (self.execution.clone(), self.next);
        let most = usize::try_from(end - offset).unwrap_or(usize::MAX).min(MAX_CHUNK_BYTES);
        let read = match end - offset <= READ_INLINE_BYTES {
            true => execution.spool.read(offset, most),
            false => tokio::task::spawn_blocking(move || execution.spool.read(offset, most))
                .await
                .map_err(std::io::Error::other)
                .flatten(),
        };
        let (data, time_ms) =
            read.map_err(|error| LinkError::Lost(format!("output could not be read back: {error}")))?;
        // Released while it was read: then it may be the hole that was read.
        let released = self.execution.watch().borrow().released;
        if offset < released {
            return Err(out_of_range(format!("output before offset {released} was acknowledged and is gone")));
        }
        self.next += data.len() as u64;
        Ok(Event::Output(OutputChunk { stream: Stream::Stdout.into(), offset, time_ms, data: data.into() }))
    }
}

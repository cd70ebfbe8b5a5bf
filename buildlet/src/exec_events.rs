//! The stream a reader of an execution gets.
//!
//! It follows the files, woken by their changes. A slow reader stalls itself only: what it has not
//! taken waits in the spool, not here.

use crate::agent::Agent;
use crate::error::AgentError;
use crate::exec_dir::ExecDir;
use crate::instance::Instance;
use crate::spool::reader::{Chunk, SpoolReader};
use crate::wakeups::Of;
use motefarm_core::ExecId;
use motefarm_proto::MAX_CHUNK_BYTES;
use motefarm_proto::mote::exec_event::Event;
use motefarm_proto::mote::{ExecEvent, ExecOutcome, ExecStarted, OutputChunk, output_chunk};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Events that wait for the connection: with the largest chunks, 1 MiB a reader.
const QUEUE: usize = 4;
/// What was just written is in memory and read at once; more is read on a thread that may wait.
const READ_INLINE_BYTES: u64 = 256 * 1024;

/// Items of the stream.
pub(crate) type EventResult = Result<ExecEvent, AgentError>;

/// Streams an execution from `offset`, to its outcome or, without `follow`, to what is there now.
/// Ends when the receiver goes.
pub(crate) fn stream(
    agent: Arc<Agent>,
    instance: Arc<Instance>,
    id: ExecId,
    offset: u64,
    follow: bool,
) -> Result<mpsc::Receiver<EventResult>, AgentError> {
    let exec = instance.exec(id)?;
    let (events, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let _watcher = instance.watcher(id);
        let mut pump = Pump { exec, reader: None, outcome: None, offset, events };
        let ended = match pump.run(&agent, &instance, id, follow).await {
            Ok(Gone::ByUs) => Ok(()),
            Ok(Gone::Reader) => return,
            // The directory went away under us.
            Err(_) if instance.is_ending() => Err(AgentError::Ending(instance.id)),
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            let _ = pump.events.send(Err(error)).await;
        }
    });
    Ok(receiver)
}

/// Who ended a stream.
#[derive(PartialEq, Eq)]
enum Gone {
    ByUs,
    Reader,
}

struct Pump {
    exec: ExecDir,
    reader: Option<SpoolReader>,
    outcome: Option<ExecOutcome>,
    offset: u64,
    events: mpsc::Sender<EventResult>,
}

impl Pump {
    async fn run(&mut self, agent: &Agent, instance: &Instance, id: ExecId, follow: bool) -> Result<Gone, AgentError> {
        let mut watch = agent
            .wakeups
            .watch(self.exec.path(), Of::Output)
            .map_err(AgentError::io(format!("can not watch {}", self.exec.path().display())))?;
        let started_at_ms = self.exec.started_at().map_or(0, |at| at.as_millis());
        if !self.send(Event::Started(ExecStarted { exec_id: id.to_string(), started_at_ms })).await {
            return Ok(Gone::Reader);
        }
        loop {
            watch.before_looking();
            let knew_outcome = self.outcome.is_some();
            let (chunks, more) = self.read().await?;
            // After reading: without an outcome now, all that was read is the command's own.
            if self.outcome.is_none() {
                self.outcome = self.exec.outcome()?;
            }
            let stop = self.stop();
            for chunk in chunks {
                if let Some(chunk) = cut(chunk, stop)
                    && !self.send(Event::Output(wire_chunk(chunk))).await
                {
                    return Ok(Gone::Reader);
                }
            }
            if let Some(outcome) = &self.outcome {
                let next = self.reader.as_ref().map_or(self.offset, SpoolReader::next_offset);
                // Nothing more although the outcome was known before looking: that was all there is.
                if next >= stop || (knew_outcome && !more) {
                    let end = self.reader.as_ref().map_or(0, SpoolReader::seen_end).max(outcome.output_end);
                    if self.offset > end {
                        return Err(AgentError::OutOfRange(format!(
                            "execution {id} ended after {end} bytes of output; there is nothing at offset {}",
                            self.offset
                        )));
                    }
                    let outcome = outcome.clone();
                    let _ = self.send(Event::Outcome(outcome)).await;
                    return Ok(Gone::ByUs);
                }
                continue;
            }
            if instance.is_ending() {
                return Err(AgentError::Ending(instance.id));
            }
            if more {
                continue;
            }
            if !follow {
                return Ok(Gone::ByUs);
            }
            tokio::select! {
                () = watch.changed() => {}
                () = self.events.closed() => return Ok(Gone::Reader),
            }
        }
    }

    /// Where this stream ends once the outcome is known: at the end of the command's own output,
    /// or, for one who asks beyond it, at the end of what left-behind processes wrote.
    fn stop(&self) -> u64 {
        match &self.outcome {
            Some(outcome) if self.offset <= outcome.output_end => outcome.output_end,
            _ => u64::MAX,
        }
    }

    async fn read(&mut self) -> Result<(Vec<Chunk>, bool), AgentError> {
        if self.reader.is_none() {
            self.reader = self.exec.reader(self.offset, MAX_CHUNK_BYTES)?;
        }
        let Some(mut reader) = self.reader.take() else { return Ok((Vec::new(), false)) };
        let small = reader.unread_bytes()? <= READ_INLINE_BYTES;
        let read = move || {
            let mut chunks = Vec::new();
            let more = reader.read(&mut chunks);
            (reader, chunks, more)
        };
        let (reader, chunks, more) = if small {
            read()
        } else {
            tokio::task::spawn_blocking(read).await.map_err(|e| AgentError::Unavailable(e.to_string()))?
        };
        self.reader = Some(reader);
        Ok((chunks, more?))
    }

    /// `false`: the reader is gone.
    async fn send(&self, event: Event) -> bool {
        self.events.send(Ok(ExecEvent { event: Some(event) })).await.is_ok()
    }
}

/// The part of a chunk before `stop`, if any.
fn cut(mut chunk: Chunk, stop: u64) -> Option<Chunk> {
    let keep = stop.checked_sub(chunk.offset).filter(|keep| *keep > 0)?;
    chunk.data.truncate(usize::try_from(keep).unwrap_or(usize::MAX));
    Some(chunk)
}

fn wire_chunk(chunk: Chunk) -> OutputChunk {
    OutputChunk {
        stream: output_chunk::Stream::from(chunk.stream).into(),
        offset: chunk.offset,
        time_ms: chunk.time_ms,
        data: chunk.data,
    }
}

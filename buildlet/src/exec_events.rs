//! The stream a reader of an execution gets.
//!
//! It follows the files, woken by their changes. A slow reader stalls itself only: what it has not
//! taken waits in the spool, not here.

use crate::agent::Agent;
use crate::error::AgentError;
use crate::exec_dir::ExecDir;
use crate::instance::{Instance, Watcher};
use crate::spool::reader::{Chunk, ReadError, SpoolReader};
use crate::wakeups::{Of, Watch};
use futures_util::Stream;
use motefarm_core::ExecId;
use motefarm_proto::MAX_CHUNK_BYTES;
use motefarm_proto::mote::exec_event::Event;
use motefarm_proto::mote::{ExecEvent, ExecOutcome, ExecStarted, OutputChunk, output_chunk};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// What was just written is in memory and read at once; more is read on a thread that may wait.
const READ_INLINE_BYTES: u64 = 256 * 1024;
/// A look that finds less than this soon after the last one found something is one of a dribble.
const DRIBBLE_BYTES: usize = 32 * 1024;
const DRIBBLE_GAP: Duration = Duration::from_millis(2);
/// After so many in a row each further look waits a moment: a message for every line of a program
/// that writes them one by one would cost a trip through four processes each. A line on its own
/// never waits.
const DRIBBLES: u32 = 8;
const DRIBBLE_PAUSE: Duration = Duration::from_millis(1);

/// Items of the stream.
pub(crate) type EventResult = Result<ExecEvent, AgentError>;

/// Streams an execution from `offset`, to its outcome or, without `follow`, to what is there now.
/// It works only while it is polled: what nobody takes stays in the spool.
pub(crate) fn stream(
    agent: &Agent,
    instance: Arc<Instance>,
    id: ExecId,
    offset: u64,
    follow: bool,
) -> Result<impl Stream<Item = EventResult> + Send + use<>, AgentError> {
    let exec = instance.exec(id)?;
    let watch = agent
        .wakeups
        .watch(exec.path(), Of::Output)
        .map_err(AgentError::io(format!("can not watch {}", exec.path().display())))?;
    let started_at_ms = exec.started_at().map_or(0, |at| at.as_millis());
    let started = Event::Started(ExecStarted { exec_id: id.to_string(), started_at_ms });
    let following = Following {
        _watcher: instance.watcher(id),
        instance,
        id,
        exec,
        source: Source::Unopened,
        next: offset,
        seen_end: 0,
        outcome: None,
        offset,
        follow,
        watch,
        found: VecDeque::from([started]),
        wait: false,
        over: false,
        last_found: None,
        dribbles: 0,
    };
    Ok(futures_util::stream::unfold(following, |mut following| async move {
        let event = following.next().await?;
        Some((event, following))
    }))
}

struct Following {
    /// Counts as a reader while it lives.
    _watcher: Watcher,
    instance: Arc<Instance>,
    id: ExecId,
    exec: ExecDir,
    source: Source,
    /// Offset of the next byte to be read, and one past the last frame met.
    next: u64,
    seen_end: u64,
    outcome: Option<ExecOutcome>,
    offset: u64,
    follow: bool,
    watch: Watch,
    /// Read and not yet taken: at most one block of the spool.
    found: VecDeque<Event>,
    /// The next look is for what is not there yet.
    wait: bool,
    over: bool,
    last_found: Option<Instant>,
    dribbles: u32,
}

impl Following {
    async fn next(&mut self) -> Option<EventResult> {
        loop {
            if let Some(event) = self.found.pop_front() {
                return Some(Ok(ExecEvent { event: Some(event) }));
            }
            if self.over {
                return None;
            }
            if let Err(error) = self.look().await {
                self.over = true;
                // The directory may have gone away under us.
                let ending = self.instance.is_ending();
                return Some(Err(if ending { AgentError::Ending(self.instance.id) } else { error }));
            }
        }
    }

    /// Looks once for what is new, after waiting for it if the last look found nothing.
    async fn look(&mut self) -> Result<(), AgentError> {
        if self.wait {
            self.watch.changed().await;
            if self.dribbles >= DRIBBLES {
                tokio::time::sleep(DRIBBLE_PAUSE).await;
            }
        }
        self.watch.before_looking();
        let knew_outcome = self.outcome.is_some();
        let (chunks, more) = self.read().await?;
        self.count_dribble(chunks.iter().map(|chunk| chunk.data.len()).sum());
        // After reading: without an outcome now, all that was read is the command's own.
        if self.outcome.is_none() {
            self.outcome = self.exec.outcome()?;
        }
        let stop = self.stop();
        self.found.extend(chunks.into_iter().filter_map(|chunk| cut(chunk, stop)).map(wire_chunk).map(Event::Output));
        self.wait = false;
        if let Some(outcome) = &self.outcome {
            // Nothing more although the outcome was known before looking: that was all there is.
            if self.next >= stop || (knew_outcome && !more) {
                let end = self.seen_end.max(outcome.output_end);
                if self.offset > end {
                    return Err(AgentError::OutOfRange(format!(
                        "execution {} ended after {end} bytes of output; there is nothing at offset {}",
                        self.id, self.offset
                    )));
                }
                self.found.push_back(Event::Outcome(outcome.clone()));
                self.over = true;
            }
            return Ok(());
        }
        if self.instance.is_ending() {
            return Err(AgentError::Ending(self.instance.id));
        }
        self.over = !more && !self.follow;
        self.wait = !more;
        Ok(())
    }

    fn count_dribble(&mut self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let soon = self.last_found.replace(Instant::now()).is_some_and(|last| last.elapsed() < DRIBBLE_GAP);
        self.dribbles = if soon && bytes < DRIBBLE_BYTES { self.dribbles.saturating_add(1) } else { 0 };
    }

    /// Where this stream ends once the outcome is known: at the end of the command's own output,
    /// or, for one who asks beyond it, at the end of what left-behind processes wrote.
    fn stop(&self) -> u64 {
        match &self.outcome {
            Some(outcome) if self.offset <= outcome.output_end => outcome.output_end,
            _ => u64::MAX,
        }
    }

    /// Reads a block. If there is much more, the next one is read while this one is on its way.
    async fn read(&mut self) -> Result<(Vec<Chunk>, bool), AgentError> {
        let source = std::mem::replace(&mut self.source, Source::Unopened);
        let was_ahead = matches!(source, Source::Ahead(_));
        let block = match source {
            Source::Ahead(reading) => reading.await.map_err(|e| AgentError::Unavailable(e.to_string()))?,
            Source::Open(reader) => read_block(reader),
            Source::Unopened => match self.exec.reader(self.offset, MAX_CHUNK_BYTES)? {
                Some(reader) if reader.unread_bytes()? <= READ_INLINE_BYTES => read_block(reader),
                Some(reader) => tokio::task::spawn_blocking(move || read_block(reader))
                    .await
                    .map_err(|e| AgentError::Unavailable(e.to_string()))?,
                None => return Ok((Vec::new(), false)),
            },
        };
        let (reader, chunks, more) = block;
        let more = more?;
        (self.next, self.seen_end) = (reader.next_offset(), reader.seen_end());
        self.source = if more && reader.unread_bytes()? > READ_INLINE_BYTES {
            Source::Ahead(tokio::task::spawn_blocking(move || read_block(reader)))
        } else {
            Source::Open(reader)
        };
        // A block read ahead was read before this look began: that it found nothing whole (a frame was
        // just being written) says nothing about now, and the news of its end was taken for old.
        Ok((chunks, more || was_ahead))
    }
}

/// Where the bytes come from.
enum Source {
    Unopened,
    Open(SpoolReader),
    /// A block is being read on a thread that may wait for the disk.
    Ahead(JoinHandle<Block>),
}

type Block = (SpoolReader, Vec<Chunk>, Result<bool, ReadError>);

fn read_block(mut reader: SpoolReader) -> Block {
    let mut chunks = Vec::new();
    let more = reader.read(&mut chunks);
    (reader, chunks, more)
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

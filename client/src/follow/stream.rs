//! An execution's events from an offset on, each byte once, however often the connection breaks.

use crate::connection::{Farm, opened};
use crate::error::Error;
use crate::printer::passthrough::Piece;
use crate::resume::{LONG_PATIENCE, Retry};
use futures_util::{FutureExt as _, StreamExt as _};
use motefarm_core::exec::ExecOutcome;
use motefarm_proto::mote::exec_event::Event;
use motefarm_proto::{convert, mote};
use tokio::time::Instant;
use tonic::{Status, Streaming};

/// Gather what has arrived up to this much into one write: on loopback, writes of 64 KiB reached
/// under two thirds of the rate of writes of 1 MiB.
const BATCH_BYTES: usize = 1024 * 1024;
/// Pieces of one vectored write (Linux's `IOV_MAX`).
const BATCH_PIECES: usize = 1024;

/// How to get at the execution.
#[derive(Clone)]
pub(crate) enum Begin {
    /// Start it (or find it started: the id decides).
    Start { instance: String, spec: Box<mote::ExecSpec> },
    /// It is there. Without `follow` only what it has written so far.
    Attach { follow: bool },
}

/// What arrived together.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) pieces: Vec<Piece>,
    bytes: usize,
    pub(super) started: bool,
    pub(super) lease_ending: Option<mote::LeaseEnding>,
    pub(super) outcome: Option<ExecOutcome>,
    /// Without `follow`: that was all.
    pub(super) at_end: bool,
}

pub(super) struct ExecStream<'a> {
    farm: &'a Farm,
    exec_id: String,
    begin: Begin,
    /// Of the next byte.
    offset: u64,
    started: bool,
    open: Option<Streaming<mote::ExecEvent>>,
    retry: Retry,
    again_at: Option<Instant>,
    /// How the stream ended behind what was handed out.
    ended: Option<Status>,
}

impl<'a> ExecStream<'a> {
    pub(super) fn new(farm: &'a Farm, exec_id: &str, begin: Begin, offset: u64) -> Self {
        let doing = match &begin {
            Begin::Start { instance, .. } => format!("run the command on {instance}"),
            Begin::Attach { .. } => format!("watch the execution {exec_id}"),
        };
        let retry = farm.retry(doing, LONG_PATIENCE);
        Self {
            farm,
            exec_id: exec_id.to_owned(),
            begin,
            offset,
            started: false,
            open: None,
            retry,
            again_at: None,
            ended: None,
        }
    }

    /// The next events. Cancelling it loses nothing: a call that was under way is made again.
    pub(super) async fn next(&mut self) -> Result<Batch, Error> {
        loop {
            if let Some(failure) = self.ended.take() {
                self.failed(&failure)?;
            }
            if let Some(at) = self.again_at {
                tokio::time::sleep_until(at).await;
                self.again_at = None;
            }
            let stream = match &mut self.open {
                Some(stream) => stream,
                None => match self.ask().await {
                    Ok(stream) => self.open.insert(stream),
                    Err(failure) => {
                        self.failed(&failure)?;
                        continue;
                    }
                },
            };
            match stream.message().await {
                Ok(Some(event)) => {
                    self.retry.contact();
                    return self.gather(event);
                }
                Ok(None) if matches!(self.begin, Begin::Attach { follow: false }) => {
                    return Ok(Batch { at_end: true, ..Batch::default() });
                }
                // Ended without an outcome: it was cut, however politely.
                Ok(None) => self.failed(&Status::unavailable(""))?,
                Err(failure) => self.failed(&failure)?,
            }
        }
    }

    /// Whether the farm has said that the execution exists.
    pub(super) const fn started(&self) -> bool {
        self.started
    }

    async fn ask(&self) -> Result<Streaming<mote::ExecEvent>, Status> {
        let (exec_id, offset) = (self.exec_id.clone(), self.offset);
        let mut client = self.farm.client();
        match &self.begin {
            Begin::Start { instance, spec } if !self.started => {
                let (instance, spec) = (instance.clone(), Some(mote::ExecSpec::clone(spec)));
                opened(client.execute(mote::ExecuteRequest { instance, exec_id, spec, offset })).await
            }
            begin => {
                let follow = !matches!(begin, Begin::Attach { follow: false });
                let request = mote::AttachExecRequest { instance: String::new(), exec_id, offset, follow };
                opened(client.attach_exec(request)).await
            }
        }
    }

    fn failed(&mut self, failure: &Status) -> Result<(), Error> {
        self.open = None;
        let wait = self.retry.next_wait(failure)?;
        self.again_at = Some(Instant::now() + wait);
        Ok(())
    }

    /// `first` and what has arrived behind it.
    fn gather(&mut self, first: mote::ExecEvent) -> Result<Batch, Error> {
        let mut batch = Batch::default();
        let mut event = Some(first);
        while let Some(next) = event {
            self.add(&mut batch, next)?;
            let full = batch.bytes >= BATCH_BYTES || batch.pieces.len() >= BATCH_PIECES;
            if batch.outcome.is_some() || full {
                break;
            }
            event = match self.open.as_mut().and_then(|stream| stream.next().now_or_never()) {
                None => None,
                Some(Some(Ok(event))) => Some(event),
                // What came before it goes first.
                Some(Some(Err(failure))) => {
                    self.ended = Some(failure);
                    None
                }
                Some(None) => {
                    batch.at_end = matches!(self.begin, Begin::Attach { follow: false });
                    if !batch.at_end {
                        self.ended = Some(Status::unavailable(""));
                    }
                    None
                }
            };
        }
        Ok(batch)
    }

    fn add(&mut self, batch: &mut Batch, event: mote::ExecEvent) -> Result<(), Error> {
        match event.event {
            Some(Event::Started(_)) => {
                batch.started |= !self.started;
                self.started = true;
            }
            Some(Event::Output(chunk)) => {
                let stream = convert::output_stream(&chunk);
                let (at, mut data) = (chunk.offset, chunk.data);
                if at > self.offset {
                    let problem = format!("output goes from byte {} to byte {at}", self.offset);
                    return Err(Error::protocol(self.retry.doing(), problem));
                }
                // What we have already is skipped.
                let known = usize::try_from(self.offset - at).unwrap_or(usize::MAX).min(data.len());
                let data = data.split_off(known);
                self.offset += data.len() as u64;
                batch.bytes += data.len();
                if !data.is_empty() {
                    batch.pieces.push((stream, data));
                }
            }
            Some(Event::LeaseEnding(ending)) => batch.lease_ending = Some(ending),
            Some(Event::Outcome(outcome)) => {
                let outcome = convert::exec_outcome(&outcome);
                batch.outcome = Some(outcome.map_err(|e| Error::protocol(self.retry.doing(), e))?);
            }
            // From a newer farm.
            None => {}
        }
        Ok(())
    }
}

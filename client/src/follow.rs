//! Watching an execution to its end: output to file and terminal, signals and stdin to the command.
//!
//! The one loop behind `run`, `attach` and `logs`. It may lose the farm at any point; [`stream`]
//! goes on where it stopped. Dropping it leaves the command running.

mod acks;
mod json_lines;
mod stdin;
mod stream;

pub(crate) use stdin::Stdin;
pub(crate) use stream::Begin;

use crate::connection::Farm;
use crate::error::Error;
use crate::human;
use crate::output_file::OutputFile;
use crate::printer::{Named, Passthrough, Printer};
use crate::signals::{Asked, Signals};
use acks::Acks;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use motefarm_core::exec::{Ending, ExecOutcome};
use motefarm_core::{Clock as _, SystemClock};
use motefarm_proto::mote;
use std::pin::Pin;
use stream::{Batch, ExecStream};

const SIGINT: i32 = 2;
const SIGPIPE: i32 = 13;

/// What to watch, and where what it prints goes.
pub(crate) struct Watch {
    /// The execution.
    pub(crate) exec_id: String,
    /// How to get at it.
    pub(crate) begin: Begin,
    /// Keeps every byte; its length is where to begin. `None`: nothing is kept (`logs`).
    pub(crate) file: Option<OutputFile>,
    /// Shows it.
    pub(crate) show: Show,
    /// Feeds the command.
    pub(crate) stdin: Option<Stdin>,
    /// Whether Ctrl-C is for the command (`run`, `attach`) or for us (`logs`).
    pub(crate) owns: bool,
}

/// Where output is shown.
pub(crate) enum Show {
    /// As it is, on our stdout and stderr.
    Raw(Passthrough),
    /// The same, beside others' output.
    Named(Named),
    /// One JSON object a piece (`logs --json`).
    JsonLines,
    /// Nowhere: the file has it (`run --json`).
    Nowhere,
}

/// Watching that did not come to an end.
#[derive(Debug)]
pub(crate) struct Broken {
    /// Why.
    pub(crate) error: Error,
    /// Whether the farm had said that the execution exists.
    pub(crate) started: bool,
}

/// How watching ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The command is over.
    Outcome {
        /// How it ended.
        outcome: ExecOutcome,
        /// Somebody pressed Ctrl-C while it ran.
        interrupted: bool,
    },
    /// All there is now was shown (`logs` without `-f`).
    UpToDate,
    /// We were told to go, and left it running.
    Left,
}

type Control = Pin<Box<dyn Future<Output = Result<(), Error>>>>;

struct Loop<'a> {
    farm: &'a Farm,
    printer: Printer,
    exec_id: String,
    file: Option<OutputFile>,
    show: Show,
    shown: u64,
    stdin: Option<Stdin>,
    /// Calls about the execution that are under way beside its stream.
    controls: FuturesUnordered<Control>,
    acks: Acks,
    interrupts: u32,
    owns: bool,
}

/// Watches to the end. The error of a farm that stays away leaves the command running.
pub(crate) async fn watch(farm: &Farm, printer: Printer, signals: &mut Signals, watch: Watch) -> Result<End, Broken> {
    let Watch { exec_id, begin, file, show, stdin, owns } = watch;
    let offset = file.as_ref().map_or(0, OutputFile::len);
    let mut stream = ExecStream::new(farm, &exec_id, begin, offset);
    let acks = Acks::new(offset, file.is_some());
    let controls = FuturesUnordered::new();
    let mut this =
        Loop { farm, printer, exec_id, file, show, shown: offset, stdin, controls, acks, interrupts: 0, owns };
    match this.turn(&mut stream, signals).await {
        Ok(End::Left) => Ok(End::Left),
        Ok(end) => this.drain(signals, end).await.map_err(|error| Broken { error, started: true }),
        Err(error) => Err(Broken { error, started: stream.started() }),
    }
}

impl Loop<'_> {
    async fn turn(&mut self, stream: &mut ExecStream<'_>, signals: &mut Signals) -> Result<End, Error> {
        loop {
            let has_room = self.show.has_room();
            let end = tokio::select! {
                asked = signals.next() => self.asked(asked)?,
                Some(done) = self.controls.next(), if !self.controls.is_empty() => {
                    self.control_done(done);
                    None
                }
                () = self.acks.due() => {
                    self.acknowledge();
                    None
                }
                () = self.show.room(), if !has_room => None,
                batch = stream.next(), if has_room => self.take(batch?)?,
            };
            if let Some(end) = end {
                return Ok(end);
            }
        }
    }

    /// The file first: what the terminal shows is never ahead of what is kept.
    fn take(&mut self, batch: Batch) -> Result<Option<End>, Error> {
        let Batch { pieces, started, lease_ending, outcome, at_end, .. } = batch;
        if started {
            self.feed();
        }
        if let Some(file) = &mut self.file {
            file.append(pieces.iter().map(|(_, data)| data))?;
            self.acks.note(file.len());
        }
        let from = self.shown;
        self.shown += pieces.iter().map(|(_, data)| data.len() as u64).sum::<u64>();
        let shown = match &mut self.show {
            Show::Raw(terminal) => terminal.show(pieces),
            Show::Named(named) => named.show(pieces),
            Show::JsonLines => json_lines::print(self.printer, from, &pieces),
            Show::Nowhere => Ok(()),
        };
        match shown {
            Err(Error::StdoutClosed) if self.owns => self.stdout_closed(),
            shown => shown?,
        }
        if let Some(ending) = lease_ending {
            let left = human::between(SystemClock.now().as_millis(), ending.expires_at_ms);
            let reason = if ending.reason.is_empty() { String::new() } else { format!(" ({})", ending.reason) };
            self.printer.warning(format_args!("the instance's lease ends in {}{reason}", human::duration(left)));
        }
        Ok(match outcome {
            Some(outcome) => Some(End::Outcome { outcome, interrupted: self.interrupts > 0 }),
            None => at_end.then_some(End::UpToDate),
        })
    }

    fn feed(&mut self) {
        if let Some(stdin) = self.stdin.take() {
            let (farm, exec_id) = (self.farm.clone(), self.exec_id.clone());
            self.controls.push(Box::pin(async move { stdin.feed(&farm, &exec_id).await }));
        }
    }

    fn asked(&mut self, asked: Asked) -> Result<Option<End>, Error> {
        if !self.owns {
            return Err(Error::Interrupted);
        }
        if asked == Asked::Leave {
            return Ok(Some(End::Left));
        }
        self.interrupts += 1;
        match self.interrupts {
            1 => {
                self.printer.message("Ctrl-C passed on to the command; once more ends it");
                self.signal(SIGINT);
            }
            2 => {
                self.printer.message("ending the command; once more leaves without waiting");
                self.cancel();
            }
            _ => return Ok(Some(End::Left)),
        }
        Ok(None)
    }

    /// As in a local pipeline: whoever writes to a reader that is gone hears of it. What it prints
    /// from here on is kept in the file.
    fn stdout_closed(&mut self) {
        self.printer.message("stdout was closed; the command gets SIGPIPE");
        self.signal(SIGPIPE);
    }

    fn signal(&mut self, signal: i32) {
        let (farm, exec_id) = (self.farm.clone(), self.exec_id.clone());
        self.controls.push(Box::pin(async move {
            let request = mote::SignalExecRequest { exec_id, signal };
            farm.call("signal the command", async |mut c| c.signal_exec(request.clone()).await).await.map(drop)
        }));
    }

    fn cancel(&mut self) {
        let (farm, exec_id) = (self.farm.clone(), self.exec_id.clone());
        self.controls.push(Box::pin(async move {
            let request = mote::CancelExecRequest { exec_id, grace_ms: 0 };
            farm.call("end the command", async |mut c| c.cancel_exec(request.clone()).await).await.map(drop)
        }));
    }

    fn acknowledge(&mut self) {
        if let Some(offset) = self.acks.take() {
            let (farm, exec_id) = (self.farm.clone(), self.exec_id.clone());
            self.controls.push(Box::pin(async move {
                let request = mote::AckOutputRequest { exec_id, offset };
                // Only makes room on the farm, and the next one makes up for it.
                let _ = farm.client().ack_output(request).await;
                Ok(())
            }));
        }
    }

    fn control_done(&self, done: Result<(), Error>) {
        // Ending between the call and its arrival is what the call wanted.
        if let Err(error) = done
            && !error.is_not_found()
        {
            self.printer.warning(error);
        }
    }

    /// The terminal may be slower than the farm; the user may not want to wait for it.
    async fn drain(mut self, signals: &mut Signals, end: End) -> Result<End, Error> {
        let terminal = match &mut self.show {
            Show::Raw(terminal) => terminal,
            // Whoever opened it waits for it.
            Show::Named(named) => match named.finish() {
                Err(Error::StdoutClosed) if self.owns => return Ok(end),
                other => return other.map(|()| end),
            },
            Show::JsonLines | Show::Nowhere => return Ok(end),
        };
        tokio::select! {
            drained = terminal.drained() => match drained {
                Err(Error::StdoutClosed) if self.owns => Ok(end),
                other => other.map(|()| end),
            },
            _ = signals.next() => Ok(end),
        }
    }
}

impl Show {
    fn has_room(&self) -> bool {
        match self {
            Self::Raw(terminal) => terminal.has_room(),
            Self::Named(named) => named.has_room(),
            Self::JsonLines | Self::Nowhere => true,
        }
    }

    async fn room(&self) {
        match self {
            Self::Raw(terminal) => terminal.room().await,
            Self::Named(named) => named.room().await,
            Self::JsonLines | Self::Nowhere => {}
        }
    }
}

/// What a person must hear of an outcome besides the exit code; `what` is "the command", or which.
pub(crate) fn explain(printer: Printer, what: &str, outcome: &ExecOutcome) {
    let reason = if outcome.reason.is_empty() { String::new() } else { format!(": {}", outcome.reason) };
    match outcome.ending {
        Ending::Exited(0) => {}
        Ending::Exited(code) => printer.message(format_args!("{what} exited with {code}")),
        Ending::Signaled(signal) => {
            let name = signal_name(signal).map(|name| format!(" ({name})")).unwrap_or_default();
            printer.message(format_args!("{what} was ended by signal {signal}{name}"));
        }
        Ending::TimedOut => {
            let ran = human::duration(outcome.ended_at.since(outcome.started_at));
            printer.warning(format_args!("{what} passed its time limit and was ended after {ran}"));
        }
        Ending::Cancelled => printer.warning(format_args!("{what} was cancelled")),
        Ending::OutputLimit => printer.warning(format_args!("{what} was ended because its output passed the limit")),
        Ending::NotStarted => printer.warning(format_args!("{what} could not be started{reason}")),
        Ending::Lost => printer.warning(format_args!("how {what} ended is not known{reason}")),
    }
    if outcome.left_running {
        printer.message("processes it started still run on the instance; `mote cancel` or destroy end them");
    }
}

fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        31 => "SIGSYS",
        _ => return None,
    })
}

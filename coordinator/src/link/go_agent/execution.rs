//! One command of a Go agent's: asked for once, spooled while it runs, ended once.
//!
//! The agent knows no ids and keeps nothing, so what an execution is, is here: it ends, as lost, with the
//! connection it runs over, and with this process.

use super::answer::{Answer, Next};
use super::client::Client;
use super::command::{self, Ended, PROCESS_STATE};
use super::spool::Spool;
use crate::link::LinkError;
use futures_util::StreamExt as _;
use futures_util::stream;
use http::Method;
use motefarm_core::{Clock, ExecId};
use motefarm_proto::mote::exec_outcome::Ending;
use motefarm_proto::mote::exec_spec::Overflow;
use motefarm_proto::mote::{ExecInfo, ExecOutcome, ExecSpec};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Time until the agent says that it takes the command. It may have to copy files first.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(60);
/// Output kept if nothing else was asked for, as the buildlet does.
const SPOOL_BYTES: u64 = 1 << 30;
/// The least and the most that may be asked for, as there.
const SPOOL_BOUNDS: (u64, u64) = (64 << 10, 64 << 30);

/// Where an execution stands.
#[derive(Debug, Clone, Default)]
pub(super) struct Standing {
    /// Output so far.
    pub(super) end: u64,
    /// Output that may be forgotten, and of that what is.
    pub(super) acknowledged: u64,
    pub(super) released: u64,
    /// How it ended, once it has.
    pub(super) outcome: Option<ExecOutcome>,
}

/// Why it is ended by us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    Cancelled,
    Killed,
    /// Something came on its stdin, which the agent can not give it.
    Fed,
}

/// Why a command with something on its stdin is not run.
pub(super) const NO_STDIN: &str =
    "a Go agent's commands have no stdin; put a file there and have the command read that";

/// See the module.
pub(super) struct Execution {
    pub(super) id: ExecId,
    pub(super) spec: ExecSpec,
    pub(super) started_at_ms: i64,
    pub(super) spool: Spool,
    standing: watch::Sender<Standing>,
    stop: watch::Sender<Option<Stop>>,
    /// Its stdin has ended, empty.
    stdin_closed: watch::Sender<bool>,
}

impl Execution {
    /// One that is about to be run, with its output on the disk of `dir`.
    pub(super) fn new(id: ExecId, spec: ExecSpec, dir: &Path, now_ms: i64) -> std::io::Result<Self> {
        let spool = Spool::create(dir)?;
        Ok(Self {
            id,
            spec,
            started_at_ms: now_ms,
            spool,
            standing: watch::Sender::default(),
            stop: watch::Sender::default(),
            stdin_closed: watch::Sender::default(),
        })
    }

    /// Where it stands, now and later.
    pub(super) fn watch(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// As listings show it.
    pub(super) fn info(&self, instance_id: String) -> ExecInfo {
        let standing = self.standing.borrow();
        ExecInfo {
            exec_id: self.id.to_string(),
            instance_id,
            spec: Some(self.spec.clone()),
            outcome: standing.outcome.clone(),
            started_at_ms: self.started_at_ms,
            output_bytes: standing.end,
        }
    }

    /// Whether it runs.
    pub(super) fn is_running(&self) -> bool {
        self.standing.borrow().outcome.is_none()
    }

    /// Ends it as cancelled. The agent kills the command, not what that started.
    pub(super) fn cancel(&self) {
        self.stop_by(Stop::Cancelled);
    }

    /// Ends it as by SIGKILL.
    pub(super) fn kill(&self) {
        self.stop_by(Stop::Killed);
    }

    /// Its stdin: nothing, so that it may be run once that is certain, or something, so that it is not. Tells
    /// whether that is taken.
    pub(super) fn feed(&self, has_data: bool, eof: bool) -> bool {
        if has_data {
            self.stop_by(Stop::Fed);
        } else if eof {
            self.stdin_closed.send_replace(true);
        }
        !has_data
    }

    fn stop_by(&self, stop: Stop) {
        self.stop.send_if_modified(|now| now.is_none() && now.replace(stop).is_none());
    }

    /// Output before `offset` need not be kept.
    pub(super) fn acknowledge(&self, offset: u64) {
        self.standing.send_if_modified(|standing| {
            let moved = offset > standing.acknowledged && offset <= standing.end;
            if moved {
                standing.acknowledged = offset;
            }
            moved
        });
    }

    /// Runs it to its end. `env` comes before its own environment.
    pub(super) async fn run(self: Arc<Self>, client: Arc<Client>, env: Vec<String>, clock: Arc<dyn Clock>) {
        let mut stop = self.stop.subscribe();
        let stopped = async {
            // The sender is in here and can not go away.
            stop.wait_for(Option::is_some).await.ok().and_then(|stop| *stop)
        };
        let limit = Duration::from_millis(self.spec.timeout_ms);
        let timed_out = async {
            match limit.is_zero() {
                true => std::future::pending().await,
                false => tokio::time::sleep(limit).await,
            }
        };
        let ended = tokio::select! {
            ended = self.through(&client, &env, clock.as_ref()) => ended,
            stop = stopped => match stop {
                Some(Stop::Killed) => Ended { ending: Ending::Signaled, code: 9, reason: String::new() },
                Some(Stop::Fed) => Ended { ending: Ending::NotStarted, code: 0, reason: NO_STDIN.to_owned() },
                Some(Stop::Cancelled) | None => Ended { ending: Ending::Cancelled, code: 0, reason: String::new() },
            },
            () = timed_out => Ended { ending: Ending::TimedOut, code: 0, reason: String::new() },
        };
        let ended_at_ms = clock.now().as_millis();
        tracing::debug!(exec.id = %self.id, ending = ?ended.ending, code = ended.code, reason = ended.reason, "a Go agent's command ended");
        self.standing.send_modify(|standing| {
            standing.outcome = Some(ExecOutcome {
                ending: ended.ending.into(),
                code: ended.code,
                reason: ended.reason,
                started_at_ms: self.started_at_ms,
                ended_at_ms,
                output_end: standing.end,
                ..ExecOutcome::default()
            });
        });
    }

    async fn through(&self, client: &Client, env: &[String], clock: &dyn Clock) -> Ended {
        if self.spec.stdin {
            // The sender is in here and can not go away.
            let _ = self.stdin_closed.subscribe().wait_for(|closed| *closed).await;
        }
        let form = command::form(&self.spec, env);
        let content = stream::once(std::future::ready(Ok(form.into()))).boxed();
        match client.ask(Method::POST, "/exec", content, ACCEPT_TIMEOUT).await {
            Ok(answer) if answer.is_ok() => self.output(answer, clock).await,
            Ok(answer) => match answer.accepted().await {
                Err(LinkError::Refused(status)) => {
                    Ended { ending: Ending::NotStarted, code: 0, reason: status.message().to_owned() }
                }
                Err(LinkError::Lost(why)) => lost(why),
                Ok(_) => lost("the agent answered twice".to_owned()),
            },
            Err(error) => lost(format!("it is not known whether it was started: {error}")),
        }
    }

    async fn output(&self, mut answer: Answer, clock: &dyn Clock) -> Ended {
        loop {
            match answer.next(None).await {
                Ok(Next::Piece(piece)) => {
                    if let Err(ended) = self.make_room(piece.len() as u64).await {
                        return ended;
                    }
                    let end = self.standing.borrow().end;
                    if let Err(error) = self.spool.write(&piece, end, clock.now().as_millis()) {
                        tracing::error!(exec.id = %self.id, %error, "output could not be kept");
                        return lost(format!("the coordinator could not keep its output: {error}"));
                    }
                    self.standing.send_modify(|standing| standing.end += piece.len() as u64);
                }
                Ok(Next::Over(trailers)) => {
                    let state = trailers.get(PROCESS_STATE).and_then(|state| state.to_str().ok());
                    return match state {
                        Some(state) => command::ended(state),
                        None => lost("the agent did not say how it ended".to_owned()),
                    };
                }
                Err(error) => return lost(error.to_string()),
            }
        }
    }

    /// Waits, or ends the command, while the spool is full of what nobody has acknowledged.
    async fn make_room(&self, bytes: u64) -> Result<(), Ended> {
        let asked = if self.spec.spool_limit_bytes == 0 { SPOOL_BYTES } else { self.spec.spool_limit_bytes };
        let limit = asked.clamp(SPOOL_BOUNDS.0, SPOOL_BOUNDS.1);
        let mut watch = self.standing.subscribe();
        loop {
            let (end, acknowledged, released) = {
                let standing = watch.borrow_and_update();
                (standing.end, standing.acknowledged, standing.released)
            };
            // One piece always fits.
            if end == released || end + bytes - released <= limit {
                return Ok(());
            }
            if acknowledged > released {
                // What a reader is about to read is not taken from under it: it looks here first.
                self.standing.send_modify(|standing| standing.released = acknowledged);
                self.spool.release(released, acknowledged);
            } else if self.spec.overflow() == Overflow::End {
                return Err(Ended { ending: Ending::OutputLimit, code: 0, reason: String::new() });
            } else if watch.changed().await.is_err() {
                return Err(lost("it was dropped".to_owned()));
            }
        }
    }
}

fn lost(reason: String) -> Ended {
    Ended { ending: Ending::Lost, code: 0, reason }
}

//! The two streams that mean something by their end: a request for an instance, and a command.
//!
//! The Go client can neither ask again for the same instance nor attach to a command again. So one
//! that leaves gives the request up, and ends the command, as it always has: that is what Ctrl-C
//! means to its user. When it is the coordinator that ends the stream, both go on.

use super::command;
use crate::app::App;
use crate::farm::exec::ExecStream;
use crate::farm::{FarmError, destroy, exec};
use crate::identity::Identity;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use motefarm_core::InstanceId;
use motefarm_proto::gomote::create_instance_response::Status as Progress;
use motefarm_proto::mote::exec_event::Event;
use motefarm_proto::{gomote, mote};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};
use tonic::Status;

/// What a client is sent.
pub(super) type StreamOf<T> = BoxStream<'static, Result<T, Status>>;
/// No word of waiting before this: what is ready at once needs none.
const QUIET: Duration = Duration::from_secs(1);
/// Output that was passed on is acknowledged, so that a full spool lets go of it: after this much,
const ACK_BYTES: u64 = 8 << 20;
/// or after less if nothing more comes for a while, perhaps because the spool is full.
const ACK_LEAST: u64 = 256 << 10;
const ACK_IDLE: Duration = Duration::from_millis(200);
/// How long a command that is to be cancelled may take to have begun.
const BEGIN_WAIT: Duration = Duration::from_secs(20);

/// An instance as the client is told of it.
pub(super) fn instance(info: mote::InstanceInfo) -> gomote::Instance {
    gomote::Instance {
        gomote_id: info.name,
        builder_type: info.host_type.clone(),
        host_type: info.host_type,
        expires: info.expires_at_ms.div_euclid(1000),
        working_dir: info.work_dir,
    }
}

/// Whether an instance is leased: the client knows no other state.
pub(super) fn is_leased(info: &mote::InstanceInfo) -> bool {
    matches!(info.state.as_str(), "ready" | "lost")
}

/// A request for an instance, while its client waits.
pub(super) struct Wait {
    pub(super) app: Arc<App>,
    pub(super) caller: Identity,
    pub(super) id: InstanceId,
    pub(super) events: BoxStream<'static, Result<mote::CreateInstanceEvent, FarmError>>,
    pub(super) begun: Instant,
    /// The client has been told its instance.
    pub(super) complete: bool,
}

impl Wait {
    /// What the client is sent.
    pub(super) fn stream(self) -> StreamOf<gomote::CreateInstanceResponse> {
        stream::unfold(self, |mut wait| async move { Some((wait.next().await?, wait)) }).boxed()
    }

    async fn next(&mut self) -> Option<Result<gomote::CreateInstanceResponse, Status>> {
        while !self.complete {
            let event = match self.events.next().await? {
                Ok(event) => event,
                Err(error) => return Some(Err(error.into())),
            };
            let info = event.instance.unwrap_or_default();
            if is_leased(&info) {
                self.complete = true;
                return Some(Ok(gomote::CreateInstanceResponse {
                    instance: Some(instance(info)),
                    status: Progress::Complete.into(),
                    waiters_ahead: 0,
                }));
            }
            if self.begun.elapsed() >= QUIET {
                return Some(Ok(gomote::CreateInstanceResponse {
                    instance: None,
                    status: Progress::Waiting.into(),
                    waiters_ahead: i64::try_from(event.waiters_ahead).unwrap_or(i64::MAX),
                }));
            }
        }
        None
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if self.complete || self.app.shutdown.is_cancelled() {
            return;
        }
        let (app, caller, id) = (self.app.clone(), self.caller.clone(), self.id);
        self.app.spawn(async move {
            if let Err(error) = destroy::destroy(&app, &caller, &id.to_string()).await {
                tracing::warn!(instance.id = %id, %error, "a request whose client left could not be given up");
            }
        });
    }
}

/// A command, while its client listens.
pub(super) struct Listening {
    app: Arc<App>,
    caller: Identity,
    exec_id: String,
    events: ExecStream,
    /// It has begun, as far as we have heard.
    begun: bool,
    /// It has ended, or it is not for us to end it.
    over: bool,
    passed_on: u64,
    acknowledged: u64,
}

impl Listening {
    /// To the events of an execution that was just asked for.
    pub(super) fn new(app: &Arc<App>, caller: Identity, exec_id: String, events: ExecStream) -> Self {
        let app = app.clone();
        Self { app, caller, exec_id, events, begun: false, over: false, passed_on: 0, acknowledged: 0 }
    }

    /// What the client is sent.
    pub(super) fn stream(self) -> StreamOf<gomote::ExecuteCommandResponse> {
        stream::unfold(self, |mut listening| async move { Some((listening.next().await?, listening)) }).boxed()
    }

    async fn next(&mut self) -> Option<Result<gomote::ExecuteCommandResponse, Status>> {
        while !self.over {
            match self.next_event().await {
                Some(Ok(Event::Output(chunk))) => {
                    self.begun = true;
                    self.passed_on = chunk.offset + chunk.data.len() as u64;
                    return Some(Ok(gomote::ExecuteCommandResponse { output: chunk.data }));
                }
                Some(Ok(Event::Outcome(outcome))) => {
                    self.over = true;
                    return command::verdict(&outcome).err().map(Err);
                }
                Some(Ok(Event::Started(_))) => self.begun = true,
                Some(Ok(Event::LeaseEnding(_))) => {}
                Some(Err(error)) => {
                    // Lost, refused or ended with its instance; or we are stopping. It is not the client who left.
                    self.over = true;
                    return Some(Err(error.into()));
                }
                None => {
                    self.over = true;
                    return Some(Err(Status::unavailable("the command's output was cut off; the command may run on")));
                }
            }
        }
        None
    }

    /// The next event that is one, with what was passed on acknowledged in between.
    async fn next_event(&mut self) -> Option<Result<Event, FarmError>> {
        loop {
            let unsaid = self.passed_on - self.acknowledged;
            if unsaid >= ACK_BYTES {
                self.acknowledge().await;
            }
            let event = if unsaid >= ACK_LEAST {
                match timeout(ACK_IDLE, self.events.next()).await {
                    Ok(event) => event,
                    Err(_) => {
                        self.acknowledge().await;
                        continue;
                    }
                }
            } else {
                self.events.next().await
            };
            match event? {
                Ok(mote::ExecEvent { event: Some(event) }) => return Some(Ok(event)),
                Ok(mote::ExecEvent { event: None }) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }

    async fn acknowledge(&mut self) {
        // Said once, whatever comes of it: the next time says more.
        self.acknowledged = self.passed_on;
        if let Err(error) = exec::ack(&self.app, &self.caller, &self.exec_id, self.passed_on).await {
            tracing::debug!(exec.id = self.exec_id, %error, "output could not be acknowledged");
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if self.over || self.app.shutdown.is_cancelled() {
            return;
        }
        let events = std::mem::replace(&mut self.events, stream::empty().boxed());
        let (app, caller, exec_id) = (self.app.clone(), self.caller.clone(), self.exec_id.clone());
        let begun = self.begun;
        self.app.spawn(async move {
            let shutdown = app.shutdown.clone();
            tokio::select! {
                () = cancel(&app, &caller, &exec_id, events, begun) => {}
                () = shutdown.cancelled() => {}
            }
        });
    }
}

/// Ends a command whose client has left; first lets it begin, since what has not begun can not be found.
async fn cancel(app: &Arc<App>, caller: &Identity, exec_id: &str, mut events: ExecStream, begun: bool) {
    if !begun {
        let _ = timeout(BEGIN_WAIT, events.next()).await;
    }
    drop(events);
    if let Err(error) = exec::cancel(app, caller, exec_id, 0).await {
        tracing::info!(exec.id = exec_id, %error, "a command whose client left could not be cancelled");
    }
}

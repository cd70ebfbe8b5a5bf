//! Running commands: recorded first, started once, streamed from any offset.

use super::{FarmError, access, renew};
use crate::app::App;
use crate::identity::Identity;
use crate::link::{LinkError, LinkStream};
use crate::registry::Session;
use crate::store::{InstanceRow, NewExecution};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use motefarm_core::ExecId;
use motefarm_core::instance::InstanceState;
use motefarm_net::backoff::Backoff;
use motefarm_proto::{convert, mote};
use prost::Message as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

/// How long a call waits for a buildlet that is out of contact.
const CONTACT_WAIT: Duration = Duration::from_secs(20);
/// How long a stream waits for one; after that its caller is told to try again later.
const STREAM_WAIT: Duration = Duration::from_secs(300);
/// A lease that nothing can renew any more is announced this long before its end.
const WARN_BEFORE: Duration = Duration::from_secs(300);
const WARN_EVERY: Duration = Duration::from_secs(30);

/// What a caller gets of an execution.
pub type ExecStream = BoxStream<'static, Result<mote::ExecEvent, FarmError>>;

/// Starts a command, once per id, and streams it. The command lives on when the caller leaves.
pub async fn execute(
    app: &Arc<App>,
    caller: &Identity,
    request: mote::ExecuteRequest,
) -> Result<ExecStream, FarmError> {
    let exec_id = convert::exec_id(&request.exec_id)?;
    let spec = request.spec.ok_or_else(|| FarmError::Invalid("field spec: is missing".to_owned()))?;
    convert::check_exec_spec(&spec)?;
    let instance = access::usable_instance(app, caller, &request.instance).await?;
    renew::renew(app, &instance).await?;
    let words: Vec<&str> = std::iter::once(spec.program.as_str()).chain(spec.args.iter().map(String::as_str)).collect();
    let new = NewExecution {
        id: exec_id,
        instance_id: instance.id,
        spec: &spec.encode_to_vec(),
        actor: caller.user.as_str(),
        instance_name: &instance.name,
        command: &words.join(" "),
    };
    app.store.begin_execution(&new, app.now()).await?;
    tracing::debug!(exec.id = %exec_id, instance.name = instance.name, user = %caller.user, program = spec.program, "execution asked for");
    let ask = Ask::Execute(mote::BuildletExecuteRequest {
        instance_id: instance.id.to_string(),
        exec_id: exec_id.to_string(),
        spec: Some(spec),
        offset: request.offset,
    });
    Ok(stream(app, instance, exec_id, ask))
}

/// Streams an execution that was started before.
pub async fn attach(
    app: &Arc<App>,
    caller: &Identity,
    request: mote::AttachExecRequest,
) -> Result<ExecStream, FarmError> {
    let exec_id = match request.exec_id.as_str() {
        "" => newest(app, caller, &request.instance).await?,
        id => convert::exec_id(id)?,
    };
    let (exec, instance) = access::execution(app, caller, exec_id).await?;
    access::check_usable(&instance)?;
    renew::renew(app, &instance).await?;
    let ask = match mote::ExecSpec::decode(exec.spec.as_slice()) {
        // Recorded, but perhaps never passed on: we may have died in between. Asking to execute
        // starts it at most once and streams either way.
        Ok(spec) if request.follow && exec.outcome.is_none() => Ask::Execute(mote::BuildletExecuteRequest {
            instance_id: instance.id.to_string(),
            exec_id: exec_id.to_string(),
            spec: Some(spec),
            offset: request.offset,
        }),
        _ => Ask::Attach(mote::BuildletAttachExecRequest {
            instance_id: instance.id.to_string(),
            exec_id: exec_id.to_string(),
            offset: request.offset,
            follow: request.follow,
        }),
    };
    Ok(stream(app, instance, exec_id, ask))
}

async fn newest(app: &App, caller: &Identity, instance: &str) -> Result<ExecId, FarmError> {
    let row = access::instance(app, caller, instance).await?;
    let newest = app.store.executions(row.id).await?.pop();
    newest.map(|e| e.id).ok_or_else(|| FarmError::NotFound { what: "execution on", name: row.name })
}

/// What to ask the buildlet; repeated from where the stream broke.
enum Ask {
    Execute(mote::BuildletExecuteRequest),
    Attach(mote::BuildletAttachExecRequest),
}

impl Ask {
    fn offset_mut(&mut self) -> &mut u64 {
        match self {
            Self::Execute(request) => &mut request.offset,
            Self::Attach(request) => &mut request.offset,
        }
    }

    async fn send(&self, session: &Session) -> Result<LinkStream<mote::ExecEvent>, LinkError> {
        match self {
            Self::Execute(request) => session.link.execute(request.clone()).await,
            Self::Attach(request) => session.link.attach(request.clone()).await,
        }
    }
}

fn stream(app: &Arc<App>, instance: InstanceRow, exec_id: ExecId, ask: Ask) -> ExecStream {
    // Small: what is in flight to a slow reader is bounded by this and the windows of the links.
    let (events, stream) = mpsc::channel(8);
    let pump = Pump { app: app.clone(), instance, exec_id, ask, events };
    app.spawn(pump.run());
    Box::pin(ReceiverStream::new(stream))
}

/// Counts as a reader of an execution while it lives.
struct Reader {
    app: Arc<App>,
    exec_id: ExecId,
}

impl Reader {
    fn new(app: &Arc<App>, exec_id: ExecId) -> Self {
        *app.readers.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).entry(exec_id).or_default() += 1;
        Self { app: app.clone(), exec_id }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut readers = self.app.readers.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(n) = readers.get_mut(&self.exec_id) {
            *n -= 1;
            if *n == 0 {
                readers.remove(&self.exec_id);
            }
        }
    }
}

/// How one connection's part of a stream ended.
enum Cut {
    /// With the outcome, or a refusal: all is said.
    Over,
    /// The caller left.
    CallerLeft,
    /// The buildlet was lost; go on at the new offset.
    Lost(String),
}

/// Passes an execution's events from its buildlet to a caller, across any number of connections.
struct Pump {
    app: Arc<App>,
    instance: InstanceRow,
    exec_id: ExecId,
    ask: Ask,
    events: mpsc::Sender<Result<mote::ExecEvent, FarmError>>,
}

impl Pump {
    async fn run(mut self) {
        let _reader = Reader::new(&self.app, self.exec_id);
        let app = self.app.clone();
        let (events, instance_id) = (self.events.clone(), self.instance.id);
        tokio::select! {
            () = self.run_on() => {}
            () = warn_before_end(&app, instance_id, &events) => {}
            () = app.shutdown.cancelled() => {
                let stopping = "the coordinator is stopping; the command runs on, attach again".to_owned();
                let _ = events.try_send(Err(FarmError::Unavailable(stopping)));
            }
            () = events.closed() => {}
        }
        let now = app.now();
        if let Err(error) = app.store.mark_execs_watched(&[self.exec_id], now).await {
            tracing::debug!(exec.id = %self.exec_id, %error, "the last reader was not noted");
        }
    }

    async fn run_on(&mut self) {
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));
        let mut deadline = Instant::now() + STREAM_WAIT;
        loop {
            let before = *self.ask.offset_mut();
            let why = match self.one_connection().await {
                Cut::Over | Cut::CallerLeft => return,
                Cut::Lost(why) => why,
            };
            if *self.ask.offset_mut() > before {
                backoff.reset();
                deadline = Instant::now() + STREAM_WAIT;
            }
            if let Some(end) = self.instance_end().await {
                let _ = self.events.send(Err(end)).await;
                return;
            }
            if Instant::now() >= deadline {
                let error = FarmError::Unavailable(format!(
                    "the buildlet of {} is out of contact ({why}); the command may be running on, attach again later",
                    self.instance.name
                ));
                let _ = self.events.send(Err(error)).await;
                return;
            }
            tokio::time::sleep(backoff.next_wait()).await;
        }
    }

    /// Whether the instance has ended meanwhile.
    async fn instance_end(&self) -> Option<FarmError> {
        match self.app.store.instance(self.instance.id).await {
            Ok(Some(row)) if !matches!(row.state, InstanceState::Ready | InstanceState::Lost) => {
                Some(access::ended(&row))
            }
            Ok(None) => Some(access::ended(&self.instance)),
            _ => None,
        }
    }

    async fn one_connection(&mut self) -> Cut {
        let buildlet_id = self.instance.buildlet_id.clone().unwrap_or_default();
        let Some(session) = self.app.registry.wait_for(&buildlet_id, Duration::from_secs(5)).await else {
            return Cut::Lost("not connected".to_owned());
        };
        let mut stream = match self.ask.send(&session).await {
            Ok(stream) => stream,
            Err(error) => return self.refused_or_lost(error).await,
        };
        loop {
            let next = tokio::select! {
                next = stream.next() => next,
                () = session.ended.cancelled() => return Cut::Lost("its contact ended".to_owned()),
            };
            let event = match next {
                Some(Ok(event)) => event,
                Some(Err(error)) => return self.refused_or_lost(error).await,
                None => {
                    // Without an outcome the end is only an answer to "what is there now".
                    let asked_for_now = matches!(&self.ask, Ask::Attach(request) if !request.follow);
                    return if asked_for_now { Cut::Over } else { Cut::Lost("its stream ended".to_owned()) };
                }
            };
            let mut over = false;
            match &event.event {
                Some(mote::exec_event::Event::Output(chunk)) => {
                    let next = self.ask.offset_mut();
                    if chunk.offset != *next {
                        tracing::error!(exec.id = %self.exec_id, got = chunk.offset, expected = *next, "the buildlet's output has a gap or overlap");
                        return Cut::Lost("its output did not join".to_owned());
                    }
                    *next += chunk.data.len() as u64;
                }
                Some(mote::exec_event::Event::Outcome(outcome)) => {
                    over = true;
                    if let Err(error) = self.app.store.record_outcome(self.exec_id, &outcome.encode_to_vec()).await {
                        tracing::error!(exec.id = %self.exec_id, %error, "the outcome could not be recorded");
                    }
                }
                _ => {}
            }
            if self.events.send(Ok(event)).await.is_err() {
                return Cut::CallerLeft;
            }
            if over {
                return Cut::Over;
            }
        }
    }

    async fn refused_or_lost(&self, error: LinkError) -> Cut {
        match error {
            LinkError::Lost(why) => Cut::Lost(why),
            refused => {
                // An instance being taken down refuses by saying it is not there.
                let error = match self.instance_end().await {
                    Some(end) => end,
                    None => FarmError::Link(refused),
                };
                let _ = self.events.send(Err(error)).await;
                Cut::Over
            }
        }
    }
}

/// Tells a watcher, once, that the lease ends soon although the execution runs. Never returns.
async fn warn_before_end(
    app: &App,
    id: motefarm_core::InstanceId,
    events: &mpsc::Sender<Result<mote::ExecEvent, FarmError>>,
) {
    loop {
        tokio::time::sleep(WARN_EVERY).await;
        let Ok(Some(row)) = app.store.instance(id).await else { continue };
        let Some(lease) = row.lease else { continue };
        let (Some(max), now) = (row.terms.max_lifetime, app.now()) else { continue };
        let end = lease.created_at + max;
        if end.since(now) <= WARN_BEFORE {
            let warning = mote::LeaseEnding {
                expires_at_ms: end.as_millis(),
                reason: format!("{} reaches the maximum lifetime of its host type", row.name),
            };
            let event = mote::ExecEvent { event: Some(mote::exec_event::Event::LeaseEnding(warning)) };
            let _ = events.send(Ok(event)).await;
            std::future::pending::<()>().await;
        }
    }
}

/// Executions of an instance, oldest first. Asks the buildlet for those that run.
pub async fn list(app: &Arc<App>, caller: &Identity, instance: &str) -> Result<Vec<mote::ExecInfo>, FarmError> {
    let row = access::instance(app, caller, instance).await?;
    let mut live = match row.buildlet_id.as_deref().and_then(|id| app.registry.get(id)) {
        Some(session) => session.link.list_execs(row.id).await.unwrap_or_default(),
        None => Vec::new(),
    };
    let mut infos = Vec::new();
    for exec in app.store.executions(row.id).await? {
        let id = exec.id.to_string();
        let now = live.iter().position(|info| info.exec_id == id).map(|at| live.swap_remove(at));
        let stored = exec.outcome.as_deref().and_then(|bytes| mote::ExecOutcome::decode(bytes).ok());
        infos.push(mote::ExecInfo {
            exec_id: id,
            instance_id: row.id.to_string(),
            spec: mote::ExecSpec::decode(exec.spec.as_slice()).ok(),
            outcome: stored.or_else(|| now.as_ref().and_then(|info| info.outcome.clone())),
            started_at_ms: now.as_ref().map_or(exec.created_at.as_millis(), |info| info.started_at_ms),
            output_bytes: now.map_or(0, |info| info.output_bytes),
        });
    }
    Ok(infos)
}

/// The buildlet that runs an execution of the caller's; renews the lease.
async fn reach(
    app: &Arc<App>,
    caller: &Identity,
    exec_id: &str,
) -> Result<(Arc<Session>, InstanceRow, ExecId), FarmError> {
    let exec_id = convert::exec_id(exec_id)?;
    let (_, instance) = access::execution(app, caller, exec_id).await?;
    access::check_usable(&instance)?;
    renew::renew(app, &instance).await?;
    let session = session_of(app, &instance).await?;
    Ok((session, instance, exec_id))
}

/// The session of an instance's buildlet, waited for a while.
pub async fn session_of(app: &App, instance: &InstanceRow) -> Result<Arc<Session>, FarmError> {
    let buildlet_id = instance.buildlet_id.as_deref().unwrap_or_default();
    app.registry.wait_for(buildlet_id, CONTACT_WAIT).await.ok_or_else(|| {
        FarmError::Unavailable(format!("the buildlet of {} is out of contact; try again", instance.name))
    })
}

/// Releases output.
pub async fn ack(app: &Arc<App>, caller: &Identity, exec_id: &str, offset: u64) -> Result<(), FarmError> {
    let (session, instance, exec_id) = reach(app, caller, exec_id).await?;
    Ok(session.link.ack_output(instance.id, exec_id, offset).await?)
}

/// Feeds stdin.
pub async fn write_stdin(
    app: &Arc<App>,
    caller: &Identity,
    request: mote::WriteStdinRequest,
) -> Result<mote::WriteStdinResponse, FarmError> {
    const MOST: usize = 64 * 1024;
    if request.data.len() > MOST {
        return Err(FarmError::Invalid(format!("field data: {} bytes; at most {MOST}", request.data.len())));
    }
    let (session, instance, exec_id) = reach(app, caller, &request.exec_id).await?;
    let request = mote::BuildletWriteStdinRequest {
        instance_id: instance.id.to_string(),
        exec_id: exec_id.to_string(),
        offset: request.offset,
        data: request.data,
        eof: request.eof,
    };
    let answer = session.link.write_stdin(request).await?;
    Ok(mote::WriteStdinResponse { accepted: answer.accepted, closed: answer.closed })
}

/// Sends a signal.
pub async fn signal(app: &Arc<App>, caller: &Identity, exec_id: &str, signal: i32) -> Result<(), FarmError> {
    if !(1..=31).contains(&signal) {
        return Err(FarmError::Invalid(format!("field signal: {signal} is not 1 to 31")));
    }
    let (session, instance, exec_id) = reach(app, caller, exec_id).await?;
    Ok(session.link.signal(instance.id, exec_id, signal).await?)
}

/// Ends an execution and all it started.
pub async fn cancel(app: &Arc<App>, caller: &Identity, exec_id: &str, grace_ms: u64) -> Result<(), FarmError> {
    const MOST_GRACE_MS: u64 = 60_000;
    if grace_ms > MOST_GRACE_MS {
        return Err(FarmError::Invalid(format!("field grace_ms: {grace_ms}; at most {MOST_GRACE_MS}")));
    }
    let (session, instance, id) = reach(app, caller, exec_id).await?;
    app.audit(caller.user.as_str(), "cancel", &instance.name, exec_id).await;
    Ok(session.link.cancel(instance.id, id, grace_ms).await?)
}

//! An execution's events on their way from its buildlet to a caller, across any number of connections.
//!
//! Works only while it is polled: no task and no queue lie between the two connections, so a slow
//! caller slows the buildlet's stream and nothing else, and a line passes without waiting for a thread.

use super::{FarmError, access, contact};
use crate::app::App;
use crate::link::{LinkError, LinkStream};
use crate::registry::Session;
use crate::store::InstanceRow;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use motefarm_core::instance::InstanceState;
use motefarm_core::{ExecId, InstanceId};
use motefarm_net::backoff::Backoff;
use motefarm_proto::mote;
use prost::Message as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long one look for the buildlet's contact takes.
const CONTACT_LOOK: Duration = Duration::from_secs(5);
/// How long a stream waits for one without getting on; after that its caller is told to try again later.
const STREAM_WAIT: Duration = Duration::from_secs(300);
/// A lease that nothing can renew any more is announced this long before its end.
const WARN_BEFORE: Duration = Duration::from_secs(300);
const WARN_EVERY: Duration = Duration::from_secs(30);

/// What a caller gets of an execution.
pub type ExecStream = BoxStream<'static, Result<mote::ExecEvent, FarmError>>;

/// What to ask the buildlet; repeated from where the stream broke.
pub(super) enum Ask {
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

/// The events of an execution. A command that was asked for is started even if nobody polls.
pub(super) fn stream(app: &Arc<App>, instance: InstanceRow, exec_id: ExecId, ask: Ask) -> ExecStream {
    let warning = Box::pin(end_of_lifetime(app.clone(), instance.id));
    let reader = Reader::new(app, exec_id, instance, ask);
    let events = Events {
        reader,
        open: None,
        backoff: Backoff::new(Duration::from_millis(20), Duration::from_secs(1)),
        deadline: None,
        over: false,
    };
    Box::pin(futures_util::stream::unfold((events, Some(warning)), |(mut events, mut warning)| async move {
        if events.over {
            return None;
        }
        let app = events.reader.app.clone();
        let next = tokio::select! {
            next = events.next() => next,
            event = async { match warning.as_mut() { Some(warning) => warning.await, None => std::future::pending().await } } => {
                warning = None;
                Ok(Some(event))
            }
            () = app.shutdown.cancelled() => Err(FarmError::Unavailable(
                "the coordinator is stopping; the command runs on, attach again".to_owned(),
            )),
        };
        match next {
            Ok(Some(event)) => Some((Ok(event), (events, warning))),
            Ok(None) => None,
            Err(error) => {
                events.over = true;
                Some((Err(error), (events, warning)))
            }
        }
    }))
}

/// Counts as a reader of an execution while it lives, and sees to what is left undone when it goes.
struct Reader {
    app: Arc<App>,
    instance: InstanceRow,
    exec_id: ExecId,
    ask: Ask,
    /// The buildlet has answered: it is started, or never will be.
    passed_on: bool,
    /// The outcome came by and is recorded.
    ended: bool,
}

impl Reader {
    fn new(app: &Arc<App>, exec_id: ExecId, instance: InstanceRow, ask: Ask) -> Self {
        *app.readers.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).entry(exec_id).or_default() += 1;
        Self { app: app.clone(), instance, exec_id, ask, passed_on: false, ended: false }
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
}

impl Drop for Reader {
    fn drop(&mut self) {
        {
            let mut readers = self.app.readers.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            if let Some(n) = readers.get_mut(&self.exec_id) {
                *n -= 1;
                if *n == 0 {
                    readers.remove(&self.exec_id);
                }
            }
        }
        // While the runtime itself goes down there is nobody left to do it: the next start does.
        if self.ended || self.app.shutdown.is_cancelled() || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let not_passed_on = match &self.ask {
            Ask::Execute(request) if !self.passed_on => Some(Ask::Execute(request.clone())),
            _ => None,
        };
        let (app, exec_id, instance) = (self.app.clone(), self.exec_id, self.instance.clone());
        self.app.spawn(async move { leave(&app, exec_id, &instance, not_passed_on).await });
    }
}

/// Notes when the reader of a running execution left, has it started if that was not done yet, and
/// collects its outcome if it came just then: nobody else brings it.
async fn leave(app: &Arc<App>, exec_id: ExecId, instance: &InstanceRow, not_passed_on: Option<Ask>) {
    if let Err(error) = app.store.mark_execs_watched(&[exec_id], app.now()).await {
        tracing::debug!(exec.id = %exec_id, %error, "the last reader was not noted");
    }
    let buildlet_id = instance.buildlet_id.as_deref().unwrap_or_default();
    let Some(session) = app.registry.wait_for(buildlet_id, CONTACT_LOOK).await else { return };
    if let Some(ask) = not_passed_on
        && let Err(error) = ask.send(&session).await
    {
        tracing::debug!(exec.id = %exec_id, %error, "its asker left and it was not started; attaching starts it");
    }
    if let Err(error) = contact::collect_outcomes(app, &session, instance.id).await {
        tracing::debug!(exec.id = %exec_id, %error, "whether it ended was not learnt; the next contact tells");
    }
}

struct Events {
    reader: Reader,
    open: Option<(Arc<Session>, LinkStream<mote::ExecEvent>)>,
    backoff: Backoff,
    /// When to give up; set while it does not get on.
    deadline: Option<Instant>,
    /// Nothing follows.
    over: bool,
}

/// Why a connection's part of a stream is over.
enum Cut {
    /// All is said.
    Over,
    /// It can not be had.
    Failed(FarmError),
    /// The buildlet was lost; go on at the new offset.
    Lost(String),
}

impl Events {
    /// The next event; `None`: that was all. Cancelling it loses nothing: what was asked is asked again.
    async fn next(&mut self) -> Result<Option<mote::ExecEvent>, FarmError> {
        loop {
            let why = match self.one().await {
                Ok(event) => {
                    self.deadline = None;
                    return Ok(Some(event));
                }
                Err(Cut::Over) => return Ok(None),
                Err(Cut::Failed(error)) => return Err(error),
                Err(Cut::Lost(why)) => why,
            };
            self.open = None;
            if let Some(end) = self.reader.instance_end().await {
                return Err(end);
            }
            let now = Instant::now();
            if self.deadline.is_none() {
                self.backoff.reset();
            }
            if now >= *self.deadline.get_or_insert(now + STREAM_WAIT) {
                return Err(FarmError::Unavailable(format!(
                    "the buildlet of {} is out of contact ({why}); the command may be running on, attach again later",
                    self.reader.instance.name
                )));
            }
            tokio::time::sleep(self.backoff.next_wait()).await;
        }
    }

    async fn one(&mut self) -> Result<mote::ExecEvent, Cut> {
        let (session, stream) = match &mut self.open {
            Some(open) => open,
            None => {
                let buildlet_id = self.reader.instance.buildlet_id.as_deref().unwrap_or_default();
                let Some(session) = self.reader.app.registry.wait_for(buildlet_id, CONTACT_LOOK).await else {
                    return Err(Cut::Lost("not connected".to_owned()));
                };
                match self.reader.ask.send(&session).await {
                    Ok(stream) => self.open.insert((session, stream)),
                    Err(error) => return Err(self.refused_or_lost(error).await),
                }
            }
        };
        let next = tokio::select! {
            next = stream.next() => next,
            () = session.ended.cancelled() => return Err(Cut::Lost("its contact ended".to_owned())),
        };
        let event = match next {
            Some(Ok(event)) => event,
            Some(Err(error)) => return Err(self.refused_or_lost(error).await),
            None => {
                // Without an outcome the end is only an answer to "what is there now".
                let asked_for_now = matches!(&self.reader.ask, Ask::Attach(request) if !request.follow);
                return Err(if asked_for_now { Cut::Over } else { Cut::Lost("its stream ended".to_owned()) });
            }
        };
        self.reader.passed_on = true;
        match &event.event {
            Some(mote::exec_event::Event::Output(chunk)) => {
                let next = self.reader.ask.offset_mut();
                if chunk.offset != *next {
                    tracing::error!(exec.id = %self.reader.exec_id, got = chunk.offset, expected = *next, "the buildlet's output has a gap or overlap");
                    return Err(Cut::Lost("its output did not join".to_owned()));
                }
                *next += chunk.data.len() as u64;
            }
            Some(mote::exec_event::Event::Outcome(outcome)) => {
                let (app, exec_id) = (&self.reader.app, self.reader.exec_id);
                match app.store.record_outcome(exec_id, &outcome.encode_to_vec()).await {
                    Ok(()) => self.reader.ended = true,
                    Err(error) => tracing::error!(exec.id = %exec_id, %error, "the outcome could not be recorded"),
                }
                self.over = true;
            }
            _ => {}
        }
        Ok(event)
    }

    async fn refused_or_lost(&mut self, error: LinkError) -> Cut {
        match error {
            LinkError::Lost(why) => Cut::Lost(why),
            refused => {
                self.reader.passed_on = true;
                // An instance being taken down refuses by saying it is not there.
                Cut::Failed(self.reader.instance_end().await.unwrap_or(FarmError::Link(refused)))
            }
        }
    }
}

/// Tells, once, that the lease ends soon although the execution runs; until then it waits.
async fn end_of_lifetime(app: Arc<App>, id: InstanceId) -> mote::ExecEvent {
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
            return mote::ExecEvent { event: Some(mote::exec_event::Event::LeaseEnding(warning)) };
        }
    }
}

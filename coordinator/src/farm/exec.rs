//! Running commands: recorded first, started once.

pub use super::exec_stream::ExecStream;
use super::exec_stream::{self, Ask};
use super::{FarmError, access, renew};
use crate::app::App;
use crate::identity::Identity;
use crate::registry::Session;
use crate::store::{InstanceRow, NewExecution};
use futures_util::StreamExt as _;
use motefarm_core::ExecId;
use motefarm_proto::{convert, mote};
use prost::Message as _;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// How long a call waits for a buildlet that is out of contact.
const CONTACT_WAIT: Duration = Duration::from_secs(20);

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
    app.store.begin_execution(&new, app.config.limits.executions_per_user, app.now()).await?;
    tracing::debug!(exec.id = %exec_id, instance.name = instance.name, user = %caller.user, program = spec.program, "execution asked for");
    let ask = Ask::Execute(mote::BuildletExecuteRequest {
        instance_id: instance.id.to_string(),
        exec_id: exec_id.to_string(),
        spec: Some(spec),
        offset: request.offset,
    });
    Ok(while_usable(app, caller, &instance, exec_stream::stream(app, instance.clone(), exec_id, ask)))
}

/// A stream that is cut when its caller may no longer use the instance.
fn while_usable(app: &Arc<App>, caller: &Identity, instance: &InstanceRow, events: ExecStream) -> ExecStream {
    if caller.may_own(&instance.owner) {
        return events;
    }
    let lost = Box::pin(access::no_longer_shared(app.clone(), caller.clone(), instance.clone()));
    futures_util::stream::unfold(Some((events, lost)), |state| async {
        let (mut events, mut lost) = state?;
        tokio::select! {
            event = events.next() => Some((event?, Some((events, lost)))),
            error = &mut lost => Some((Err(error), None)),
        }
    })
    .boxed()
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
    Ok(while_usable(app, caller, &instance, exec_stream::stream(app, instance.clone(), exec_id, ask)))
}

async fn newest(app: &App, caller: &Identity, instance: &str) -> Result<ExecId, FarmError> {
    let row = access::instance(app, caller, instance).await?;
    let newest = app.store.executions(row.id).await?.pop();
    newest.map(|e| e.id).ok_or_else(|| FarmError::NotFound { what: "execution on", name: row.name })
}

/// Executions of an instance, oldest first. Asks the buildlet for those that run.
pub async fn list(app: &Arc<App>, caller: &Identity, instance: &str) -> Result<Vec<mote::ExecInfo>, FarmError> {
    let row = access::instance(app, caller, instance).await?;
    let recorded = app.store.executions(row.id).await?;
    let ids: Vec<ExecId> = recorded.iter().map(|exec| exec.id).collect();
    let live = match row.buildlet_id.as_deref().and_then(|id| app.registry.get(id)) {
        Some(session) if !ids.is_empty() => session.link.list_execs(row.id, &ids).await.unwrap_or_default(),
        _ => Vec::new(),
    };
    let mut live: HashMap<String, mote::ExecInfo> = live.into_iter().map(|info| (info.exec_id.clone(), info)).collect();
    let mut infos = Vec::new();
    for exec in recorded {
        let id = exec.id.to_string();
        let now = live.remove(&id);
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

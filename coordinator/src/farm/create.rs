//! Asking for an instance, and waiting for it.

use super::{FarmError, access, info};
use crate::app::App;
use crate::identity::Identity;
use crate::store::NewInstance;
use futures_util::stream::BoxStream;
use motefarm_core::instance::{EndReason, InstanceState};
use motefarm_core::{HostType, InstanceId, Label};
use motefarm_proto::mote;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// How often a waiting caller hears something.
const REPEAT: Duration = Duration::from_secs(5);

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Wish {
    /// Made by the asker.
    pub id: InstanceId,
    /// What.
    pub host_type: HostType,
    /// Shorter than the host type's, if any.
    pub idle_timeout: Option<Duration>,
    /// A snapshot of the caller's to begin with.
    pub from_snapshot: Option<Label>,
    /// Groups of the caller's to put it in.
    pub groups: Vec<Label>,
}

/// [`create_from`] for an empty instance in no group.
pub async fn create(
    app: &Arc<App>,
    caller: &Identity,
    id: InstanceId,
    host_type: HostType,
    idle_timeout: Option<Duration>,
) -> Result<BoxStream<'static, Result<mote::CreateInstanceEvent, FarmError>>, FarmError> {
    create_from(app, caller, Wish { id, host_type, idle_timeout, from_snapshot: None, groups: Vec::new() }).await
}

/// Requests an instance (once per id) and streams its state until it is ready. The request stands
/// when the caller leaves; the reaper gives it up if nobody comes back.
pub async fn create_from(
    app: &Arc<App>,
    caller: &Identity,
    wish: Wish,
) -> Result<BoxStream<'static, Result<mote::CreateInstanceEvent, FarmError>>, FarmError> {
    let Wish { id, host_type, idle_timeout, from_snapshot, groups } = wish;
    let known = info::host_types_with(app, &host_type).await?;
    if !known.contains(&host_type) {
        let list: Vec<&str> = known.iter().map(HostType::as_str).collect();
        let name =
            format!("{host_type} (there are: {})", if list.is_empty() { "none".into() } else { list.join(", ") });
        return Err(FarmError::NotFound { what: "host type", name });
    }
    let mut terms = app.config.terms(&host_type);
    if let Some(idle) = idle_timeout {
        if idle > terms.idle_timeout {
            return Err(FarmError::Invalid(format!(
                "field idle_timeout_ms: {} is longer than the {} that {host_type} allows",
                humantime::format_duration(idle),
                humantime::format_duration(terms.idle_timeout)
            )));
        }
        terms.idle_timeout = idle.max(Duration::from_secs(1));
    }
    let limits = &app.config.limits;
    let new = NewInstance { id, owner: caller.user.clone(), host_type, terms, groups, from_snapshot };
    let row = app.store.request_instance(&new, limits.queue, limits.instances_per_user, app.now()).await?;
    if row.state == InstanceState::Queued {
        app.audit(caller.user.as_str(), "create", &row.name, new.host_type.as_str()).await;
    }
    app.wake_allocator.notify_one();
    let (events, stream) = mpsc::channel(1);
    let app = app.clone();
    app.clone().spawn(async move {
        tokio::select! {
            () = follow(&app, id, &events) => {}
            () = app.shutdown.cancelled() => {
                let _ = events.try_send(Err(FarmError::Unavailable("the coordinator is stopping; ask again".to_owned())));
            }
        }
    });
    Ok(Box::pin(ReceiverStream::new(stream)))
}

async fn follow(app: &Arc<App>, id: InstanceId, events: &mpsc::Sender<Result<mote::CreateInstanceEvent, FarmError>>) {
    let mut changes = app.changes.subscribe();
    loop {
        changes.borrow_and_update();
        let (event, over) = match look(app, id).await {
            Ok((event, over)) => (Ok(event), over),
            Err(error) => (Err(error), true),
        };
        if events.send(event).await.is_err() || over {
            return;
        }
        tokio::select! {
            _ = changes.changed() => {}
            () = tokio::time::sleep(REPEAT) => {}
            () = events.closed() => return,
        }
    }
}

async fn look(app: &Arc<App>, id: InstanceId) -> Result<(mote::CreateInstanceEvent, bool), FarmError> {
    let unknown = || FarmError::NotFound { what: "instance", name: id.to_string() };
    let row = app.store.instance(id).await?.ok_or_else(unknown)?;
    match row.state {
        InstanceState::Ending | InstanceState::Gone if row.end_reason == Some(EndReason::CreateCancelled) => {
            return Err(FarmError::Ended {
                what: "instance",
                name: row.name,
                reason: "the request was given up, because nobody waited for it or it could not be made".to_owned(),
            });
        }
        InstanceState::Ending | InstanceState::Gone => return Err(access::ended(&row)),
        InstanceState::Queued => app.store.mark_watched(id, app.now()).await?,
        _ => {}
    }
    let waiters_ahead = match row.state {
        InstanceState::Queued => app.store.wait_queue().await?.ahead_of(id).unwrap_or(0),
        _ => 0,
    };
    let over = matches!(row.state, InstanceState::Ready | InstanceState::Lost);
    Ok((mote::CreateInstanceEvent { instance: Some(info::instance(app, &row)), waiters_ahead }, over))
}

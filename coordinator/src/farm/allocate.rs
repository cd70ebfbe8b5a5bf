//! Giving slots to those who wait, in their order.

use super::snapshots::Materialized;
use super::{FarmError, snapshots};
use crate::app::App;
use crate::link::LinkError;
use crate::registry::Session;
use crate::store::InstanceRow;
use motefarm_core::instance::EndReason;
use motefarm_core::lease::Lease;
use motefarm_core::{HostType, InstanceId};
use motefarm_proto::mote;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// How often the queue is looked at though nothing woke us.
const REPEAT: Duration = Duration::from_secs(5);
/// How long a buildlet that failed to make an instance is left alone.
const AFTER_FAILURE: Duration = Duration::from_secs(2);

/// Allocates until shutdown.
pub async fn run(app: Arc<App>) {
    loop {
        if let Err(error) = pass(&app).await {
            tracing::error!(%error, "the queue could not be served; trying again");
        }
        tokio::select! {
            () = app.wake_allocator.notified() => {}
            () = tokio::time::sleep(REPEAT) => {}
            () = app.shutdown.cancelled() => return,
        }
    }
}

/// Assigns free slots to the queue's head and has the instances made.
pub async fn pass(app: &Arc<App>) -> Result<(), FarmError> {
    let queue = app.store.wait_queue().await?;
    let held: HashMap<String, u64> = app.store.slots_held().await?.into_iter().collect();
    let mut free: Vec<(Arc<Session>, u64)> = app
        .registry
        .all()
        .into_iter()
        .map(|s| {
            let free = s.slots.saturating_sub(held.get(&s.buildlet_id).copied().unwrap_or(0));
            (s, free)
        })
        .collect();
    let mut by_type: BTreeMap<HostType, u64> = BTreeMap::new();
    for (session, slots) in &free {
        *by_type.entry(session.host_type.clone()).or_default() += slots;
    }
    for id in queue.grants(&by_type) {
        let Some(row) = app.store.instance(id).await? else { continue };
        // The emptiest buildlet of the type.
        let Some((session, slots)) =
            free.iter_mut().filter(|(s, free)| s.host_type == row.host_type && *free > 0).max_by_key(|(_, free)| *free)
        else {
            continue;
        };
        if app.store.assign(id, &session.buildlet_id, session.slots).await? {
            *slots -= 1;
            app.changed();
            let (app, session) = (app.clone(), session.clone());
            app.clone().spawn(async move { start(&app, &session, id).await });
        }
    }
    Ok(())
}

/// Has a buildlet make a starting instance and begins its lease. Also for those that were starting
/// when the coordinator or the connection died: making is idempotent.
pub async fn start(app: &Arc<App>, session: &Arc<Session>, id: InstanceId) {
    let outcome = try_start(app, session, id).await;
    let Err(error) = outcome else { return };
    tracing::warn!(instance.id = %id, buildlet.id = session.buildlet_id, %error, "the instance could not be made; it waits again");
    tokio::select! {
        () = tokio::time::sleep(AFTER_FAILURE) => {}
        () = app.shutdown.cancelled() => return,
    }
    // A connection that died may come back with the instance made: its session starts it again.
    // Otherwise the request goes back to the queue, and what the buildlet made is ended when it reports it.
    if let Err(error) = app.store.requeue(id, app.now()).await {
        tracing::error!(instance.id = %id, %error, "the instance could not be put back into the queue");
    }
    app.changed();
    app.wake_allocator.notify_one();
}

async fn try_start(app: &Arc<App>, session: &Arc<Session>, id: InstanceId) -> Result<(), FarmError> {
    let Some(row) = app.store.instance(id).await? else { return Ok(()) };
    let request = create_request(app, &row);
    let work_dir = tokio::select! {
        made = session.link.create_instance(request) => made?,
        () = app.shutdown.cancelled() => return Ok(()),
    };
    let materialized = tokio::select! {
        materialized = snapshots::materialize(app, session, &row) => materialized?,
        () = app.shutdown.cancelled() => return Ok(()),
    };
    if let Materialized::Never(why) = materialized {
        tracing::warn!(instance.id = %id, instance.name = row.name, why, "the request ends");
        if !app.store.end_instance_because(id, EndReason::SnapshotFailed, Some(&why), app.now()).await? {
            session.link.end_instance(id).await?;
        }
        app.changed();
        app.wake_reaper.notify_one();
        return Ok(());
    }
    let lease = Lease::grant(app.now(), row.terms);
    if app.store.make_ready(id, &work_dir, &lease).await? {
        tracing::info!(instance.id = %id, instance.name = row.name, host.type = %row.host_type, buildlet.id = session.buildlet_id, "instance ready");
        app.changed();
        if let Err(LinkError::Refused(status)) = session.link.set_leases(vec![(id, lease.expires_at)]).await {
            tracing::warn!(instance.id = %id, error = status.message(), "the buildlet did not take the lease's end");
        }
    } else {
        // Ended meanwhile, and perhaps taken down before it was made.
        session.link.end_instance(id).await?;
    }
    if row.snapshot.is_some() {
        // Its snapshot may have been removed while it was being made.
        snapshots::unpin_unneeded(app).await?;
    }
    Ok(())
}

fn create_request(app: &App, row: &InstanceRow) -> mote::BuildletCreateInstanceRequest {
    mote::BuildletCreateInstanceRequest {
        leased_by_use: false,
        instance_id: row.id.to_string(),
        name: row.name.clone(),
        terms: Some(row.terms.into()),
        expires_at_ms: row.lease.map_or(0, |lease| lease.expires_at.as_millis()),
        grace_ms: u64::try_from(app.config.leases.grace.as_millis()).unwrap_or(u64::MAX),
        limits: Some(app.config.limits_of(&row.host_type)),
    }
}

//! What there is: host types, instances, buildlets. Renews nothing.

use super::FarmError;
use crate::app::App;
use crate::identity::{Identity, Role};
use crate::store::InstanceRow;
use motefarm_core::HostType;
use motefarm_core::instance::InstanceState;
use motefarm_proto::mote;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

/// Host types that can be asked for: configured, or served by a buildlet that is or was here.
pub async fn host_types(app: &App) -> Result<BTreeSet<HostType>, FarmError> {
    let mut known = app.store.host_types().await?;
    known.extend(app.config.host_types());
    known.extend(app.registry.all().iter().map(|session| session.host_type.clone()));
    Ok(known)
}

/// After a start, a listening buildlet that says itself what it serves is given this long to say it.
const FIRST_CONTACT: Duration = Duration::from_secs(5);

/// [`host_types`]. When `wanted` is not among them and some listening buildlets may not have been heard
/// since our start, first waits for one that serves it.
pub async fn host_types_with(app: &App, wanted: &HostType) -> Result<BTreeSet<HostType>, FarmError> {
    let known = host_types(app).await?;
    let left = FIRST_CONTACT.saturating_sub(app.now().since(app.started_at));
    if known.contains(wanted) || left.is_zero() || !app.config.has_untyped_statics() {
        return Ok(known);
    }
    app.registry.wait_for_host_type(wanted, left).await;
    host_types(app).await
}

/// Host types with their slots.
pub async fn list_host_types(app: &App) -> Result<Vec<mote::HostTypeInfo>, FarmError> {
    let held: HashMap<String, u64> = app.store.slots_held().await?.into_iter().collect();
    let mut infos: BTreeMap<HostType, mote::HostTypeInfo> = host_types(app)
        .await?
        .into_iter()
        .map(|t| (t.clone(), mote::HostTypeInfo { host_type: t.to_string(), ..Default::default() }))
        .collect();
    for session in app.registry.all() {
        let Some(info) = infos.get_mut(&session.host_type) else { continue };
        info.buildlets += 1;
        info.total_slots += session.slots;
        info.free_slots += session.slots.saturating_sub(held.get(&session.buildlet_id).copied().unwrap_or(0));
    }
    for row in app.store.instances_in(InstanceState::Queued).await? {
        if let Some(info) = infos.get_mut(&row.host_type) {
            info.waiting += 1;
        }
    }
    Ok(infos.into_values().collect())
}

/// The caller's instances; everybody's for an admin who asks.
pub async fn list_instances(app: &App, caller: &Identity, all: bool) -> Result<Vec<mote::InstanceInfo>, FarmError> {
    if all && caller.role != Role::Admin {
        return Err(FarmError::Forbidden("only an admin may list everybody's instances".to_owned()));
    }
    let rows = app.store.instances((!all).then_some(&caller.user)).await?;
    Ok(rows.iter().map(|row| instance(app, row)).collect())
}

/// The caller's instances and those that others share with them.
pub async fn list_usable(app: &App, caller: &Identity) -> Result<Vec<mote::InstanceInfo>, FarmError> {
    let rows = app.store.instances_usable_by(&caller.user).await?;
    Ok(rows.iter().map(|row| instance(app, row)).collect())
}

/// An instance as told to its owner.
pub fn instance(app: &App, row: &InstanceRow) -> mote::InstanceInfo {
    let session = row.buildlet_id.as_deref().and_then(|id| app.registry.get(id));
    mote::InstanceInfo {
        instance_id: row.id.to_string(),
        name: row.name.clone(),
        owner: row.owner.to_string(),
        host_type: row.host_type.to_string(),
        state: row.state.to_string(),
        created_at_ms: row.created_at.as_millis(),
        expires_at_ms: row.lease.map_or(0, |lease| lease.expires_at.as_millis()),
        now_ms: app.now().as_millis(),
        work_dir: row.work_dir.clone(),
        buildlet: row.buildlet_id.clone().unwrap_or_default(),
        running_execs: session.map_or(0, |session| session.running_in(row.id) as u64),
        groups: row.groups.clone(),
        shared_with: row.shared_with.clone(),
    }
}

/// Every buildlet known.
pub async fn list_buildlets(app: &App) -> Result<Vec<mote::BuildletInfo>, FarmError> {
    let held: HashMap<String, u64> = app.store.slots_held().await?.into_iter().collect();
    Ok(app
        .store
        .buildlets()
        .await?
        .into_iter()
        .map(|row| mote::BuildletInfo {
            in_contact: app.registry.get(&row.id).is_some(),
            used_slots: held.get(&row.id).copied().unwrap_or(0),
            buildlet_id: row.id,
            hostname: row.hostname,
            host_type: row.host_type.to_string(),
            provider: row.provider,
            total_slots: row.slots,
            last_seen_ms: row.last_seen_at.as_millis(),
            version: row.version,
        })
        .collect())
}

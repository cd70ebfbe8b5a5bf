//! Renewing leases: by any authorised use, and by what runs.

use super::{FarmError, access, info};
use crate::app::App;
use crate::identity::Identity;
use crate::store::InstanceRow;
use motefarm_core::lease::{RenewError, Renewal};
use motefarm_core::{ExecId, Timestamp};
use motefarm_proto::mote;
use std::sync::Arc;

/// Renews the lease of an instance the caller was just allowed to use. Renewals within the
/// coalescing window cost no write. An ended lease is an error.
pub async fn renew(app: &Arc<App>, row: &InstanceRow) -> Result<(), FarmError> {
    let now = app.now();
    {
        let mut until = app.renewed_until.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match until.get(&row.id) {
            // A clock set back makes "until" far away: then ask the store.
            Some(until) if now < *until && *until <= now + row.terms.coalesce_window() => return Ok(()),
            _ => until.insert(row.id, now + row.terms.coalesce_window()),
        };
    }
    let renewed = renew_stored(app, row, now).await;
    if renewed.is_err() {
        app.renewed_until.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).remove(&row.id);
    }
    renewed
}

/// Renews the lease of the caller's instance without reaching its buildlet.
pub async fn renew_by_name(app: &Arc<App>, caller: &Identity, name: &str) -> Result<mote::InstanceInfo, FarmError> {
    let row = access::usable_instance(app, caller, name).await?;
    renew(app, &row).await?;
    let row = access::instance(app, caller, &row.id.to_string()).await?;
    Ok(info::instance(app, &row))
}

async fn renew_stored(app: &Arc<App>, row: &InstanceRow, now: Timestamp) -> Result<(), FarmError> {
    match app.store.renew(row.id, now).await? {
        Some(Ok(Renewal::Extended(lease))) => {
            tell_buildlet(app, row, lease.expires_at);
            Ok(())
        }
        Some(Ok(Renewal::Coalesced)) => Ok(()),
        Some(Err(RenewError::Expired { ago })) => Err(FarmError::Ended {
            what: "instance",
            name: row.name.clone(),
            reason: format!("its lease expired {} s ago", ago.as_secs()),
        }),
        None => Err(match app.store.instance(row.id).await? {
            Some(row) => access::check_usable(&row).err().unwrap_or_else(|| access::ended(&row)),
            None => access::ended(row),
        }),
    }
}

/// Notes that an instance was in use at `used`, by what runs or ran in it. Unlike a call, that also
/// counts when the lease has run out on paper meanwhile: it was in use all along.
pub async fn note_use(app: &Arc<App>, row: &InstanceRow, used: Timestamp) -> Result<(), FarmError> {
    let window = row.terms.coalesce_window();
    {
        let mut until = app.renewed_until.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match until.get(&row.id) {
            Some(until) if used < *until && *until <= used + window => return Ok(()),
            _ => until.insert(row.id, used + window),
        };
    }
    if let Some(end) = app.store.note_use(row.id, used, std::time::Duration::from_millis(1)).await? {
        tell_buildlet(app, row, end);
    }
    Ok(())
}

/// What counts as the last use of an instance in which executions run at `now`: now, unless nobody has
/// watched them for too long.
pub async fn use_by_running(app: &App, row: &InstanceRow, now: Timestamp) -> Result<Timestamp, FarmError> {
    let execs = app.store.running_executions(row.id).await?;
    let watched: Vec<ExecId> = {
        let readers = app.readers.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        execs.iter().map(|exec| exec.id).filter(|id| readers.contains_key(id)).collect()
    };
    if !watched.is_empty() {
        app.store.mark_execs_watched(&watched, now).await?;
        return Ok(now);
    }
    let last = execs.iter().map(|exec| exec.watched_at).max();
    let last = last.or(row.lease.map(|lease| lease.created_at)).unwrap_or(row.created_at);
    Ok(now.min(last + row.terms.unwatched_limit))
}

/// Passes a lease's new end on, so that a buildlet cut off later knows it. Best effort: the next
/// renewal tells again.
fn tell_buildlet(app: &Arc<App>, row: &InstanceRow, expires_at: Timestamp) {
    let Some(session) = row.buildlet_id.as_deref().and_then(|id| app.registry.get(id)) else { return };
    let id = row.id;
    app.spawn(async move {
        if let Err(error) = session.link.set_leases(vec![(id, expires_at)]).await {
            tracing::debug!(instance.id = %id, %error, "the buildlet was not told the lease's new end");
        }
    });
}

/// Forgets the coalescing marks of what has ended.
pub fn forget_ended(app: &App) {
    let now = app.now();
    app.renewed_until.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).retain(|_, until| *until > now);
}

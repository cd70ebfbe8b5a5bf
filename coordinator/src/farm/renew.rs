//! Renewing leases: by any authorised use, and by what runs.

use super::{FarmError, access, info};
use crate::app::App;
use crate::identity::Identity;
use crate::store::InstanceRow;
use motefarm_core::lease::{RenewError, Renewal};
use motefarm_core::{ExecId, InstanceId, Timestamp};
use motefarm_proto::mote;
use std::collections::{HashMap, HashSet};
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
            if let Some(buildlet) = &row.buildlet_id {
                tell_buildlet(app, buildlet, vec![(row.id, lease.expires_at)]);
            }
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

/// Notes when instances were last in use, by what runs or ran in them. Unlike a call, that also counts
/// when the lease has run out on paper meanwhile: it was in use all along. What was noted within the
/// coalescing window costs no write.
pub async fn note_uses(app: &Arc<App>, uses: &[(InstanceRow, Timestamp)]) -> Result<(), FarmError> {
    let due: HashMap<InstanceId, Timestamp> = {
        let mut until = app.renewed_until.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut is_due = |row: &InstanceRow, used: Timestamp| {
            let window = row.terms.coalesce_window();
            match until.get(&row.id) {
                Some(until) if used < *until && *until <= used + window => false,
                _ => {
                    until.insert(row.id, used + window);
                    true
                }
            }
        };
        uses.iter().filter(|(row, used)| is_due(row, *used)).map(|(row, used)| (row.id, *used)).collect()
    };
    if due.is_empty() {
        return Ok(());
    }
    let moved: HashMap<InstanceId, Timestamp> = app.store.note_uses(&due).await?.into_iter().collect();
    let mut ends: HashMap<&str, Vec<(InstanceId, Timestamp)>> = HashMap::new();
    for (row, _) in uses {
        if let (Some(buildlet), Some(end)) = (row.buildlet_id.as_deref(), moved.get(&row.id)) {
            ends.entry(buildlet).or_default().push((row.id, *end));
        }
    }
    for (buildlet, ends) in ends {
        tell_buildlet(app, buildlet, ends);
    }
    Ok(())
}

/// What counts as the last use, at `now`, of instances in which executions run: now, unless nobody has
/// watched them for too long.
pub async fn uses_by_running(
    app: &App,
    rows: Vec<InstanceRow>,
    now: Timestamp,
) -> Result<Vec<(InstanceRow, Timestamp)>, FarmError> {
    let ids: Vec<InstanceId> = rows.iter().map(|row| row.id).collect();
    let execs = app.store.running_executions(&ids).await?;
    let read: HashSet<ExecId> = {
        let readers = app.readers.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        execs.iter().map(|exec| exec.id).filter(|id| readers.contains_key(id)).collect()
    };
    let mut watched_at: HashMap<InstanceId, Timestamp> = HashMap::new();
    for exec in &execs {
        let at = if read.contains(&exec.id) { now } else { exec.watched_at };
        watched_at.entry(exec.instance_id).and_modify(|latest| *latest = at.max(*latest)).or_insert(at);
    }
    if !read.is_empty() {
        app.store.mark_execs_watched(&Vec::from_iter(read), now).await?;
    }
    let with_use = |row: InstanceRow| {
        let granted = row.lease.map_or(row.created_at, |lease| lease.created_at);
        let last = watched_at.get(&row.id).copied().unwrap_or(granted);
        let used = now.min(last + row.terms.unwatched_limit);
        (row, used)
    };
    Ok(rows.into_iter().map(with_use).collect())
}

/// Passes leases' new ends on, so that a buildlet cut off later knows them. Best effort: the next
/// renewal tells again.
fn tell_buildlet(app: &Arc<App>, buildlet_id: &str, ends: Vec<(InstanceId, Timestamp)>) {
    let Some(session) = app.registry.get(buildlet_id) else { return };
    app.spawn(async move {
        if let Err(error) = session.link.set_leases(ends).await {
            tracing::debug!(buildlet.id = session.buildlet_id, %error, "the buildlet was not told its leases' new ends");
        }
    });
}

/// Forgets the coalescing marks of what has ended.
pub fn forget_ended(app: &App) {
    let now = app.now();
    app.renewed_until.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).retain(|_, until| *until > now);
}

//! Renewing leases: by any authorised use, and by what runs.

use super::{FarmError, access};
use crate::app::App;
use crate::store::InstanceRow;
use motefarm_core::Timestamp;
use motefarm_core::lease::{RenewError, Renewal};
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

//! The reaper: ends what is over, and has it taken down.
//!
//! A pass decides in transactions and acts after. Every pass reads the clock once.

use super::{FarmError, renew, snapshots};
use crate::app::App;
use crate::store::InstanceRow;
use motefarm_core::instance::{EndReason, InstanceState};
use motefarm_core::{InstanceId, Timestamp};
use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Expiry is noticed this soon.
const SWEEP: Duration = Duration::from_millis(500);
/// How long after its start a coordinator waits for a buildlet before it judges its leases.
pub const SETTLE: Duration = Duration::from_secs(60);
/// A queued request that nobody listens to is given up after this long.
pub const UNWATCHED_REQUEST: Duration = Duration::from_secs(60);
/// Records of ended instances are kept this long, audit rows longer.
const KEEP_RECORDS: Duration = Duration::from_secs(7 * 24 * 3600);
const KEEP_AUDIT: Duration = Duration::from_secs(180 * 24 * 3600);
/// Busy leases renewed in one transaction: some milliseconds of the database's one writer.
const RENEWED_AT_ONCE: usize = 250;
const FORGET_EVERY: Duration = Duration::from_secs(3600);

/// Instances being taken down now, so that each is asked for once at a time.
#[derive(Default)]
pub struct Reaper {
    ending: Arc<Mutex<HashSet<InstanceId>>>,
}

impl Reaper {
    /// Sweeps until shutdown.
    pub async fn run(self, app: Arc<App>) {
        let mut forget_at = app.now();
        loop {
            let now = app.now();
            if let Err(error) = self.pass(&app, now).await {
                tracing::error!(%error, "a sweep failed; the next one tries again");
            }
            if now >= forget_at {
                forget_at = now + FORGET_EVERY;
                renew::forget_ended(&app);
                // Users whom another process removed took their snapshots along.
                if let Err(error) = snapshots::unpin_unneeded(&app).await {
                    tracing::error!(%error, "content of removed snapshots is kept for now");
                }
                if let Err(error) = app.store.forget(now - KEEP_RECORDS, now - KEEP_AUDIT).await {
                    tracing::error!(%error, "old records could not be removed");
                }
            }
            tokio::select! {
                () = app.wake_reaper.notified() => {}
                () = tokio::time::sleep(SWEEP) => {}
                () = app.shutdown.cancelled() => return,
            }
        }
    }

    /// One sweep at `now`.
    pub async fn pass(&self, app: &Arc<App>, now: Timestamp) -> Result<(), FarmError> {
        cut_revoked(app).await?;
        renew_busy(app, now).await?;
        expire(app, now).await?;
        give_up_unwatched(app, now).await?;
        requeue_stranded(app, now).await?;
        self.take_down(app).await
    }

    /// Has every ending instance whose buildlet is in contact taken down.
    async fn take_down(&self, app: &Arc<App>) -> Result<(), FarmError> {
        for row in app.store.instances_in(InstanceState::Ending).await? {
            let Some(session) = row.buildlet_id.as_deref().and_then(|id| app.registry.get(id)) else { continue };
            if !lock(&self.ending).insert(row.id) {
                continue;
            }
            let (app, ending) = (app.clone(), self.ending.clone());
            app.clone().spawn(async move {
                let result = tokio::select! {
                    result = session.link.end_instance(row.id) => result,
                    () = app.shutdown.cancelled() => return,
                };
                match result {
                    Ok(()) => match app.store.gone(row.id).await {
                        Ok(_) => tracing::info!(instance.id = %row.id, instance.name = row.name, reason = row.end_reason.map(EndReason::as_str), "instance gone"),
                        Err(error) => tracing::error!(instance.id = %row.id, %error, "the instance is gone but could not be recorded as gone"),
                    },
                    Err(error) => {
                        tracing::warn!(instance.id = %row.id, buildlet.id = session.buildlet_id, %error, "the instance could not be taken down; trying again");
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                }
                lock(&ending).remove(&row.id);
                app.changed();
                app.wake_allocator.notify_one();
            });
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Ends contacts whose join token was revoked, by whichever process.
async fn cut_revoked(app: &Arc<App>) -> Result<(), FarmError> {
    let joined: Vec<_> = app.registry.all().into_iter().filter(|session| session.join_token_id.is_some()).collect();
    if joined.is_empty() {
        return Ok(());
    }
    let revoked: HashSet<String> = app.store.revoked_join_tokens().await?.into_iter().collect();
    for session in joined {
        if session.join_token_id.as_ref().is_some_and(|id| revoked.contains(id)) {
            session.revoked.cancel();
        }
    }
    Ok(())
}

/// Renews what runs something, unless nobody has watched that for too long.
async fn renew_busy(app: &Arc<App>, now: Timestamp) -> Result<(), FarmError> {
    let busy: Vec<InstanceId> = app.registry.all().iter().flat_map(|session| session.busy()).collect();
    let due: Vec<InstanceId> = {
        let until = lock(&app.renewed_until);
        busy.into_iter().filter(|id| until.get(id).is_none_or(|until| *until <= now)).collect()
    };
    for some in due.chunks(RENEWED_AT_ONCE) {
        let rows = app.store.instances_with_ids(some).await?;
        let uses = renew::uses_by_running(app, rows, now).await?;
        renew::note_uses(app, &uses).await?;
    }
    Ok(())
}

/// Whether an instance out of contact may well be in use: something ran in it when it was last heard of.
async fn may_be_running(app: &App, row: &InstanceRow, now: Timestamp) -> Result<bool, FarmError> {
    if row.state != InstanceState::Lost || app.store.running_executions(&[row.id]).await?.is_empty() {
        return Ok(false);
    }
    let uses = renew::uses_by_running(app, vec![row.clone()], now).await?;
    Ok(uses.iter().all(|(_, used)| *used == now))
}

/// Ends leases that are over.
async fn expire(app: &Arc<App>, now: Timestamp) -> Result<(), FarmError> {
    let settled = now.since(app.started_at) >= SETTLE;
    for row in app.store.leases_due(now).await? {
        let heard = row.buildlet_id.as_deref().is_none_or(|id| app.registry.was_heard(id));
        if (!heard && !settled) || may_be_running(app, &row, now).await? {
            continue;
        }
        if let Some(reason) = app.store.expire_instance(row.id, now).await? {
            tracing::info!(instance.id = %row.id, instance.name = row.name, reason = reason.as_str(), "lease over");
            app.audit("reaper", "expire", &row.name, reason.as_str()).await;
            app.changed();
        }
    }
    Ok(())
}

/// Gives up requests nobody waits for any more.
async fn give_up_unwatched(app: &Arc<App>, now: Timestamp) -> Result<(), FarmError> {
    for row in app.store.instances_in(InstanceState::Queued).await? {
        let silent_since = row.watched_at.max(app.started_at);
        if now.since(silent_since) >= UNWATCHED_REQUEST
            && app.store.end_instance(row.id, EndReason::CreateCancelled, now).await?
        {
            tracing::info!(instance.id = %row.id, instance.name = row.name, "a request that nobody waits for was given up");
            app.changed();
        }
    }
    Ok(())
}

/// Puts back what was being made on a buildlet that did not come back after our own restart.
async fn requeue_stranded(app: &Arc<App>, now: Timestamp) -> Result<(), FarmError> {
    if now.since(app.started_at) < SETTLE {
        return Ok(());
    }
    for row in app.store.instances_in(InstanceState::Starting).await? {
        let heard = row.buildlet_id.as_deref().is_some_and(|id| app.registry.was_heard(id));
        if !heard && app.store.requeue(row.id, now).await? {
            tracing::info!(instance.id = %row.id, instance.name = row.name, "its buildlet did not come back; it waits again");
            app.changed();
            app.wake_allocator.notify_one();
        }
    }
    Ok(())
}

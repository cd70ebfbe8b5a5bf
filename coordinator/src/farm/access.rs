//! Finding what a caller names, if it is theirs or shared with them. The one place that decides
//! who may do what with an instance.

use super::FarmError;
use crate::app::App;
use crate::identity::Identity;
use crate::store::{ExecutionRow, InstanceRow};
use motefarm_core::instance::InstanceState;
use motefarm_core::{ExecId, InstanceId};
use std::sync::Arc;
use std::time::Duration;

/// How soon a right that another process took away (`mote-coordinator admin`) is noticed.
pub const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Whether `caller` may use an instance: it is theirs, shared with them, or they are an admin.
pub fn may_use(caller: &Identity, row: &InstanceRow) -> bool {
    caller.may_own(&row.owner) || row.shared_with.iter().any(|user| user == caller.user.as_str())
}

/// The instance that `name` (a live name, or an id) means to `caller`, who may use it. Renews nothing.
pub async fn instance(app: &App, caller: &Identity, name: &str) -> Result<InstanceRow, FarmError> {
    let unknown = || FarmError::NotFound { what: "instance", name: name.chars().take(128).collect() };
    let found = match name.parse::<InstanceId>() {
        Ok(id) => app.store.instance(id).await?,
        Err(_) => app.store.live_instance(name).await?,
    };
    found.filter(|row| may_use(caller, row)).ok_or_else(unknown)
}

/// The same, if it is as good as the caller's own: who may only use it is told so, and may neither end
/// nor share it (`deed` reads after "may not").
pub async fn own_instance(app: &App, caller: &Identity, name: &str, deed: &str) -> Result<InstanceRow, FarmError> {
    let row = instance(app, caller, name).await?;
    match caller.may_own(&row.owner) {
        true => Ok(row),
        false => {
            Err(FarmError::Forbidden(format!("{} is {}'s: you may use it and not {deed} it", row.name, row.owner)))
        }
    }
}

/// Ends when `caller` may no longer use an instance, with what to say then. Never ends for its owner
/// and for admins, whose rights end with their token, at the edge.
pub async fn no_longer_shared(app: Arc<App>, caller: Identity, row: InstanceRow) -> FarmError {
    if caller.may_own(&row.owner) {
        return std::future::pending().await;
    }
    let mut taken = app.store.rights_taken();
    loop {
        taken.borrow_and_update();
        match app.store.instance(row.id).await {
            Ok(Some(now)) if may_use(&caller, &now) => {}
            Ok(_) => return FarmError::NotFound { what: "instance", name: row.name },
            Err(error) => tracing::warn!(%error, "a share could not be looked up; trying again"),
        }
        tokio::select! {
            _ = taken.changed() => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }
}

/// The same, if it can be used now: ready, or lost (its buildlet may come back any moment).
pub async fn usable_instance(app: &App, caller: &Identity, name: &str) -> Result<InstanceRow, FarmError> {
    let row = instance(app, caller, name).await?;
    check_usable(&row)?;
    Ok(row)
}

/// Whether an instance can be used now.
pub fn check_usable(row: &InstanceRow) -> Result<(), FarmError> {
    match row.state {
        InstanceState::Ready | InstanceState::Lost => Ok(()),
        InstanceState::Queued | InstanceState::Starting => {
            Err(FarmError::NotReady(format!("{} is still {}; wait for `create` to finish", row.name, row.state)))
        }
        InstanceState::Ending | InstanceState::Gone => Err(ended(row)),
    }
}

/// What to say of an instance that has ended.
pub fn ended(row: &InstanceRow) -> FarmError {
    let word = row.end_reason.map_or("unknown", |reason| reason.as_str());
    let reason = row.end_detail.as_ref().map_or_else(|| word.to_owned(), |detail| format!("{word}: {detail}"));
    FarmError::Ended { what: "instance", name: row.name.clone(), reason }
}

/// An execution on an instance that the caller may use, with that instance.
pub async fn execution(app: &App, caller: &Identity, id: ExecId) -> Result<(ExecutionRow, InstanceRow), FarmError> {
    let unknown = || FarmError::NotFound { what: "execution", name: id.to_string() };
    let exec = app.store.execution(id).await?.ok_or_else(unknown)?;
    let instance = app.store.instance(exec.instance_id).await?.ok_or_else(unknown)?;
    if may_use(caller, &instance) { Ok((exec, instance)) } else { Err(unknown()) }
}

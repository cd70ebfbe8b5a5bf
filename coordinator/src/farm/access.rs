//! Finding what a caller names, if it is theirs.

use super::FarmError;
use crate::app::App;
use crate::identity::Identity;
use crate::store::{ExecutionRow, InstanceRow};
use motefarm_core::instance::InstanceState;
use motefarm_core::{ExecId, InstanceId};

/// The instance that `name` (a live name, or an id) means to `caller`. Renews nothing.
pub async fn instance(app: &App, caller: &Identity, name: &str) -> Result<InstanceRow, FarmError> {
    let unknown = || FarmError::NotFound { what: "instance", name: name.chars().take(128).collect() };
    let found = match name.parse::<InstanceId>() {
        Ok(id) => app.store.instance(id).await?,
        Err(_) => app.store.live_instance(name).await?,
    };
    found.filter(|row| caller.may_use(&row.owner)).ok_or_else(unknown)
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

/// An execution of the caller's, with its instance.
pub async fn execution(app: &App, caller: &Identity, id: ExecId) -> Result<(ExecutionRow, InstanceRow), FarmError> {
    let unknown = || FarmError::NotFound { what: "execution", name: id.to_string() };
    let exec = app.store.execution(id).await?.ok_or_else(unknown)?;
    let instance = app.store.instance(exec.instance_id).await?.ok_or_else(unknown)?;
    if caller.may_use(&instance.owner) { Ok((exec, instance)) } else { Err(unknown()) }
}

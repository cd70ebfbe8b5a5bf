//! Ending an instance on request.

use super::{FarmError, access};
use crate::app::App;
use crate::identity::Identity;
use motefarm_core::instance::EndReason;
use std::sync::Arc;

/// Decides the end and answers; the reaper takes the instance down. Repeats are no error.
pub async fn destroy(app: &Arc<App>, caller: &Identity, name: &str) -> Result<(), FarmError> {
    let row = access::own_instance(app, caller, name, "end").await?;
    if app.store.end_instance(row.id, EndReason::Destroyed, app.now()).await? {
        tracing::info!(instance.id = %row.id, instance.name = row.name, user = %caller.user, "instance destroyed");
        app.audit(caller.user.as_str(), "destroy", &row.name, "").await;
        app.changed();
        app.wake_reaper.notify_one();
        app.wake_allocator.notify_one();
    }
    Ok(())
}

//! The end of an instance: its processes, then its name, then its files.

use super::Agent;
use crate::error::AgentError;
use crate::keeper_client::{self, Connection};
use crate::sandbox;
use crate::wipe;
use motefarm_core::InstanceId;
use std::sync::Arc;
use std::time::Duration;

/// Between attempts to remove what would not go.
const WIPE_RETRY: Duration = Duration::from_secs(300);

impl Agent {
    /// Ends every process of an instance and moves its directory aside. One that is not here is
    /// ended already. Finishes once begun only if the caller spawns it; may be repeated.
    pub(crate) async fn end_instance(&self, id: InstanceId) -> Result<(), AgentError> {
        let Some(instance) = self.instances().get(&id).cloned() else { return Ok(()) };
        instance.begin_end();
        // Whoever is starting something in it finishes first: all of that is bounded.
        let _life = instance.life.write().await;
        if !self.instances().contains_key(&id) {
            return Ok(());
        }
        let failed = |error: std::io::Error| {
            AgentError::Unavailable(format!("the processes of instance {id} could not be ended: {error}"))
        };
        match Connection::open(&instance.dir).await {
            Ok(connection) => connection.end().await.map_err(failed)?,
            Err(error) if keeper_client::is_absent(&error) => {}
            Err(error) => return Err(failed(error)),
        }
        if !self.sandbox.is_present() {
            let mark = crate::environment::instance_mark(id);
            // A keeper that was killed took nothing with it. New ones may come while we look.
            for _ in 0..20 {
                let swept = tokio::task::spawn_blocking({
                    let mark = mark.clone();
                    move || sandbox::kill_strays(&mark)
                });
                match swept.await {
                    Ok(Ok(0)) | Err(_) => break,
                    Ok(Ok(_)) => tokio::time::sleep(Duration::from_millis(10)).await,
                    Ok(Err(error)) => return Err(failed(error)),
                }
            }
        }
        self.set_aside(&instance.dir)?;
        self.instances().remove(&id);
        self.changed();
        tracing::info!(instance.id = %id, instance.name = %instance.name, "instance ended");
        Ok(())
    }

    /// Removes what was moved aside, now and by earlier buildlets. Runs for ever.
    pub(super) async fn wipe_leftovers(self: Arc<Self>) {
        loop {
            self.wiping.notified().await;
            loop {
                let dirs = [self.data.wiping(), self.data.actions_wiping()];
                let wiping = move || {
                    // One that is stuck keeps nothing of the other.
                    let wiped = dirs.map(|dir| wipe::empty(&dir));
                    wiped.into_iter().collect::<std::io::Result<()>>()
                };
                match tokio::task::spawn_blocking(wiping).await {
                    Ok(Ok(())) => break,
                    Ok(Err(error)) => tracing::warn!(%error, "something of an ended instance or action would not go"),
                    Err(error) => tracing::error!(%error, "the wiper failed"),
                }
                tokio::select! {
                    () = tokio::time::sleep(WIPE_RETRY) => {}
                    () = self.wiping.notified() => {}
                }
            }
        }
    }
}

//! Leases' ends, as far as a buildlet that may be cut off must know them.

use super::Agent;
use crate::error::AgentError;
use motefarm_core::clock::Timestamp;
use motefarm_core::{Clock as _, InstanceId, SystemClock};
use std::sync::Arc;
use std::time::Duration;

/// Between looks at what has passed its end.
const SWEEP: Duration = Duration::from_secs(5);

impl Agent {
    /// Learns when leases end now. Instances that are not here are none of ours.
    pub(crate) fn set_leases(&self, ends: &[(InstanceId, Timestamp)]) -> Result<(), AgentError> {
        let mut news = false;
        for (id, expires_at) in ends {
            let instance = self.instances().get(id).cloned();
            if let Some(instance) = instance {
                news |= instance.set_lease_end(*expires_at)?;
            }
        }
        if news {
            self.leases_changed.notify_one();
        }
        Ok(())
    }

    /// Ends what nobody renewed, and keeps the keepers' deadlines in step. Runs for ever.
    pub(super) async fn sweep_leases(self: Arc<Self>) {
        loop {
            let now = SystemClock.now();
            for instance in self.all_instances() {
                if instance.is_ending() {
                    // One whose end failed; an end in progress holds the lock.
                    if instance.life.try_read().is_ok() {
                        let (agent, id) = (self.clone(), instance.id);
                        tokio::spawn(async move { agent.end_instance(id).await });
                    }
                    continue;
                }
                if instance.ends_at(now) <= now {
                    tracing::warn!(
                        instance.id = %instance.id, instance.name = %instance.name,
                        "no news of the lease since its end and grace have passed: the instance is ended here"
                    );
                    if let Err(error) = self.end_instance(instance.id).await {
                        tracing::error!(instance.id = %instance.id, %error, "an instance could not be ended");
                    }
                } else if let Err(error) = instance.renew_keeper().await {
                    tracing::warn!(instance.id = %instance.id, %error, "a keeper could not be told its deadline");
                }
            }
            tokio::select! {
                () = tokio::time::sleep(SWEEP) => {}
                () = self.leases_changed.notified() => {}
            }
        }
    }
}

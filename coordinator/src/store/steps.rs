//! An instance's way through its states: one verb a step.

use super::instances::leased;
use super::leases::LeaseColumns;
use super::{Store, StoreError, to_db};
use motefarm_core::instance::{EndReason, InstanceState};
use motefarm_core::lease::Lease;
use motefarm_core::{InstanceId, Timestamp};

impl Store {
    /// Moves an instance from `from` to `to`, if that is where it is. Tells whether it was.
    async fn step(&self, id: InstanceId, from: InstanceState, to: InstanceState) -> Result<bool, StoreError> {
        debug_assert!(from.may_become(to), "{from} can not become {to}");
        let mut tx = self.write().await?;
        let done = sqlx::query("UPDATE instances SET state = ? WHERE id = ? AND state = ?")
            .bind(to.as_str())
            .bind(id.to_string())
            .bind(from.as_str())
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    /// Reserves one of `buildlet_id`'s `slots` for a queued instance. False if the instance no longer
    /// waits or no slot is free after all.
    pub async fn assign(&self, id: InstanceId, buildlet_id: &str, slots: u64) -> Result<bool, StoreError> {
        let mut tx = self.write().await?;
        let held: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM instances WHERE buildlet_id = ? AND state <> 'gone' \
             AND +state IN ('starting', 'ready', 'lost', 'ending')",
        )
        .bind(buildlet_id)
        .fetch_one(&mut *tx)
        .await?;
        if held >= to_db(slots) {
            return Ok(false);
        }
        let done =
            sqlx::query("UPDATE instances SET state = 'starting', buildlet_id = ? WHERE id = ? AND state = 'queued'")
                .bind(buildlet_id)
                .bind(id.to_string())
                .execute(&mut *tx)
                .await?;
        tx.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    /// Puts a starting instance back into the queue, in its old place.
    pub async fn requeue(&self, id: InstanceId, now: Timestamp) -> Result<bool, StoreError> {
        let mut tx = self.write().await?;
        let done = sqlx::query(
            "UPDATE instances SET state = 'queued', buildlet_id = NULL, watched_ms = ? WHERE id = ? AND state = 'starting'",
        )
        .bind(now.as_millis())
        .bind(id.to_string())
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    /// The buildlet has made it: the lease begins. False if it is no longer starting.
    pub async fn make_ready(&self, id: InstanceId, work_dir: &str, lease: &Lease) -> Result<bool, StoreError> {
        let mut tx = self.write().await?;
        let done =
            sqlx::query("UPDATE instances SET state = 'ready', work_dir = ? WHERE id = ? AND state = 'starting'")
                .bind(work_dir)
                .bind(id.to_string())
                .execute(&mut *tx)
                .await?;
        if done.rows_affected() == 1 {
            LeaseColumns::write_times(&mut tx, id, lease).await?;
        }
        tx.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    /// Every ready instance is out of contact: the coordinator has just started.
    pub async fn all_lost(&self) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        sqlx::query("UPDATE instances SET state = 'lost' WHERE state = 'ready'").execute(&mut *tx).await?;
        Ok(tx.commit().await?)
    }

    /// Every ready instance of a buildlet is out of contact.
    pub async fn buildlet_lost(&self, buildlet_id: &str) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        sqlx::query(
            "UPDATE instances SET state = 'lost' WHERE +state = 'ready' AND state <> 'gone' AND buildlet_id = ?",
        )
        .bind(buildlet_id)
        .execute(&mut *tx)
        .await?;
        Ok(tx.commit().await?)
    }

    /// A lost instance was reported again.
    pub async fn found_again(&self, id: InstanceId) -> Result<bool, StoreError> {
        self.step(id, InstanceState::Lost, InstanceState::Ready).await
    }

    /// Decides that a live instance ends, and why. False if that was decided before. The one place
    /// where an end is decided; ending its processes follows.
    pub async fn end_instance(&self, id: InstanceId, reason: EndReason, now: Timestamp) -> Result<bool, StoreError> {
        self.end_instance_because(id, reason, None, now).await
    }

    /// As [`Store::end_instance`], with more to say of why.
    pub async fn end_instance_because(
        &self,
        id: InstanceId,
        reason: EndReason,
        detail: Option<&str>,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut tx = self.write().await?;
        // What no buildlet was asked for has nothing to take down.
        let done = sqlx::query(
            "UPDATE instances SET state = CASE WHEN state = 'queued' THEN 'gone' ELSE 'ending' END, \
             end_reason = ?, end_detail = ?, ended_ms = ? \
             WHERE id = ? AND state IN ('queued', 'starting', 'ready', 'lost')",
        )
        .bind(reason.as_str())
        .bind(detail)
        .bind(now.as_millis())
        .bind(id.to_string())
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    /// Ends an instance whose lease is over by `now`, unless it was renewed meanwhile.
    pub async fn expire_instance(&self, id: InstanceId, now: Timestamp) -> Result<Option<EndReason>, StoreError> {
        let mut tx = self.write().await?;
        let leased = leased(&mut tx, id).await?;
        let Some(reason) = leased.and_then(|row| row.lease).and_then(|lease| lease.end_reason(now)) else {
            return Ok(None);
        };
        sqlx::query("UPDATE instances SET state = 'ending', end_reason = ?, ended_ms = ? WHERE id = ?")
            .bind(reason.as_str())
            .bind(now.as_millis())
            .bind(id.to_string())
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(Some(reason))
    }

    /// Its buildlet has taken it down.
    pub async fn gone(&self, id: InstanceId) -> Result<bool, StoreError> {
        self.step(id, InstanceState::Ending, InstanceState::Gone).await
    }
}

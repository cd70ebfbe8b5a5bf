//! How long what is over is remembered.

use super::{Store, StoreError};
use motefarm_core::Timestamp;

impl Store {
    /// Forgets what ended before `before`: records of instances, with their executions, and audit rows
    /// before `audit_before`.
    pub async fn forget(&self, before: Timestamp, audit_before: Timestamp) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        sqlx::query("DELETE FROM instances WHERE state = 'gone' AND ended_ms < ?")
            .bind(before.as_millis())
            .execute(&mut *tx)
            .await?;
        // Those made by signing in come and go with every device.
        sqlx::query("DELETE FROM tokens WHERE expires_ms < ?").bind(before.as_millis()).execute(&mut *tx).await?;
        sqlx::query("DELETE FROM audit WHERE at_ms < ?").bind(audit_before.as_millis()).execute(&mut *tx).await?;
        Ok(tx.commit().await?)
    }
}

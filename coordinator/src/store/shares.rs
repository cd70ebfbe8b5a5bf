//! Who else may use an instance.

use super::{Store, StoreError, audit};
use motefarm_core::name::UserName;
use motefarm_core::{InstanceId, Timestamp};

impl Store {
    /// Shares an instance with a user; whether it was not. [`StoreError::NotFound`] without the user.
    pub async fn share(
        &self,
        id: InstanceId,
        instance_name: &str,
        user: &UserName,
        actor: &str,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut tx = self.write().await?;
        let known: Option<i64> = sqlx::query_scalar("SELECT 1 FROM users WHERE name = ?")
            .bind(user.as_str())
            .fetch_optional(&mut *tx)
            .await?;
        if known.is_none() {
            return Err(StoreError::NotFound { what: "user", name: user.to_string() });
        }
        let done = sqlx::query(
            "INSERT INTO shares (instance_id, user_name, created_ms) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        )
        .bind(id.to_string())
        .bind(user.as_str())
        .bind(now.as_millis())
        .execute(&mut *tx)
        .await?;
        let is_new = done.rows_affected() > 0;
        if is_new {
            audit::insert(&mut tx, actor, "share", instance_name, user.as_str(), now).await?;
        }
        tx.commit().await?;
        Ok(is_new)
    }

    /// Takes a share back; whether there was one.
    pub async fn unshare(
        &self,
        id: InstanceId,
        instance_name: &str,
        user: &UserName,
        actor: &str,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut tx = self.write().await?;
        let done = sqlx::query("DELETE FROM shares WHERE instance_id = ? AND user_name = ?")
            .bind(id.to_string())
            .bind(user.as_str())
            .execute(&mut *tx)
            .await?;
        let was_shared = done.rows_affected() > 0;
        if was_shared {
            audit::insert(&mut tx, actor, "unshare", instance_name, user.as_str(), now).await?;
        }
        tx.commit().await?;
        self.known_tokens.forget();
        Ok(was_shared)
    }
}

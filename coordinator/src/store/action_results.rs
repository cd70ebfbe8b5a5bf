//! Rows of the action cache.

use super::{Store, StoreError, to_db};
use motefarm_core::{Digest, Timestamp};
use std::time::Duration;

/// A row's last use is written down when it is this old: reading costs no write.
const NOTED_EVERY: Duration = Duration::from_secs(600);

impl Store {
    /// The result stored under `key`, encoded.
    pub async fn action_result(&self, key: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let query = "SELECT result FROM action_results WHERE action_hash = ? AND action_size = ?";
        let found = sqlx::query_scalar(query).bind(key.hash().as_slice()).bind(to_db(key.size_bytes()));
        Ok(found.fetch_optional(&self.readers).await?)
    }

    /// Notes a use of the row under `key`, unless one was noted a few minutes ago.
    pub async fn action_result_used(&self, key: &Digest, now: Timestamp) -> Result<(), StoreError> {
        let stale = "SELECT 1 FROM action_results WHERE action_hash = ? AND action_size = ? AND used_ms <= ?";
        let stale: Option<i64> = sqlx::query_scalar(stale)
            .bind(key.hash().as_slice())
            .bind(to_db(key.size_bytes()))
            .bind((now - NOTED_EVERY).as_millis())
            .fetch_optional(&self.readers)
            .await?;
        if stale.is_some() {
            sqlx::query("UPDATE action_results SET used_ms = ? WHERE action_hash = ? AND action_size = ?")
                .bind(now.as_millis())
                .bind(key.hash().as_slice())
                .bind(to_db(key.size_bytes()))
                .execute(&self.writer)
                .await?;
        }
        Ok(())
    }

    /// Stores a result under `key`, in place of another.
    pub async fn put_action_result(&self, key: &Digest, result: &[u8], now: Timestamp) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO action_results (action_hash, action_size, result, used_ms) VALUES (?, ?, ?, ?) \
             ON CONFLICT DO UPDATE SET result = excluded.result, used_ms = excluded.used_ms",
        )
        .bind(key.hash().as_slice())
        .bind(to_db(key.size_bytes()))
        .bind(result)
        .bind(now.as_millis())
        .execute(&self.writer)
        .await?;
        Ok(())
    }

    /// Removes what was used least recently until `max` rows are left; answers how many went.
    pub async fn trim_action_results(&self, max: u64) -> Result<u64, StoreError> {
        let done = sqlx::query(
            "DELETE FROM action_results WHERE rowid IN (SELECT rowid FROM action_results ORDER BY used_ms \
             LIMIT max(0, (SELECT count(*) FROM action_results) - ?))",
        )
        .bind(to_db(max))
        .execute(&self.writer)
        .await?;
        Ok(done.rows_affected())
    }
}

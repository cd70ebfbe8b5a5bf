//! Who did what.

use super::{Store, StoreError};
use motefarm_core::Timestamp;
use sqlx::{Sqlite, Transaction};

pub(super) async fn insert(
    tx: &mut Transaction<'_, Sqlite>,
    actor: &str,
    action: &'static str,
    subject: &str,
    detail: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO audit (at_ms, actor, action, subject, detail) VALUES (?, ?, ?, ?, ?)")
        .bind(now.as_millis())
        .bind(actor)
        .bind(action)
        .bind(subject)
        .bind(detail.chars().take(1000).collect::<String>())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

impl Store {
    /// Writes down that `actor` did `action` to `subject`. Never holds secrets, environments or output.
    pub async fn audit(
        &self,
        actor: &str,
        action: &'static str,
        subject: &str,
        detail: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        insert(&mut tx, actor, action, subject, detail, now).await?;
        Ok(tx.commit().await?)
    }
}

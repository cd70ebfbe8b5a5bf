//! Who did what.

use super::{Store, StoreError, to_db};
use motefarm_core::Timestamp;
use sqlx::{Sqlite, Transaction};

/// Every word an audit row may have for what was done. `ssh` is for the gateway: a row when a session
/// opens, with the instance as its subject.
pub const ACTIONS: [&str; 27] = [
    "first start",
    "sign-in",
    "sign-in refused",
    "user add",
    "user remove",
    "user role",
    "token create",
    "token revoke",
    "join-token create",
    "join-token revoke",
    "create",
    "destroy",
    "share",
    "unshare",
    "run",
    "cancel",
    "fetch",
    "group create",
    "group destroy",
    "group add",
    "group remove",
    "snapshot create",
    "snapshot remove",
    "content collect",
    "content discard",
    "expire",
    "ssh",
];

/// What was done, by whom, to what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    /// When.
    pub at: Timestamp,
    /// Who; "coordinator" for the farm itself, empty for somebody unknown.
    pub actor: String,
    /// One of [`ACTIONS`].
    pub action: String,
    /// To what.
    pub subject: String,
    /// What else there is to say.
    pub detail: String,
}

/// Which rows are asked for.
#[derive(Debug, Clone, Copy)]
pub struct AuditFilter<'a> {
    /// By this actor; `None`: by anybody.
    pub actor: Option<&'a str>,
    /// This action; `None`: every one.
    pub action: Option<&'a str>,
    /// Not before this.
    pub since: Timestamp,
    /// The newest so many.
    pub limit: u64,
}

pub(super) async fn insert(
    tx: &mut Transaction<'_, Sqlite>,
    actor: &str,
    action: &'static str,
    subject: &str,
    detail: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    debug_assert!(ACTIONS.contains(&action), "{action:?} is missing in ACTIONS");
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

    /// The newest rows that fit, oldest first.
    pub async fn audit_rows(&self, filter: &AuditFilter<'_>) -> Result<Vec<AuditRow>, StoreError> {
        let rows: Vec<(i64, String, String, String, String)> = sqlx::query_as(
            "SELECT at_ms, actor, action, subject, detail FROM audit \
             WHERE at_ms >= ? AND (? IS NULL OR actor = ?) AND (? IS NULL OR action = ?) \
             ORDER BY seq DESC LIMIT ?",
        )
        .bind(filter.since.as_millis())
        .bind(filter.actor)
        .bind(filter.actor)
        .bind(filter.action)
        .bind(filter.action)
        .bind(to_db(filter.limit))
        .fetch_all(&self.readers)
        .await?;
        let row = |(at_ms, actor, action, subject, detail)| AuditRow {
            at: Timestamp::from_millis(at_ms),
            actor,
            action,
            subject,
            detail,
        };
        Ok(rows.into_iter().rev().map(row).collect())
    }
}

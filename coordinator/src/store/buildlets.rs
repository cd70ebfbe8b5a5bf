//! Buildlets that were ever in contact.

use super::{Store, StoreError, damaged, from_db, to_db};
use motefarm_core::{HostType, Timestamp};
use sqlx::FromRow;
use std::collections::BTreeSet;

/// A buildlet as last described.
#[derive(Debug, Clone)]
pub struct BuildletRow {
    /// Its UUID, made by itself.
    pub id: String,
    /// Its machine's name.
    pub hostname: String,
    /// What it serves.
    pub host_type: HostType,
    /// How it is reached: `local`, `join`, `static`, `go-agent`.
    pub provider: String,
    /// Its lease slots.
    pub slots: u64,
    /// Version of its program.
    pub version: String,
    /// Which token let it in, for `join` and `go-agent`.
    pub join_token_id: Option<String>,
    /// Last contact.
    pub last_seen_at: Timestamp,
}

#[derive(FromRow)]
struct Columns {
    id: String,
    hostname: String,
    host_type: String,
    provider: String,
    slots: i64,
    version: String,
    join_token_id: Option<String>,
    last_seen_ms: i64,
}

impl Store {
    /// Writes what a buildlet says of itself.
    pub async fn save_buildlet(&self, row: &BuildletRow) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        sqlx::query(
            "INSERT INTO buildlets (id, hostname, host_type, provider, slots, version, join_token_id, first_seen_ms, last_seen_ms) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET hostname = excluded.hostname, \
             host_type = excluded.host_type, provider = excluded.provider, slots = excluded.slots, version = excluded.version, \
             join_token_id = coalesce(excluded.join_token_id, join_token_id), last_seen_ms = excluded.last_seen_ms",
        )
        .bind(&row.id)
        .bind(&row.hostname)
        .bind(row.host_type.as_str())
        .bind(&row.provider)
        .bind(to_db(row.slots))
        .bind(&row.version)
        .bind(&row.join_token_id)
        .bind(row.last_seen_at.as_millis())
        .bind(row.last_seen_at.as_millis())
        .execute(&mut *tx)
        .await?;
        Ok(tx.commit().await?)
    }

    /// Notes a contact.
    pub async fn buildlet_seen(&self, id: &str, now: Timestamp) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        sqlx::query("UPDATE buildlets SET last_seen_ms = ? WHERE id = ?")
            .bind(now.as_millis())
            .bind(id)
            .execute(&mut *tx)
            .await?;
        Ok(tx.commit().await?)
    }

    /// Every buildlet, by host type and name.
    pub async fn buildlets(&self) -> Result<Vec<BuildletRow>, StoreError> {
        let rows: Vec<Columns> = sqlx::query_as(
            "SELECT id, hostname, host_type, provider, slots, version, join_token_id, last_seen_ms \
             FROM buildlets ORDER BY host_type, hostname, id",
        )
        .fetch_all(&self.readers)
        .await?;
        rows.into_iter()
            .map(|c| {
                Ok(BuildletRow {
                    host_type: c.host_type.parse().map_err(|e| damaged("buildlets", "host_type", e))?,
                    id: c.id,
                    hostname: c.hostname,
                    provider: c.provider,
                    slots: from_db(c.slots),
                    version: c.version,
                    join_token_id: c.join_token_id,
                    last_seen_at: Timestamp::from_millis(c.last_seen_ms),
                })
            })
            .collect()
    }

    /// Host types any buildlet ever served or a valid join token was made for.
    pub async fn host_types(&self) -> Result<BTreeSet<HostType>, StoreError> {
        let words: Vec<String> = sqlx::query_scalar(
            "SELECT host_type FROM buildlets UNION SELECT host_type FROM join_tokens WHERE revoked_ms IS NULL",
        )
        .fetch_all(&self.readers)
        .await?;
        words.into_iter().map(|w| w.parse().map_err(|e| damaged("buildlets", "host_type", e))).collect()
    }
}

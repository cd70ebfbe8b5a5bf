//! Executions: written before they are started, ended once.

use super::{Store, StoreError, damaged, id_list};
use motefarm_core::{ExecId, InstanceId, Timestamp};
use sqlx::FromRow;

/// An execution as recorded.
#[derive(Debug, Clone)]
pub struct ExecutionRow {
    /// Its identity.
    pub id: ExecId,
    /// Where it runs.
    pub instance_id: InstanceId,
    /// Encoded `mote.v1.ExecSpec`.
    pub spec: Vec<u8>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When a reader was last seen.
    pub watched_at: Timestamp,
    /// Encoded `mote.v1.ExecOutcome`, once it ended.
    pub outcome: Option<Vec<u8>>,
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct NewExecution<'a> {
    /// Made by the asker.
    pub id: ExecId,
    /// Where.
    pub instance_id: InstanceId,
    /// Encoded `mote.v1.ExecSpec`.
    pub spec: &'a [u8],
    /// For the audit: who asks,
    pub actor: &'a str,
    /// on what,
    pub instance_name: &'a str,
    /// for which command (no environment).
    pub command: &'a str,
}

#[derive(FromRow)]
struct Columns {
    id: String,
    instance_id: String,
    spec: Vec<u8>,
    created_ms: i64,
    watched_ms: i64,
    outcome: Option<Vec<u8>>,
}

impl TryFrom<Columns> for ExecutionRow {
    type Error = StoreError;
    fn try_from(columns: Columns) -> Result<Self, StoreError> {
        Ok(Self {
            id: columns.id.parse().map_err(|e| damaged("executions", "id", e))?,
            instance_id: columns.instance_id.parse().map_err(|e| damaged("executions", "instance_id", e))?,
            spec: columns.spec,
            created_at: Timestamp::from_millis(columns.created_ms),
            watched_at: Timestamp::from_millis(columns.watched_ms),
            outcome: columns.outcome,
        })
    }
}

impl Store {
    /// Records an execution, and who asked for it, before it is started. A repeat with the same
    /// instance and spec finds the first; otherwise [`StoreError::Exists`]. [`StoreError::Limit`] if on the
    /// instances of this one's owner `owner_limit` run already (0: any number).
    pub async fn begin_execution(
        &self,
        new: &NewExecution<'_>,
        owner_limit: u64,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        let done = sqlx::query(
            "INSERT INTO executions (id, instance_id, spec, created_ms, watched_ms) VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
        )
        .bind(new.id.to_string())
        .bind(new.instance_id.to_string())
        .bind(new.spec)
        .bind(now.as_millis())
        .bind(now.as_millis())
        .execute(&mut *tx)
        .await?;
        if done.rows_affected() == 0 {
            let same: Option<i64> =
                sqlx::query_scalar("SELECT 1 FROM executions WHERE id = ? AND instance_id = ? AND spec = ?")
                    .bind(new.id.to_string())
                    .bind(new.instance_id.to_string())
                    .bind(new.spec)
                    .fetch_optional(&mut *tx)
                    .await?;
            return match same {
                Some(_) => Ok(()),
                None => Err(StoreError::Exists { what: "execution", name: new.id.to_string() }),
            };
        }
        if owner_limit > 0 {
            let running: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM instances i JOIN executions e ON e.instance_id = i.id AND e.outcome IS NULL \
                 WHERE i.owner = (SELECT owner FROM instances WHERE id = ?) AND i.state IN ('ready', 'lost')",
            )
            .bind(new.instance_id.to_string())
            .fetch_one(&mut *tx)
            .await?;
            // The new one is counted; the transaction ends without it.
            if running > super::to_db(owner_limit) {
                return Err(StoreError::Limit { what: "commands running for one user", limit: owner_limit });
            }
        }
        super::audit::insert(&mut tx, new.actor, "run", new.instance_name, new.command, now).await?;
        Ok(tx.commit().await?)
    }

    /// The execution with this id.
    pub async fn execution(&self, id: ExecId) -> Result<Option<ExecutionRow>, StoreError> {
        let columns: Option<Columns> = sqlx::query_as(
            "SELECT id, instance_id, spec, created_ms, watched_ms, outcome FROM executions WHERE id = ?",
        )
        .bind(id.to_string())
        .fetch_optional(&self.readers)
        .await?;
        columns.map(ExecutionRow::try_from).transpose()
    }

    /// Executions of an instance, oldest first, at most the newest 1000.
    pub async fn executions(&self, instance_id: InstanceId) -> Result<Vec<ExecutionRow>, StoreError> {
        let columns: Vec<Columns> = sqlx::query_as(
            "SELECT id, instance_id, spec, created_ms, watched_ms, outcome FROM executions \
             WHERE instance_id = ? ORDER BY created_ms DESC, rowid DESC LIMIT 1000",
        )
        .bind(instance_id.to_string())
        .fetch_all(&self.readers)
        .await?;
        columns.into_iter().rev().map(ExecutionRow::try_from).collect()
    }

    /// Executions of these instances that are not known to have ended.
    pub async fn running_executions(&self, instances: &[InstanceId]) -> Result<Vec<ExecutionRow>, StoreError> {
        let columns: Vec<Columns> = sqlx::query_as(
            "SELECT id, instance_id, spec, created_ms, watched_ms, outcome FROM executions \
             WHERE instance_id IN (SELECT value FROM json_each(?)) AND outcome IS NULL",
        )
        .bind(id_list(instances))
        .fetch_all(&self.readers)
        .await?;
        columns.into_iter().map(ExecutionRow::try_from).collect()
    }

    /// Records how an execution ended; the first record stands.
    pub async fn record_outcome(&self, id: ExecId, outcome: &[u8]) -> Result<(), StoreError> {
        // One statement is its own transaction, and one trip to SQLite's thread instead of three.
        sqlx::query("UPDATE executions SET outcome = ? WHERE id = ? AND outcome IS NULL")
            .bind(outcome)
            .bind(id.to_string())
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    /// Notes that executions were being read at `now`.
    pub async fn mark_execs_watched(&self, ids: &[ExecId], now: Timestamp) -> Result<(), StoreError> {
        // One statement is its own transaction.
        sqlx::query("UPDATE executions SET watched_ms = ? WHERE id IN (SELECT value FROM json_each(?))")
            .bind(now.as_millis())
            .bind(id_list(ids))
            .execute(&self.writer)
            .await?;
        Ok(())
    }
}

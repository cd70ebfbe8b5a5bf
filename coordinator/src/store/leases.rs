//! Leases: their columns and their renewal.

use super::{Store, StoreError, damaged, from_db, id_list, to_db};
use motefarm_core::lease::{Lease, LeaseTerms, RenewError, Renewal};
use motefarm_core::{InstanceId, Timestamp};
use sqlx::{FromRow, Row as _, Sqlite, Transaction};
use std::collections::HashMap;
use std::time::Duration;

#[derive(FromRow)]
pub(super) struct LeaseColumns {
    idle_timeout_ms: i64,
    max_lifetime_ms: Option<i64>,
    unwatched_limit_ms: i64,
    granted_ms: Option<i64>,
    expires_ms: Option<i64>,
}

fn millis(duration: Duration) -> i64 {
    to_db(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

fn duration(ms: i64) -> Duration {
    Duration::from_millis(from_db(ms))
}

impl LeaseColumns {
    pub(super) fn terms(&self) -> LeaseTerms {
        LeaseTerms {
            idle_timeout: duration(self.idle_timeout_ms),
            max_lifetime: self.max_lifetime_ms.map(duration),
            unwatched_limit: duration(self.unwatched_limit_ms),
        }
    }

    pub(super) fn lease(&self) -> Option<Lease> {
        Some(Lease {
            created_at: Timestamp::from_millis(self.granted_ms?),
            expires_at: Timestamp::from_millis(self.expires_ms?),
            terms: self.terms(),
        })
    }

    /// The lease of an instance that is ready or lost.
    async fn of_usable(tx: &mut Transaction<'_, Sqlite>, id: InstanceId) -> Result<Option<Lease>, StoreError> {
        let columns: Option<Self> = sqlx::query_as(
            "SELECT l.idle_timeout_ms, l.max_lifetime_ms, l.unwatched_limit_ms, l.granted_ms, l.expires_ms \
             FROM leases l JOIN instances i ON i.id = l.instance_id WHERE i.id = ? AND i.state IN ('ready', 'lost')",
        )
        .bind(id.to_string())
        .fetch_optional(&mut **tx)
        .await?;
        Ok(columns.and_then(|columns| columns.lease()))
    }

    pub(super) async fn insert_terms(
        tx: &mut Transaction<'_, Sqlite>,
        id: InstanceId,
        terms: &LeaseTerms,
    ) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO leases (instance_id, idle_timeout_ms, max_lifetime_ms, unwatched_limit_ms) VALUES (?, ?, ?, ?)")
            .bind(id.to_string())
            .bind(millis(terms.idle_timeout))
            .bind(terms.max_lifetime.map(millis))
            .bind(millis(terms.unwatched_limit))
            .execute(&mut **tx)
            .await?;
        Ok(())
    }

    pub(super) async fn write_times(
        tx: &mut Transaction<'_, Sqlite>,
        id: InstanceId,
        lease: &Lease,
    ) -> Result<(), StoreError> {
        sqlx::query("UPDATE leases SET granted_ms = ?, expires_ms = ? WHERE instance_id = ?")
            .bind(lease.created_at.as_millis())
            .bind(lease.expires_at.as_millis())
            .bind(id.to_string())
            .execute(&mut **tx)
            .await?;
        Ok(())
    }
}

impl Store {
    /// Renews the lease of an instance that is ready or lost. `None`: it is neither.
    pub async fn renew(
        &self,
        id: InstanceId,
        now: Timestamp,
    ) -> Result<Option<Result<Renewal, RenewError>>, StoreError> {
        let mut tx = self.write().await?;
        let Some(lease) = LeaseColumns::of_usable(&mut tx, id).await? else { return Ok(None) };
        let renewal = lease.renew(now);
        if let Ok(Renewal::Extended(lease)) = &renewal {
            LeaseColumns::write_times(&mut tx, id, lease).await?;
            tx.commit().await?;
        }
        Ok(Some(renewal))
    }

    /// Notes uses that are only known of now, of instances that are ready or lost (others are passed over), in
    /// one transaction of two statements however many there are: see [`Lease::with_use_at`]. Answers the ends that moved.
    pub async fn note_uses(
        &self,
        uses: &HashMap<InstanceId, Timestamp>,
    ) -> Result<Vec<(InstanceId, Timestamp)>, StoreError> {
        let mut tx = self.write().await?;
        let rows = sqlx::query(
            "SELECT l.instance_id, l.idle_timeout_ms, l.max_lifetime_ms, l.unwatched_limit_ms, l.granted_ms, \
             l.expires_ms FROM leases l JOIN instances i ON i.id = l.instance_id \
             WHERE i.id IN (SELECT value FROM json_each(?)) AND i.state IN ('ready', 'lost')",
        )
        .bind(id_list(uses.keys()))
        .fetch_all(&mut *tx)
        .await?;
        let mut moved = Vec::new();
        for row in &rows {
            let id: InstanceId =
                row.try_get::<String, _>("instance_id")?.parse().map_err(|e| damaged("leases", "instance_id", e))?;
            let (Some(lease), Some(used)) = (LeaseColumns::from_row(row)?.lease(), uses.get(&id)) else { continue };
            let later = lease.with_use_at(*used);
            if later.expires_at > lease.expires_at {
                moved.push((id, later.expires_at));
            }
        }
        if moved.is_empty() {
            return Ok(moved);
        }
        let ends = serde_json::Value::from_iter(moved.iter().map(|(id, end)| (id.to_string(), end.as_millis())));
        sqlx::query("UPDATE leases SET expires_ms = e.value FROM json_each(?) e WHERE instance_id = e.key")
            .bind(ends.to_string())
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(moved)
    }
}

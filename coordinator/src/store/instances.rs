//! Instances, and the queue of those that wait.

use super::{Store, StoreError, damaged, groups, id_list, leases::LeaseColumns, snapshots, to_db};
use motefarm_core::instance::{EndReason, InstanceState};
use motefarm_core::lease::{Lease, LeaseTerms};
use motefarm_core::name::{UserName, next_instance_name};
use motefarm_core::wait_queue::{WaitQueue, Waiter};
use motefarm_core::{Digest, HostType, InstanceId, Label, Timestamp};
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow as _, Row as _, Sqlite, Transaction};
use std::collections::BTreeSet;

/// An instance with its lease.
#[derive(Debug, Clone)]
pub struct InstanceRow {
    /// Its identity.
    pub id: InstanceId,
    /// Its name; reused after it has gone.
    pub name: String,
    /// Whose it is.
    pub owner: UserName,
    /// What it is.
    pub host_type: HostType,
    /// Where in its life.
    pub state: InstanceState,
    /// Who serves it, once assigned.
    pub buildlet_id: Option<String>,
    /// As commands see it; empty until ready.
    pub work_dir: String,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// While queued: when its asker was last seen.
    pub watched_at: Timestamp,
    /// Why it ended, if it did.
    pub end_reason: Option<EndReason>,
    /// What it is or will be leased on.
    pub terms: LeaseTerms,
    /// Its lease, once ready.
    pub lease: Option<Lease>,
    /// The groups it is in, by name.
    pub groups: Vec<String>,
    /// Who else may use it, by name.
    pub shared_with: Vec<String>,
    /// What it is made from.
    pub snapshot: Option<SnapshotWish>,
    /// What there is to say of its end besides the reason.
    pub end_detail: Option<String>,
}

/// The tree an instance begins with, as it was when the instance was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotWish {
    /// Which snapshot of the owner's that was.
    pub name: String,
    /// Where it goes.
    pub dir: String,
    /// Its root.
    pub root: Digest,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct NewInstance {
    /// Made by the asker.
    pub id: InstanceId,
    /// Who asks.
    pub owner: UserName,
    /// What.
    pub host_type: HostType,
    /// On which terms.
    pub terms: LeaseTerms,
    /// Groups to put it in; each must be there.
    pub groups: Vec<Label>,
    /// The owner's snapshot to make it from.
    pub from_snapshot: Option<Label>,
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT i.id, i.name, i.owner, i.host_type, i.state, i.buildlet_id, i.work_dir, i.created_ms, ",
            "i.watched_ms, i.end_reason, l.idle_timeout_ms, l.max_lifetime_ms, l.unwatched_limit_ms, ",
            "l.granted_ms, l.expires_ms, i.snapshot_name, i.snapshot_dir, i.snapshot_hash, i.snapshot_size, i.end_detail, ",
            "(SELECT group_concat(m.group_name) FROM group_members m WHERE m.instance_id = i.id) AS groups, ",
            "(SELECT group_concat(s.user_name) FROM shares s WHERE s.instance_id = i.id) AS shared_with ",
            "FROM instances i JOIN leases l ON l.instance_id = i.id ",
            $rest
        )
    };
}

fn parse(row: &SqliteRow) -> Result<InstanceRow, StoreError> {
    let text = |column: &'static str| row.try_get::<String, _>(column);
    let state = text("state")?;
    let lease = LeaseColumns::from_row(row)?;
    let reason: Option<String> = row.try_get("end_reason")?;
    // Neither a label nor a user's name holds a comma.
    let names = |column: &'static str| -> Result<Vec<String>, sqlx::Error> {
        let all: Option<String> = row.try_get(column)?;
        let mut names: Vec<String> = all.iter().flat_map(|all| all.split(',')).map(str::to_owned).collect();
        names.sort_unstable();
        Ok(names)
    };
    let snapshot = match row.try_get::<Option<Vec<u8>>, _>("snapshot_hash")? {
        Some(hash) => Some(SnapshotWish {
            name: text("snapshot_name")?,
            dir: text("snapshot_dir")?,
            root: snapshots::digest("instances", &hash, row.try_get("snapshot_size")?)?,
        }),
        None => None,
    };
    Ok(InstanceRow {
        id: text("id")?.parse().map_err(|e| damaged("instances", "id", e))?,
        name: text("name")?,
        owner: text("owner")?.parse().map_err(|e| damaged("instances", "owner", e))?,
        host_type: text("host_type")?.parse().map_err(|e| damaged("instances", "host_type", e))?,
        state: InstanceState::from_word(&state).ok_or_else(|| damaged("instances", "state", state))?,
        buildlet_id: row.try_get("buildlet_id")?,
        work_dir: text("work_dir")?,
        created_at: Timestamp::from_millis(row.try_get("created_ms")?),
        watched_at: Timestamp::from_millis(row.try_get("watched_ms")?),
        end_reason: reason.as_deref().and_then(EndReason::from_word),
        terms: lease.terms(),
        lease: lease.lease(),
        groups: names("groups")?,
        shared_with: names("shared_with")?,
        snapshot,
        end_detail: row.try_get("end_detail")?,
    })
}

fn parse_all(rows: &[SqliteRow]) -> Result<Vec<InstanceRow>, StoreError> {
    rows.iter().map(parse).collect()
}

/// An instance that is leased to somebody now.
pub(super) async fn leased(
    tx: &mut Transaction<'_, Sqlite>,
    id: InstanceId,
) -> Result<Option<InstanceRow>, StoreError> {
    let row = sqlx::query(select!("WHERE i.id = ? AND i.state IN ('ready', 'lost')"))
        .bind(id.to_string())
        .fetch_optional(&mut **tx)
        .await?;
    row.as_ref().map(parse).transpose()
}

impl Store {
    /// Puts a request into the queue, once: a repeat by the same owner for the same type finds the
    /// first. [`StoreError::Exists`] if the id is somebody else's or for something else,
    /// [`StoreError::NotFound`] if there is no such group or snapshot, [`StoreError::Incomplete`] if the
    /// snapshot is no longer whole, [`StoreError::Limit`] if `queue_limit` others wait or the owner has as
    /// many instances as `owner_limit` (0: any number).
    pub async fn request_instance(
        &self,
        new: &NewInstance,
        queue_limit: u64,
        owner_limit: u64,
        now: Timestamp,
    ) -> Result<InstanceRow, StoreError> {
        let mut tx = self.write().await?;
        if let Some(row) =
            sqlx::query(select!("WHERE i.id = ?")).bind(new.id.to_string()).fetch_optional(&mut *tx).await?
        {
            let found = parse(&row)?;
            let wish = found.snapshot.as_ref().map(|snapshot| snapshot.name.as_str());
            let same = found.owner == new.owner && found.host_type == new.host_type;
            if !same || wish != new.from_snapshot.as_ref().map(Label::as_str) {
                return Err(StoreError::Exists { what: "instance", name: new.id.to_string() });
            }
            return Ok(found);
        }
        for group in &new.groups {
            groups::require(&mut tx, &new.owner, group).await?;
        }
        let snapshot = match &new.from_snapshot {
            Some(name) => {
                let found = snapshots::find(&mut tx, &new.owner, name).await?;
                Some(found.ok_or_else(|| snapshots::unknown(name))?)
            }
            None => None,
        };
        if let Some(lost) = snapshot.as_ref().filter(|snapshot| snapshot.damaged) {
            return Err(StoreError::Incomplete { name: lost.name.to_string() });
        }
        let waiting: i64 =
            sqlx::query_scalar("SELECT count(*) FROM instances WHERE state = 'queued'").fetch_one(&mut *tx).await?;
        if waiting >= to_db(queue_limit) {
            return Err(StoreError::Limit { what: "the queue for instances is full", limit: queue_limit });
        }
        let mut taken: BTreeSet<String> = sqlx::query_scalar(
            "SELECT name FROM instances WHERE owner = ? AND state <> 'gone' \
             AND +state IN ('queued', 'starting', 'ready', 'lost')",
        )
        .bind(new.owner.as_str())
        .fetch_all(&mut *tx)
        .await?
        .into_iter()
        .collect();
        if owner_limit > 0 && taken.len() as u64 >= owner_limit {
            return Err(StoreError::Limit { what: "instances of one user", limit: owner_limit });
        }
        // Two users' names can meet ("a-b" + "c" and "a" + "b-c"); the index on live names decides.
        let name = loop {
            let name = next_instance_name(&new.owner, &new.host_type, &taken);
            let clash: Option<i64> = sqlx::query_scalar(
                "SELECT 1 FROM instances WHERE name = ? AND state IN ('queued', 'starting', 'ready', 'lost')",
            )
            .bind(&name)
            .fetch_optional(&mut *tx)
            .await?;
            if clash.is_none() {
                break name;
            }
            taken.insert(name);
        };
        sqlx::query(
            "INSERT INTO instances (id, name, owner, host_type, state, watched_ms, created_ms, snapshot_name, \
             snapshot_dir, snapshot_hash, snapshot_size) VALUES (?, ?, ?, ?, 'queued', ?, ?, ?, ?, ?, ?)",
        )
        .bind(new.id.to_string())
        .bind(&name)
        .bind(new.owner.as_str())
        .bind(new.host_type.as_str())
        .bind(now.as_millis())
        .bind(now.as_millis())
        .bind(snapshot.as_ref().map(|snapshot| snapshot.name.as_str()))
        .bind(snapshot.as_ref().map(|snapshot| snapshot.dir.as_str()))
        .bind(snapshot.as_ref().map(|snapshot| snapshot.root.hash().as_slice()))
        .bind(snapshot.as_ref().map(|snapshot| to_db(snapshot.root.size_bytes())))
        .execute(&mut *tx)
        .await?;
        LeaseColumns::insert_terms(&mut tx, new.id, &new.terms).await?;
        for group in &new.groups {
            groups::join(&mut tx, &new.owner, group, &new.id.to_string()).await?;
        }
        let row = sqlx::query(select!("WHERE i.id = ?")).bind(new.id.to_string()).fetch_one(&mut *tx).await?;
        let row = parse(&row)?;
        tx.commit().await?;
        Ok(row)
    }

    /// The instance with this id, whatever its state.
    pub async fn instance(&self, id: InstanceId) -> Result<Option<InstanceRow>, StoreError> {
        let row = sqlx::query(select!("WHERE i.id = ?")).bind(id.to_string()).fetch_optional(&self.readers).await?;
        row.as_ref().map(parse).transpose()
    }

    /// Those of these instances that there are, whatever their state.
    pub async fn instances_with_ids(&self, ids: &[InstanceId]) -> Result<Vec<InstanceRow>, StoreError> {
        let rows = sqlx::query(select!("WHERE i.id IN (SELECT value FROM json_each(?))"))
            .bind(id_list(ids))
            .fetch_all(&self.readers)
            .await?;
        parse_all(&rows)
    }

    /// The live instance with this name.
    pub async fn live_instance(&self, name: &str) -> Result<Option<InstanceRow>, StoreError> {
        let row = sqlx::query(select!("WHERE i.name = ? AND i.state IN ('queued', 'starting', 'ready', 'lost')"))
            .bind(name)
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(parse).transpose()
    }

    /// Everything that is not gone and that this user has or may use, by name.
    pub async fn instances_usable_by(&self, user: &UserName) -> Result<Vec<InstanceRow>, StoreError> {
        // Two indexes, one each: an OR over both would scan.
        let query = sqlx::query(select!(
            "WHERE i.id IN (SELECT id FROM instances WHERE owner = ? AND state <> 'gone' \
             UNION SELECT instance_id FROM shares WHERE user_name = ?) AND i.state <> 'gone' ORDER BY i.name, i.seq"
        ));
        let rows = query.bind(user.as_str()).bind(user.as_str()).fetch_all(&self.readers).await?;
        parse_all(&rows)
    }

    /// Everything that is not gone, by name; of one owner if given.
    pub async fn instances(&self, owner: Option<&UserName>) -> Result<Vec<InstanceRow>, StoreError> {
        let query = match owner {
            Some(owner) => sqlx::query(select!("WHERE i.owner = ? AND i.state <> 'gone' ORDER BY i.name, i.seq"))
                .bind(owner.as_str()),
            None => sqlx::query(select!("WHERE i.state <> 'gone' ORDER BY i.name, i.seq")),
        };
        parse_all(&query.fetch_all(&self.readers).await?)
    }

    /// Everything not gone that was assigned to this buildlet.
    pub async fn instances_of_buildlet(&self, buildlet_id: &str) -> Result<Vec<InstanceRow>, StoreError> {
        let rows = sqlx::query(select!("WHERE i.buildlet_id = ? AND i.state <> 'gone'"))
            .bind(buildlet_id)
            .fetch_all(&self.readers)
            .await?;
        parse_all(&rows)
    }

    /// Everything in this state, oldest request first.
    pub async fn instances_in(&self, state: InstanceState) -> Result<Vec<InstanceRow>, StoreError> {
        let rows = sqlx::query(select!("WHERE i.state = ? ORDER BY i.seq"))
            .bind(state.as_str())
            .fetch_all(&self.readers)
            .await?;
        parse_all(&rows)
    }

    /// The queue in order.
    pub async fn wait_queue(&self) -> Result<WaitQueue, StoreError> {
        let rows: Vec<(String, String)> =
            sqlx::query_as("SELECT id, host_type FROM instances WHERE state = 'queued' ORDER BY seq")
                .fetch_all(&self.readers)
                .await?;
        rows.into_iter()
            .map(|(id, host_type)| {
                Ok(Waiter {
                    id: id.parse().map_err(|e| damaged("instances", "id", e))?,
                    host_type: host_type.parse().map_err(|e| damaged("instances", "host_type", e))?,
                })
            })
            .collect::<Result<Vec<_>, StoreError>>()
            .map(WaitQueue::new)
    }

    /// Slots held, by buildlet.
    pub async fn slots_held(&self) -> Result<Vec<(String, u64)>, StoreError> {
        let rows: Vec<(String, i64)> = sqlx::query_as(
            "SELECT buildlet_id, count(*) FROM instances WHERE buildlet_id IS NOT NULL \
             AND state IN ('starting', 'ready', 'lost', 'ending') GROUP BY buildlet_id",
        )
        .fetch_all(&self.readers)
        .await?;
        Ok(rows.into_iter().map(|(id, n)| (id, super::from_db(n))).collect())
    }

    /// Notes that the asker of a queued instance still listens.
    pub async fn mark_watched(&self, id: InstanceId, now: Timestamp) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        sqlx::query("UPDATE instances SET watched_ms = ? WHERE id = ?")
            .bind(now.as_millis())
            .bind(id.to_string())
            .execute(&mut *tx)
            .await?;
        Ok(tx.commit().await?)
    }

    /// Instances whose lease is over by `now`.
    pub async fn leases_due(&self, now: Timestamp) -> Result<Vec<InstanceRow>, StoreError> {
        // The plus keeps SQLite from going through all live instances by their state: by expiry it is
        // those that are due.
        let rows = sqlx::query(select!("WHERE l.expires_ms <= ? AND +i.state IN ('ready', 'lost') LIMIT 1000"))
            .bind(now.as_millis())
            .fetch_all(&self.readers)
            .await?;
        parse_all(&rows)
    }
}

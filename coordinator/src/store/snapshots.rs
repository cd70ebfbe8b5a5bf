//! Snapshots: named trees of a user's.

use super::{Store, StoreError, audit, damaged, from_db, to_db};
use motefarm_core::name::UserName;
use motefarm_core::{Digest, HostType, Label, Timestamp};
use sqlx::{FromRow, Sqlite, Transaction};

/// Most snapshots a user may have.
pub const MAX_SNAPSHOTS: u64 = 1000;

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotRow {
    /// Whose it is.
    pub owner: UserName,
    /// What they call it.
    pub name: Label,
    /// Where it was taken from and goes to; empty: the whole work directory.
    pub dir: String,
    /// Digest of the root `Directory`.
    pub root: Digest,
    /// Files in it.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What it was taken on.
    pub host_type: HostType,
    /// When.
    pub created_at: Timestamp,
    /// Whether content of it was found missing.
    pub damaged: bool,
}

#[derive(FromRow)]
struct Columns {
    owner: String,
    name: String,
    dir: String,
    root_hash: Vec<u8>,
    root_size: i64,
    files: i64,
    bytes: i64,
    host_type: String,
    created_ms: i64,
    damaged_ms: Option<i64>,
}

const COLUMNS: &str = "owner, name, dir, root_hash, root_size, files, bytes, host_type, created_ms, damaged_ms";

/// A digest from its columns.
pub(super) fn digest(table: &'static str, hash: &[u8], size: i64) -> Result<Digest, StoreError> {
    let hash: [u8; 32] = hash.try_into().map_err(|_| damaged(table, "hash", hex::encode(hash)))?;
    Ok(Digest::new(hash, from_db(size)))
}

impl TryFrom<Columns> for SnapshotRow {
    type Error = StoreError;
    fn try_from(columns: Columns) -> Result<Self, StoreError> {
        Ok(Self {
            root: digest("snapshots", &columns.root_hash, columns.root_size)?,
            owner: columns.owner.parse().map_err(|e| damaged("snapshots", "owner", e))?,
            name: columns.name.parse().map_err(|e| damaged("snapshots", "name", e))?,
            dir: columns.dir,
            files: from_db(columns.files),
            bytes: from_db(columns.bytes),
            host_type: columns.host_type.parse().map_err(|e| damaged("snapshots", "host_type", e))?,
            created_at: Timestamp::from_millis(columns.created_ms),
            damaged: columns.damaged_ms.is_some(),
        })
    }
}

/// `owner`'s snapshot of this name.
pub(super) async fn find(
    tx: &mut Transaction<'_, Sqlite>,
    owner: &UserName,
    name: &Label,
) -> Result<Option<SnapshotRow>, StoreError> {
    let query = format!("SELECT {COLUMNS} FROM snapshots WHERE owner = ? AND name = ?");
    let columns: Option<Columns> = sqlx::query_as(sqlx::AssertSqlSafe(query))
        .bind(owner.as_str())
        .bind(name.as_str())
        .fetch_optional(&mut **tx)
        .await?;
    columns.map(SnapshotRow::try_from).transpose()
}

/// The error for a snapshot that is not there.
pub(super) fn unknown(name: &Label) -> StoreError {
    StoreError::NotFound { what: "snapshot", name: name.to_string() }
}

impl Store {
    /// Records a snapshot, and answers what is recorded. A repeat with the same directory and content
    /// finds the first (and makes it whole again if it was damaged); [`StoreError::Exists`] with
    /// another; [`StoreError::Limit`] beyond [`MAX_SNAPSHOTS`] or, all users' together, `max_bytes`.
    pub async fn add_snapshot(&self, new: &SnapshotRow, max_bytes: u64) -> Result<SnapshotRow, StoreError> {
        let mut tx = self.write().await?;
        if let Some(found) = find(&mut tx, &new.owner, &new.name).await? {
            if (found.root, &found.dir) != (new.root, &new.dir) {
                return Err(StoreError::Exists { what: "snapshot", name: new.name.to_string() });
            }
            sqlx::query("UPDATE snapshots SET damaged_ms = NULL WHERE root_hash = ?")
                .bind(new.root.hash().as_slice())
                .execute(&mut *tx)
                .await?;
            tx.commit().await?;
            return Ok(SnapshotRow { damaged: false, ..found });
        }
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM snapshots WHERE owner = ?")
            .bind(new.owner.as_str())
            .fetch_one(&mut *tx)
            .await?;
        if count >= to_db(MAX_SNAPSHOTS) {
            return Err(StoreError::Limit { what: "snapshots of one user", limit: MAX_SNAPSHOTS });
        }
        let bytes: i64 =
            sqlx::query_scalar("SELECT coalesce(sum(bytes), 0) FROM snapshots").fetch_one(&mut *tx).await?;
        if from_db(bytes).saturating_add(new.bytes) > max_bytes {
            return Err(StoreError::Limit { what: "bytes of all snapshots of this farm", limit: max_bytes });
        }
        sqlx::query(
            "INSERT INTO snapshots (owner, name, dir, root_hash, root_size, files, bytes, host_type, created_ms) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(new.owner.as_str())
        .bind(new.name.as_str())
        .bind(&new.dir)
        .bind(new.root.hash().as_slice())
        .bind(to_db(new.root.size_bytes()))
        .bind(to_db(new.files))
        .bind(to_db(new.bytes))
        .bind(new.host_type.as_str())
        .bind(new.created_at.as_millis())
        .execute(&mut *tx)
        .await?;
        let detail = format!("{} of {}", new.root, if new.dir.is_empty() { "." } else { &new.dir });
        audit::insert(&mut tx, new.owner.as_str(), "snapshot create", new.name.as_str(), &detail, new.created_at)
            .await?;
        tx.commit().await?;
        Ok(new.clone())
    }

    /// The owner's snapshots by name.
    pub async fn snapshots(&self, owner: &UserName) -> Result<Vec<SnapshotRow>, StoreError> {
        let query = format!("SELECT {COLUMNS} FROM snapshots WHERE owner = ? ORDER BY name");
        let columns: Vec<Columns> =
            sqlx::query_as(sqlx::AssertSqlSafe(query)).bind(owner.as_str()).fetch_all(&self.readers).await?;
        columns.into_iter().map(SnapshotRow::try_from).collect()
    }

    /// Bytes of everybody's snapshots together; what several have in common counts for each.
    pub async fn snapshot_bytes(&self) -> Result<u64, StoreError> {
        let bytes: i64 =
            sqlx::query_scalar("SELECT coalesce(sum(bytes), 0) FROM snapshots").fetch_one(&self.readers).await?;
        Ok(from_db(bytes))
    }

    /// Removes a snapshot. What is being made from it still is.
    pub async fn remove_snapshot(&self, owner: &UserName, name: &Label, now: Timestamp) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        let done = sqlx::query("DELETE FROM snapshots WHERE owner = ? AND name = ?")
            .bind(owner.as_str())
            .bind(name.as_str())
            .execute(&mut *tx)
            .await?;
        if done.rows_affected() == 0 {
            return Err(unknown(name));
        }
        audit::insert(&mut tx, owner.as_str(), "snapshot remove", name.as_str(), "", now).await?;
        Ok(tx.commit().await?)
    }

    /// Roots of the trees that must stay: of snapshots, and of what instances are still to be made from.
    pub async fn snapshot_roots(&self) -> Result<Vec<Digest>, StoreError> {
        let rows: Vec<(Vec<u8>, i64)> = sqlx::query_as(
            "SELECT root_hash, root_size FROM snapshots UNION SELECT snapshot_hash, snapshot_size FROM instances \
             WHERE state IN ('queued', 'starting') AND snapshot_hash IS NOT NULL",
        )
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(|(hash, size)| digest("snapshots", hash, *size)).collect()
    }

    /// Notes that content of every snapshot with this root is missing.
    pub async fn snapshot_damaged(&self, root: Digest, now: Timestamp) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        sqlx::query("UPDATE snapshots SET damaged_ms = ? WHERE root_hash = ? AND damaged_ms IS NULL")
            .bind(now.as_millis())
            .bind(root.hash().as_slice())
            .execute(&mut *tx)
            .await?;
        Ok(tx.commit().await?)
    }
}

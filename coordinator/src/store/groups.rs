//! Groups: named sets of a user's own live instances. Instances leave by a trigger when they end.

use super::{Store, StoreError, audit, to_db};
use motefarm_core::name::UserName;
use motefarm_core::{InstanceId, Label, Timestamp};
use sqlx::{Sqlite, Transaction};
use std::collections::BTreeMap;

/// Most groups a user may have.
pub const MAX_GROUPS: u64 = 1000;

const NO_GROUP: &str = "group";

async fn exists(tx: &mut Transaction<'_, Sqlite>, owner: &UserName, group: &Label) -> Result<bool, StoreError> {
    let found: Option<i64> = sqlx::query_scalar("SELECT 1 FROM groups WHERE owner = ? AND name = ?")
        .bind(owner.as_str())
        .bind(group.as_str())
        .fetch_optional(&mut **tx)
        .await?;
    Ok(found.is_some())
}

/// [`StoreError::NotFound`] unless `owner` has this group.
pub(super) async fn require(
    tx: &mut Transaction<'_, Sqlite>,
    owner: &UserName,
    group: &Label,
) -> Result<(), StoreError> {
    match exists(tx, owner, group).await? {
        true => Ok(()),
        false => Err(StoreError::NotFound { what: NO_GROUP, name: group.to_string() }),
    }
}

/// Puts an instance into a group that is there; whether it was not in it.
pub(super) async fn join(
    tx: &mut Transaction<'_, Sqlite>,
    owner: &UserName,
    group: &Label,
    id: &str,
) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "INSERT INTO group_members (owner, group_name, instance_id) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
    )
    .bind(owner.as_str())
    .bind(group.as_str())
    .bind(id)
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// The id of `owner`'s live instance of this name or id.
async fn live_id(tx: &mut Transaction<'_, Sqlite>, owner: &UserName, name: &str) -> Result<Option<String>, StoreError> {
    // An id in any of its spellings; what is none is a name.
    let id = name.parse::<InstanceId>().map(|id| id.to_string()).ok();
    let column = if id.is_some() { "id" } else { "name" };
    let found = sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
        "SELECT id FROM instances WHERE {column} = ? AND owner = ? AND state IN ('queued', 'starting', 'ready', 'lost')"
    )))
    .bind(id.as_deref().unwrap_or(name))
    .bind(owner.as_str())
    .fetch_optional(&mut **tx)
    .await?;
    Ok(found)
}

impl Store {
    /// Makes a group. [`StoreError::Exists`] if the owner has one of that name, unless `if_absent`;
    /// [`StoreError::Limit`] beyond [`MAX_GROUPS`]. Tells whether it was made.
    pub async fn create_group(
        &self,
        owner: &UserName,
        group: &Label,
        if_absent: bool,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut tx = self.write().await?;
        if exists(&mut tx, owner, group).await? {
            return match if_absent {
                true => Ok(false),
                false => Err(StoreError::Exists { what: NO_GROUP, name: group.to_string() }),
            };
        }
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM groups WHERE owner = ?")
            .bind(owner.as_str())
            .fetch_one(&mut *tx)
            .await?;
        if count >= to_db(MAX_GROUPS) {
            return Err(StoreError::Limit { what: "groups of one user", limit: MAX_GROUPS });
        }
        sqlx::query("INSERT INTO groups (owner, name, created_ms) VALUES (?, ?, ?)")
            .bind(owner.as_str())
            .bind(group.as_str())
            .bind(now.as_millis())
            .execute(&mut *tx)
            .await?;
        audit::insert(&mut tx, owner.as_str(), "group create", group.as_str(), "", now).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Ends a group; its instances live on.
    pub async fn destroy_group(&self, owner: &UserName, group: &Label, now: Timestamp) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        require(&mut tx, owner, group).await?;
        sqlx::query("DELETE FROM groups WHERE owner = ? AND name = ?")
            .bind(owner.as_str())
            .bind(group.as_str())
            .execute(&mut *tx)
            .await?;
        audit::insert(&mut tx, owner.as_str(), "group destroy", group.as_str(), "", now).await?;
        Ok(tx.commit().await?)
    }

    /// The owner's groups by name, each with the names of its instances in order.
    pub async fn groups(&self, owner: &UserName) -> Result<Vec<(String, Vec<String>)>, StoreError> {
        let rows: Vec<(String, Option<String>)> = sqlx::query_as(
            "SELECT g.name, i.name FROM groups g \
             LEFT JOIN group_members m ON m.owner = g.owner AND m.group_name = g.name \
             LEFT JOIN instances i ON i.id = m.instance_id WHERE g.owner = ? ORDER BY g.name, i.name",
        )
        .bind(owner.as_str())
        .fetch_all(&self.readers)
        .await?;
        let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (group, instance) in rows {
            groups.entry(group).or_default().extend(instance);
        }
        Ok(groups.into_iter().collect())
    }

    /// Puts instances (live names or ids of the owner's) into a group: all of them, or none if one is
    /// not there ([`StoreError::NotFound`] names it). Answers how many were not in it.
    pub async fn add_to_group(
        &self,
        owner: &UserName,
        group: &Label,
        instances: &[String],
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let mut tx = self.write().await?;
        require(&mut tx, owner, group).await?;
        let mut added = 0;
        for name in instances {
            let unknown = || StoreError::NotFound { what: "instance", name: name.chars().take(128).collect() };
            let id = live_id(&mut tx, owner, name).await?.ok_or_else(unknown)?;
            added += u64::from(join(&mut tx, owner, group, &id).await?);
        }
        if added > 0 {
            audit::insert(&mut tx, owner.as_str(), "group add", group.as_str(), &instances.join(" "), now).await?;
        }
        tx.commit().await?;
        Ok(added)
    }

    /// Takes instances out of a group. Answers those that were not in it.
    pub async fn remove_from_group(
        &self,
        owner: &UserName,
        group: &Label,
        instances: &[String],
        now: Timestamp,
    ) -> Result<Vec<String>, StoreError> {
        let mut tx = self.write().await?;
        require(&mut tx, owner, group).await?;
        let mut absent = Vec::new();
        for name in instances {
            let removed = match live_id(&mut tx, owner, name).await? {
                Some(id) => {
                    sqlx::query("DELETE FROM group_members WHERE owner = ? AND group_name = ? AND instance_id = ?")
                        .bind(owner.as_str())
                        .bind(group.as_str())
                        .bind(id)
                        .execute(&mut *tx)
                        .await?
                        .rows_affected()
                }
                None => 0,
            };
            if removed == 0 {
                absent.push(name.clone());
            }
        }
        if absent.len() < instances.len() {
            audit::insert(&mut tx, owner.as_str(), "group remove", group.as_str(), &instances.join(" "), now).await?;
        }
        tx.commit().await?;
        Ok(absent)
    }
}

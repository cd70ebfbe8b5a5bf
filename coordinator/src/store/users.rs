//! Users and their roles.

use super::{Store, StoreError, damaged};
use crate::identity::Role;
use motefarm_core::Timestamp;
use motefarm_core::name::UserName;

/// A user.
#[derive(Debug, Clone)]
pub struct UserRow {
    /// Who.
    pub name: UserName,
    /// What they may do.
    pub role: Role,
    /// Since when.
    pub created_at: Timestamp,
}

impl Store {
    /// Adds a user. [`StoreError::Exists`] if the name is taken.
    pub async fn add_user(&self, name: &UserName, role: Role, now: Timestamp) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        let done = sqlx::query("INSERT INTO users (name, role, created_ms) VALUES (?, ?, ?) ON CONFLICT DO NOTHING")
            .bind(name.as_str())
            .bind(role.as_str())
            .bind(now.as_millis())
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        match done.rows_affected() {
            0 => Err(StoreError::Exists { what: "user", name: name.to_string() }),
            _ => Ok(()),
        }
    }

    /// What a user may do; `None`: there is no such user.
    pub async fn role_of(&self, name: &UserName) -> Result<Option<Role>, StoreError> {
        let role: Option<String> = sqlx::query_scalar("SELECT role FROM users WHERE name = ?")
            .bind(name.as_str())
            .fetch_optional(&self.readers)
            .await?;
        role.map(|role| Role::from_word(&role).ok_or_else(|| damaged("users", "role", role))).transpose()
    }

    /// Every user, by name.
    pub async fn users(&self) -> Result<Vec<UserRow>, StoreError> {
        let rows: Vec<(String, String, i64)> =
            sqlx::query_as("SELECT name, role, created_ms FROM users ORDER BY name").fetch_all(&self.readers).await?;
        rows.into_iter()
            .map(|(name, role, created_ms)| {
                Ok(UserRow {
                    name: name.parse().map_err(|e| damaged("users", "name", e))?,
                    role: Role::from_word(&role).ok_or_else(|| damaged("users", "role", role))?,
                    created_at: Timestamp::from_millis(created_ms),
                })
            })
            .collect()
    }

    /// Removes a user and all their tokens, groups and snapshots, and what was shared with them.
    pub async fn remove_user(&self, name: &UserName) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        let done = sqlx::query("DELETE FROM users WHERE name = ?").bind(name.as_str()).execute(&mut *tx).await?;
        for query in ["DELETE FROM groups WHERE owner = ?", "DELETE FROM snapshots WHERE owner = ?"] {
            sqlx::query(query).bind(name.as_str()).execute(&mut *tx).await?;
        }
        tx.commit().await?;
        self.known_tokens.forget();
        match done.rows_affected() {
            0 => Err(StoreError::NotFound { what: "user", name: name.to_string() }),
            _ => Ok(()),
        }
    }
}

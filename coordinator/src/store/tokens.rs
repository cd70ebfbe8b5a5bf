//! API tokens and join tokens, by their hashes.

use super::{Store, StoreError, damaged, from_db};
use crate::identity::{Identity, Role};
use motefarm_core::name::UserName;
use motefarm_core::{HostType, Timestamp};
use motefarm_net::token::{JoinToken, SecretHash};
use std::time::Duration;

/// "Last used" is kept to this precision, so that a busy token costs a write a minute.
const LAST_USED_PRECISION: Duration = Duration::from_secs(60);
/// A token that was not used for this long signs in anew: that is a row of the audit.
const SIGN_IN_AFTER: Duration = Duration::from_secs(3600);

/// An API token, without its secret.
#[derive(Debug, Clone)]
pub struct TokenRow {
    /// Whose.
    pub user: UserName,
    /// What they call it.
    pub name: String,
    /// Since when.
    pub created_at: Timestamp,
    /// Until when, if not for ever.
    pub expires_at: Option<Timestamp>,
    /// To a minute.
    pub last_used_at: Option<Timestamp>,
}

/// A join token, without its secret.
#[derive(Debug, Clone)]
pub struct JoinTokenRow {
    /// Its public part.
    pub id: String,
    /// What it lets machines join as.
    pub host_type: HostType,
    /// Since when.
    pub created_at: Timestamp,
    /// Until when it lets new machines in.
    pub expires_at: Timestamp,
    /// For one machine.
    pub one_time: bool,
    /// Machines that joined with it.
    pub uses: u64,
}

/// User, name, created, expires, last used.
type TokenColumns = (String, String, i64, Option<i64>, Option<i64>);

impl TryFrom<TokenColumns> for TokenRow {
    type Error = StoreError;
    fn try_from((user, name, created_ms, expires_ms, last_used_ms): TokenColumns) -> Result<Self, StoreError> {
        Ok(Self {
            user: user.parse().map_err(|e| damaged("tokens", "user_name", e))?,
            name,
            created_at: Timestamp::from_millis(created_ms),
            expires_at: expires_ms.map(Timestamp::from_millis),
            last_used_at: last_used_ms.map(Timestamp::from_millis),
        })
    }
}

impl Store {
    /// Adds a token. [`StoreError::NotFound`] without the user, [`StoreError::Exists`] if the user
    /// has one of this name.
    pub async fn add_token(
        &self,
        user: &UserName,
        name: &str,
        hash: &SecretHash,
        expires_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        let known: Option<i64> = sqlx::query_scalar("SELECT 1 FROM users WHERE name = ?")
            .bind(user.as_str())
            .fetch_optional(&mut *tx)
            .await?;
        if known.is_none() {
            return Err(StoreError::NotFound { what: "user", name: user.to_string() });
        }
        let done = sqlx::query(
            "INSERT INTO tokens (hash, user_name, name, created_ms, expires_ms) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        )
        .bind(&hash.as_bytes()[..])
        .bind(user.as_str())
        .bind(name)
        .bind(now.as_millis())
        .bind(expires_at.map(Timestamp::as_millis))
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        match done.rows_affected() {
            0 => Err(StoreError::Exists { what: "token", name: format!("{user}/{name}") }),
            _ => Ok(()),
        }
    }

    /// Who has the token with this hash at `now`; notes its use, and a sign-in (from `origin`, for people)
    /// if it rested before.
    pub async fn identify(
        &self,
        hash: &SecretHash,
        origin: &str,
        now: Timestamp,
    ) -> Result<Option<Identity>, StoreError> {
        let asked = match self.known_tokens.get(hash.as_bytes(), now) {
            Ok(identity) => return Ok(Some(identity)),
            Err(asked) => asked,
        };
        let row: Option<(String, String, String, Option<i64>)> = sqlx::query_as(
            "SELECT u.name, u.role, t.name, t.last_used_ms FROM tokens t JOIN users u ON u.name = t.user_name \
             WHERE t.hash = ? AND (t.expires_ms IS NULL OR t.expires_ms > ?)",
        )
        .bind(&hash.as_bytes()[..])
        .bind(now.as_millis())
        .fetch_optional(&self.readers)
        .await?;
        let Some((user, role, token, last_used_ms)) = row else { return Ok(None) };
        let identity = Identity {
            user: user.parse().map_err(|e| damaged("users", "name", e))?,
            role: Role::from_word(&role).ok_or_else(|| damaged("users", "role", role))?,
        };
        let rested = |at_least| last_used_ms.is_none_or(|ms| Timestamp::from_millis(ms) + at_least <= now);
        if rested(LAST_USED_PRECISION) {
            let mut tx = self.write().await?;
            // Of several calls at once, one is the first.
            let done = sqlx::query("UPDATE tokens SET last_used_ms = ? WHERE hash = ? AND last_used_ms IS ?")
                .bind(now.as_millis())
                .bind(&hash.as_bytes()[..])
                .bind(last_used_ms)
                .execute(&mut *tx)
                .await?;
            if done.rows_affected() > 0 && rested(SIGN_IN_AFTER) {
                let subject = format!("{user}/{token}");
                super::audit::insert(&mut tx, &user, "sign-in", &subject, origin, now).await?;
            }
            tx.commit().await?;
        }
        self.known_tokens.keep(asked, *hash.as_bytes(), &identity, now);
        Ok(Some(identity))
    }

    /// Whether a token is still good at `now`; notes no use.
    pub async fn is_good(&self, hash: &SecretHash, now: Timestamp) -> Result<bool, StoreError> {
        let found: Option<i64> =
            sqlx::query_scalar("SELECT 1 FROM tokens WHERE hash = ? AND (expires_ms IS NULL OR expires_ms > ?)")
                .bind(&hash.as_bytes()[..])
                .bind(now.as_millis())
                .fetch_optional(&self.readers)
                .await?;
        Ok(found.is_some())
    }

    /// Tokens, of one user if given.
    pub async fn tokens(&self, user: Option<&UserName>) -> Result<Vec<TokenRow>, StoreError> {
        let rows: Vec<TokenColumns> = sqlx::query_as(
            "SELECT user_name, name, created_ms, expires_ms, last_used_ms FROM tokens \
             WHERE ? IS NULL OR user_name = ? ORDER BY user_name, name",
        )
        .bind(user.map(UserName::as_str))
        .bind(user.map(UserName::as_str))
        .fetch_all(&self.readers)
        .await?;
        rows.into_iter().map(TokenRow::try_from).collect()
    }

    /// The token with this hash.
    pub async fn token(&self, hash: &SecretHash) -> Result<Option<TokenRow>, StoreError> {
        let row: Option<TokenColumns> =
            sqlx::query_as("SELECT user_name, name, created_ms, expires_ms, last_used_ms FROM tokens WHERE hash = ?")
                .bind(&hash.as_bytes()[..])
                .fetch_optional(&self.readers)
                .await?;
        row.map(TokenRow::try_from).transpose()
    }

    /// Revokes a token at once.
    pub async fn revoke_token(&self, user: &UserName, name: &str) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        let done = sqlx::query("DELETE FROM tokens WHERE user_name = ? AND name = ?")
            .bind(user.as_str())
            .bind(name)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        self.known_tokens.forget();
        match done.rows_affected() {
            0 => Err(StoreError::NotFound { what: "token", name: format!("{user}/{name}") }),
            _ => Ok(()),
        }
    }

    /// Adds a join token.
    pub async fn add_join_token(
        &self,
        token: &JoinToken,
        host_type: &HostType,
        one_time: bool,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        sqlx::query(
            "INSERT INTO join_tokens (id, hash, host_type, created_ms, expires_ms, one_time) VALUES (?, ?, ?, ?, ?, ?)",
        )
        .bind(&token.id)
        .bind(&token.hash().as_bytes()[..])
        .bind(host_type.as_str())
        .bind(now.as_millis())
        .bind(expires_at.as_millis())
        .bind(one_time)
        .execute(&mut *tx)
        .await?;
        Ok(tx.commit().await?)
    }

    /// Lets `buildlet_id` in as `host_type` if the token allows it at `now`: it is not revoked and,
    /// unless the buildlet has joined with it before, not expired and not used up. A one-time token
    /// is used up here, in the same transaction.
    pub async fn admit(
        &self,
        token: &JoinToken,
        buildlet_id: &str,
        host_type: &HostType,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut tx = self.write().await?;
        let row: Option<(Vec<u8>, String, i64, bool)> = sqlx::query_as(
            "SELECT hash, host_type, expires_ms, one_time FROM join_tokens WHERE id = ? AND revoked_ms IS NULL",
        )
        .bind(&token.id)
        .fetch_optional(&mut *tx)
        .await?;
        let Some((hash, allowed, expires_ms, one_time)) = row else { return Ok(false) };
        let hash = SecretHash::from_bytes(&hash).ok_or_else(|| damaged("join_tokens", "hash", hash.len()))?;
        if !hash.matches(&token.secret) || allowed != host_type.as_str() {
            return Ok(false);
        }
        let joined: Vec<String> = sqlx::query_scalar("SELECT id FROM buildlets WHERE join_token_id = ?")
            .bind(&token.id)
            .fetch_all(&mut *tx)
            .await?;
        if joined.iter().any(|id| id == buildlet_id) {
            return Ok(true);
        }
        if Timestamp::from_millis(expires_ms) <= now || (one_time && !joined.is_empty()) {
            return Ok(false);
        }
        // What else there is to know of it, it says when it is asked.
        sqlx::query(
            "INSERT INTO buildlets (id, hostname, host_type, provider, slots, version, join_token_id, first_seen_ms, last_seen_ms) \
             VALUES (?, '', ?, 'join', 0, '', ?, ?, ?) ON CONFLICT (id) DO UPDATE SET join_token_id = excluded.join_token_id",
        )
        .bind(buildlet_id)
        .bind(host_type.as_str())
        .bind(&token.id)
        .bind(now.as_millis())
        .bind(now.as_millis())
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Join tokens that are not revoked.
    pub async fn join_tokens(&self) -> Result<Vec<JoinTokenRow>, StoreError> {
        let rows: Vec<(String, String, i64, i64, bool, i64)> = sqlx::query_as(
            "SELECT j.id, j.host_type, j.created_ms, j.expires_ms, j.one_time, \
             (SELECT count(*) FROM buildlets b WHERE b.join_token_id = j.id) \
             FROM join_tokens j WHERE j.revoked_ms IS NULL ORDER BY j.created_ms, j.id",
        )
        .fetch_all(&self.readers)
        .await?;
        rows.into_iter()
            .map(|(id, host_type, created_ms, expires_ms, one_time, uses)| {
                Ok(JoinTokenRow {
                    id,
                    host_type: host_type.parse().map_err(|e| damaged("join_tokens", "host_type", e))?,
                    created_at: Timestamp::from_millis(created_ms),
                    expires_at: Timestamp::from_millis(expires_ms),
                    one_time,
                    uses: from_db(uses),
                })
            })
            .collect()
    }

    /// Ids of the join tokens that are revoked.
    pub async fn revoked_join_tokens(&self) -> Result<Vec<String>, StoreError> {
        let query = sqlx::query_scalar("SELECT id FROM join_tokens WHERE revoked_ms IS NOT NULL");
        Ok(query.fetch_all(&self.readers).await?)
    }

    /// Revokes a join token: machines that joined with it can not come back.
    pub async fn revoke_join_token(&self, id: &str, now: Timestamp) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        let done = sqlx::query("UPDATE join_tokens SET revoked_ms = ? WHERE id = ? AND revoked_ms IS NULL")
            .bind(now.as_millis())
            .bind(id)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        match done.rows_affected() {
            0 => Err(StoreError::NotFound { what: "join token", name: id.to_owned() }),
            _ => Ok(()),
        }
    }
}

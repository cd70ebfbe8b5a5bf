//! Users whom an OpenID Connect issuer vouches for.

use super::{Store, StoreError, audit, damaged};
use crate::identity::Role;
use motefarm_core::Timestamp;
use motefarm_core::name::UserName;
use motefarm_net::token::SecretHash;

/// A sign-in that was verified.
#[derive(Clone, Copy)]
pub struct NewSignIn<'a> {
    /// Who vouches.
    pub issuer: &'a str,
    /// For whom, by the issuer's own key.
    pub subject: &'a str,
    /// By what; used once.
    pub id_token: &'a SecretHash,
    /// Until when that would be good.
    pub id_token_expires_at: Timestamp,
    /// What a new user is to be called.
    pub user: &'a UserName,
    /// What the user may do from now on.
    pub role: Role,
    /// The farm's token for it.
    pub token: &'a SecretHash,
    /// What it is called.
    pub token_name: &'a str,
    /// Until when it is good.
    pub expires_at: Timestamp,
    /// Where it came from, for people.
    pub origin: &'a str,
}

impl Store {
    /// Whether this subject has signed in before.
    pub async fn knows_subject(&self, issuer: &str, subject: &str) -> Result<bool, StoreError> {
        let found: Option<i64> = sqlx::query_scalar("SELECT 1 FROM oidc_subjects WHERE issuer = ? AND subject = ?")
            .bind(issuer)
            .bind(subject)
            .fetch_optional(&self.readers)
            .await?;
        Ok(found.is_some())
    }

    /// Makes (or finds) the user of a sign-in, with its role as of now, and a token. Answers who it is.
    /// [`StoreError::Exists`]: the id token was used before, or the name is that of a user whom this issuer
    /// does not vouch for.
    pub async fn sign_in(&self, new: &NewSignIn<'_>, now: Timestamp) -> Result<UserName, StoreError> {
        let mut tx = self.write().await?;
        sqlx::query("DELETE FROM oidc_used WHERE expires_ms < ?").bind(now.as_millis()).execute(&mut *tx).await?;
        // Longer than it is good by any clock that is nearly right.
        let keep_until = new.id_token_expires_at + std::time::Duration::from_secs(3600);
        let used = sqlx::query("INSERT INTO oidc_used (hash, expires_ms) VALUES (?, ?) ON CONFLICT DO NOTHING")
            .bind(&new.id_token.as_bytes()[..])
            .bind(keep_until.as_millis())
            .execute(&mut *tx)
            .await?;
        if used.rows_affected() == 0 {
            return Err(StoreError::Exists { what: "id token", name: String::new() });
        }
        let known: Option<(String, String)> = sqlx::query_as(
            "SELECT u.name, u.role FROM oidc_subjects s JOIN users u ON u.name = s.user_name \
             WHERE s.issuer = ? AND s.subject = ?",
        )
        .bind(new.issuer)
        .bind(new.subject)
        .fetch_optional(&mut *tx)
        .await?;
        let mut role_changed = false;
        let user: UserName = match known {
            Some((name, role)) => {
                role_changed = role != new.role.as_str();
                if role_changed {
                    sqlx::query("UPDATE users SET role = ? WHERE name = ?")
                        .bind(new.role.as_str())
                        .bind(&name)
                        .execute(&mut *tx)
                        .await?;
                    let detail = format!("{role} to {} by {}", new.role.as_str(), new.issuer);
                    audit::insert(&mut tx, "coordinator", "user role", &name, &detail, now).await?;
                }
                name.parse().map_err(|e| damaged("users", "name", e))?
            }
            None => {
                let done =
                    sqlx::query("INSERT INTO users (name, role, created_ms) VALUES (?, ?, ?) ON CONFLICT DO NOTHING")
                        .bind(new.user.as_str())
                        .bind(new.role.as_str())
                        .bind(now.as_millis())
                        .execute(&mut *tx)
                        .await?;
                if done.rows_affected() == 0 {
                    return Err(StoreError::Exists { what: "user", name: new.user.to_string() });
                }
                sqlx::query("INSERT INTO oidc_subjects (issuer, subject, user_name, created_ms) VALUES (?, ?, ?, ?)")
                    .bind(new.issuer)
                    .bind(new.subject)
                    .bind(new.user.as_str())
                    .bind(now.as_millis())
                    .execute(&mut *tx)
                    .await?;
                let detail = format!("{} by {}", new.role.as_str(), new.issuer);
                audit::insert(&mut tx, "coordinator", "user add", new.user.as_str(), &detail, now).await?;
                new.user.clone()
            }
        };
        sqlx::query(
            "INSERT INTO tokens (hash, user_name, name, created_ms, expires_ms, last_used_ms) VALUES (?, ?, ?, ?, ?, ?)",
        )
        .bind(&new.token.as_bytes()[..])
        .bind(user.as_str())
        .bind(new.token_name)
        .bind(now.as_millis())
        .bind(new.expires_at.as_millis())
        .bind(now.as_millis())
        .execute(&mut *tx)
        .await?;
        let subject = format!("{user}/{}", new.token_name);
        let detail = format!("{} by {}", new.origin, new.issuer);
        audit::insert(&mut tx, user.as_str(), "sign-in", &subject, detail.trim(), now).await?;
        tx.commit().await?;
        if role_changed {
            self.known_tokens.forget();
        }
        Ok(user)
    }
}

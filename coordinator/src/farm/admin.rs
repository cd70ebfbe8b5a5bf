//! Users and tokens. Callers are admins (the edge has checked), but for their own token.

use super::{FarmError, snapshots};
use crate::app::App;
use crate::identity::{Identity, Role};
use crate::signed_in::UsedToken;
use motefarm_core::instance::EndReason;
use motefarm_core::name::UserName;
use motefarm_core::{HostType, Timestamp};
use motefarm_net::token::{ApiToken, JoinToken};
use std::sync::Arc;
use std::time::Duration;

/// A join token's life unless asked otherwise.
pub const JOIN_TOKEN_LIFE: Duration = Duration::from_secs(24 * 3600);

/// Whether the farm may have one more user.
pub fn check_another_user(app: &App) -> Result<(), FarmError> {
    if !app.config.allow_unsandboxed && app.registry.all().iter().any(|session| !session.sandboxed) {
        return Err(FarmError::NotReady(
            "a buildlet of this farm has no sandbox, so the farm is for one user; \
             install bubblewrap there, or set allow_unsandboxed = true"
                .to_owned(),
        ));
    }
    Ok(())
}

/// Adds a user.
pub async fn add_user(app: &App, caller: &Identity, user: &UserName, role: Role) -> Result<(), FarmError> {
    check_another_user(app)?;
    app.store.add_user(user, role, app.now()).await?;
    app.audit(caller.user.as_str(), "user add", user.as_str(), role.as_str()).await;
    Ok(())
}

/// Removes a user with their tokens, and ends their instances.
pub async fn remove_user(app: &Arc<App>, caller: &Identity, user: &UserName) -> Result<(), FarmError> {
    if *user == caller.user {
        return Err(FarmError::Invalid("field user: you can not remove yourself; another admin can".to_owned()));
    }
    app.store.remove_user(user).await?;
    snapshots::unpin_unneeded(app).await?;
    for row in app.store.instances(Some(user)).await? {
        app.store.end_instance(row.id, EndReason::Destroyed, app.now()).await?;
    }
    app.audit(caller.user.as_str(), "user remove", user.as_str(), "").await;
    app.changed();
    app.wake_reaper.notify_one();
    Ok(())
}

/// Whether a token may be called this.
pub fn check_token_name(name: &str) -> Result<(), FarmError> {
    match name.is_empty() || name.len() > 64 || name.chars().any(char::is_control) {
        true => {
            Err(FarmError::Invalid("field name: a token's name has 1 to 64 bytes and no control characters".to_owned()))
        }
        false => Ok(()),
    }
}

/// Makes an API token. The secret is in the answer and nowhere else.
pub async fn create_token(
    app: &App,
    caller: &Identity,
    user: &UserName,
    name: &str,
    life: Option<Duration>,
) -> Result<ApiToken, FarmError> {
    check_token_name(name)?;
    let token = ApiToken::generate();
    let now = app.now();
    app.store.add_token(user, name, &token.hash(), life.map(|life| now + life), now).await?;
    app.audit(caller.user.as_str(), "token create", &format!("{user}/{name}"), "").await;
    Ok(token)
}

/// Revokes an API token.
pub async fn revoke_token(app: &App, caller: &Identity, user: &UserName, name: &str) -> Result<(), FarmError> {
    app.store.revoke_token(user, name).await?;
    app.audit(caller.user.as_str(), "token revoke", &format!("{user}/{name}"), "").await;
    Ok(())
}

/// Revokes the token that a call is made with; answers what it was called. The call itself may be cut by
/// that, so it is done in any case.
pub async fn revoke_own_token(app: &App, caller: &Identity, used: Option<UsedToken>) -> Result<String, FarmError> {
    let none = || FarmError::NotReady("this call is not made with a token that could be revoked".to_owned());
    let row = app.store.token(&used.ok_or_else(none)?.0).await?.ok_or_else(none)?;
    revoke_token(app, caller, &row.user, &row.name).await?;
    Ok(row.name)
}

/// Makes a join token for machines of one host type.
pub async fn create_join_token(
    app: &App,
    caller: &Identity,
    host_type: &HostType,
    life: Option<Duration>,
    one_time: bool,
) -> Result<(JoinToken, Timestamp), FarmError> {
    let token = JoinToken::generate(&app.config.ca_hash);
    let now = app.now();
    let expires_at = now + life.unwrap_or(JOIN_TOKEN_LIFE);
    app.store.add_join_token(&token, host_type, one_time, expires_at, now).await?;
    app.audit(caller.user.as_str(), "join-token create", &token.id, host_type.as_str()).await;
    Ok((token, expires_at))
}

/// Revokes a join token; the next sweep cuts the contacts made by it.
pub async fn revoke_join_token(app: &App, caller: &Identity, id: &str) -> Result<(), FarmError> {
    app.store.revoke_join_token(id, app.now()).await?;
    app.audit(caller.user.as_str(), "join-token revoke", id, "").await;
    app.wake_reaper.notify_one();
    Ok(())
}

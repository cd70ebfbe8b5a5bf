//! Letting another user use an instance, and taking that back.

use super::{FarmError, access};
use crate::app::App;
use crate::identity::Identity;
use motefarm_core::name::UserName;

/// Shares an instance of the caller's. Repeats are no error.
pub async fn share(app: &App, caller: &Identity, name: &str, user: &UserName) -> Result<(), FarmError> {
    let row = access::own_instance(app, caller, name, "share").await?;
    if !row.state.is_live() {
        return Err(access::ended(&row));
    }
    if *user == row.owner {
        return Err(FarmError::Invalid(format!("field user: {} is {user}'s own", row.name)));
    }
    app.store.share(row.id, &row.name, user, caller.user.as_str(), app.now()).await?;
    Ok(())
}

/// Takes it back; whether it was shared. Who it was shared with may also leave by themselves.
pub async fn unshare(app: &App, caller: &Identity, name: &str, user: &UserName) -> Result<bool, FarmError> {
    let row = match caller.user == *user {
        true => access::instance(app, caller, name).await?,
        false => access::own_instance(app, caller, name, "unshare").await?,
    };
    Ok(app.store.unshare(row.id, &row.name, user, caller.user.as_str(), app.now()).await?)
}

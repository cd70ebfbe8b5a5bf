//! Who may enter an instance by ssh: signing for it, and whether that still holds.

use super::{FarmError, access};
use crate::app::App;
use crate::identity::{Identity, Role};
use crate::ssh::{Gateway, Grant};
use crate::store::{InstanceRow, StoreError};
use motefarm_core::Timestamp;
use motefarm_net::token::SecretHash;
use russh::keys::ssh_key::PublicKey;
use std::sync::Arc;

/// A key's line; certificates and comments included, no key is as long.
const MOST_KEY_BYTES: usize = 16 * 1024;

/// What a caller gets for their key.
pub struct Signed {
    /// A line of a certificate file.
    pub certificate: String,
    /// Until when it lets in.
    pub valid_until: Timestamp,
    /// What it lets into.
    pub instance: InstanceRow,
    /// Where.
    pub gateway: Arc<Gateway>,
}

/// Signs a caller's key for an instance they may use. A use of it, so it renews the lease.
pub async fn sign(
    app: &Arc<App>,
    caller: &Identity,
    token: Option<SecretHash>,
    instance: &str,
    key: &str,
) -> Result<Signed, FarmError> {
    let row = access::usable_instance(app, caller, instance).await?;
    let gateway = app.ssh.get().cloned();
    let gateway = gateway.ok_or_else(|| FarmError::NotReady("this farm has no ssh gateway configured".to_owned()))?;
    let bad = |problem: String| FarmError::Invalid(format!("field public_key: {problem}"));
    if key.len() > MOST_KEY_BYTES {
        return Err(bad(format!("{} bytes; at most {MOST_KEY_BYTES}", key.len())));
    }
    // As ssh-keygen writes it: the first line that is one.
    let line = key.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#')).unwrap_or("");
    let key = PublicKey::from_openssh(line).map_err(|e| bad(format!("is no ssh public key: {e}")))?;
    super::renew::renew(app, &row).await?;
    let grant = Grant { instance: row.id, user: caller.user.clone(), token };
    let (now, lifetime) = (app.now(), app.config.ssh.certificate_lifetime);
    let certificate = gateway.authority.sign(&key, &grant, now, lifetime).map_err(|e| bad(e.to_string()))?;
    Ok(Signed { certificate, valid_until: now + lifetime, instance: row, gateway })
}

/// Who a grant's holder is now; `None`: its token or its user is gone.
async fn holder(app: &App, grant: &Grant) -> Result<Option<Identity>, StoreError> {
    match &grant.token {
        Some(hash) => Ok(app.store.identify(hash, "ssh", app.now()).await?.filter(|found| found.user == grant.user)),
        None => {
            let role: Option<Role> = app.store.role_of(&grant.user).await?;
            Ok(role.map(|role| Identity { user: grant.user.clone(), role }))
        }
    }
}

/// Who enters, and what: a grant holds as long as its holder's rights do and the instance is there.
pub async fn admit(app: &App, grant: &Grant) -> Result<(Identity, InstanceRow), FarmError> {
    let revoked = || FarmError::Forbidden("the token that this was asked for with is gone".to_owned());
    let identity = holder(app, grant).await?.ok_or_else(revoked)?;
    let row = access::usable_instance(app, &identity, &grant.instance.to_string()).await?;
    Ok((identity, row))
}

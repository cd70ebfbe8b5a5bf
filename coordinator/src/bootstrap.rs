//! First start: a data directory, a CA, an admin, and a client profile with which `mote` works at once.

use crate::identity::Role;
use crate::store::{Store, StoreError};
use anyhow::Context as _;
use motefarm_core::Timestamp;
use motefarm_core::name::UserName;
use motefarm_net::profile::{self, DEFAULT_FARM, Profile};
use motefarm_net::token::ApiToken;
use std::path::{Path, PathBuf};

/// Name of the first admin's first token.
const FIRST_TOKEN: &str = "local";

/// Default data directory: `${XDG_DATA_HOME:-~/.local/share}/motefarm`.
pub fn default_data_dir() -> anyhow::Result<PathBuf> {
    use etcetera::BaseStrategy as _;
    let base = etcetera::choose_base_strategy().context("can not find the home directory; use --data-dir")?;
    Ok(base.data_dir().join("motefarm"))
}

/// The system user's name as a user of the farm.
pub fn own_user() -> UserName {
    let known = nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten().map(|user| user.name);
    UserName::nearest(&known.or_else(|| std::env::var("USER").ok()).unwrap_or_else(|| "admin".to_owned()))
}

/// Makes sure there is an admin with a profile: in the data directory always, and where `mote`
/// looks unless another farm's is there.
pub async fn first_admin(
    store: &Store,
    data_dir: &Path,
    ca_pem: &str,
    server: &str,
    now: Timestamp,
) -> anyhow::Result<UserName> {
    let own_path = data_dir.join("profile.toml");
    let existing = read(&own_path);
    let profile = match existing {
        Some(profile) => Profile { server: server.to_owned(), ca_pem: ca_pem.to_owned(), ..profile },
        None => {
            let user = own_user();
            match store.add_user(&user, Role::Admin, now).await {
                Ok(()) | Err(StoreError::Exists { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            // A first start cut short may have stored a token that nobody ever saw.
            match store.revoke_token(&user, FIRST_TOKEN).await {
                Ok(()) | Err(StoreError::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            let token = ApiToken::generate();
            store.add_token(&user, FIRST_TOKEN, &token.hash(), None, now).await?;
            store.audit("coordinator", "first start", user.as_str(), "admin made", now).await?;
            Profile {
                server: server.to_owned(),
                user: user.to_string(),
                token: token.secret().to_owned(),
                ca_pem: ca_pem.to_owned(),
            }
        }
    };
    write(&own_path, &profile)?;
    if let Some(dir) = profile::config_dir(|name| std::env::var_os(name)) {
        let path = profile::path(&dir, DEFAULT_FARM);
        match read(&path) {
            Some(other) if other.ca_pem != profile.ca_pem => tracing::info!(
                "{} is another farm's profile and was left alone; use `mote --profile {}`",
                path.display(),
                own_path.display()
            ),
            _ => {
                if let Err(error) = write(&path, &profile) {
                    tracing::warn!("{error:#}; use `mote --profile {}`", own_path.display());
                }
            }
        }
    }
    profile.user.parse().context("the profile's user name is damaged")
}

fn read(path: &Path) -> Option<Profile> {
    Profile::load(path).ok().map(|loaded| loaded.profile)
}

fn write(path: &Path, profile: &Profile) -> anyhow::Result<()> {
    profile.save(path).with_context(|| format!("can not write the profile {}", path.display()))
}

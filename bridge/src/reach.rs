//! How the configured server is reached: its address, whom to trust there, what to show.

use crate::backend::Address;
use crate::config::Server;
use anyhow::Context as _;
use motefarm_net::dial::{Bearer, Target};
use motefarm_net::profile::{self, DEFAULT_FARM, Profile, ProfileError};
use motefarm_net::tls;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where a server is and what to trust there, and what to show it.
pub(crate) type Destination = (Target, Bearer);

/// The way to the server. Nothing is dialled yet.
pub(crate) fn reach(server: &Server) -> anyhow::Result<Destination> {
    let read =
        |path: &PathBuf| std::fs::read_to_string(path).with_context(|| format!("can not read {}", path.display()));
    let (address, ca_file, token_file) = match server {
        Server::At { address, ca_file, token_file } => (address, ca_file, token_file),
        Server::FarmOf(path) => return farm(path),
        Server::Farm(name) => return farm(&farm_profile(name.as_deref())?),
    };
    let target = match address {
        Address::Clear(address) => Target::Clear(address.clone()),
        Address::Unix(path) => Target::Unix(path.clone()),
        Address::Tls(address) => {
            let trusted = match ca_file {
                Some(path) => tls::client_config(&read(path)?)?,
                None => tls::client_config_system()?,
            };
            Target::Tls { address: address.clone(), tls: Arc::new(trusted) }
        }
    };
    let bearer = match token_file {
        Some(path) => Bearer::new(read(path)?.trim()).with_context(|| format!("{} holds no token", path.display()))?,
        None => Bearer::none(),
    };
    Ok((target, bearer))
}

/// Where the profile of a farm is; of the one that `mote` would take, if none is named.
fn farm_profile(name: Option<&str>) -> anyhow::Result<PathBuf> {
    let dir = profile::config_dir(|name| std::env::var_os(name)).context("no home directory is known: set HOME")?;
    let meant = std::env::var(profile::FARM).ok().filter(|meant| !meant.is_empty());
    let farm = name.or(meant.as_deref()).unwrap_or(DEFAULT_FARM);
    anyhow::ensure!(
        profile::is_farm_name(farm),
        "{farm:?} can not be the name of a farm: look at {}, or say --farm NAME",
        profile::FARM
    );
    Ok(profile::path(&dir, farm))
}

/// The way to the farm of a profile.
fn farm(path: &Path) -> anyhow::Result<Destination> {
    let loaded = Profile::load(path).map_err(|error| match error {
        ProfileError::Missing(path) => anyhow::anyhow!(
            "no REAPI server is named, and there is no farm's profile {}: start a farm on this machine \
             (mote-coordinator serve), sign in to one (mote login --server HOST:PORT), or name a server \
             (--backend grpc://HOST:PORT)",
            path.display()
        ),
        other => other.into(),
    })?;
    if let Some(warning) = loaded.warning {
        tracing::warn!("{warning}");
    }
    let Profile { server, ca_pem, token, .. } = loaded.profile;
    let trusted = if ca_pem.is_empty() { tls::client_config_system()? } else { tls::client_config(&ca_pem)? };
    let bearer = Bearer::new(&token).with_context(|| format!("{} holds no token", path.display()))?;
    Ok((Target::Tls { address: server, tls: Arc::new(trusted) }, bearer))
}

//! Where the program keeps things.

use crate::env_vars;
use etcetera::BaseStrategy as _;
use motefarm_net::profile;
use sha2::{Digest as _, Sha256};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The program's folders. Nothing is made until it is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dirs {
    /// Holds `farms/<name>.toml`.
    pub(crate) config: PathBuf,
    /// Holds `runs/` and `trees/`.
    pub(crate) cache: PathBuf,
}

impl Dirs {
    /// From the environment, else the platform's custom. `None` if not even a home is known.
    pub(crate) fn resolve(env: impl Fn(&str) -> Option<OsString>) -> Option<Self> {
        let own = |name| env(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let cache = match own(env_vars::CACHE_DIR) {
            Some(cache) => cache,
            None => etcetera::choose_base_strategy().ok()?.cache_dir().join("mote"),
        };
        Some(Self { config: profile::config_dir(&env)?, cache })
    }

    /// The profile of a farm.
    pub(crate) fn profile(&self, farm: &str) -> PathBuf {
        profile::path(&self.config, farm)
    }

    /// Run records and, unless told otherwise, their output.
    pub(crate) fn runs(&self) -> PathBuf {
        self.cache.join("runs")
    }

    /// The stat cache of a pushed tree.
    pub(crate) fn tree_cache(&self, absolute_root: &Path) -> PathBuf {
        let name = hex::encode(Sha256::digest(absolute_root.as_os_str().as_encoded_bytes()));
        self.cache.join("trees").join(name)
    }
}

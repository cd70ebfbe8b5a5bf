//! Where the program keeps things.

use crate::env_vars;
use etcetera::BaseStrategy as _;
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
        let (config, cache) = (own(env_vars::CONFIG_DIR), own(env_vars::CACHE_DIR));
        if let (Some(config), Some(cache)) = (&config, &cache) {
            return Some(Self { config: config.clone(), cache: cache.clone() });
        }
        let base = etcetera::choose_base_strategy().ok()?;
        Some(Self {
            config: config.unwrap_or_else(|| base.config_dir().join("mote")),
            cache: cache.unwrap_or_else(|| base.cache_dir().join("mote")),
        })
    }

    /// The profile of a farm.
    pub(crate) fn profile(&self, farm: &str) -> PathBuf {
        self.config.join("farms").join(format!("{farm}.toml"))
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

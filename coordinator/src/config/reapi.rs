//! `[reapi]`: the farm as a backend of the Remote Execution API.

use super::{ConfigError, Text, duration};
use motefarm_core::action_timeout::TimeoutBounds;
use serde::Deserialize;
use std::time::Duration;

/// How long an action may run if nobody says.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3600);
/// The most it may ask for.
const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// `[reapi]` as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReapiFile {
    /// Whether clients may store results of actions that they ran themselves.
    pub clients_may_write_action_cache: bool,
    /// Results kept.
    pub action_cache_entries: u64,
    /// Actions that may wait for a slot.
    pub queue: usize,
    /// Actions that one user may have, waiting or running; 0: any number.
    pub actions_per_user: usize,
    /// How long an action may run that does not say ("1h").
    pub default_timeout: Option<Text>,
    /// The longest it may ask for ("24h").
    pub max_timeout: Option<Text>,
}

impl Default for ReapiFile {
    fn default() -> Self {
        Self {
            clients_may_write_action_cache: false,
            action_cache_entries: 1_000_000,
            queue: 10_000,
            actions_per_user: 0,
            default_timeout: None,
            max_timeout: None,
        }
    }
}

/// `[reapi]`, resolved.
#[derive(Debug, Clone)]
pub struct Reapi {
    /// See [`ReapiFile::clients_may_write_action_cache`].
    pub clients_may_write_action_cache: bool,
    /// See [`ReapiFile::action_cache_entries`].
    pub action_cache_entries: u64,
    /// See [`ReapiFile::queue`].
    pub queue: usize,
    /// See [`ReapiFile::actions_per_user`].
    pub actions_per_user: usize,
    /// How long actions may run.
    pub timeouts: TimeoutBounds,
}

impl ReapiFile {
    /// Resolves it.
    pub(super) fn resolve(self) -> Result<Reapi, ConfigError> {
        let parse = |key: &str, text: Option<&Text>| text.map(|t| duration(&format!("reapi.{key}"), t)).transpose();
        let max = parse("max_timeout", self.max_timeout.as_ref())?.unwrap_or(MAX_TIMEOUT);
        let asked = parse("default_timeout", self.default_timeout.as_ref())?;
        if asked.is_some_and(|asked| asked > max) {
            let problem = "longer than reapi.max_timeout".to_owned();
            return Err(ConfigError::Value { key: "reapi.default_timeout".to_owned(), problem });
        }
        Ok(Reapi {
            clients_may_write_action_cache: self.clients_may_write_action_cache,
            action_cache_entries: self.action_cache_entries,
            queue: self.queue,
            actions_per_user: self.actions_per_user,
            timeouts: TimeoutBounds { default: asked.unwrap_or(DEFAULT_TIMEOUT.min(max)), max },
        })
    }
}

impl Reapi {
    /// What would be used, for people.
    pub(super) fn describe(&self) -> String {
        use humantime::format_duration;
        let TimeoutBounds { default, max } = self.timeouts;
        format!(
            "actions: {} may wait, {} of one user (0: no limit), {} if they do not say and {} at most; \
             results kept: {}, written by clients: {}",
            self.queue,
            self.actions_per_user,
            format_duration(default),
            format_duration(max),
            self.action_cache_entries,
            self.clients_may_write_action_cache
        )
    }
}

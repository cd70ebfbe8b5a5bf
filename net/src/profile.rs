//! Profiles: how to reach one farm, as a TOML file that its owner alone may read.
//!
//! The coordinator writes the first one (`farms/local.toml`) when it starts for the first time; `mote` and
//! `mote-bridge` read it.

use crate::private_file;
use etcetera::BaseStrategy as _;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The environment variable that names the folder of profiles' `farms/`.
pub const CONFIG_DIR: &str = "MOTE_CONFIG_DIR";
/// The environment variable that names the farm which is meant.
pub const FARM: &str = "MOTE_FARM";
/// The farm that is meant when nobody names one: the one on this machine.
pub const DEFAULT_FARM: &str = "local";

/// What a profile says. Fields it does not know are for other versions of the programs.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// `host:port`.
    pub server: String,
    /// The farm's CA certificate; nothing else is trusted. Empty: what this system trusts.
    pub ca_pem: String,
    /// Whose the token is, for people.
    #[serde(default)]
    pub user: String,
    /// Who is asking.
    pub token: String,
}

/// A profile as read, and what is worth a warning.
pub struct Loaded {
    /// The profile.
    pub profile: Profile,
    /// For its owner.
    pub warning: Option<String>,
}

/// Why a profile could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// There is none.
    #[error("{} does not exist", .0.display())]
    Missing(PathBuf),
    /// It is there and can not be read.
    #[error("can not read the profile {}", .path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// It is no profile.
    #[error("the profile {} is damaged: {problem}", .path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// Where and what, on one line. Never the line itself: it may be the token.
        problem: String,
    },
}

/// The folder that holds `farms/`: the environment's, else the platform's custom. `None` if not even a home is known.
pub fn config_dir(env: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    match env(CONFIG_DIR).filter(|value| !value.is_empty()) {
        Some(dir) => Some(PathBuf::from(dir)),
        None => Some(etcetera::choose_base_strategy().ok()?.config_dir().join("mote")),
    }
}

/// Where the profile of a farm is, below a [`config_dir`].
pub fn path(config_dir: &Path, farm: &str) -> PathBuf {
    config_dir.join("farms").join(format!("{farm}.toml"))
}

/// Whether a farm may be called so: its name is a file's name.
pub fn is_farm_name(farm: &str) -> bool {
    let plain = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    !farm.is_empty() && !farm.starts_with('.') && farm.chars().all(plain)
}

impl Profile {
    /// Reads one.
    pub fn load(path: &Path) -> Result<Loaded, ProfileError> {
        let unreadable = |cause: io::Error| match cause.kind() {
            io::ErrorKind::NotFound => ProfileError::Missing(path.to_owned()),
            _ => ProfileError::Unreadable { path: path.to_owned(), cause },
        };
        let text = fs::read_to_string(path).map_err(unreadable)?;
        let profile = Self::parse(&text).map_err(|problem| ProfileError::Damaged { path: path.to_owned(), problem })?;
        Ok(Loaded { profile, warning: readable_by_others(path) })
    }

    /// Writes it where it is found again, its owner's alone. One that says the same already is left as it is.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let text = toml::to_string(self).map_err(io::Error::other)?;
        if readable_by_others(path).is_none() && fs::read_to_string(path).is_ok_and(|old| old == text) {
            return Ok(());
        }
        if let Some(dir) = path.parent() {
            private_file::create_dir(dir)?;
        }
        private_file::write(path, text.as_bytes())
    }

    fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| {
            let line = error.span().map(|span| 1 + text[..span.start.min(text.len())].matches('\n').count());
            let place = line.map(|n| format!("line {n}: ")).unwrap_or_default();
            format!("{place}{}", error.message().lines().next().unwrap_or_default())
        })
    }
}

#[cfg(unix)]
fn readable_by_others(path: &Path) -> Option<String> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = fs::metadata(path).ok()?.permissions().mode() & 0o777;
    let shown = path.display();
    (mode & 0o077 != 0)
        .then(|| format!("{shown} holds a token and is open to others (mode {mode:03o}): chmod 600 {shown}"))
}

#[cfg(not(unix))]
fn readable_by_others(_path: &Path) -> Option<String> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "server = \"127.0.0.1:8119\"\nuser = \"alice\"\nca_pem = \"\"\"\n-----BEGIN\n\"\"\"\ntoken = \"mote_1\"\nlater = 3\n";

    #[test]
    fn fields_of_other_versions_are_tolerated() {
        let profile = Profile::parse(GOOD).unwrap();
        assert_eq!((profile.server.as_str(), profile.token.as_str()), ("127.0.0.1:8119", "mote_1"));
    }

    #[test]
    fn damage_is_placed_and_never_shows_the_token() {
        let problem = Profile::parse("server = \"a:1\"\nca_pem = \"\"\ntoken = \"mote_secret\nx").err().unwrap();
        assert!(problem.starts_with("line ") && !problem.contains("secret"), "{problem}");
        let problem = Profile::parse("server = \"a:1\"").err().unwrap();
        assert!(problem.contains("ca_pem"), "{problem}");
    }

    #[test]
    fn farms_are_found_by_plain_names_below_the_folder_that_is_meant() {
        let dir = config_dir(|name| (name == CONFIG_DIR).then(|| "/c".into())).unwrap();
        assert_eq!(path(&dir, "work"), Path::new("/c/farms/work.toml"));
        for bad in ["", "../x", ".x", "a/b", "a b"] {
            assert!(!is_farm_name(bad), "{bad:?}");
        }
        assert!(is_farm_name("build.example-2"));
    }

    #[test]
    fn a_missing_file_is_its_own_case() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("none.toml");
        assert!(matches!(Profile::load(&path), Err(ProfileError::Missing(p)) if p == path));
    }

    #[cfg(unix)]
    #[test]
    fn a_profile_open_to_others_is_warned_about() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.toml");
        fs::write(&path, GOOD).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Profile::load(&path).ok().unwrap().warning.is_some());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(Profile::load(&path).ok().unwrap().warning.is_none());
    }
}

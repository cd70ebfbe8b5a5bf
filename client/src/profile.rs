//! Profiles: how to reach one farm, as a TOML file that its owner alone may read.
//!
//! The coordinator writes the first one (`farms/local.toml`) when it starts for the first time.

use crate::error::Error;
use motefarm_net::private_file;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What a profile says. Fields it does not know are for other versions of the program.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Profile {
    /// `host:port`.
    pub(crate) server: String,
    /// The farm's CA certificate; nothing else is trusted. Empty: what this system trusts.
    pub(crate) ca_pem: String,
    /// Whose the token is, for people.
    #[serde(default)]
    pub(crate) user: String,
    /// Who is asking.
    pub(crate) token: String,
}

/// A profile as read, and what is worth a warning.
pub(crate) struct Loaded {
    pub(crate) profile: Profile,
    pub(crate) warning: Option<String>,
}

/// Why a profile could not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProfileError {
    /// There is none.
    #[error("{} does not exist", .0.display())]
    Missing(PathBuf),
    /// It is there and can not be read.
    #[error("can not read the profile {}: {}", .path.display(), crate::error::io_words(.cause))]
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

impl Profile {
    /// Reads one.
    pub(crate) fn load(path: &Path) -> Result<Loaded, ProfileError> {
        let unreadable = |cause: io::Error| match cause.kind() {
            io::ErrorKind::NotFound => ProfileError::Missing(path.to_owned()),
            _ => ProfileError::Unreadable { path: path.to_owned(), cause },
        };
        let text = fs::read_to_string(path).map_err(unreadable)?;
        let profile = Self::parse(&text).map_err(|problem| ProfileError::Damaged { path: path.to_owned(), problem })?;
        Ok(Loaded { profile, warning: readable_by_others(path) })
    }

    /// Writes it where it is found again, its owner's alone.
    pub(crate) fn save(&self, path: &Path) -> Result<(), Error> {
        let failed = |cause| Error::file("write the profile", path, cause);
        let text = toml::to_string(self).map_err(|e| failed(io::Error::other(e)))?;
        if let Some(dir) = path.parent() {
            private_file::create_dir(dir).map_err(failed)?;
        }
        private_file::write(path, text.as_bytes()).map_err(failed)
    }

    fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| {
            let line = error.span().map(|span| 1 + text[..span.start.min(text.len())].matches('\n').count());
            let place = line.map(|n| format!("line {n}: ")).unwrap_or_default();
            format!("{place}{}", error.message().lines().next().unwrap_or_default())
        })
    }
}

impl From<ProfileError> for Error {
    fn from(error: ProfileError) -> Self {
        let next = match &error {
            ProfileError::Missing(_) => "check the path given with --profile".to_owned(),
            ProfileError::Unreadable { .. } => "it must be readable by you (mode 0600, your file)".to_owned(),
            ProfileError::Damaged { path, .. } => format!(
                "sign in again (`mote login --server HOST:PORT`) or, on the farm's own machine, restore it from the \
                 coordinator's data folder: cp ~/.local/share/motefarm/profile.toml {}",
                path.display()
            ),
        };
        Self::Settings { problem: error.to_string(), next }
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

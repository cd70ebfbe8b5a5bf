//! Where buildlets are and what they are shown: flags over environment over the address's own file.

use super::address::Address;
use super::words::Named;
use crate::cli::Global;
use crate::dirs::Dirs;
use crate::env_vars;
use crate::error::{Error, io_words};
use motefarm_net::profile::{Profile, ProfileError};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// Buildlets to be addressed, in the order they were named; at least one.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Place {
    name: String,
    pub(super) targets: Vec<Target>,
    /// Whose instances are meant.
    pub(super) user: String,
    /// Executions known to be at one of them, by id and index.
    pub(super) execs: Vec<(String, usize)>,
}

/// One of them.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) address: Address,
    /// Nothing else is trusted there.
    pub(super) ca_pem: String,
    /// `None`: it may be one that asks for none.
    pub(super) token: Option<String>,
}

impl Place {
    /// Finds the credentials of all that was named; the warnings are about files.
    pub(super) fn resolve(
        named: Named,
        global: &Global,
        dirs: &Dirs,
        env: impl Fn(&str) -> Option<OsString>,
    ) -> Result<(Self, Vec<String>), Error> {
        let set = |name: &str| env(name).filter(|value| !value.is_empty());
        let ca_file = global.ca.clone().or_else(|| set(env_vars::CA).map(PathBuf::from));
        let token = set(env_vars::TOKEN).map(OsString::into_string).transpose().map_err(|_| Error::Settings {
            problem: format!("{} is not UTF-8 text", env_vars::TOKEN),
            next: about_token(),
        })?;
        let given =
            Given { ca_pem: ca_file.as_deref().map(read_ca).transpose()?, token, profile: global.profile.as_deref() };
        let mut warnings = Vec::new();
        let mut targets = Vec::with_capacity(named.addresses.len());
        for address in named.addresses {
            targets.push(given.target(address, dirs, &mut warnings)?);
        }
        let user = env_vars::USER_NAMES.into_iter().find_map(set).unwrap_or_default().to_string_lossy().into_owned();
        let name = targets.first().map(|target| target.address.full()).unwrap_or_default();
        Ok((Self { name, targets, user, execs: named.execs }, warnings))
    }

    /// What run records know it by: the first address, with its port.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

/// What was said for all addresses alike.
struct Given<'a> {
    ca_pem: Option<String>,
    token: Option<String>,
    profile: Option<&'a Path>,
}

impl Given<'_> {
    fn target(&self, address: Address, dirs: &Dirs, warnings: &mut Vec<String>) -> Result<Target, Error> {
        let own_file = dirs.config.join("buildlets").join(address.file_name());
        let loaded = match (self.profile, &self.ca_pem, &self.token) {
            (None, Some(_), Some(_)) => None,
            (Some(file), ..) => Some(Profile::load(file)?),
            (None, ..) => match Profile::load(&own_file) {
                Ok(loaded) => Some(loaded),
                Err(ProfileError::Missing(_)) => None,
                Err(error) => {
                    return Err(Error::Settings { problem: error.to_string(), next: from_scratch(&own_file) });
                }
            },
        };
        let profile = loaded.map(|loaded| {
            warnings.extend(loaded.warning);
            loaded.profile
        });
        let (own_ca, own_token) = profile.map(|profile| (profile.ca_pem, profile.token)).unzip();
        let Some(ca_pem) = self.ca_pem.clone().or(own_ca) else {
            return Err(Error::Settings {
                problem: format!("nothing says which certificate the buildlet at {} has", address.place()),
                next: from_scratch(&own_file),
            });
        };
        let token = self.token.clone().or(own_token).filter(|token| !token.is_empty());
        Ok(Target { address, ca_pem, token })
    }
}

/// Where the two come from, and the two ways of giving them.
fn from_scratch(own_file: &Path) -> String {
    format!(
        "both are in the buildlet's data directory: give its file tls/ca.pem with --ca or MOTE_CA and what its file token \
         holds in MOTE_TOKEN, or keep them as ca_pem and token, with the address as server, in {} (mode 0600)",
        own_file.display()
    )
}

/// What to do when a token is missing or wrong.
pub(super) fn about_token() -> String {
    "set MOTE_TOKEN to what the file token in the buildlet's data directory holds".to_owned()
}

fn read_ca(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|cause| Error::Settings {
        problem: format!("can not read the CA certificate {}: {}", path.display(), io_words(&cause)),
        next: "--ca or MOTE_CA is a copy of the file tls/ca.pem in the buildlet's data directory".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(word: &str) -> Named {
        Named { addresses: vec![Address::parse(word).unwrap()], execs: Vec::new() }
    }

    fn resolve(home: &Path, global: &Global, vars: &[(&str, &str)]) -> Result<Target, Error> {
        let dirs = Dirs { config: home.to_owned(), cache: home.to_owned() };
        let env = |name: &str| vars.iter().find(|(k, _)| *k == name).map(|(_, v)| OsString::from(v));
        let (mut place, _) = Place::resolve(named("linux-amd64@box"), global, &dirs, env)?;
        assert_eq!(place.name(), "linux-amd64@box:5936");
        Ok(place.targets.remove(0))
    }

    #[test]
    fn flags_and_environment_win_over_the_addresss_own_file() {
        let home = tempfile::tempdir().unwrap();
        let none = Global::default();
        let Err(error) = resolve(home.path(), &none, &[]) else { panic!("there is nothing") };
        let next = error.next_step().unwrap();
        assert!(next.contains("tls/ca.pem") && next.contains("box_5936.toml"), "{next}");

        fs::create_dir(home.path().join("buildlets")).unwrap();
        let own = home.path().join("buildlets/box_5936.toml");
        fs::write(&own, "server = \"box\"\nca_pem = \"own\"\ntoken = \"\"\n").unwrap();
        let target = resolve(home.path(), &none, &[]).ok().unwrap();
        assert_eq!((target.ca_pem.as_str(), target.token), ("own", None), "an empty token is none");

        let ca = home.path().join("ca.pem");
        fs::write(&ca, "given").unwrap();
        let flag = Global { ca: Some(ca), ..Global::default() };
        let target = resolve(home.path(), &flag, &[(env_vars::TOKEN, "mote_t")]).ok().unwrap();
        assert_eq!((target.ca_pem.as_str(), target.token.as_deref()), ("given", Some("mote_t")));
    }
}

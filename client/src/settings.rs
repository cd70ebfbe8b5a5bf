//! What holds for this call: flags over environment over profile.

use crate::cli::Global;
use crate::connection::Place;
use crate::dirs::Dirs;
use crate::env_vars;
use crate::error::Error;
use motefarm_net::profile::{DEFAULT_FARM, Profile, ProfileError, is_farm_name};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// Everything decided before a verb acts.
pub(crate) struct Settings {
    /// Whom to talk to.
    pub(crate) place: Place,
    /// The file that says it, if one did.
    pub(crate) profile: Option<PathBuf>,
    /// Where to keep things.
    pub(crate) dirs: Dirs,
    /// What the user should know about his files.
    pub(crate) warnings: Vec<String>,
}

impl Settings {
    /// Reads the profile unless flags and environment say everything it would.
    pub(crate) fn resolve(global: &Global, env: impl Fn(&str) -> Option<OsString>) -> Result<Self, Error> {
        let dirs = dirs(&env)?;
        let text = |name: &str| text(&env, name);
        let server = global.server.clone().map_or_else(|| text(env_vars::SERVER), |s| Ok(Some(s)))?;
        let token = text(env_vars::TOKEN)?;
        let ca_file = global.ca.clone().or_else(|| env(env_vars::CA).filter(|v| !v.is_empty()).map(PathBuf::from));
        let ca_pem = ca_file.as_deref().map(read_ca).transpose()?;
        if let (Some(server), Some(token), Some(ca_pem)) = (&server, &token, &ca_pem) {
            let place = Place::Farm { address: server.clone(), ca_pem: ca_pem.clone(), token: token.clone() };
            return Ok(Self { place, profile: None, dirs, warnings: Vec::new() });
        }
        let (loaded, file) = match &global.profile {
            Some(file) => (Profile::load(file)?, file.clone()),
            None => {
                let farm = named_farm(global, &env)?.unwrap_or_else(|| DEFAULT_FARM.to_owned());
                let file = dirs.profile(&farm);
                let loaded = Profile::load(&file).map_err(|error| match error {
                    ProfileError::Missing(path) => Error::no_profile(path, &farm),
                    other => other.into(),
                })?;
                (loaded, file)
            }
        };
        let Profile { server: own_server, ca_pem: own_ca, token: own_token, .. } = loaded.profile;
        let place = Place::Farm {
            address: server.unwrap_or(own_server),
            ca_pem: ca_pem.unwrap_or(own_ca),
            token: token.unwrap_or(own_token),
        };
        Ok(Self { place, profile: Some(file), dirs, warnings: loaded.warning.into_iter().collect() })
    }
}

/// The program's folders, or what to set.
pub(crate) fn dirs(env: impl Fn(&str) -> Option<OsString>) -> Result<Dirs, Error> {
    Dirs::resolve(env).ok_or_else(|| Error::Settings {
        problem: "no home directory is known".to_owned(),
        next: format!("set HOME, or {} and {}", env_vars::CONFIG_DIR, env_vars::CACHE_DIR),
    })
}

/// A variable that is set and not empty.
pub(crate) fn text(env: impl Fn(&str) -> Option<OsString>, name: &str) -> Result<Option<String>, Error> {
    match env(name).filter(|value| !value.is_empty()).map(OsString::into_string) {
        None => Ok(None),
        Some(Ok(value)) => Ok(Some(value)),
        Some(Err(_)) => Err(Error::Settings {
            problem: format!("{name} is not UTF-8 text"),
            next: format!("set {name} to plain text, or unset it"),
        }),
    }
}

/// The farm that was named, by flag or environment.
pub(crate) fn named_farm(global: &Global, env: impl Fn(&str) -> Option<OsString>) -> Result<Option<String>, Error> {
    let farm = global.farm.clone().map_or_else(|| text(env, env_vars::FARM), |farm| Ok(Some(farm)))?;
    farm.as_deref().map_or(Ok(()), check_farm_name)?;
    Ok(farm)
}

fn check_farm_name(farm: &str) -> Result<(), Error> {
    if is_farm_name(farm) {
        return Ok(());
    }
    Err(Error::usage(
        format!("{farm:?} can not be the name of a farm"),
        "names have letters, digits, '-', '_' and '.'; --profile FILE takes any path",
    ))
}

/// The text of a file with a CA certificate.
pub(crate) fn read_ca(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|cause| Error::Settings {
        problem: format!("can not read the CA certificate {}: {}", path.display(), crate::error::io_words(&cause)),
        next: "check --ca and MOTE_CA, or leave them out to use the profile's".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn env(pairs: &[(&str, &Path)]) -> impl Fn(&str) -> Option<OsString> + use<> {
        let map: HashMap<String, OsString> =
            pairs.iter().map(|(k, v)| ((*k).to_owned(), v.as_os_str().to_owned())).collect();
        move |name| map.get(name).cloned()
    }

    fn farm_of(settings: Settings) -> (String, String, String) {
        let Place::Farm { address, ca_pem, token } = settings.place else { panic!("no farm") };
        (address, ca_pem, token)
    }

    fn home_with(farm: &str, server: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("farms")).unwrap();
        let text = format!("server = {server:?}\nca_pem = \"own\"\ntoken = \"mote_own\"\n");
        fs::write(dir.path().join(format!("farms/{farm}.toml")), text).unwrap();
        dir
    }

    #[test]
    fn flags_win_over_environment_and_that_over_the_profile() {
        let home = home_with("local", "profile:1");
        let base = [(env_vars::CONFIG_DIR, home.path()), (env_vars::CACHE_DIR, home.path())];
        let resolve = |global: &Global, more: &[(&str, &Path)]| {
            let all: Vec<_> = base.iter().chain(more).copied().collect();
            farm_of(Settings::resolve(global, env(&all)).ok().unwrap())
        };
        let none = Global::default();
        assert_eq!(resolve(&none, &[]).0, "profile:1");
        let server = [(env_vars::SERVER, Path::new("env:2")), (env_vars::TOKEN, Path::new("mote_env"))];
        assert_eq!(resolve(&none, &server), ("env:2".into(), "own".into(), "mote_env".into()));
        let flag = Global { server: Some("flag:3".into()), ..Global::default() };
        assert_eq!(resolve(&flag, &server).0, "flag:3");
    }

    #[test]
    fn farms_are_chosen_by_name_or_file() {
        let home = home_with("work", "work:1");
        let base = [(env_vars::CONFIG_DIR, home.path()), (env_vars::CACHE_DIR, home.path())];
        let missing = Settings::resolve(&Global::default(), env(&base)).err().unwrap();
        assert!(missing.to_string().contains("farms/local.toml"), "{missing}");
        assert!(missing.next_step().is_some_and(|next| next.contains("mote-coordinator serve")));
        let named = Global { farm: Some("work".into()), ..Global::default() };
        assert_eq!(farm_of(Settings::resolve(&named, env(&base)).ok().unwrap()).0, "work:1");
        let exact = Global { profile: Some(home.path().join("farms/work.toml")), ..Global::default() };
        assert_eq!(farm_of(Settings::resolve(&exact, env(&base)).ok().unwrap()).0, "work:1");
        let climbing = Global { farm: Some("../x".into()), ..Global::default() };
        assert!(matches!(Settings::resolve(&climbing, env(&base)), Err(Error::Usage { .. })));
    }
}

//! Which group of instances commands act on when they name no instance.

use crate::env_vars;
use crate::error::Error;
use std::ffi::OsString;

/// The active group, as far as it can be known without asking the farm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ActiveGroup {
    /// None.
    Nobody,
    /// `-group`: it must exist.
    Flag(String),
    /// From the environment, where it may stay set after the group has gone.
    Env {
        /// The group.
        name: String,
        /// The variable that names it.
        variable: &'static str,
    },
}

impl ActiveGroup {
    /// The flag wins over `MOTE_GROUP`, that over `GOMOTE_GROUP`; empty is unset.
    pub(crate) fn resolve(flag: Option<&str>, env: impl Fn(&str) -> Option<OsString>) -> Result<Self, Error> {
        if let Some(name) = flag.filter(|name| !name.is_empty()) {
            return Ok(Self::Flag(name.to_owned()));
        }
        for variable in [env_vars::GROUP, env_vars::GOMOTE_GROUP] {
            let Some(value) = env(variable).filter(|value| !value.is_empty()) else { continue };
            let name = value.into_string().map_err(|_| Error::Settings {
                problem: format!("{variable} is not UTF-8 text"),
                next: format!("set {variable} to a group's name, or unset it"),
            })?;
            return Ok(Self::Env { name, variable });
        }
        Ok(Self::Nobody)
    }

    /// Its name.
    pub(crate) fn name(&self) -> Option<&str> {
        match self {
            Self::Nobody => None,
            Self::Flag(name) | Self::Env { name, .. } => Some(name),
        }
    }

    /// Where it was named, for people.
    pub(crate) const fn origin(&self) -> &'static str {
        match self {
            Self::Nobody => "",
            Self::Flag(_) => "-group",
            Self::Env { variable, .. } => variable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_wins_and_motes_own_variable_over_gomotes() {
        let env = |pairs: &'static [(&str, &str)]| {
            move |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        };
        let both = env(&[("MOTE_GROUP", "own"), ("GOMOTE_GROUP", "theirs")]);
        assert_eq!(ActiveGroup::resolve(Some("x"), both).unwrap(), ActiveGroup::Flag("x".into()));
        let own = ActiveGroup::resolve(None, both).unwrap();
        assert_eq!((own.name(), own.origin()), (Some("own"), "MOTE_GROUP"));
        let theirs = ActiveGroup::resolve(None, env(&[("MOTE_GROUP", ""), ("GOMOTE_GROUP", "theirs")])).unwrap();
        assert_eq!((theirs.name(), theirs.origin()), (Some("theirs"), "GOMOTE_GROUP"));
        assert_eq!(ActiveGroup::resolve(Some(""), env(&[])).unwrap(), ActiveGroup::Nobody);
    }
}

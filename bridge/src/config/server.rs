//! Which server does the work: one that is named by its address, or a farm of ours. Pure.

use super::{BackendFile, ConfigError, Overrides, wrong};
use crate::backend::Address;
use motefarm_net::profile::is_farm_name;
use std::fmt;
use std::path::PathBuf;

/// The REAPI server that does the work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Server {
    /// Any.
    At {
        /// Where it is.
        address: Address,
        /// See [`BackendFile`].
        ca_file: Option<PathBuf>,
        /// See [`BackendFile`].
        token_file: Option<PathBuf>,
    },
    /// A farm of ours, by the name of its profile; `None`: the one `mote` would take.
    Farm(Option<String>),
    /// A farm of ours, by its profile's file.
    FarmOf(PathBuf),
}

impl Server {
    /// Flags over the file, a server over a farm, and this machine's farm if nothing is named.
    pub(super) fn choose(flags: &Overrides, file: &BackendFile) -> Result<Self, ConfigError> {
        let at = |text: &String| {
            let address = text.parse().map_err(|problem| wrong("backend.address", format!("{text:?}: {problem}")))?;
            Ok(Self::At { address, ca_file: file.ca_file.clone(), token_file: file.token_file.clone() })
        };
        let choose =
            |address: &Option<String>, profile: &Option<PathBuf>, farm: &Option<String>| match (address, profile, farm)
            {
                (Some(address), _, _) => Some(at(address)),
                (None, Some(profile), _) => Some(Ok(Self::FarmOf(profile.clone()))),
                (None, None, Some(name)) if is_farm_name(name) => Some(Ok(Self::Farm(Some(name.clone())))),
                (None, None, Some(name)) => {
                    Some(Err(wrong("backend.farm", format!("{name:?} can not be the name of a farm"))))
                }
                (None, None, None) => None,
            };
        if let Some(chosen) = choose(&flags.backend, &flags.profile, &flags.farm) {
            return chosen;
        }
        if [file.address.is_some(), file.farm.is_some(), file.profile.is_some()].iter().filter(|set| **set).count() > 1
        {
            return Err(wrong("backend", "one of address, farm and profile, not several"));
        }
        choose(&file.address, &file.profile, &file.farm).unwrap_or(Ok(Self::Farm(None)))
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At { address, .. } => address.fmt(f),
            Self::Farm(None) => f.write_str("this machine's farm"),
            Self::Farm(Some(name)) => write!(f, "the farm {name}"),
            Self::FarmOf(profile) => write!(f, "the farm of {}", profile.display()),
        }
    }
}

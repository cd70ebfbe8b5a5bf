//! Direct addressing: `TYPE@host[:port]` in place of an instance's name is one's own instance of a
//! buildlet that listens there, without a coordinator.
//!
//! The commands know only the farm's service. So this is that service, in this process, on top of
//! the buildlets' own: `words` finds the addresses in what was typed, `place` the credentials,
//! `contact` reaches one buildlet, `farm` answers as a farm would, `transport` hands it calls.
//!
//! **Absent on purpose:** leases and their ends (the buildlet keeps them), and whatever only a
//! coordinator has: other people's instances, queues, groups, snapshots.

mod address;
mod contact;
mod farm;
mod passing;
mod place;
mod transport;
mod words;

pub(crate) use farm::DirectFarm;
pub(crate) use place::Place;
pub(crate) use transport::Transport;

use crate::cli::Cli;
use crate::connection;
use crate::dirs::Dirs;
use crate::error::Error;
use crate::group::ActiveGroup;
use crate::run_record::Runs;
use crate::settings::Settings;
use std::ffi::OsString;

/// Everything decided before a verb acts, if what was typed addresses buildlets directly.
pub(crate) fn settings(cli: &Cli, env: impl Fn(&str) -> Option<OsString>) -> Result<Option<Settings>, Error> {
    // Without a home there are no records; whoever needs one says so.
    let dirs = Dirs::resolve(&env);
    let runs = dirs.as_ref().map(|dirs| Runs::new(dirs.runs()));
    let names_a_farm = cli.global.server.is_some() || cli.global.farm.is_some();
    let group = ActiveGroup::resolve(cli.global.group.as_deref(), &env)?;
    let named = words::addresses(&cli.verb, group != ActiveGroup::Nobody, runs.as_ref().filter(|_| !names_a_farm))?;
    let (Some(named), Some(dirs)) = (named, dirs) else { return Ok(None) };
    if names_a_farm {
        return Err(Error::usage(
            "an address behind @ and --server or --farm exclude each other",
            "leave out the flag: TYPE@HOST:PORT says where the buildlet is",
        ));
    }
    if let ActiveGroup::Flag(name) = group {
        return Err(Error::usage(
            format!("the group {name:?} is a farm's, and a buildlet addressed directly is in none"),
            "leave out -group",
        ));
    }
    let (place, warnings) = Place::resolve(named, &cli.global, &dirs, env)?;
    Ok(Some(Settings { place: connection::Place::Direct(place), profile: None, dirs, warnings }))
}

//! `mote logout`: forgets a farm's profile and, if asked, makes its token worthless.

use super::login::profile_path;
use crate::cli::{Global, Logout};
use crate::connection::{Farm, Place};
use crate::error::Error;
use crate::exit_code::ExitStatus;
use crate::printer::Printer;
use motefarm_net::profile::Profile;
use motefarm_proto::mote;
use serde::Serialize;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

#[derive(Serialize)]
struct Body<'a> {
    profile: &'a Path,
    revoked: bool,
}

pub(crate) async fn act(
    printer: Printer,
    global: &Global,
    flags: Logout,
    env: impl Fn(&str) -> Option<OsString>,
) -> Result<ExitStatus, Error> {
    let path = profile_path(global, env)?;
    if flags.revoke {
        let Profile { server, ca_pem, token, .. } = Profile::load(&path)?.profile;
        let farm = Farm::connect(&Place::Farm { address: server, ca_pem, token }, printer).await?;
        let request = mote::RevokeOwnTokenRequest {};
        let answer = farm.call_once("revoke the token", farm.access().revoke_own_token(request)).await?;
        printer.message(format_args!("revoked the token {:?}", answer.name));
    }
    fs::remove_file(&path).map_err(|e| Error::file("remove the profile", &path, e))?;
    printer.message(format_args!("forgot {}", path.display()));
    if !flags.revoke {
        printer.message("its token is still good for who has it: `mote logout --revoke` ends it");
    }
    printer.data(&Body { profile: &path, revoked: flags.revoke }, String::new)?;
    Ok(ExitStatus::Success)
}

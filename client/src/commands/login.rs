//! `mote login`: from an address to a profile that works.
//!
//! First whom to believe, then who is asking; nothing is kept before the farm has answered both.

mod device;
mod identity;

use crate::cli::{Global, Login};
use crate::connection::{Farm, Place};
use crate::env_vars;
use crate::error::Error;
use crate::exit_code::ExitStatus;
use crate::printer::Printer;
use crate::settings;
use crate::terminal;
use motefarm_net::profile::{DEFAULT_FARM, Profile, ProfileError};
use motefarm_proto::mote;
use serde::Serialize;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

#[derive(Serialize)]
struct Body<'a> {
    server: &'a str,
    user: &'a str,
    role: &'a str,
    profile: &'a Path,
    ca_fingerprint: Option<String>,
}

pub(crate) async fn act(
    printer: Printer,
    global: &Global,
    flags: Login,
    env: impl Fn(&str) -> Option<OsString>,
) -> Result<ExitStatus, Error> {
    let server = global.server.clone().map_or_else(|| settings::text(&env, env_vars::SERVER), |s| Ok(Some(s)))?;
    let server = server.ok_or_else(|| Error::usage("which farm?", "mote login --server HOST:PORT"))?;
    let path = profile_path(global, &env)?;
    let known = match Profile::load(&path) {
        Ok(loaded) => Some(loaded.profile),
        // A damaged one is what login is there to mend.
        Err(ProfileError::Missing(_) | ProfileError::Damaged { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let ca_file = global.ca.clone().or_else(|| env(env_vars::CA).filter(|v| !v.is_empty()).map(PathBuf::from));
    let pin = match (&flags.ca_fingerprint, ca_file) {
        (Some(fingerprint), _) => identity::Pin::Fingerprint(identity::fingerprint(fingerprint)?),
        (None, Some(file)) => identity::Pin::Ca(settings::read_ca(&file)?),
        (None, None) => match known.as_ref().filter(|known| known.server == server) {
            Some(known) => identity::Pin::Known(known.ca_pem.clone()),
            None => identity::Pin::Nothing,
        },
    };
    let ca_pem = identity::find(printer, &server, pin).await?;
    check_not_another(&known, &server, &ca_pem, &path, global, &env)?;
    let token = match given_token(&flags, &env)? {
        Some(token) => token,
        None => match device::issuer(&server, &ca_pem).await?.filter(|_| !flags.ask_token) {
            Some(issuer) => device::sign_in(printer, &server, &ca_pem, &issuer).await?,
            None => asked_token(&server)?,
        },
    };
    let place = Place::Farm { address: server.clone(), ca_pem: ca_pem.clone(), token: token.clone() };
    let farm = Farm::connect(&place, printer).await?;
    let who = farm.call_once("sign in", farm.client().who_am_i(mote::WhoAmIRequest {})).await?;
    let profile = Profile { server: server.clone(), ca_pem: ca_pem.clone(), user: who.user.clone(), token };
    profile.save(&path).map_err(|cause| Error::file("write the profile", &path, cause))?;
    printer.message(format_args!("signed in to {server} as {} ({}); kept in {}", who.user, who.role, path.display()));
    let body = Body {
        server: &server,
        user: &who.user,
        role: &who.role,
        profile: &path,
        ca_fingerprint: identity::fingerprint_of(&ca_pem),
    };
    printer.data(&body, String::new)?;
    Ok(ExitStatus::Success)
}

/// The profile that is meant.
pub(super) fn profile_path(global: &Global, env: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf, Error> {
    if let Some(path) = &global.profile {
        return Ok(path.clone());
    }
    let farm = settings::named_farm(global, &env)?.unwrap_or_else(|| DEFAULT_FARM.to_owned());
    Ok(settings::dirs(env)?.profile(&farm))
}

/// The profile of another farm is not replaced by chance.
fn check_not_another(
    known: &Option<Profile>,
    server: &str,
    ca_pem: &str,
    path: &Path,
    global: &Global,
    env: impl Fn(&str) -> Option<OsString>,
) -> Result<(), Error> {
    let named = global.profile.is_some() || settings::named_farm(global, env)?.is_some();
    match known {
        Some(known) if !named && known.server != server && known.ca_pem.trim() != ca_pem.trim() => Err(Error::usage(
            format!("{} is the profile of another farm, at {}", path.display(), known.server),
            format!("name this one: mote login --server {server} --farm NAME"),
        )),
        _ => Ok(()),
    }
}

/// The token that was given, in a file or the environment.
fn given_token(flags: &Login, env: impl Fn(&str) -> Option<OsString>) -> Result<Option<String>, Error> {
    let Some(path) = &flags.token_file else { return settings::text(env, env_vars::TOKEN) };
    let mut text = String::new();
    if path.as_os_str() == "-" {
        io::stdin().take(4096).read_to_string(&mut text).map_err(|e| Error::local("read the token from stdin", e))?;
    } else {
        text = fs::read_to_string(path).map_err(|e| Error::file("read the token", path, e))?;
    }
    let token = text.trim().to_owned();
    match token.is_empty() {
        true => Err(Error::usage(
            format!("{} holds no token", path.display()),
            "an admin makes one: mote admin token create",
        )),
        false => Ok(Some(token)),
    }
}

fn asked_token(server: &str) -> Result<String, Error> {
    if !terminal::is_there() {
        return Err(Error::usage(
            format!("a token for {server} is wanted, and nobody is here to ask"),
            "give it with --token-file FILE (or -), or in MOTE_TOKEN",
        ));
    }
    let token = terminal::ask_secret(&format!("token for {server} (not shown):"))?;
    if token.is_empty() { Err(Error::Interrupted) } else { Ok(token) }
}

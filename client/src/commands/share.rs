//! `mote share` and `mote unshare`: who else may use an instance.

use crate::cli::{Share, Unshare};
use crate::commands::Context;
use crate::error::Error;
use crate::exit_code::ExitStatus;
use motefarm_proto::mote;
use serde::Serialize;

#[derive(Serialize)]
struct Shared<'a> {
    instance: &'a str,
    user: &'a str,
}

#[derive(Serialize)]
struct Unshared<'a> {
    instance: &'a str,
    user: &'a str,
    was_shared: bool,
}

pub(crate) async fn share(context: &Context, Share { instance, user }: Share) -> Result<ExitStatus, Error> {
    let farm = context.connect().await?;
    let request = mote::ShareInstanceRequest { instance: instance.clone(), user: user.clone() };
    let doing = format!("share {instance} with {user}");
    farm.call_once(&doing, farm.access().share_instance(request)).await?;
    context.printer.message(format_args!("{user} may use {instance} until `mote unshare {instance} {user}`"));
    context.printer.data(&Shared { instance: &instance, user: &user }, String::new)?;
    Ok(ExitStatus::Success)
}

pub(crate) async fn unshare(context: &Context, Unshare { instance, user }: Unshare) -> Result<ExitStatus, Error> {
    let farm = context.connect().await?;
    let request = mote::UnshareInstanceRequest { instance: instance.clone(), user: user.clone() };
    let doing = format!("unshare {instance}");
    let answer = farm.call_once(&doing, farm.access().unshare_instance(request)).await?;
    let was_shared = answer.was_shared;
    let word = if was_shared { "no longer has" } else { "never had" };
    context.printer.message(format_args!("{user} {word} a share in {instance}"));
    context.printer.data(&Unshared { instance: &instance, user: &user, was_shared }, String::new)?;
    Ok(ExitStatus::Success)
}

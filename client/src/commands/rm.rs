//! `mote rm`: files and directories of instances, removed.

use crate::broadcast;
use crate::commands::Context;
use crate::error::Error;
use crate::exit_code::ExitStatus;
use crate::human;
use motefarm_proto::mote;
use serde::Serialize;
use std::time::Duration;

const SHAPE: &str = "mote rm [INSTANCE] PATH...";
/// For removing a tree of a million files from a slow disk.
const DEADLINE: Duration = Duration::from_secs(30 * 60);

#[derive(Serialize)]
struct Removed {
    removed: u64,
}

pub(crate) async fn act(context: &Context, words: Vec<String>) -> Result<ExitStatus, Error> {
    let farm = context.connect().await?;
    let targets = context.resolver(&farm, SHAPE).first(words).await?;
    let paths = targets.rest;
    if paths.is_empty() {
        return Err(Error::usage(
            format!("nothing is said to be removed from {}", targets.instances.join(", ")),
            SHAPE,
        ));
    }
    let remove = async |instance: &str| {
        let request = mote::RemovePathsRequest { instance: instance.to_owned(), paths: paths.clone() };
        let doing = format!("remove from {instance}");
        let ask = async |mut c: crate::connection::Client| c.remove_paths(request.clone()).await;
        let removed = farm.call_within(&doing, DEADLINE, ask).await?.removed;
        context.printer.message(format_args!("{instance}: removed {}", human::entries(removed)));
        Ok(Removed { removed })
    };
    broadcast::conclude(context.printer, broadcast::each(&targets.instances, remove).await)
}

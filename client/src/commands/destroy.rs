//! `mote destroy`: end instances. Answers once that is decided; the wiping goes on behind it.

use crate::broadcast::{self, Done};
use crate::cli;
use crate::commands::{Context, group, ssh, ssh_config};
use crate::connection::Farm;
use crate::error::Error;
use crate::exit_code::ExitStatus;
use crate::group::ActiveGroup;
use crate::targets::no_group;
use motefarm_core::instance::InstanceState;
use motefarm_proto::mote;

const SHAPE: &str = "mote destroy INSTANCE...";

pub(crate) async fn act(context: &Context, flags: cli::Destroy) -> Result<ExitStatus, Error> {
    let printer = context.printer;
    let farm = context.connect().await?;
    if flags.destroy_group && context.group == ActiveGroup::Nobody {
        return Err(Error::usage("no group is active that could be ended", "mote -group NAME destroy -destroy-group"));
    }
    let instances = if flags.all {
        own(&farm).await?
    } else if flags.instances.is_empty() {
        of_group(context, &farm, flags.destroy_group).await?
    } else {
        context.resolver(&farm, SHAPE).all(flags.instances).await?.instances
    };
    let destroy = async |instance: &str| {
        let request = mote::DestroyInstanceRequest { instance: instance.to_owned() };
        farm.call(&format!("destroy {instance}"), async |mut c| c.destroy_instance(request.clone()).await).await?;
        if let Ok(keyring) = ssh::keyring(context) {
            keyring.forget(instance);
        }
        printer.message(format_args!("destroyed {instance}"));
        Ok(Done {})
    };
    let results = broadcast::each(&instances, destroy).await;
    ssh_config::refresh(context, &farm).await;
    let all_gone = results.iter().all(|(_, result)| result.is_ok());
    let status = broadcast::conclude(printer, results)?;
    // A group with survivors is still of use.
    if flags.destroy_group
        && all_gone
        && let Some(name) = context.group.name()
    {
        group::destroy(&farm, name).await?;
        printer.message(format_args!("ended the group {name:?}"));
    }
    Ok(status)
}

/// The members, of which there may be none if the group itself is to go.
async fn of_group(context: &Context, farm: &Farm, may_be_empty: bool) -> Result<Vec<String>, Error> {
    if may_be_empty && let Some(name) = context.group.name() {
        let groups = crate::targets::list_groups(farm).await?;
        let group = groups.into_iter().find(|group| group.group == name).ok_or_else(|| no_group(name))?;
        return Ok(group.instances);
    }
    match context.resolver(farm, SHAPE).all(Vec::new()).await {
        Ok(targets) => Ok(targets.instances),
        Err(Error::Usage { problem, next }) => {
            let own = own(farm).await?;
            let possible =
                if own.is_empty() { "you have none".to_owned() } else { format!("yours: {}", own.join(" ")) };
            Err(Error::usage(problem, format!("{next} ({possible}), or mote destroy -all")))
        }
        Err(error) => Err(error),
    }
}

async fn own(farm: &Farm) -> Result<Vec<String>, Error> {
    let request = mote::ListInstancesRequest { all_users: false, shared: false };
    let answer = farm.call("list the instances", async |mut c| c.list_instances(request).await).await?;
    let live = |i: &mote::InstanceInfo| InstanceState::from_word(&i.state).is_none_or(InstanceState::is_live);
    Ok(answer.instances.into_iter().filter(live).map(|i| i.name).collect())
}

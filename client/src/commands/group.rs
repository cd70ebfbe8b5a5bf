//! `mote group`: named sets of instances, kept by the farm.

use crate::cli::GroupVerb;
use crate::commands::Context;
use crate::connection::Farm;
use crate::error::Error;
use crate::exit_code::ExitStatus;
use crate::targets;
use motefarm_proto::mote;
use serde::Serialize;

/// What is told of one group.
#[derive(Serialize)]
struct Named<'a> {
    group: &'a str,
    instances: &'a [String],
}

#[derive(Serialize)]
struct Groups<'a> {
    groups: Vec<Named<'a>>,
}

pub(crate) async fn act(context: &Context, verb: GroupVerb) -> Result<ExitStatus, Error> {
    let printer = context.printer;
    let farm = context.connect().await?;
    match verb {
        GroupVerb::Create { name } => {
            create(&farm, &name, false).await?;
            printer.message(format_args!("made the group {name:?}"));
            printer.data(&Named { group: &name, instances: &[] }, String::new)?;
        }
        GroupVerb::Destroy { name } => {
            destroy(&farm, &name).await?;
            printer.message(format_args!("ended the group {name:?}"));
            printer.data(&Named { group: &name, instances: &[] }, String::new)?;
        }
        GroupVerb::Add { instances } => {
            let group = active(context, "add")?;
            let request = mote::AddToGroupRequest { group: group.to_owned(), instances: instances.clone() };
            let doing = format!("add to the group {group:?}");
            farm.call(&doing, async |mut c| c.add_to_group(request.clone()).await).await?;
            printer.message(format_args!("added {} to the group {group:?}", instances.join(", ")));
            printer.data(&Named { group, instances: &instances }, String::new)?;
        }
        GroupVerb::Remove { mut instances } => {
            let group = active(context, "remove")?;
            let request = mote::RemoveFromGroupRequest { group: group.to_owned(), instances: instances.clone() };
            let doing = format!("remove from the group {group:?}");
            let answer = farm.call(&doing, async |mut c| c.remove_from_group(request.clone()).await).await?;
            for absent in &answer.not_in_group {
                printer.warning(format_args!("{absent} was not in the group {group:?}"));
            }
            instances.retain(|instance| !answer.not_in_group.contains(instance));
            if !instances.is_empty() {
                printer.message(format_args!("removed {} from the group {group:?}", instances.join(", ")));
            }
            printer.data(&Named { group, instances: &instances }, String::new)?;
            if !answer.not_in_group.is_empty() {
                return Ok(ExitStatus::Failed);
            }
        }
        GroupVerb::List => {
            let groups = targets::list_groups(&farm).await?;
            let named = groups.iter().map(|g| Named { group: &g.group, instances: &g.instances });
            let body = Groups { groups: named.collect() };
            printer.data(&body, || table(&body.groups))?;
        }
    }
    Ok(ExitStatus::Success)
}

/// Makes a group; `if_absent`: or finds it.
pub(super) async fn create(farm: &Farm, name: &str, if_absent: bool) -> Result<(), Error> {
    let request = mote::CreateGroupRequest { group: name.to_owned(), if_absent };
    let doing = format!("make the group {name:?}");
    // Made twice (after a cut) it would be said to exist: once.
    if if_absent {
        farm.call(&doing, async |mut c| c.create_group(request.clone()).await).await?;
    } else {
        farm.call_once(&doing, farm.client().create_group(request)).await?;
    }
    Ok(())
}

/// Ends a group.
pub(super) async fn destroy(farm: &Farm, name: &str) -> Result<(), Error> {
    let request = mote::DestroyGroupRequest { group: name.to_owned() };
    let doing = format!("end the group {name:?}");
    farm.call_once(&doing, farm.client().destroy_group(request)).await.map(drop)
}

fn active<'a>(context: &'a Context, verb: &str) -> Result<&'a str, Error> {
    context
        .group
        .name()
        .ok_or_else(|| Error::usage("no group is active", format!("mote -group NAME group {verb} INSTANCE...")))
}

/// As gomote prints it: a group's name on its first row only.
fn table(groups: &[Named<'_>]) -> String {
    let mut rows = vec!["Name\tInstances".to_owned()];
    if groups.is_empty() {
        rows.push("(none)".to_owned());
    }
    for Named { group, instances } in groups {
        match instances {
            [] => rows.push(format!("{group}\t(none)")),
            [first, others @ ..] => {
                rows.push(format!("{group}\t{first}"));
                rows.extend(others.iter().map(|other| format!("\t{other}")));
            }
        }
    }
    rows.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_gomotes() {
        let two = ["a".to_owned(), "b".to_owned()];
        let groups = [Named { group: "g", instances: &two }, Named { group: "h", instances: &[] }];
        assert_eq!(table(&groups), "Name\tInstances\ng\ta\n\tb\nh\t(none)");
        assert_eq!(table(&[]), "Name\tInstances\n(none)");
    }
}

//! `mote create`: lease instances, waiting in the farm's queue if there is none free.
//!
//! Each instance's id is made here and stays the same through every retry, so that a cut neither
//! loses the place in the queue nor leases twice.

mod host_types;
mod setup;
mod waiting;

use crate::broadcast;
use crate::cli;
use crate::commands::{Context, group, ssh, ssh_config};
use crate::connection::{Farm, opened};
use crate::error::Error;
use crate::exit_code::ExitStatus;
use crate::group::ActiveGroup;
use crate::json::Instance;
use crate::printer::Printer;
use crate::progress::Bar;
use crate::resume::LONG_PATIENCE;
use crate::signals::Signals;
use crate::targets::{list_groups, no_group};
use motefarm_core::instance::InstanceState;
use motefarm_proto::mote;
use serde::Serialize;
use std::time::Duration;
use tonic::{Status, Streaming};
use uuid::Uuid;
use waiting::Waiting;

/// Time the farm has to hear that nobody waits any more.
const GIVE_UP_WITHIN: Duration = Duration::from_secs(5);
/// How many are asked for at a time: each holds a stream of the one connection, of which a peer
/// customarily allows 200. More wait here.
const AT_ONCE: usize = 128;

/// `--json`: of the one instance its own fields too, as they have always been.
#[derive(Serialize)]
struct Body<'a> {
    instances: &'a [Instance],
    #[serde(flatten)]
    only: Option<&'a Instance>,
    /// Why the others are not there.
    problems: Vec<String>,
}

pub(crate) async fn act(context: &Context, create: cli::Create) -> Result<ExitStatus, Error> {
    let printer = context.printer;
    let Some(host_type) = create.host_type.as_deref().filter(|_| !create.list) else {
        let farm = context.connect().await?;
        return host_types::list(context, &farm).await;
    };
    // Before anything is leased: a tree that can not be pushed is no use then.
    let setup = match create.setup {
        true => Some(setup::Setup::prepare(context).await?),
        false => None,
    };
    let farm = context.connect().await?;
    let joins = join_group(context, &farm, create.new_group.as_deref()).await?;
    let mut signals = Signals::listen()?;
    let ids: Vec<String> = (0..create.count).map(|_| Uuid::now_v7().to_string()).collect();
    let request = mote::CreateInstanceRequest {
        instance_id: String::new(),
        host_type: host_type.to_owned(),
        idle_timeout_ms: create.ttl.map_or(0, |ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)),
        from_snapshot: create.from.clone().unwrap_or_default(),
        groups: joins.iter().cloned().collect(),
    };
    let bar = Bar::waiting(printer, host_type);
    let tells = Tells { status: create.status, names: create.count > 1 || create.setup };
    let ready = std::cell::RefCell::new(Vec::new());
    let one = async |id: &str| {
        let index = ids.iter().position(|known| known == id).unwrap_or_default() + 1;
        let request = mote::CreateInstanceRequest { instance_id: id.to_owned(), ..request.clone() };
        let instance = wait_until_ready(&farm, printer, &request, index, tells).await?;
        ready.borrow_mut().push(Instance::from(instance));
        Ok(())
    };
    let results = tokio::select! {
        results = broadcast::each_at_once(&ids, AT_ONCE, one) => Some(results),
        _ = signals.next() => None,
    };
    bar.done();
    let mut instances = ready.into_inner();
    instances.sort_by(|a, b| by_number(&a.name).cmp(&by_number(&b.name)));
    let Some(results) = results else {
        let waiting: Vec<String> =
            ids.into_iter().filter(|id| instances.iter().all(|i| i.instance_id != *id)).collect();
        let withdraw = async |id: &str| {
            give_up(&farm, printer, id.to_owned()).await;
            Ok(())
        };
        broadcast::each(&waiting, withdraw).await;
        // What is ready stays: it is named, so that it can be used or destroyed.
        tell(printer, &instances, Vec::new())?;
        return Err(Error::Interrupted);
    };
    if !instances.is_empty() {
        if let Ok(keyring) = ssh::keyring(context) {
            // Of an earlier instance of the name.
            instances.iter().for_each(|instance| keyring.forget(&instance.name));
        }
        ssh_config::refresh(context, &farm).await;
    }
    let mut errors: Vec<Error> = results.into_iter().filter_map(|(_, result)| result.err()).collect();
    if instances.is_empty()
        && let Some(name) = create.new_group.as_deref()
    {
        // So that the same command can be given again.
        let _ = group::destroy(&farm, name).await;
    }
    let (asked, failed) = (usize::from(create.count), errors.len());
    if asked == 1
        && let Some(error) = errors.pop()
    {
        return Err(error);
    }
    let mut problems: Vec<String> = errors.iter().map(ToString::to_string).collect();
    for problem in &problems {
        printer.warning(problem);
    }
    if failed > 0 && !instances.is_empty() {
        let names: Vec<&str> = instances.iter().map(|i| i.name.as_str()).collect();
        let place = joins.map(|name| format!(" in the group {name:?}")).unwrap_or_default();
        printer.warning(format_args!("error: {failed} of {asked} failed; kept{place}: {}", names.join(", ")));
    }
    let Some(setup) = setup.filter(|_| !instances.is_empty()) else {
        tell(printer, &instances, problems)?;
        return Ok(if failed > 0 { ExitStatus::Failed } else { ExitStatus::Success });
    };
    // Whatever becomes of the set-up: the instances are there, and a script needs their names.
    if !printer.is_json() {
        tell(printer, &instances, Vec::new())?;
    }
    let status = match setup.run(context, &farm, host_type, &instances).await {
        Ok(status) => status,
        Err(error) if printer.is_json() => {
            problems.push(error.to_string());
            printer.warning(format_args!("error: {error}"));
            ExitStatus::Failed
        }
        Err(error) => return Err(error),
    };
    if printer.is_json() {
        tell(printer, &instances, problems)?;
    }
    Ok(if failed > 0 { ExitStatus::Failed } else { status })
}

fn tell(printer: Printer, instances: &[Instance], problems: Vec<String>) -> Result<(), Error> {
    if instances.is_empty() && problems.is_empty() {
        return Ok(());
    }
    let only = if instances.len() == 1 && problems.is_empty() { instances.first() } else { None };
    let names = || instances.iter().map(|i| i.name.as_str()).collect::<Vec<_>>().join("\n");
    printer.data(&Body { instances, only, problems }, names)
}

/// The group the instances are to join: a new one, the one of the flag, or the environment's, which
/// is made if it is missing.
async fn join_group(context: &Context, farm: &Farm, new_group: Option<&str>) -> Result<Option<String>, Error> {
    if let Some(name) = new_group {
        group::create(farm, name, false).await?;
        return Ok(Some(name.to_owned()));
    }
    match &context.group {
        ActiveGroup::Nobody => return Ok(None),
        ActiveGroup::Flag(name) => {
            if !list_groups(farm).await?.iter().any(|group| group.group == *name) {
                return Err(no_group(name));
            }
        }
        ActiveGroup::Env { name, .. } => group::create(farm, name, true).await?,
    }
    Ok(context.group.name().map(str::to_owned))
}

/// `<user>-<type>-10` behind `<user>-<type>-9`.
fn by_number(name: &str) -> (&str, u64) {
    match name.rsplit_once('-') {
        Some((front, n)) => (front, n.parse().unwrap_or(u64::MAX)),
        None => (name, 0),
    }
}

/// What is said while something is waited for.
#[derive(Clone, Copy)]
struct Tells {
    /// Every few seconds, that it still is.
    status: bool,
    /// Which instance is being made.
    names: bool,
}

async fn wait_until_ready(
    farm: &Farm,
    printer: Printer,
    request: &mote::CreateInstanceRequest,
    index: usize,
    tells: Tells,
) -> Result<mote::InstanceInfo, Error> {
    let waiting = Waiting::new(&request.host_type, index);
    tokio::select! {
        ready = ask_until_ready(farm, printer, request, &waiting, tells.names) => ready,
        never = waiting.tell(printer), if tells.status => match never {},
    }
}

async fn ask_until_ready(
    farm: &Farm,
    printer: Printer,
    request: &mote::CreateInstanceRequest,
    waiting: &Waiting<'_>,
    names: bool,
) -> Result<mote::InstanceInfo, Error> {
    let mut retry = farm.retry(format!("lease an instance of {}", request.host_type), LONG_PATIENCE);
    let mut unnamed = names;
    loop {
        let mut client = farm.client();
        let failure = match opened(client.create_instance(request.clone())).await {
            Err(status) => status,
            Ok(mut events) => loop {
                match next_instance(&mut events).await {
                    Err(status) => break status,
                    Ok((instance, ahead)) => {
                        retry.contact();
                        waiting.ahead(ahead);
                        if unnamed && !instance.name.is_empty() {
                            unnamed = false;
                            printer.message(format_args!("Creating {}...", instance.name));
                        }
                        if instance.state == InstanceState::Ready.as_str() {
                            return Ok(instance);
                        }
                    }
                }
            },
        };
        retry.wait(&failure).await?;
    }
}

/// A stream that ends before the instance is ready was cut.
async fn next_instance(events: &mut Streaming<mote::CreateInstanceEvent>) -> Result<(mote::InstanceInfo, u64), Status> {
    loop {
        match events.message().await? {
            None => return Err(Status::unavailable("")),
            Some(mote::CreateInstanceEvent { instance: Some(instance), waiters_ahead }) => {
                return Ok((instance, waiters_ahead));
            }
            Some(_) => {}
        }
    }
}

async fn give_up(farm: &Farm, printer: Printer, instance: String) {
    let mut client = farm.client();
    let destroy = client.destroy_instance(mote::DestroyInstanceRequest { instance });
    match tokio::time::timeout(GIVE_UP_WITHIN, destroy).await {
        Ok(Ok(_)) => printer.message("the request was withdrawn"),
        Ok(Err(status)) if status.code() == tonic::Code::NotFound => {}
        _ => printer.warning("the farm could not be told; it gives the request up within a minute, or see `mote list`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_the_order_of_their_numbers() {
        let mut names = ["a-x-10", "a-x-9", "a-w-11", "odd"];
        names.sort_by(|a, b| by_number(a).cmp(&by_number(b)));
        assert_eq!(names, ["a-w-11", "a-x-9", "a-x-10", "odd"]);
    }
}

//! `mote create`: lease an instance, waiting in the farm's queue if there is none free.
//!
//! The instance's id is made here and stays the same through every retry, so that a cut neither
//! loses the place in the queue nor leases twice.

use crate::cli;
use crate::commands::Context;
use crate::connection::{Farm, opened};
use crate::error::Error;
use crate::exit_code::ExitStatus;
use crate::human;
use crate::json::Instance;
use crate::printer::Printer;
use crate::resume::LONG_PATIENCE;
use crate::signals::Signals;
use crate::table;
use motefarm_core::instance::InstanceState;
use motefarm_proto::mote;
use serde::Serialize;
use std::time::{Duration, Instant};
use tonic::{Status, Streaming};
use uuid::Uuid;

/// The queue is told about this often even when nothing in it moves.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// Time the farm has to hear that nobody waits any more.
const GIVE_UP_WITHIN: Duration = Duration::from_secs(5);

pub(crate) async fn act(context: &Context, create: cli::Create) -> Result<ExitStatus, Error> {
    let farm = context.connect().await?;
    let Some(host_type) = create.host_type.filter(|_| !create.list) else {
        return list_host_types(context, &farm).await;
    };
    let mut signals = Signals::listen()?;
    let instance_id = Uuid::now_v7().to_string();
    let idle_timeout_ms = create.ttl.map_or(0, |ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
    let request = mote::CreateInstanceRequest { instance_id: instance_id.clone(), host_type, idle_timeout_ms };
    let instance = tokio::select! {
        instance = wait_until_ready(&farm, context.printer, &request) => instance?,
        _ = signals.next() => {
            give_up(&farm, context.printer, instance_id).await;
            return Err(Error::Interrupted);
        }
    };
    let instance = Instance::from(instance);
    context.printer.data(&instance, || instance.name.clone())?;
    Ok(ExitStatus::Success)
}

async fn wait_until_ready(
    farm: &Farm,
    printer: Printer,
    request: &mote::CreateInstanceRequest,
) -> Result<mote::InstanceInfo, Error> {
    let mut retry = farm.retry(format!("lease an instance of {}", request.host_type), LONG_PATIENCE);
    let mut waiting = Waiting::new(&request.host_type);
    loop {
        let mut client = farm.client();
        let failure = match opened(client.create_instance(request.clone())).await {
            Err(status) => status,
            Ok(mut events) => loop {
                match next_instance(&mut events).await {
                    Err(status) => break status,
                    Ok((instance, ahead)) => {
                        retry.contact();
                        if instance.state == InstanceState::Ready.as_str() {
                            return Ok(instance);
                        }
                        if let Some(news) = waiting.news(&instance.state, ahead, Instant::now()) {
                            printer.message(news);
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

/// What was last said about the queue.
struct Waiting<'a> {
    host_type: &'a str,
    since: Instant,
    last: Option<(String, u64, Instant)>,
}

impl<'a> Waiting<'a> {
    fn new(host_type: &'a str) -> Self {
        Self { host_type, since: Instant::now(), last: None }
    }

    /// A line when something moved, or every few seconds; none in the first quarter of a second,
    /// in which most requests are done.
    fn news(&mut self, state: &str, ahead: u64, now: Instant) -> Option<String> {
        let waited = now.saturating_duration_since(self.since);
        let stale = self.last.as_ref().is_none_or(|(last_state, last_ahead, at)| {
            last_state != state || *last_ahead != ahead || now.saturating_duration_since(*at) >= TELL_EVERY
        });
        let queued = state == InstanceState::Queued.as_str();
        let quiet = !queued || ahead == 0;
        if !stale || (quiet && waited < Duration::from_millis(250)) {
            return None;
        }
        self.last = Some((state.to_owned(), ahead, now));
        let (host_type, waited) = (self.host_type, human::duration(waited));
        Some(if queued {
            format!("still waiting for {host_type}: {} ahead of you ({waited})", human::count(ahead, "request"))
        } else {
            format!("still creating {host_type}: {state} ({waited})")
        })
    }
}

#[derive(Serialize)]
struct HostTypes {
    host_types: Vec<HostType>,
}

/// `HostTypeInfo`.
#[derive(Serialize)]
struct HostType {
    host_type: String,
    free_slots: u64,
    total_slots: u64,
    waiting: u64,
    buildlets: u64,
}

async fn list_host_types(context: &Context, farm: &Farm) -> Result<ExitStatus, Error> {
    let request = mote::ListHostTypesRequest {};
    let answer = farm.call("list the host types", async |mut c| c.list_host_types(request).await).await?;
    let view = |t: mote::HostTypeInfo| HostType {
        host_type: t.host_type,
        free_slots: t.free_slots,
        total_slots: t.total_slots,
        waiting: t.waiting,
        buildlets: t.buildlets,
    };
    let body = HostTypes { host_types: answer.host_types.into_iter().map(view).collect() };
    if body.host_types.is_empty() {
        context.printer.message("no machine has joined this farm yet; `mote admin invite` tells how");
    }
    context.printer.data(&body, || host_type_table(&body.host_types))?;
    Ok(ExitStatus::Success)
}

fn host_type_table(types: &[HostType]) -> String {
    if types.is_empty() {
        return String::new();
    }
    let row = |t: &HostType| {
        [
            t.host_type.clone(),
            t.free_slots.to_string(),
            t.total_slots.to_string(),
            t.waiting.to_string(),
            t.buildlets.to_string(),
        ]
    };
    let rows: Vec<_> = types.iter().map(row).collect();
    table::render(["HOST TYPE", "FREE", "SLOTS", "WAITING", "MACHINES"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_is_told_when_it_moves_and_now_and_then() {
        let mut waiting = Waiting::new("linux-amd64");
        let begin = waiting.since;
        let at = |s: u64| begin + Duration::from_secs(s);
        assert_eq!(waiting.news("starting", 0, begin), None);
        assert_eq!(waiting.news("queued", 0, begin), None);
        let first = waiting.news("queued", 2, at(12)).unwrap();
        assert_eq!(first, "still waiting for linux-amd64: 2 requests ahead of you (12s)");
        assert_eq!(waiting.news("queued", 2, at(14)), None);
        assert!(waiting.news("queued", 1, at(14)).unwrap().contains("1 request ahead"));
        assert!(waiting.news("queued", 1, at(19)).is_some());
        assert_eq!(waiting.news("starting", 0, at(20)).unwrap(), "still creating linux-amd64: starting (20s)");
    }
}

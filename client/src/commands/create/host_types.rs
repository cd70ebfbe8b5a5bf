//! `mote create` without a type: what there is to lease.

use crate::commands::Context;
use crate::connection::Farm;
use crate::error::Error;
use crate::exit_code::ExitStatus;
use crate::table;
use motefarm_proto::mote;
use serde::Serialize;

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

/// Prints them.
pub(super) async fn list(context: &Context, farm: &Farm) -> Result<ExitStatus, Error> {
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
    context.printer.data(&body, || rows(&body.host_types))?;
    Ok(ExitStatus::Success)
}

fn rows(types: &[HostType]) -> String {
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

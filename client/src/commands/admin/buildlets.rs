//! `mote admin buildlets`: the farm's machines, in contact or not.

use super::ago;
use crate::commands::Context;
use crate::error::Error;
use crate::table;
use motefarm_proto::mote;
use serde::Serialize;

#[derive(Serialize)]
struct Buildlets {
    buildlets: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    buildlet_id: String,
    hostname: String,
    host_type: String,
    provider: String,
    in_contact: bool,
    total_slots: u64,
    used_slots: u64,
    last_seen_ms: i64,
    buildlet_version: String,
}

pub(super) async fn act(context: &Context) -> Result<(), Error> {
    let farm = context.connect().await?;
    let request = mote::ListBuildletsRequest {};
    let answer = farm.call_once("list the buildlets", farm.admin().list_buildlets(request)).await?;
    let row = |b: mote::BuildletInfo| Row {
        buildlet_id: b.buildlet_id,
        hostname: b.hostname,
        host_type: b.host_type,
        provider: b.provider,
        in_contact: b.in_contact,
        total_slots: b.total_slots,
        used_slots: b.used_slots,
        last_seen_ms: b.last_seen_ms,
        buildlet_version: b.version,
    };
    let body = Buildlets { buildlets: answer.buildlets.into_iter().map(row).collect() };
    context.printer.data(&body, || {
        let contact = |b: &Row| if b.in_contact { "yes".to_owned() } else { format!("no, {}", ago(b.last_seen_ms)) };
        let cells = |b: &Row| {
            let slots = format!("{}/{}", b.used_slots, b.total_slots);
            [
                b.hostname.clone(),
                b.host_type.clone(),
                b.provider.clone(),
                slots,
                contact(b),
                b.buildlet_version.clone(),
                b.buildlet_id.clone(),
            ]
        };
        let rows: Vec<_> = body.buildlets.iter().map(cells).collect();
        table::render(["HOST", "HOST TYPE", "PROVIDER", "USED", "CONTACT", "VERSION", "ID"], &rows)
    })
}

//! `mote cas`: the farm's content store, for its admins.

use crate::cli::{Cas, CasVerb};
use crate::commands::Context;
use crate::connection::opened;
use crate::error::Error;
use crate::exit_code::ExitStatus;
use crate::human;
use crate::progress::Bar;
use motefarm_core::Digest;
use motefarm_proto::{convert, mote};
use serde::Serialize;

/// How long an eviction may take: every pack that goes is one file removed, what is pinned is copied.
const COLLECT_DEADLINE: std::time::Duration = std::time::Duration::from_secs(600);

pub(crate) async fn act(context: &Context, cas: Cas) -> Result<ExitStatus, Error> {
    match cas.verb {
        CasVerb::Stat => stat(context).await,
        CasVerb::Gc { to } => collect(context, to).await,
        CasVerb::Verify { discard } => verify(context, discard).await,
    }
}

#[derive(Serialize)]
struct Stat {
    blobs: u64,
    blob_bytes: u64,
    disk_bytes: u64,
    max_bytes: u64,
    packs: u64,
    large_files: u64,
    pinned: u64,
}

async fn stat(context: &Context) -> Result<ExitStatus, Error> {
    let farm = context.connect().await?;
    let asked = farm.content().describe_content(mote::DescribeContentRequest {}).await;
    let it = asked.map_err(|status| Error::refused("look at the content store", &status))?.into_inner();
    let body = Stat {
        blobs: it.blobs,
        blob_bytes: it.blob_bytes,
        disk_bytes: it.disk_bytes,
        max_bytes: it.max_bytes,
        packs: it.packs,
        large_files: it.large_files,
        pinned: it.pinned,
    };
    context.printer.data(&body, || {
        format!(
            "{} ({}) in {} and {}\n{} of {} taken, {} pinned",
            human::count(body.blobs, "blob"),
            human::bytes(body.blob_bytes),
            human::count(body.packs, "pack"),
            human::count(body.large_files, "large file"),
            human::bytes(body.disk_bytes),
            human::bytes(body.max_bytes),
            human::count(body.pinned, "digest"),
        )
    })?;
    Ok(ExitStatus::Success)
}

#[derive(Serialize)]
struct Collected {
    blobs: u64,
    freed_bytes: u64,
    disk_bytes: u64,
}

async fn collect(context: &Context, target_bytes: Option<u64>) -> Result<ExitStatus, Error> {
    let farm = context.connect().await?;
    let request = mote::CollectContentRequest { target_bytes };
    let doing = "evict content";
    let answer = crate::connection::within(COLLECT_DEADLINE, farm.content().collect_content(request)).await;
    let answer = answer.map_err(|status| Error::refused(doing, &status))?.into_inner();
    let body = Collected { blobs: answer.blobs, freed_bytes: answer.freed_bytes, disk_bytes: answer.disk_bytes };
    context.printer.data(&body, || {
        let (gone, freed) = (human::count(body.blobs, "blob"), human::bytes(body.freed_bytes));
        format!("evicted {gone}, freed {freed}; {} still taken", human::bytes(body.disk_bytes))
    })?;
    Ok(ExitStatus::Success)
}

#[derive(Serialize)]
struct Verified {
    blobs: u64,
    bytes: u64,
    bad: Vec<String>,
    discarded: u64,
}

async fn verify(context: &Context, discard: bool) -> Result<ExitStatus, Error> {
    const DOING: &str = "verify the content store";
    let refused = |status| Error::refused(DOING, &status);
    let farm = context.connect().await?;
    let mut content = farm.content();
    let request = mote::VerifyContentRequest { discard };
    let mut events = opened(content.verify_content(request)).await.map_err(refused)?;
    let mut bar: Option<Bar> = None;
    let mut bad = Vec::new();
    let mut seen = 0;
    let end = loop {
        let Some(event) = events.message().await.map_err(refused)? else {
            return Err(Error::protocol(DOING, "it ended without saying so"));
        };
        for digest in &event.bad {
            let digest: Digest = convert::digest(digest).map_err(|e| Error::protocol(DOING, e))?;
            bad.push(digest.to_string());
        }
        let bar = bar.get_or_insert_with(|| Bar::bytes(context.printer, "verify", Some(event.all_bytes)));
        bar.add(event.bytes.saturating_sub(seen));
        seen = event.bytes;
        if event.end {
            break event;
        }
    };
    bar.into_iter().for_each(|bar| bar.done());
    let body = Verified { blobs: end.blobs, bytes: end.bytes, bad, discarded: end.discarded };
    context.printer.data(&body, || {
        let looked = format!("{} ({})", human::count(body.blobs, "blob"), human::bytes(body.bytes));
        if body.bad.is_empty() {
            return format!("{looked}, each is what its digest says");
        }
        let wrong = body.bad.iter().map(|digest| format!("{digest} is wrong")).collect::<Vec<_>>().join("\n");
        format!("{wrong}\n{looked}, {} wrong, {} thrown away", body.bad.len(), body.discarded)
    })?;
    Ok(if body.bad.is_empty() { ExitStatus::Success } else { ExitStatus::Failed })
}

//! `mote snapshot`: files of an instance kept under a name, for instances that start with them.

use crate::cli::SnapshotVerb;
use crate::commands::Context;
use crate::connection::Farm;
use crate::error::Error;
use crate::exit_code::ExitStatus;
use crate::human;
use crate::table;
use motefarm_core::WorkPath;
use motefarm_proto::mote;
use serde::Serialize;
use std::time::Duration;

const SHAPE: &str = "mote snapshot create [-dir DIR] [INSTANCE] NAME";
/// For reading a tree of a million files from a slow disk.
const DEADLINE: Duration = Duration::from_secs(30 * 60);

/// `SnapshotInfo`.
#[derive(Serialize)]
struct Snapshot {
    name: String,
    owner: String,
    dir: String,
    root: String,
    files: u64,
    bytes: u64,
    created_at_ms: i64,
    host_type: String,
}

#[derive(Serialize)]
struct Snapshots {
    snapshots: Vec<Snapshot>,
}

#[derive(Serialize)]
struct Removed {
    removed: Vec<String>,
}

impl From<mote::SnapshotInfo> for Snapshot {
    fn from(info: mote::SnapshotInfo) -> Self {
        Self {
            name: info.name,
            owner: info.owner,
            dir: info.dir,
            root: info.root.map(|root| hex::encode(root.hash)).unwrap_or_default(),
            files: info.files,
            bytes: info.bytes,
            created_at_ms: info.created_at_ms,
            host_type: info.host_type,
        }
    }
}

pub(crate) async fn act(context: &Context, verb: SnapshotVerb) -> Result<ExitStatus, Error> {
    let printer = context.printer;
    let farm = context.connect().await?;
    match verb {
        SnapshotVerb::Create { dir, words } => {
            let made = create(context, &farm, dir.as_deref().unwrap_or_default(), words).await?;
            let files = human::count(made.files, "file");
            printer.message(format_args!("kept {files} ({}) as {}", human::bytes(made.bytes), made.name));
            printer.data(&made, || made.name.clone())?;
        }
        SnapshotVerb::List => {
            let request = mote::ListSnapshotsRequest {};
            let answer = farm.call("list the snapshots", async |mut c| c.list_snapshots(request).await).await?;
            let body = Snapshots { snapshots: answer.snapshots.into_iter().map(Snapshot::from).collect() };
            printer.data(&body, || rows(&body.snapshots))?;
        }
        SnapshotVerb::Remove { names } => {
            for name in &names {
                let request = mote::RemoveSnapshotRequest { name: name.clone() };
                let doing = format!("forget the snapshot {name}");
                farm.call_once(&doing, farm.client().remove_snapshot(request)).await?;
                printer.message(format_args!("forgot the snapshot {name}"));
            }
            printer.data(&Removed { removed: names }, String::new)?;
        }
    }
    Ok(ExitStatus::Success)
}

async fn create(context: &Context, farm: &Farm, dir: &str, words: Vec<String>) -> Result<Snapshot, Error> {
    let dir = WorkPath::parse(dir).map_err(|e| Error::usage(format!("-dir: {e}"), "name a directory such as go"))?;
    let targets = context.resolver(farm, SHAPE).first(words).await?;
    let ([instance], [name]) = (targets.instances.as_slice(), targets.rest.as_slice()) else {
        return Err(Error::usage("a snapshot is of one instance and has one name", SHAPE));
    };
    let request =
        mote::CreateSnapshotRequest { instance: instance.clone(), dir: dir.as_str().to_owned(), name: name.clone() };
    let doing = format!("keep {dir} of {instance} as {name}");
    let ask = async |mut c: crate::connection::Client| c.create_snapshot(request.clone()).await;
    Ok(farm.call_within(&doing, DEADLINE, ask).await?.into())
}

fn rows(snapshots: &[Snapshot]) -> String {
    if snapshots.is_empty() {
        return String::new();
    }
    let row = |s: &Snapshot| {
        let dir = if s.dir.is_empty() { "." } else { &s.dir };
        [s.name.clone(), dir.to_owned(), s.host_type.clone(), s.files.to_string(), human::bytes(s.bytes)]
    };
    let rows: Vec<_> = snapshots.iter().map(row).collect();
    table::render(["NAME", "DIR", "HOST TYPE", "FILES", "SIZE"], &rows)
}

//! `mote gettar`: a directory of instances, as an archive of each.

use crate::broadcast;
use crate::cli;
use crate::commands::Context;
use crate::connection::Farm;
use crate::error::Error;
use crate::exit_code::ExitStatus;
use crate::fetch;
use crate::human;
use crate::printer::{Printer, stdout_file};
use crate::progress::Bar;
use crate::signals::Signals;
use motefarm_core::WorkPath;
use motefarm_proto::mote::{self, TarCompression};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Instant;

const SHAPE: &str = "mote gettar [-dir DIR] INSTANCE...";

#[derive(Serialize)]
struct Fetched {
    file: PathBuf,
    bytes: u64,
}

pub(crate) async fn act(context: &Context, gettar: cli::Gettar) -> Result<ExitStatus, Error> {
    let dir = gettar.dir.as_deref().unwrap_or_default();
    let dir =
        WorkPath::parse(dir).map_err(|e| Error::usage(format!("-dir: {e}"), "name a directory such as go/bin"))?;
    let (compression, suffix) = match (gettar.zstd, gettar.plain) {
        (true, _) => (TarCompression::Zstd, "tar.zst"),
        (_, true) => (TarCompression::None, "tar"),
        _ => (TarCompression::Gzip, "tar.gz"),
    };
    let request = |instance: &str| mote::GetTarRequest {
        instance: instance.to_owned(),
        dir: dir.as_str().to_owned(),
        compression: compression.into(),
    };
    let printer = context.printer;
    let farm = context.connect().await?;
    let instances = context.resolver(&farm, SHAPE).all(gettar.instances).await?.instances;
    let target = match (&gettar.output, instances.as_slice()) {
        (None, _) => None,
        (Some(file), [instance]) if file.as_path() == Path::new("-") => {
            return to_stdout(&farm, request(instance)).await;
        }
        (Some(file), [_]) => Some(file),
        (Some(_), _) => {
            return Err(Error::usage(
                "several archives can not go to one file",
                "leave out -output: each is written to INSTANCE.tar.gz",
            ));
        }
    };
    let get = async |instance: &str| {
        let file = target.cloned();
        let file = file.unwrap_or_else(|| PathBuf::from(format!("{}.{suffix}", fetch::file_name(instance))));
        printer.message(format_args!("fetching {dir} of {instance} to {}", file.display()));
        let bytes = to_file(printer, &farm, request(instance), &file).await?;
        Ok(Fetched { file, bytes })
    };
    let mut signals = Signals::listen()?;
    let results = tokio::select! {
        results = broadcast::each(&instances, get) => results,
        // The temporary files go too.
        _ = signals.next() => return Err(Error::Interrupted),
    };
    broadcast::conclude(printer, results)
}

async fn to_stdout(farm: &Farm, request: mote::GetTarRequest) -> Result<ExitStatus, Error> {
    let mut stdout = stdout_file().map_err(|e| Error::local("get hold of stdout", e))?;
    let ask = async |mut c: crate::connection::Client| c.get_tar(request.clone()).await;
    fetch::once(farm, &doing(&request), &mut stdout, ask).await?;
    Ok(ExitStatus::Success)
}

/// Fetches an archive into a file, which has its name when it is whole; answers its size.
pub(super) async fn to_file(
    printer: Printer,
    farm: &Farm,
    request: mote::GetTarRequest,
    file: &Path,
) -> Result<u64, Error> {
    let begin = Instant::now();
    let bar = Bar::bytes(printer, &request.instance, None);
    let ask = async |mut c: crate::connection::Client| c.get_tar(request.clone()).await;
    let came = fetch::to_file(farm, doing(&request), file, &bar, ask).await?;
    bar.done();
    let took = human::took(begin.elapsed());
    printer.message(format_args!("wrote {} ({}, {took})", file.display(), human::bytes(came.bytes)));
    Ok(came.bytes)
}

fn doing(request: &mote::GetTarRequest) -> String {
    let dir = if request.dir.is_empty() { "the work directory" } else { &request.dir };
    format!("fetch {dir} of {}", request.instance)
}

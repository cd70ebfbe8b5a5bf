//! `mote get`: a file of instances, here.

use crate::broadcast;
use crate::commands::Context;
use crate::error::Error;
use crate::exit_code::ExitStatus;
use crate::fetch;
use crate::human;
use crate::printer::stdout_file;
use crate::progress::Bar;
use crate::signals::Signals;
use motefarm_proto::mote;
use serde::Serialize;
use std::path::{Path, PathBuf};

const SHAPE: &str = "mote get [INSTANCE] SOURCE [DEST|-]";

#[derive(Serialize)]
struct Fetched {
    file: PathBuf,
    bytes: u64,
}

pub(crate) async fn act(context: &Context, words: Vec<String>) -> Result<ExitStatus, Error> {
    let printer = context.printer;
    let farm = context.connect().await?;
    let targets = context.resolver(&farm, SHAPE).first(words).await?;
    let (path, to) = match targets.rest.as_slice() {
        [path] => (path, None),
        [path, to] => (path, Some(to.as_str())),
        _ => return Err(Error::usage("name one file to get", SHAPE)),
    };
    let several = targets.instances.len() > 1;
    let doing = |instance: &str| format!("get {path} from {instance}");
    let request = |instance: &str| mote::GetFileRequest { instance: instance.to_owned(), path: path.clone() };
    if to == Some("-") {
        let [instance] = targets.instances.as_slice() else {
            return Err(Error::usage("several files can not share stdout", "leave out the - to get a file of each"));
        };
        let mut stdout = stdout_file().map_err(|e| Error::local("get hold of stdout", e))?;
        let ask = async |mut c: crate::connection::Client| c.get_file(request(instance)).await;
        fetch::once(&farm, &doing(instance), &mut stdout, ask).await?;
        return Ok(ExitStatus::Success);
    }
    let get = async |instance: &str| {
        let file = local_file(instance, path, to, several)?;
        let bar = Bar::bytes(printer, instance, None);
        let ask = async |mut c: crate::connection::Client| c.get_file(request(instance)).await;
        let came = fetch::to_file(&farm, doing(instance), &file, &bar, ask).await?;
        bar.done();
        printer.message(format_args!("wrote {} ({})", file.display(), human::bytes(came.bytes)));
        Ok(Fetched { file, bytes: came.bytes })
    };
    let mut signals = Signals::listen()?;
    let results = tokio::select! {
        results = broadcast::each(&targets.instances, get) => results,
        // The temporary files go too.
        _ = signals.next() => return Err(Error::Interrupted),
    };
    broadcast::conclude(printer, results)
}

/// Where it goes: into a directory under its own name, or to the name given.
fn local_file(instance: &str, path: &str, to: Option<&str>, several: bool) -> Result<PathBuf, Error> {
    let base = path.rsplit('/').find(|part| !part.is_empty() && *part != "." && *part != "..");
    let base = base.ok_or_else(|| Error::usage(format!("{path:?} names no file"), SHAPE))?;
    let base = if several { format!("{}.{base}", fetch::file_name(instance)) } else { base.to_owned() };
    match to.map(Path::new) {
        None => Ok(base.into()),
        Some(to) if several || to.is_dir() => Ok(to.join(base)),
        Some(to) => Ok(to.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_keeps_its_name_unless_told() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().to_str().unwrap();
        let place = |path, to, several| local_file("i", path, to, several).map(|p| p.to_str().unwrap().to_owned());
        assert_eq!(place("go/bin/go", None, false).unwrap(), "go");
        assert_eq!(place("go/bin/go", Some("x"), false).unwrap(), "x");
        assert_eq!(place("go/bin/go", Some(dir), false).unwrap(), format!("{dir}/go"));
        assert_eq!(place("go/bin/go", None, true).unwrap(), "i.go");
        assert_eq!(place("go/bin/go", Some("d"), true).unwrap(), "d/i.go");
        assert!(place("..", None, false).is_err());
    }
}

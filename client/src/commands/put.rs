//! `mote put`: one local file, or stdin, to a file of instances.
//!
//! The farm shows it whole or not at all, so that a try cut off is simply made again, unless it was
//! stdin, which is read by then.

use crate::broadcast;
use crate::cli;
use crate::commands::Context;
use crate::connection::Farm;
use crate::error::Error;
use crate::exit_code::ExitStatus;
use crate::human;
use crate::progress::Bar;
use crate::resume::SHORT_PATIENCE;
use crate::source::{Broken, Source};
use motefarm_proto::mote;
use serde::Serialize;
use std::path::{Path, PathBuf};

const SHAPE: &str = "mote put [-mode OCTAL] [INSTANCE] SOURCE|- [DEST]";

#[derive(Serialize)]
struct Written<'a> {
    path: &'a str,
    bytes_written: u64,
}

pub(crate) async fn act(context: &Context, put: cli::Put) -> Result<ExitStatus, Error> {
    let printer = context.printer;
    let farm = context.connect().await?;
    let targets = context.resolver(&farm, SHAPE).first(put.words).await?;
    let (from, to) = match targets.rest.as_slice() {
        [from] => (from, None),
        [from, to] => (from, Some(to.as_str())),
        [] => {
            return Err(Error::usage(format!("nothing is said to be put on {}", targets.instances.join(", ")), SHAPE));
        }
        _ => return Err(Error::usage("only one file is put at a time", SHAPE)),
    };
    let (source, mode) = read(from, put.mode)?;
    let path = destination(from, to)?;
    let (source, _copy) = if targets.instances.len() > 1 { source.repeatable()? } else { (source, None) };
    let send = async |instance: &str| {
        let header = mote::PutFileTarget {
            instance: instance.to_owned(),
            file: Some(mote::PutFileHeader { path: path.clone(), mode }),
        };
        let written = send(&farm, instance, &source, header, context).await?;
        printer.message(format_args!("wrote {path} on {instance} ({})", human::bytes(written)));
        Ok(Written { path: &path, bytes_written: written })
    };
    broadcast::conclude(printer, broadcast::each(&targets.instances, send).await)
}

async fn send(
    farm: &Farm,
    instance: &str,
    source: &Source,
    header: mote::PutFileTarget,
    context: &Context,
) -> Result<u64, Error> {
    let doing = format!("put {} on {instance}", source.name());
    let mut retry = farm.retry(doing.clone(), SHORT_PATIENCE);
    let bar = Bar::bytes(context.printer, instance, source.size());
    let first = mote::PutFileRequest { header: Some(header), ..Default::default() };
    let written = loop {
        let seen = bar.clone();
        let feed = source.open(move |n| seen.add(n))?;
        let message = |data| mote::PutFileRequest { data, ..Default::default() };
        let last = mote::PutFileRequest { end: true, ..Default::default() };
        let mut client = farm.client();
        let call = async |messages| client.put_file(messages).await;
        match feed.send(first.clone(), message, last, call).await {
            Ok(answer) => break answer.bytes_written,
            Err(Broken::Here(cause)) => return Err(unread(source, cause)),
            Err(Broken::There(status)) if source.is_repeatable() => retry.wait(&status).await?,
            Err(Broken::There(status)) => return Err(once_only(&doing, &status, "nothing was written")),
        }
        bar.restart();
    };
    bar.done();
    Ok(written)
}

/// A source that could not be read to its end.
pub(super) fn unread(source: &Source, cause: std::io::Error) -> Error {
    Error::local(&format!("read {}", source.name()), cause)
}

/// A cut while stdin was sent: what was read is gone.
pub(super) fn once_only(doing: &str, status: &tonic::Status, state: &str) -> Error {
    if !crate::resume::is_transient(status) {
        return Error::refused(doing, status);
    }
    Error::Local {
        doing: doing.to_owned(),
        cause: std::io::Error::other(format!("the farm was lost in the middle; {state}")),
        next: Some("stdin can be read once only: run the whole pipeline again".to_owned()),
    }
}

/// What to read, and with which mode it is to be written (0: the farm's default).
fn read(from: &str, mode: Option<u32>) -> Result<(Source, u32), Error> {
    if from == "-" {
        return Ok((Source::Stdin, mode.unwrap_or(0)));
    }
    let path = PathBuf::from(from);
    let meta = std::fs::metadata(&path).map_err(|e| Error::file("read", &path, e))?;
    if meta.is_dir() {
        return Err(Error::usage(
            format!("{from} is a directory"),
            format!("mote push -C {from} sends a tree; tar -C {from} -c . | mote puttar unpacks an archive"),
        ));
    }
    Ok((Source::File(path), mode.unwrap_or_else(|| permissions(&meta))))
}

/// A path in the work directory: the one given, or the source's base name.
fn destination(from: &str, to: Option<&str>) -> Result<String, Error> {
    if let Some(to) = to.filter(|to| !to.is_empty()) {
        return Ok(to.to_owned());
    }
    if from == "-" {
        return Err(Error::usage("what comes from stdin has no name", "mote put INSTANCE - DEST"));
    }
    let name = Path::new(from).file_name().and_then(|name| name.to_str());
    name.map(str::to_owned).ok_or_else(|| Error::usage(format!("{from} has no name to go by"), SHAPE))
}

#[cfg(unix)]
fn permissions(meta: &std::fs::Metadata) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    meta.permissions().mode() & 0o777
}

#[cfg(not(unix))]
fn permissions(_: &std::fs::Metadata) -> u32 {
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_name_is_the_default() {
        assert_eq!(destination("a/b/c.txt", None).unwrap(), "c.txt");
        assert_eq!(destination("a/b/c.txt", Some("d/e")).unwrap(), "d/e");
        assert_eq!(destination("-", Some("x")).unwrap(), "x");
        assert!(destination("-", None).is_err() && destination("..", None).is_err());
    }
}

//! `mote ls`: what is in a directory of instances, one after the other.

use crate::cli;
use crate::commands::Context;
use crate::connection::{Farm, opened};
use crate::error::Error;
use crate::exit_code::ExitStatus;
use crate::listing;
use crate::printer::Printer;
use crate::resume::SHORT_PATIENCE;
use motefarm_core::WorkPath;
use motefarm_proto::mote::list_dir_spec::Hash;
use motefarm_proto::mote::{self, DirEntry, dir_entry::Kind};
use serde::Serialize;

const SHAPE: &str = "mote ls [-R] [-d] [-skip LIST] [INSTANCE] [DIR]";

/// One entry, on a line of its own.
#[derive(Serialize)]
struct Entry<'a> {
    instance: &'a str,
    /// Relative to the directory listed.
    path: String,
    kind: &'static str,
    /// As Go writes it.
    mode: String,
    size_bytes: u64,
    modified_at_ms: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
}

pub(crate) async fn act(context: &Context, ls: cli::Ls) -> Result<ExitStatus, Error> {
    let printer = context.printer;
    let farm = context.connect().await?;
    let targets = context.resolver(&farm, SHAPE).first(ls.words).await?;
    let dir = match targets.rest.as_slice() {
        [] => "",
        [dir] => dir,
        _ => return Err(Error::usage("only one directory is listed at a time", SHAPE)),
    };
    let dir = WorkPath::parse(dir).map_err(|e| Error::usage(e.to_string(), "name a directory such as go/bin"))?;
    let skip = ls.skip.as_deref().unwrap_or_default().split(',').filter(|part| !part.is_empty());
    let spec = mote::ListDirSpec {
        dir: dir.as_str().to_owned(),
        recursive: ls.recursive,
        skip: skip.map(str::to_owned).collect(),
        hash: match (ls.digest, ls.sha256) {
            (true, _) => Hash::Sha1,
            (_, true) => Hash::Sha256,
            _ => Hash::None,
        }
        .into(),
    };
    let several = targets.instances.len() > 1;
    let mut failed = 0;
    for instance in &targets.instances {
        // As gomote does it: a header and an empty line around each of several.
        if several && !printer.is_json() {
            printer.line(format_args!("# {instance}"))?;
        }
        match list(printer, &farm, instance, &spec).await {
            Ok(()) => {}
            Err(error @ Error::StdoutClosed) => return Err(error),
            Err(error) if !several => return Err(error),
            Err(error) => {
                failed += 1;
                printer.warning(error);
            }
        }
        if several && !printer.is_json() {
            printer.line("")?;
        }
    }
    Ok(if failed == 0 { ExitStatus::Success } else { ExitStatus::Failed })
}

/// Prints as it comes. A listing that was cut is asked for again and goes on after the last entry
/// printed: entries always come in the same order.
async fn list(printer: Printer, farm: &Farm, instance: &str, spec: &mote::ListDirSpec) -> Result<(), Error> {
    let dir = if spec.dir.is_empty() { "the work directory" } else { &spec.dir };
    let doing = format!("list {dir} of {instance}");
    let request = mote::ListDirRequest { instance: instance.to_owned(), list: Some(spec.clone()) };
    let mut retry = farm.retry(doing.clone(), SHORT_PATIENCE);
    let mut last: Option<DirEntry> = None;
    loop {
        let mut client = farm.client();
        let mut pass_over = last.clone();
        let failure = match opened(client.list_dir(request.clone())).await {
            Err(status) => status,
            Ok(mut listing) => loop {
                match listing.message().await {
                    Ok(None) => match pass_over {
                        None => return Ok(()),
                        Some(gone) => return Err(changed(&doing, &gone)),
                    },
                    Ok(Some(part)) => {
                        retry.contact();
                        let entries = after(&part.entries, &mut pass_over);
                        print(printer, instance, entries)?;
                        last = entries.last().cloned().or(last);
                    }
                    Err(status) => break status,
                }
            },
        };
        retry.wait(&failure).await?;
    }
}

/// The entries behind `pass_over`, if that is among them or nothing is to be passed over (any more).
fn after<'a>(entries: &'a [DirEntry], pass_over: &mut Option<DirEntry>) -> &'a [DirEntry] {
    let Some(last) = pass_over else { return entries };
    match entries.iter().position(|entry| entry.path == last.path) {
        Some(at) => {
            *pass_over = None;
            &entries[at + 1..]
        }
        None => &[],
    }
}

fn changed(doing: &str, gone: &DirEntry) -> Error {
    let path = String::from_utf8_lossy(&gone.path);
    let problem =
        format!("the connection was cut, and meanwhile {path} was removed, after which it would go on; ask again");
    Error::protocol(doing, problem)
}

fn print(printer: Printer, instance: &str, entries: &[DirEntry]) -> Result<(), Error> {
    if printer.is_json() {
        return entries.iter().try_for_each(|entry| printer.json(&Entry::new(instance, entry)));
    }
    let mut lines = Vec::new();
    for entry in entries {
        lines.extend_from_slice(&listing::line(entry));
        lines.push(b'\n');
    }
    printer.bytes(&lines)
}

impl<'a> Entry<'a> {
    fn new(instance: &'a str, entry: &DirEntry) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            instance,
            path: text(&entry.path),
            kind: match entry.kind() {
                Kind::File => "file",
                Kind::Directory => "directory",
                Kind::Symlink => "symlink",
                Kind::Other | Kind::Unspecified => "other",
            },
            mode: listing::mode(entry),
            size_bytes: entry.size_bytes,
            modified_at_ms: entry.modified_at_ms,
            hash: (!entry.hash.is_empty()).then(|| hex::encode(&entry.hash)),
            target: (entry.kind() == Kind::Symlink).then(|| text(&entry.target)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(paths: &[&'static str]) -> Vec<DirEntry> {
        paths.iter().map(|path| DirEntry { path: path.as_bytes().into(), ..DirEntry::default() }).collect()
    }

    #[test]
    fn a_listing_goes_on_after_the_last_entry_printed() {
        let all = entries(&["a", "b", "c"]);
        assert_eq!(after(&all, &mut None), all);
        let mut pass_over = Some(all[1].clone());
        assert_eq!(after(&all[..1], &mut pass_over), []);
        assert_eq!(after(&all[1..], &mut pass_over), &all[2..]);
        assert_eq!((after(&all, &mut pass_over).len(), pass_over), (3, None));
        let mut gone = Some(entries(&["x"]).remove(0));
        assert_eq!((after(&all, &mut gone).len(), gone.is_some()), (0, true));
    }
}

//! What is told of a push.

use super::Done;
use crate::commands::Context;
use crate::error::Error;
use crate::exit_code::ExitStatus;
use crate::human;
use crate::printer::Printer;
use crate::push::{Pushed, Synced, Tree};
use serde::Serialize;
use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

#[derive(Serialize)]
struct Body<'a> {
    tree: &'a Path,
    dest: &'a str,
    go_tree: bool,
    dry_run: bool,
    total_files: u64,
    total_bytes: u64,
    uploaded_blobs: u64,
    uploaded_bytes: u64,
    targets: Vec<Target<'a>>,
    took_ms: u64,
}

#[derive(Serialize)]
struct Target<'a> {
    instance: &'a str,
    #[serde(flatten)]
    synced: Option<&'a Synced>,
    /// Files of a bootstrap toolchain that were written; absent if none was brought.
    #[serde(skip_serializing_if = "Option::is_none")]
    bootstrap_files_written: Option<u64>,
    problem: Option<String>,
}

/// Tells it, and how the program ends.
pub(super) fn conclude(context: &Context, tree: &Tree, dry_run: bool, done: Done) -> Result<ExitStatus, Error> {
    let printer = context.printer;
    let Done { mut pushed, bootstrap, took } = done;
    if let [(_, Err(_))] = pushed.targets.as_slice()
        && let Some((_, Err(error))) = pushed.targets.pop()
    {
        // The one error is the answer.
        return Err(error);
    }
    for (instance, result) in &pushed.targets {
        match result {
            Ok(synced) => {
                printer.message(line(&pushed, instance, tree, synced, dry_run, took));
                if synced.links_left_out > 0 {
                    printer.warning(links(instance, synced));
                }
                name(printer, "write", &synced.would_write, synced.files_written);
                name(printer, "delete", &synced.would_delete, synced.entries_deleted);
            }
            Err(error) => printer.warning(error),
        }
    }
    for (instance, result) in &bootstrap.targets {
        match result {
            Ok(Some(written)) => printer.message(format_args!(
                "bootstrap toolchain ({}) at {instance}:go1.4: {written} {}written",
                bootstrap.from,
                if dry_run { "would be " } else { "" }
            )),
            Ok(None) => printer.message(format_args!(
                "no bootstrap toolchain for {instance}: GOROOT_BOOTSTRAP is not set and the farm has none configured"
            )),
            Err(error) => printer.warning(error),
        }
    }
    let toolchains: HashMap<&str, &Result<Option<u64>, Error>> =
        bootstrap.targets.iter().map(|(instance, result)| (instance.as_str(), result)).collect();
    let target = |(instance, result): &'_ (String, Result<Synced, Error>)| {
        let toolchain = toolchains.get(instance.as_str());
        let problem = result.as_ref().err().or_else(|| toolchain.and_then(|result| result.as_ref().err()));
        (problem.map(ToString::to_string), toolchain.and_then(|result| result.as_ref().ok().copied().flatten()))
    };
    let targets: Vec<Target<'_>> = pushed
        .targets
        .iter()
        .map(|both| {
            let (problem, bootstrap_files_written) = target(both);
            Target { instance: &both.0, synced: both.1.as_ref().ok(), bootstrap_files_written, problem }
        })
        .collect();
    let failed = targets.iter().filter(|target| target.problem.is_some()).count();
    let body = Body {
        tree: &tree.root,
        dest: tree.dest.as_str(),
        go_tree: tree.go_tree,
        dry_run,
        total_files: pushed.total_files,
        total_bytes: pushed.total_bytes,
        uploaded_blobs: pushed.uploaded.stored,
        uploaded_bytes: pushed.uploaded.stored_bytes,
        targets,
        took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
    };
    printer.data(&body, String::new)?;
    Ok(if failed == 0 { ExitStatus::Success } else { ExitStatus::Failed })
}

/// What a dry run would do, by name; nothing for a push.
fn name(printer: Printer, verb: &str, names: &[String], all: u64) {
    for name in names {
        printer.message(format_args!("would {verb} {name}"));
    }
    if let Some(more) = all.checked_sub(names.len() as u64).filter(|more| *more > 0 && !names.is_empty()) {
        printer.message(format_args!("would {verb} {more} more"));
    }
}

fn line(pushed: &Pushed, instance: &str, tree: &Tree, synced: &Synced, dry_run: bool, took: Duration) -> String {
    let files = human::count(pushed.total_files, "file");
    let (verb, would) = if dry_run { ("compared", "would be ") } else { ("pushed", "") };
    let modes = match synced.modes_changed {
        0 => String::new(),
        n => format!(", {n} modes {would}changed"),
    };
    format!(
        "{verb} {files} ({}) to {instance}:{}: {} {would}written, {} {would}deleted{modes}, {}",
        human::bytes(pushed.total_bytes),
        tree.dest,
        synced.files_written,
        synced.entries_deleted,
        human::took(took)
    )
}

fn links(instance: &str, synced: &Synced) -> String {
    let more = if synced.links_left_out > synced.links_named.len() as u64 { ", ..." } else { "" };
    format!(
        "{instance} can not have {}, which {} left out: {}{more}",
        human::count(synced.links_left_out, "symbolic link"),
        if synced.links_left_out == 1 { "was" } else { "were" },
        synced.links_named.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::Chosen;
    use motefarm_core::WorkPath;
    use motefarm_proto::mote;

    #[test]
    fn the_last_line_says_what_it_took() {
        let pushed = Pushed {
            total_files: 11_766,
            total_bytes: 114_400_000,
            uploaded: mote::UploadSummary::default(),
            targets: Vec::new(),
        };
        let dest = WorkPath::parse("go").unwrap();
        let tree = Tree { root: "/x".into(), dest, go_tree: true, whole: false, chosen: Chosen::Named };
        let synced = Synced {
            files_written: 10,
            bytes_written: 5,
            files_unchanged: 11_756,
            entries_deleted: 0,
            modes_changed: 0,
            files_hashed: 0,
            would_write: Vec::new(),
            would_delete: Vec::new(),
            links_left_out: 2,
            links_named: vec!["a/link".to_owned()],
        };
        let said = |dry_run| line(&pushed, "alice-linux-amd64-0", &tree, &synced, dry_run, Duration::from_millis(210));
        assert_eq!(
            said(false),
            "pushed 11766 files (114.4 MB) to alice-linux-amd64-0:go: 10 written, 0 deleted, 0.21 s"
        );
        assert_eq!(links("mac", &synced), "mac can not have 2 symbolic links, which were left out: a/link, ...");
        assert!(said(true).starts_with("compared ") && said(true).contains("10 would be written"));
    }
}

//! `mote push`: directories of instances made equal to a local tree.

use crate::cli;
use crate::commands::Context;
use crate::env_vars;
use crate::error::Error;
use crate::exit_code::ExitStatus;
use crate::human;
use crate::push::{self, Chosen, Push, Pushed, Surroundings, Synced, Tree};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

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
    synced: Option<Synced>,
    problem: Option<String>,
}

pub(crate) async fn act(context: &Context, flags: cli::Push) -> Result<ExitStatus, Error> {
    let printer = context.printer;
    let begin = Instant::now();
    let around = Surroundings {
        current_dir: std::env::current_dir().map_err(|e| Error::local("find the current directory", e))?,
        goroot: std::env::var_os(env_vars::GOROOT).filter(|root| !root.is_empty()).map(PathBuf::from),
    };
    let tree = Tree::choose(flags.tree.as_deref(), flags.to.as_deref(), &around)?;
    if tree.chosen == Chosen::GoRoot {
        printer.message(format_args!("{} is in no git checkout: taking $GOROOT", around.current_dir.display()));
    }
    let mut instances = flags.instances;
    instances.sort_unstable();
    instances.dedup();
    let verb = if flags.dry_run { "comparing" } else { "pushing" };
    let places: Vec<String> = instances.iter().map(|instance| format!("{instance}:{}", tree.dest)).collect();
    printer.message(format_args!("{verb} {} to {}", tree.root.display(), places.join(", ")));
    let cache_file = context.settings.dirs.tree_cache(&tree.root);
    // The walk needs no farm, and the handshake no processor to speak of.
    let (farm, walked) = tokio::try_join!(context.connect(), push::walk(&tree, &cache_file))?;
    push::tell_warnings(printer, &walked);
    let push = Push {
        farm: &farm,
        printer,
        tree: &tree,
        instances: &instances,
        dry_run: flags.dry_run,
        cache_file: &cache_file,
    };
    let pushed = push.run(walked).await?;
    conclude(context, &tree, flags.dry_run, pushed, begin.elapsed())
}

fn conclude(
    context: &Context,
    tree: &Tree,
    dry_run: bool,
    mut pushed: Pushed,
    took: Duration,
) -> Result<ExitStatus, Error> {
    let printer = context.printer;
    let asked = pushed.targets.len();
    if asked == 1 && pushed.targets.iter().any(|(_, result)| result.is_err()) {
        // The one error is the answer.
        if let Some((_, Err(error))) = pushed.targets.pop() {
            return Err(error);
        }
    }
    for (instance, result) in &pushed.targets {
        match result {
            Ok(synced) => printer.message(line(&pushed, instance, tree, synced, dry_run, took)),
            Err(error) => printer.warning(error),
        }
    }
    let targets = pushed.targets.iter().map(|(instance, result)| Target {
        instance,
        synced: result.as_ref().ok().copied(),
        problem: result.as_ref().err().map(ToString::to_string),
    });
    let body = Body {
        tree: &tree.root,
        dest: tree.dest.as_str(),
        go_tree: tree.go_tree,
        dry_run,
        total_files: pushed.total_files,
        total_bytes: pushed.total_bytes,
        uploaded_blobs: pushed.uploaded.stored,
        uploaded_bytes: pushed.uploaded.stored_bytes,
        targets: targets.collect(),
        took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
    };
    let failed = pushed.targets.iter().filter(|(_, result)| result.is_err()).count();
    printer.data(&body, String::new)?;
    Ok(if failed == 0 { ExitStatus::Success } else { ExitStatus::Failed })
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

#[cfg(test)]
mod tests {
    use super::*;
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
        let tree = Tree { root: "/x".into(), dest, go_tree: true, chosen: Chosen::Named };
        let synced = Synced {
            files_written: 10,
            bytes_written: 5,
            files_unchanged: 11_756,
            entries_deleted: 0,
            modes_changed: 0,
            files_hashed: 0,
        };
        let said = |dry_run| line(&pushed, "alice-linux-amd64-0", &tree, &synced, dry_run, Duration::from_millis(210));
        assert_eq!(
            said(false),
            "pushed 11766 files (114.4 MB) to alice-linux-amd64-0:go: 10 written, 0 deleted, 0.21 s"
        );
        assert!(said(true).starts_with("compared ") && said(true).contains("10 would be written"));
    }
}

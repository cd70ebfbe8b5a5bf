//! `create -setup`: the Go tree brought to new instances and built there.

use crate::broadcast;
use crate::commands::Context;
use crate::commands::push;
use crate::commands::run::{Member, Screen, first_of};
use crate::connection::Farm;
use crate::error::Error;
use crate::exit_code::ExitStatus;
use crate::fetch::file_name;
use crate::json::Instance;
use crate::printer::{Passthrough, Printer};
use crate::push::{Prefer, Tree, tell_warnings, walk};
use crate::run_record::{Plan, RunRecord};
use crate::signals::Signals;
use motefarm_cas::snapshot::Snapshot;
use motefarm_proto::mote;
use prost::Message as _;
use uuid::Uuid;

/// A tree that is ready to be pushed.
pub(super) struct Setup {
    tree: Tree,
    walked: Snapshot,
}

impl Setup {
    /// Finds and walks it.
    pub(super) async fn prepare(context: &Context) -> Result<Self, Error> {
        let tree = push::choose(context, None, None, Prefer::GoRoot)?;
        if !tree.go_tree {
            return Err(Error::usage(
                format!("{} is no Go source tree, which -setup builds", tree.root.display()),
                "GOROOT=/path/to/go mote create -setup TYPE",
            ));
        }
        let walked = walk(&tree, &context.settings.dirs.tree_cache(&tree.root)).await?;
        tell_warnings(context.printer, &walked);
        Ok(Self { tree, walked })
    }

    /// Pushes and builds. The exit code is that of the build, or 1 of several if one fails.
    pub(super) async fn run(
        &self,
        context: &Context,
        farm: &Farm,
        host_type: &str,
        instances: &[Instance],
    ) -> Result<ExitStatus, Error> {
        let printer = context.printer;
        let names: Vec<String> = instances.iter().map(|instance| instance.name.clone()).collect();
        for name in &names {
            printer.message(format_args!("Pushing {} to {name}", self.tree.root.display()));
        }
        push::bring(context, farm, &self.tree, self.walked.clone(), &names, false).await?.into_result()?;
        let script = if host_type.contains("windows") { "go/src/make.bat" } else { "go/src/make.bash" };
        let shown = script.rsplit('/').next().unwrap_or(script);
        let runs = context.runs();
        let batch = Uuid::now_v7().to_string();
        let folder = runs.make_folder(&batch)?;
        // stdout is for the names: what the build of the one instance writes is shown on stderr.
        let screen = match names.len() {
            1 if !printer.is_json() => Screen::own(Passthrough::to_stderr()?),
            _ => Screen::Nowhere,
        };
        let spec = mote::ExecSpec { program: script.to_owned(), merge_output: true, ..mote::ExecSpec::default() };
        let build = async |name: &str| {
            let record = RunRecord {
                exec_id: Uuid::now_v7().to_string(),
                instance: name.to_owned(),
                server: farm.address().to_owned(),
                command: vec![script.to_owned()],
                output: folder.join(format!("{}.stdout", file_name(name))),
                fresh: false,
                batch: Some(batch.clone()),
                plan: Some(Plan { until: None, collect: None, spec: hex::encode(spec.encode_to_vec()), after: None }),
            };
            runs.remember(&record)?;
            printer.message(format_args!("Running {shown} on {name}..."));
            let file = record.output.display().to_string();
            printer.message(format_args!("Streaming results from {name:?} to {file:?}..."));
            let first = first_of(&runs, &record)?;
            let mut signals = Signals::listen()?;
            let several = names.len() > 1;
            let member = Member { farm, printer, runs: &runs, record, screen: &screen, several };
            let finish = member.see_through(first, &mut signals).await.map_err(|broken| broken.error)?;
            printer.message(format_args!("Wrote results from {name:?} to {file:?}."));
            Ok(finish.outcome.map_or(ExitStatus::Failed, |o| match o.shell_code() {
                0 => ExitStatus::Success,
                _ => ExitStatus::Failed,
            }))
        };
        settle(printer, broadcast::each(&names, build).await)
    }
}

fn settle(printer: Printer, results: broadcast::Results<ExitStatus>) -> Result<ExitStatus, Error> {
    let mut status = ExitStatus::Success;
    for (name, result) in results {
        match result {
            Ok(ExitStatus::Success) => {}
            Ok(_) => {
                printer.warning(format_args!("error: the toolchain could not be built on {name}"));
                status = ExitStatus::Failed;
            }
            Err(error) => {
                printer.warning(format_args!("error: {name}: {error}"));
                status = ExitStatus::Failed;
            }
        }
    }
    Ok(status)
}

//! `mote push`: directories of instances made equal to a local tree.

mod bootstrap;
mod report;

use crate::cli;
use crate::commands::Context;
use crate::connection::Farm;
use crate::env_vars;
use crate::error::Error;
use crate::exit_code::ExitStatus;
use crate::push::{self, Chosen, Prefer, Push, Pushed, Surroundings, Tree};
use bootstrap::Bootstrap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const SHAPE: &str = "mote push [-C DIR] INSTANCE...";

pub(crate) async fn act(context: &Context, flags: cli::Push) -> Result<ExitStatus, Error> {
    let tree = choose(context, flags.tree.as_deref(), flags.to.as_deref(), Prefer::Checkout)?;
    let cache_file = context.settings.dirs.tree_cache(&tree.root);
    // The walk needs no farm, and the handshake no processor to speak of.
    let (farm, walked) = tokio::try_join!(context.connect(), push::walk(&tree, &cache_file))?;
    let mut instances = context.resolver(&farm, SHAPE).all(flags.instances).await?.instances;
    instances.sort_unstable();
    instances.dedup();
    let verb = if flags.dry_run { "comparing" } else { "pushing" };
    let places: Vec<String> = instances.iter().map(|instance| format!("{instance}:{}", tree.dest)).collect();
    context.printer.message(format_args!("{verb} {} to {}", tree.root.display(), places.join(", ")));
    push::tell_warnings(context.printer, &walked);
    let done = bring(context, &farm, &tree, walked, &instances, flags.dry_run).await?;
    report::conclude(context, &tree, flags.dry_run, done)
}

/// A push that is over.
pub(super) struct Done {
    pushed: Pushed,
    bootstrap: Bootstrap,
    took: Duration,
}

impl Done {
    /// The first failure, if any.
    pub(super) fn into_result(self) -> Result<(), Error> {
        let failed = self.pushed.targets.into_iter().map(|(_, result)| result.map(drop));
        let bootstrap = self.bootstrap.targets.into_iter().map(|(_, result)| result.map(drop));
        failed.chain(bootstrap).collect()
    }
}

/// The tree to push, and a word about it if it was not named.
pub(super) fn choose(
    context: &Context,
    named: Option<&std::path::Path>,
    to: Option<&str>,
    prefer: Prefer,
) -> Result<Tree, Error> {
    let path = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let around = Surroundings {
        current_dir: std::env::current_dir().map_err(|e| Error::local("find the current directory", e))?,
        goroot: path(env_vars::GOROOT),
    };
    let tree = Tree::choose(named, to, prefer, &around)?;
    let root = tree.root.display();
    let elsewhere = |goroot: &PathBuf| std::fs::canonicalize(goroot).is_ok_and(|goroot| goroot != tree.root);
    match (tree.chosen, &around.goroot) {
        (Chosen::GoRoot, _) => {
            context.printer.message(format_args!("taking $GOROOT, {root}; -C DIR takes another tree"));
        }
        (Chosen::GitRoot, Some(goroot)) if elsewhere(goroot) => {
            context.printer.message(format_args!("taking the checkout {root}, not $GOROOT; -C $GOROOT takes that"));
        }
        _ => {}
    }
    Ok(tree)
}

/// Brings the tree, and with Go's own source the toolchain to build it.
pub(super) async fn bring(
    context: &Context,
    farm: &Farm,
    tree: &Tree,
    walked: motefarm_cas::snapshot::Snapshot,
    instances: &[String],
    dry_run: bool,
) -> Result<Done, Error> {
    let begin = Instant::now();
    let cache_file = context.settings.dirs.tree_cache(&tree.root);
    let push = Push { farm, printer: context.printer, tree, instances, dry_run, cache_file: &cache_file };
    // They go to different places, and neither needs the other before something is built.
    let (pushed, bootstrap) =
        tokio::try_join!(push.run(walked), bootstrap::bring(context, farm, tree, instances, dry_run))?;
    Ok(Done { pushed, bootstrap, took: begin.elapsed() })
}

//! The toolchain that Go's own source is built with: `$GOROOT_BOOTSTRAP`'s, else the operator's.

use crate::broadcast;
use crate::commands::{Context, putbootstrap};
use crate::connection::Farm;
use crate::env_vars;
use crate::error::Error;
use crate::push::{self, Push, Tree};
use std::path::PathBuf;
use tonic::Code;

/// What was done about it.
#[derive(Default)]
pub(super) struct Bootstrap {
    /// Where from, for people.
    pub(super) from: String,
    /// By instance: files written, or nothing if there is no toolchain for it.
    pub(super) targets: broadcast::Results<Option<u64>>,
}

/// Brings it if `tree` is one that needs it.
pub(super) async fn bring(
    context: &Context,
    farm: &Farm,
    tree: &Tree,
    instances: &[String],
    dry_run: bool,
) -> Result<Bootstrap, Error> {
    if !tree.wants_bootstrap() {
        return Ok(Bootstrap::default());
    }
    let dir = std::env::var_os(env_vars::GOROOT_BOOTSTRAP).filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let Some(dir) = dir else { return operators(context, farm, instances, dry_run).await };
    let toolchain = Tree::bootstrap(&dir)?;
    let cache_file = context.settings.dirs.tree_cache(&toolchain.root);
    let walked = push::walk(&toolchain, &cache_file).await?;
    let push = Push { farm, printer: context.printer, tree: &toolchain, instances, dry_run, cache_file: &cache_file };
    let pushed = push.run(walked).await?;
    let written = |(instance, result): (String, Result<push::Synced, Error>)| {
        (instance, result.map(|synced| Some(synced.files_written)))
    };
    Ok(Bootstrap {
        from: toolchain.root.display().to_string(),
        targets: pushed.targets.into_iter().map(written).collect(),
    })
}

async fn operators(context: &Context, farm: &Farm, instances: &[String], dry_run: bool) -> Result<Bootstrap, Error> {
    if dry_run {
        context.printer.message("a bootstrap toolchain would go to go1.4, if the farm has one configured");
        return Ok(Bootstrap::default());
    }
    let install = async |instance: &str| match putbootstrap::install(farm, instance).await {
        Ok(result) => Ok(result.map(|result| result.files_written)),
        // A farm or buildlet that knows of no toolchains has none.
        Err(Error::Refused { code: Code::Unimplemented, .. }) => Ok(None),
        Err(error) => Err(error),
    };
    Ok(Bootstrap { from: "the farm's".to_owned(), targets: broadcast::each(instances, install).await })
}

//! Doing the same to several instances: in parallel, each by itself.

use crate::error::Error;
use crate::exit_code::ExitStatus;
use crate::printer::Printer;
use futures_util::StreamExt as _;
use serde::Serialize;

/// How many are acted on at a time. All share one connection; what bounds a farm is its own.
const AT_ONCE: usize = 16;

/// What became of each, in the order of the names.
pub(crate) type Results<T> = Vec<(String, Result<T, Error>)>;

/// Acts on each, at most [`AT_ONCE`] at a time. A failure concerns its own instance only.
pub(crate) async fn each<T>(names: &[String], act: impl AsyncFn(&str) -> Result<T, Error>) -> Results<T> {
    each_at_once(names, AT_ONCE, act).await
}

/// The same with another bound, for what takes long without asking much.
pub(crate) async fn each_at_once<T>(
    names: &[String],
    at_once: usize,
    act: impl AsyncFn(&str) -> Result<T, Error>,
) -> Results<T> {
    let act = &act;
    let started = names.iter().map(|name| async move { (name.clone(), act(name).await) });
    futures_util::stream::iter(started).buffered(at_once).collect().await
}

/// `--json` of verbs that act on each of several instances.
#[derive(Serialize)]
struct Body<'a, T> {
    instances: Vec<One<'a, T>>,
}

#[derive(Serialize)]
struct One<'a, T> {
    instance: &'a str,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    #[serde(flatten)]
    did: Option<&'a T>,
}

/// For verbs that have nothing to tell of one instance but that it was done.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Done {}

/// Tells what failed, prints the object, and says how the program ends: the error of the only
/// instance is the program's; of several, each is told and the exit code is 1.
pub(crate) fn conclude<T: Serialize>(printer: Printer, mut results: Results<T>) -> Result<ExitStatus, Error> {
    if let [(_, Err(_))] = results.as_slice()
        && let Some((_, Err(error))) = results.pop()
    {
        return Err(error);
    }
    let failed = results.iter().filter(|(_, result)| result.is_err()).count();
    for error in results.iter().filter_map(|(_, result)| result.as_ref().err()) {
        printer.warning(error);
    }
    let instances = results.iter().map(|(instance, result)| One {
        instance,
        problem: result.as_ref().err().map(ToString::to_string),
        did: result.as_ref().ok(),
    });
    printer.data(&Body { instances: instances.collect() }, String::new)?;
    if failed == 0 {
        return Ok(ExitStatus::Success);
    }
    printer.warning(format_args!("error: {}", Error::Some { failed, asked: results.len() }));
    Ok(ExitStatus::Failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[tokio::test]
    async fn no_more_than_the_bound_run_and_order_is_kept() {
        let names: Vec<String> = (0..50).map(|n| n.to_string()).collect();
        let (running, most) = (Cell::new(0), Cell::new(0));
        let results = each(&names, async |name| {
            running.set(running.get() + 1);
            most.set(most.get().max(running.get()));
            tokio::task::yield_now().await;
            running.set(running.get() - 1);
            if name == "7" { Err(Error::Interrupted) } else { Ok(name.to_owned()) }
        })
        .await;
        assert_eq!(most.get(), AT_ONCE);
        assert!(results.iter().zip(&names).all(|((given, _), name)| given == name));
        let failed: Vec<&str> = results.iter().filter(|(_, r)| r.is_err()).map(|(name, _)| name.as_str()).collect();
        assert_eq!(failed, ["7"]);
    }
}

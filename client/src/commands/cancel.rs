//! `mote cancel`: end executions and everything they started.

use crate::broadcast;
use crate::cli;
use crate::commands::{Context, execs};
use crate::connection::Farm;
use crate::error::Error;
use crate::exit_code::ExitStatus;
use crate::human;
use motefarm_core::ExecId;
use motefarm_proto::mote;
use serde::Serialize;

const SHAPE: &str = "mote cancel EXEC|INSTANCE...";

#[derive(Serialize)]
struct Body {
    cancelled: Vec<String>,
}

pub(crate) async fn act(context: &Context, cancel: cli::Cancel) -> Result<ExitStatus, Error> {
    let farm = context.connect().await?;
    let grace_ms = cancel.grace.map_or(0, |grace| u64::try_from(grace.as_millis()).unwrap_or(u64::MAX));
    let one = async |word: &str| {
        let cancelled = cancel_one(&farm, word, grace_ms).await?;
        match cancelled.as_slice() {
            [only] if only == word => context.printer.message(format_args!("cancelled {word}")),
            many => {
                let count = human::count(many.len() as u64, "command");
                context.printer.message(format_args!("cancelled {count} on {word}"));
            }
        }
        Ok(Body { cancelled })
    };
    let targets = context.resolver(&farm, SHAPE).all(cancel.targets).await?.instances;
    broadcast::conclude(context.printer, broadcast::each(&targets, one).await)
}

/// The ids of what was cancelled: the word itself, or all that runs on the instance it names.
async fn cancel_one(farm: &Farm, word: &str, grace_ms: u64) -> Result<Vec<String>, Error> {
    if word.parse::<ExecId>().is_ok() {
        match cancel_exec(farm, word, grace_ms).await {
            Err(error) if error.is_not_found() => {}
            done => return done.map(|()| vec![word.to_owned()]),
        }
    }
    let execs = execs::list(farm, word).await?;
    let running = execs.into_iter().filter(|exec| exec.outcome.is_none()).map(|exec| exec.exec_id);
    let mut cancelled = Vec::new();
    for exec_id in running {
        cancel_exec(farm, &exec_id, grace_ms).await?;
        cancelled.push(exec_id);
    }
    Ok(cancelled)
}

async fn cancel_exec(farm: &Farm, exec_id: &str, grace_ms: u64) -> Result<(), Error> {
    let request = mote::CancelExecRequest { exec_id: exec_id.to_owned(), grace_ms };
    let doing = format!("cancel {exec_id}");
    farm.call(&doing, async |mut c| c.cancel_exec(request.clone()).await).await.map(drop)
}

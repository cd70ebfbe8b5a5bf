//! Finding the execution that somebody means.

use crate::connection::Farm;
use crate::error::Error;
use crate::run_record::{Found, Runs};
use motefarm_core::ExecId;
use motefarm_proto::mote;

/// An execution, and what this machine remembers of it.
pub(super) struct Meant {
    pub(super) exec_id: String,
    pub(super) found: Option<Found>,
}

/// The execution a word means: its id, or an instance's newest (a running one first).
pub(super) async fn resolve(farm: &Farm, runs: &Runs, word: &str) -> Result<Meant, Error> {
    if let Some(found) = runs.find(word) {
        return Ok(Meant { exec_id: word.to_owned(), found: Some(found) });
    }
    let execs = match list(farm, word).await {
        Ok(execs) => execs,
        // No instance: then it must be an execution that another machine began.
        Err(error) if error.is_not_found() && word.parse::<ExecId>().is_ok() => {
            return Ok(Meant { exec_id: word.to_owned(), found: None });
        }
        Err(error) => return Err(error),
    };
    let newest = execs.iter().rfind(|exec| exec.outcome.is_none()).or(execs.last());
    let Some(newest) = newest else {
        return Err(Error::usage(
            format!("nothing was ever run on {word}"),
            format!("`mote run {word} COMMAND` runs something"),
        ));
    };
    Ok(Meant { exec_id: newest.exec_id.clone(), found: runs.find(&newest.exec_id) })
}

/// An instance's executions, oldest first.
pub(super) async fn list(farm: &Farm, instance: &str) -> Result<Vec<mote::ExecInfo>, Error> {
    let request = mote::ListExecsRequest { instance: instance.to_owned() };
    let doing = format!("list what runs on {instance}");
    let answer = farm.call(&doing, async |mut c| c.list_execs(request.clone()).await).await?;
    Ok(answer.execs)
}

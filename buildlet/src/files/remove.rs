//! Removing files and directories.

use super::{Place, dir, failed};
use crate::error::AgentError;
use crate::wipe;
use motefarm_core::WorkPath;
use motefarm_proto::convert::{self, FieldError};

/// Most paths a call.
const MOST_PATHS: usize = 10_000;

/// Removes what is at `paths`, with all below it; the work directory itself is only emptied. What
/// is not there is as it should be. Answers how many entries went. An error names the first path
/// that would not go; those before it are gone.
pub(crate) fn remove(place: &Place, paths: &[String]) -> Result<u64, AgentError> {
    if !(1..=MOST_PATHS).contains(&paths.len()) {
        let problem = format!("{} paths; a call takes 1 to {MOST_PATHS}", paths.len());
        return Err(FieldError::new("paths", problem).into());
    }
    let parsed: Vec<WorkPath> =
        paths.iter().map(|path| convert::work_path("paths", path)).collect::<Result<_, FieldError>>()?;
    let mut removed = 0;
    for path in &parsed {
        removed += remove_one(place, path)?;
    }
    Ok(removed)
}

fn remove_one(place: &Place, path: &WorkPath) -> Result<u64, AgentError> {
    let parent = match dir(&place.work, "paths", &path.parent()) {
        Ok(parent) => parent,
        Err(AgentError::NoFile(_)) => return Ok(0),
        Err(error) => return Err(error),
    };
    let gone = match path.parts().last() {
        None => wipe::empty_live(parent),
        Some(name) => wipe::remove(&parent, name.as_bytes()),
    };
    gone.map_err(|error| match rustix::io::Errno::from_io_error(&error) {
        Some(errno) => failed(format!("can not remove {path}"))(errno),
        None => AgentError::Refused(format!("can not remove {path}: {error}")),
    })
}

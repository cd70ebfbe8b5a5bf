//! What of the system an action's sandbox shows: what its input has not and, where that is asked for, what
//! lies under it.

use super::asked::Asked;
use super::error::ActionError;
use super::place::Place;
use motefarm_cas::beneath::stat;
use motefarm_proto::convert::FieldError;
use motefarm_proto::mote::RunnerPart;
use rustix::fs::FileType;
use rustix::io::Errno;

/// Shown over what the input has, if that is a directory.
const ALWAYS: [&str; 2] = ["dev", "proc"];
/// Private in any case, so that outputs may lie there.
const TMP: &str = "tmp";

/// Entries of the root.
pub(super) struct Shown {
    /// The system's alone.
    pub(super) parts: Vec<RunnerPart>,
    /// The input's, laid over the system's.
    pub(super) merged: Vec<String>,
}

/// Of `offered` those to show in the root of `place`. An output among them could not be made, and is refused.
pub(super) fn shown(offered: &[RunnerPart], place: &Place, asked: &Asked) -> Result<Shown, ActionError> {
    let is_output = |name: &str| asked.outputs.outputs.iter().any(|output| output.path.parts().next() == Some(name));
    let mut shown = Shown { parts: Vec::with_capacity(offered.len()), merged: Vec::new() };
    for part in offered {
        let name = &part.name;
        let show = match stat(&place.root, name.as_bytes()) {
            _ if place.furniture.contains(part) => true,
            Err(Errno::NOENT) => name != TMP || !is_output(name),
            Ok(found) => {
                let is_directory = FileType::from_raw_mode(found.st_mode) == FileType::Directory;
                let always = ALWAYS.contains(&name.as_str());
                if asked.merge && is_directory && !always && name != TMP {
                    shown.merged.push(name.clone());
                }
                always && is_directory
            }
            Err(errno) => return Err(ActionError::io(format!("entry {name} of the root"))(errno.into())),
        };
        if show {
            shown.parts.push(part.clone());
        }
    }
    let refuse = |problem: String| Err(FieldError::new("command.output_paths", problem).into());
    if let Some(RunnerPart { name, .. }) = shown.parts.iter().find(|part| is_output(&part.name)) {
        return refuse(format!("/{name} is the system's, and can have no output; an input of that name would"));
    }
    match shown.merged.iter().find(|name| is_output(name)) {
        Some(name) => {
            refuse(format!("/{name} is laid over the system's, which nobody changes, and can have no output"))
        }
        None => Ok(shown),
    }
}

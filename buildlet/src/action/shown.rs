//! What of the system an action's sandbox shows: what its input has not.

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

/// Of `offered` those to show in the root of `place`. An output among them could not be made, and is refused.
pub(super) fn shown(offered: &[RunnerPart], place: &Place, asked: &Asked) -> Result<Vec<RunnerPart>, ActionError> {
    let is_output = |name: &str| asked.outputs.outputs.iter().any(|output| output.path.parts().next() == Some(name));
    let mut shown = Vec::with_capacity(offered.len());
    for part in offered {
        let name = &part.name;
        let show = match stat(&place.root, name.as_bytes()) {
            _ if place.furniture.contains(part) => true,
            Err(Errno::NOENT) => name != TMP || !is_output(name),
            Ok(found) => {
                ALWAYS.contains(&name.as_str()) && FileType::from_raw_mode(found.st_mode) == FileType::Directory
            }
            Err(errno) => return Err(ActionError::io(format!("entry {name} of the root"))(errno.into())),
        };
        if show {
            shown.push(part.clone());
        }
    }
    match shown.iter().find(|part| is_output(&part.name)) {
        Some(part) => {
            let name = &part.name;
            let problem = format!("/{name} is the system's, and can have no output; an input of that name would");
            Err(FieldError::new("command.output_paths", problem).into())
        }
        None => Ok(shown),
    }
}

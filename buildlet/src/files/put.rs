//! Writing one file, whole or not at all.

use super::{Place, failed, make_dir};
use crate::error::AgentError;
use crate::staging::Staging;
use motefarm_cas::beneath;
use motefarm_cas::tree::MODE_BITS;
use motefarm_core::WorkPath;
use motefarm_proto::convert::FieldError;
use rustix::fs::{FileType, fchmod};
use rustix::io::Errno;
use std::io::{self, Read, Write as _};

/// Mode of a file whose putter names none.
const DEFAULT_MODE: u32 = 0o644;
/// Piece of a copy.
const COPY_BYTES: usize = 256 << 10;

/// Writes `content` to the file `path` and gives it its place once all of it came. An error of
/// `content` ends it, and leaves what was there.
pub(crate) fn put(place: &Place, path: &WorkPath, mode: u32, mut content: impl Read) -> Result<u64, AgentError> {
    if mode & !MODE_BITS != 0 {
        return Err(FieldError::new("mode", format!("{mode:#o} has other than permission bits (0o777)")).into());
    }
    let mode = if mode == 0 { DEFAULT_MODE } else { mode };
    let Some(name) = path.parts().last() else {
        return Err(FieldError::new("path", "names the work directory, not a file in it").into());
    };
    let dir = make_dir(&place.work, "path", &path.parent())?;
    let is_dir = || {
        beneath::stat(&dir, name.as_bytes())
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
    };
    let refuse_dir = || AgentError::from(FieldError::new("path", format!("{path} is a directory")));
    if is_dir() {
        return Err(refuse_dir());
    }
    let about = || format!("can not write {path}");
    let staging = Staging::open(&place.staging).map_err(AgentError::io(about()))?;
    let (staged, mut file) = staging.file().map_err(failed(about()))?;
    let mut buffer = vec![0; COPY_BYTES];
    let mut written = 0;
    loop {
        let read = match content.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(AgentError::Cut(format!("the content of {path} did not come whole: {error}"))),
        };
        file.write_all(&buffer[..read]).map_err(AgentError::io(about()))?;
        written += read as u64;
    }
    fchmod(&file, beneath::mode(mode)).map_err(failed(about()))?;
    match staged.place(&dir, name.as_bytes()) {
        Err(Errno::ISDIR) => Err(refuse_dir()),
        placed => placed.map(|()| written).map_err(failed(about())),
    }
}

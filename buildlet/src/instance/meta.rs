//! The file that says what an instance is, and by its modification time when it was last used.

use crate::layout::instance;
use motefarm_core::Timestamp;
use motefarm_proto::mote::BuildletCreateInstanceRequest;
use prost::Message as _;
use std::fs::{self, File, FileTimes};
use std::io;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

/// Replaces the file in `dir`, whole or not at all.
pub(super) fn save(dir: &Path, meta: &BuildletCreateInstanceRequest, last_use: Timestamp) -> io::Result<()> {
    let temporary = dir.join("meta.tmp");
    fs::write(&temporary, meta.encode_to_vec())?;
    set_used(&temporary, last_use)?;
    fs::rename(&temporary, dir.join(instance::META))
}

/// Sets the last use.
pub(super) fn set_used(meta: &Path, at: Timestamp) -> io::Result<()> {
    let since = Duration::from_millis(u64::try_from(at.as_millis()).unwrap_or(0));
    File::options().write(true).open(meta)?.set_times(FileTimes::new().set_modified(UNIX_EPOCH + since))
}

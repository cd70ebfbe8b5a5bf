//! The directory a target works in.

use std::path::PathBuf;

/// Made anew, in `MOTE_FUZZ_GROUND` (which the script removes: a fuzzer ends without cleaning up)
/// or among the temporary directories.
pub fn directory() -> PathBuf {
    let parent = std::env::var_os("MOTE_FUZZ_GROUND").map_or_else(std::env::temp_dir, PathBuf::from);
    tempfile::Builder::new().prefix("mote-fuzz-").tempdir_in(parent).expect("a directory").keep()
}

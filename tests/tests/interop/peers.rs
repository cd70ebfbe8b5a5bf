//! Where `scripts/interop.sh` put what it got.

use motefarm_tests::wait;
use std::path::{Path, PathBuf};

/// A program below the folder of peers, or on PATH; says aloud why a test does nothing without it.
pub(crate) fn peer(what: &str, below: &str, command: &str) -> Option<PathBuf> {
    let Some(peers) = std::env::var_os("MOTE_INTEROP_PEERS") else {
        wait::skipped(what, "`make interop` runs this, with the peers it gets");
        return None;
    };
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::iter::once(Path::new(&peers).join(below))
        .chain(std::env::split_paths(&on_path).map(|dir| dir.join(command)))
        .find(|path| path.is_file());
    if found.is_none() {
        wait::skipped(what, &format!("there is no {command}; scripts/interop.sh says why"));
    }
    found
}

//! A directory that other users can look into, and that sandboxes do not hide as they do `/tmp`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// See the module; removed with this.
pub(crate) struct Place(pub(crate) PathBuf);

impl Place {
    pub(crate) fn new() -> Self {
        let place = Self(Path::new("/var/tmp").join(format!("mote-goma-{:016x}", rand::random::<u64>())));
        fs::create_dir(&place.0).expect("a directory");
        fs::set_permissions(&place.0, fs::Permissions::from_mode(0o755)).expect("it is ours");
        place
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

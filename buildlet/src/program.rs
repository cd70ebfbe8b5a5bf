//! This program's own file, which keepers are started from.
//!
//! It is held open from the start, so that an upgrade or a `cargo build` that replaces it does not
//! start a keeper of another version, or none.

use std::fs::File;
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// See the module.
#[derive(Debug)]
pub(crate) struct Program {
    path: PathBuf,
    file: File,
    /// Where copies go once the path leads elsewhere.
    copy: PathBuf,
    copied: Mutex<bool>,
}

impl Program {
    /// Finds and opens it. `copy` is where it is kept if its path is replaced.
    pub(crate) fn open(copy: PathBuf) -> io::Result<Self> {
        let path = std::env::current_exe()?;
        let file = File::open(&path)?;
        Ok(Self { path, file, copy, copied: Mutex::new(false) })
    }

    /// A path that leads to it now.
    pub(crate) fn path(&self) -> io::Result<PathBuf> {
        let held = self.file.metadata()?;
        match std::fs::metadata(&self.path) {
            Ok(there) if (there.dev(), there.ino()) == (held.dev(), held.ino()) => Ok(self.path.clone()),
            _ => self.copied(),
        }
    }

    fn copied(&self) -> io::Result<PathBuf> {
        let mut copied = self.copied.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if !*copied {
            let mut from =
                File::open(Path::new("/proc/self/fd").join(std::os::fd::AsRawFd::as_raw_fd(&self.file).to_string()))?;
            let temporary = self.copy.with_extension("tmp");
            // Not over the old one: keepers may be running it.
            let _ = std::fs::remove_file(&temporary);
            let mut to = File::options().write(true).create_new(true).mode(0o700).open(&temporary)?;
            io::copy(&mut from, &mut to)?;
            drop(to);
            std::fs::rename(&temporary, &self.copy)?;
            *copied = true;
        }
        Ok(self.copy.clone())
    }
}

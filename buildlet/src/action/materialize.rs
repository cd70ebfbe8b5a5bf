//! An input tree as files of an action's own.
//!
//! Every file is a copy, hashed while it is written: nothing that an action could change is anybody
//! else's, and nothing wrong is believed.

use super::error::ActionError;
use crate::trees::Blobs;
use motefarm_cas::beneath::{create, mode, mode_of, open_dir, permitted};
use motefarm_cas::sync::Tree;
use motefarm_cas::tree::{Contents, DEFAULT_DIRECTORY_MODE, Entry, EntryKind};
use motefarm_core::digest::DigestHasher;
use motefarm_core::{Digest, WorkPath};
use motefarm_proto::convert::FieldError;
use rustix::fs::{fchmod, fstat, mkdirat, symlinkat};
use rustix::io::Errno;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use tokio_util::sync::CancellationToken;

/// Most bytes copied at a time.
const COPY_BYTES: usize = 256 << 10;

/// Writes one tree.
pub(super) struct Materializer<'a> {
    tree: &'a Tree,
    blobs: &'a Blobs,
    stop: &'a CancellationToken,
    buffer: Vec<u8>,
    path: Vec<u8>,
}

impl<'a> Materializer<'a> {
    pub(super) fn new(tree: &'a Tree, blobs: &'a Blobs, stop: &'a CancellationToken) -> Self {
        Self { tree, blobs, stop, buffer: Vec::new(), path: Vec::new() }
    }

    /// Fills `dir`, which is new, with the directory `digest` of the tree. Blocks.
    pub(super) fn fill(&mut self, dir: BorrowedFd<'_>, digest: &Digest) -> Result<(), ActionError> {
        let Some(contents) = self.tree.directory(digest).cloned() else {
            return Err(ActionError::Wrong { digest: *digest, path: self.shown() });
        };
        self.entries(dir, &contents)?;
        if contents.mode != DEFAULT_DIRECTORY_MODE {
            fchmod(dir, mode(contents.mode)).map_err(|errno| self.failed(errno))?;
        }
        Ok(())
    }

    fn entries(&mut self, dir: BorrowedFd<'_>, contents: &Contents) -> Result<(), ActionError> {
        for entry in &contents.entries {
            if self.stop.is_cancelled() {
                return Err(ActionError::Left);
            }
            let above = self.path.len();
            if above > 0 {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(&entry.name);
            self.entry(dir, entry)?;
            self.path.truncate(above);
        }
        Ok(())
    }

    fn entry(&mut self, dir: BorrowedFd<'_>, entry: &Entry) -> Result<(), ActionError> {
        let name = entry.name.as_slice();
        match &entry.kind {
            EntryKind::File { digest, mode } => self.file(dir, name, digest, *mode),
            EntryKind::Directory { digest } => {
                let made = mkdirat(dir, name, mode(DEFAULT_DIRECTORY_MODE)).and_then(|()| open_dir(dir, name));
                let made = made.map_err(|errno| self.failed(errno))?;
                self.fill(made.as_fd(), digest)
            }
            EntryKind::Symlink { target } => {
                symlinkat(target.as_slice(), dir, name).map_err(|errno| self.failed(errno))
            }
        }
    }

    fn file(&mut self, dir: BorrowedFd<'_>, name: &[u8], digest: &Digest, bits: u32) -> Result<(), ActionError> {
        let wrong = |path: String| ActionError::Wrong { digest: *digest, path };
        let opened = self.blobs.source().open(digest).map_err(|e| ActionError::machine(e.to_string()))?;
        let blob = opened.ok_or_else(|| wrong(self.shown()))?;
        let mut file = create(dir, name, bits).map_err(|errno| self.failed(errno))?;
        let length = usize::try_from(blob.size()).unwrap_or(usize::MAX).min(COPY_BYTES);
        if self.buffer.len() < length {
            self.buffer.resize(length, 0);
        }
        let mut hasher = DigestHasher::new();
        let mut offset = 0;
        while offset < blob.size() {
            // What can not be read is as bad as what is wrong.
            let Ok(read) = blob.read_at(&mut self.buffer, offset) else { return Err(wrong(self.shown())) };
            hasher.update(&self.buffer[..read]);
            file.write_all(&self.buffer[..read]).map_err(|error| self.failed_io(error))?;
            offset += read as u64;
            if self.stop.is_cancelled() {
                return Err(ActionError::Left);
            }
        }
        if hasher.finish() != *digest {
            return Err(wrong(self.shown()));
        }
        // What the process's umask took away.
        let stat = fstat(&file).map_err(|errno| self.failed(errno))?;
        if mode_of(&stat) != bits {
            fchmod(&file, mode(bits)).map_err(|errno| self.failed(errno))?;
        }
        Ok(())
    }

    fn shown(&self) -> String {
        if self.path.is_empty() { ".".to_owned() } else { String::from_utf8_lossy(&self.path).into_owned() }
    }

    fn failed(&self, errno: Errno) -> ActionError {
        self.failed_io(errno.into())
    }

    fn failed_io(&self, error: io::Error) -> ActionError {
        ActionError::io(format!("input {}", self.shown()))(error)
    }
}

/// Makes the directories of `path` below `root` where there are none.
pub(super) fn make_dirs(root: BorrowedFd<'_>, path: &WorkPath) -> Result<(), ActionError> {
    let made =
        walk(root, path, |dir, name| match permitted(dir, || mkdirat(dir, name, mode(DEFAULT_DIRECTORY_MODE))) {
            Ok(()) | Err(Errno::EXIST) => open_dir(dir, name),
            Err(errno) => Err(errno),
        });
    made.map_err(|errno| match errno {
        Errno::NOTDIR | Errno::LOOP => {
            let problem = format!("the directory {path} of an output is something else in the input");
            FieldError::new("command.output_paths", problem).into()
        }
        errno => ActionError::io(format!("directory {path} of an output"))(errno.into()),
    })
}

/// The working directory is the input's, or holds an output.
pub(super) fn check_work_dir(root: BorrowedFd<'_>, path: &WorkPath) -> Result<(), ActionError> {
    walk(root, path, |dir, name| open_dir(dir, name)).map_err(|errno| match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP => {
            FieldError::new("command.working_directory", format!("{path} is no directory of the input")).into()
        }
        errno => ActionError::io(format!("working directory {path}"))(errno.into()),
    })
}

/// Goes down `path` part by part. Only real directories are entered.
fn walk(
    root: BorrowedFd<'_>,
    path: &WorkPath,
    enter: impl Fn(BorrowedFd<'_>, &[u8]) -> Result<OwnedFd, Errno>,
) -> Result<(), Errno> {
    let mut at: Option<OwnedFd> = None;
    for name in path.parts() {
        let below = enter(at.as_ref().map_or(root, |dir| dir.as_fd()), name.as_bytes())?;
        at = Some(below);
    }
    Ok(())
}

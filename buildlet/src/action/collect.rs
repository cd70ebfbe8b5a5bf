//! What an action has made of its declared outputs.
//!
//! Names are opened part by part below the root and never through a link, so that what an action planted
//! leads nowhere. Each file is read once to be hashed; its content is sent later, if it is wanted.

use super::asked::Bounds;
use super::declared::{Declared, Output, Properties};
use super::error::ActionError;
use super::found::{open_file, properties, special, told_mode};
use super::output_tree::OutputTree;
use bytes::Bytes;
use motefarm_cas::batch::{Content, LocalBlob};
use motefarm_cas::beneath::{mode_of, open_dir, stat};
use motefarm_cas::tree::{self, Entry, EntryKind, MAX_DEPTH};
use motefarm_core::Digest;
use motefarm_core::digest::DigestHasher;
use motefarm_proto::convert::to_reapi_digest;
use motefarm_proto::mote::RunnerPart;
use motefarm_proto::reapi::{ActionResult, OutputDirectory, OutputFile, OutputSymlink};
use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags, Stat, openat2, readlinkat};
use rustix::io::Errno;
use std::collections::HashSet;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use tokio_util::sync::CancellationToken;

/// Most bytes read at a time.
const READ_BYTES: usize = 256 << 10;

/// Collects the outputs of one action.
pub(super) struct Collector<'a> {
    /// The action's root, and its path.
    pub(super) root: BorrowedFd<'a>,
    pub(super) path: &'a Path,
    /// Entries of the root that are the system's and not the action's.
    pub(super) shown: &'a [RunnerPart],
    pub(super) bounds: Bounds,
    pub(super) stop: &'a CancellationToken,
    left: Bounds,
    blobs: Vec<LocalBlob>,
    seen: HashSet<Digest>,
    buffer: Vec<u8>,
}

/// Where an output lies.
struct Whereabouts<'o> {
    /// The directory that holds it; `None`: the root.
    parent: Option<OwnedFd>,
    /// Its name there; `None`: it is the root.
    name: Option<&'o str>,
}

impl<'a> Collector<'a> {
    pub(super) fn new(
        root: BorrowedFd<'a>,
        path: &'a Path,
        shown: &'a [RunnerPart],
        bounds: Bounds,
        stop: &'a CancellationToken,
    ) -> Self {
        let seen = HashSet::from([Digest::EMPTY]);
        Self { root, path, shown, bounds, stop, left: bounds, blobs: Vec::new(), seen, buffer: vec![0; READ_BYTES] }
    }

    /// The outputs that are there, and their blobs, each once. Blocks.
    pub(super) fn collect(mut self, declared: &Declared) -> Result<(ActionResult, Vec<LocalBlob>), ActionError> {
        let mut result = ActionResult::default();
        for output in &declared.outputs {
            self.output(output, declared, &mut result)?;
        }
        Ok((result, self.blobs))
    }

    /// Adds a blob that is in memory, such as stdout.
    pub(super) fn add(&mut self, content: Bytes) -> Result<Digest, ActionError> {
        let digest = Digest::of(&content);
        self.count(content.len() as u64, "the command's output")?;
        self.offer(digest, Content::Bytes(content));
        Ok(digest)
    }

    /// Adds a file of the action's directory that is no output by name.
    pub(super) fn add_file(&mut self, path: &Path) -> Result<Digest, ActionError> {
        let file = File::open(path).map_err(ActionError::io(format!("can not read {}", path.display())))?;
        let size = file.metadata().map_err(ActionError::io(format!("can not read {}", path.display())))?.len();
        self.count(size, "the command's output")?;
        let digest = self.hash(file, "the command's output")?;
        self.offer(digest, Content::File(path.to_owned()));
        Ok(digest)
    }

    fn output(&mut self, output: &Output, declared: &Declared, result: &mut ActionResult) -> Result<(), ActionError> {
        let Some(Whereabouts { parent, name }) = self.find(output)? else { return Ok(()) };
        let dir = parent.as_ref().map_or(self.root, |dir| dir.as_fd());
        let path = output.declared.clone();
        let Some(name) = name else {
            let root = rustix::io::fcntl_dupfd_cloexec(self.root, 3).map_err(|errno| failed(output, errno))?;
            result.output_directories.push(self.directory_output(path, root, output, declared)?);
            return Ok(());
        };
        let found = match stat(dir, name.as_bytes()) {
            Ok(found) => found,
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(failed(output, errno)),
        };
        let node_properties = properties(&found, declared.properties);
        match FileType::from_raw_mode(found.st_mode) {
            FileType::RegularFile => {
                let digest = self.file(dir, name.as_bytes(), &found, Path::new(output.path.as_str()))?;
                result.output_files.push(OutputFile {
                    path,
                    digest: Some(to_reapi_digest(digest)),
                    is_executable: mode_of(&found) & 0o100 != 0,
                    node_properties,
                    ..Default::default()
                });
            }
            FileType::Directory => {
                let dir = open_dir(dir, name.as_bytes()).map_err(|errno| failed(output, errno))?;
                result.output_directories.push(self.directory_output(path, dir, output, declared)?);
            }
            FileType::Symlink => {
                self.count(0, &path)?;
                let target = readlinkat(dir, name, Vec::new()).map_err(|errno| failed(output, errno))?;
                let Ok(target) = target.into_string() else {
                    return Err(ActionError::refused(format!("the target of output {path:?}, a link, is not UTF-8")));
                };
                self.link_output(OutputSymlink { path, target, node_properties }, output, declared, result);
            }
            other => return Err(special(&path, other)),
        }
        Ok(())
    }

    /// Where an output would lie; `None` if there is no such directory.
    fn find<'o>(&self, output: &'o Output) -> Result<Option<Whereabouts<'o>>, ActionError> {
        let mut parts: Vec<&str> = output.path.parts().collect();
        let name = parts.pop();
        let mut at: Option<OwnedFd> = None;
        for part in parts {
            let dir = at.as_ref().map_or(self.root, |dir| dir.as_fd());
            match open_dir(dir, part.as_bytes()) {
                Ok(below) => at = Some(below),
                Err(Errno::NOENT) => return Ok(None),
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    let there = stat(dir, part.as_bytes()).map_err(|errno| failed(output, errno))?;
                    if FileType::from_raw_mode(there.st_mode) == FileType::Symlink {
                        let text = format!("output {:?} lies behind {part:?}, which is a link", output.declared);
                        return Err(ActionError::refused(text));
                    }
                    return Ok(None);
                }
                Err(errno) => return Err(failed(output, errno)),
            }
        }
        Ok(Some(Whereabouts { parent: at, name }))
    }

    #[expect(deprecated, reason = "clients of version 2.0 know nothing else")]
    fn link_output(&self, link: OutputSymlink, output: &Output, declared: &Declared, result: &mut ActionResult) {
        if declared.old_form {
            // As the action saw it: the root is its `/`.
            let (flags, resolve) = (OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, ResolveFlags::IN_ROOT);
            let resolve = resolve | ResolveFlags::NO_MAGICLINKS;
            match openat2(self.root, output.path.as_str(), flags, Mode::empty(), resolve) {
                Ok(_) => result.output_directory_symlinks.push(link.clone()),
                Err(_) => result.output_file_symlinks.push(link.clone()),
            }
        }
        result.output_symlinks.push(link);
    }

    fn directory_output(
        &mut self,
        path: String,
        dir: OwnedFd,
        output: &Output,
        declared: &Declared,
    ) -> Result<OutputDirectory, ActionError> {
        let mut tree = OutputTree::default();
        let at = Path::new(output.path.as_str());
        let root = self.directory(&dir, at, 0, declared.properties, &mut tree)?;
        let form = declared.directories;
        if form.directories {
            for (digest, bytes) in tree.directories() {
                self.offer(*digest, Content::Bytes(bytes.clone()));
            }
        }
        let tree_digest = form.tree.then(|| {
            let (digest, bytes) = tree.encode();
            self.offer(digest, Content::Bytes(bytes));
            to_reapi_digest(digest)
        });
        Ok(OutputDirectory {
            path,
            is_topologically_sorted: tree_digest.is_some(),
            tree_digest,
            root_directory_digest: form.directories.then(|| to_reapi_digest(root)),
        })
    }

    /// Encodes a directory and all below it, leaves first.
    fn directory(
        &mut self,
        dir: &OwnedFd,
        path: &Path,
        depth: usize,
        wanted: Properties,
        tree: &mut OutputTree,
    ) -> Result<Digest, ActionError> {
        let at = |errno: Errno| ActionError::io(format!("output directory {}", path.display()))(errno.into());
        if depth > MAX_DEPTH {
            let text = format!("output directory {} is more than {MAX_DEPTH} directories deep", path.display());
            return Err(ActionError::refused(text));
        }
        self.count(0, &path.to_string_lossy())?;
        let mut names = Vec::new();
        for entry in Dir::read_from(dir).map_err(at)? {
            let entry = entry.map_err(at)?;
            let name = entry.file_name().to_bytes();
            let is_system = path.as_os_str().is_empty() && self.shown.iter().any(|shown| shown.name.as_bytes() == name);
            if !matches!(name, b"." | b"..") && !is_system {
                names.push(name.to_vec());
            }
            if names.len() > tree::MAX_ENTRIES {
                let text = format!("output directory {} has more than {} entries", path.display(), tree::MAX_ENTRIES);
                return Err(ActionError::refused(text));
            }
        }
        // What lies below comes in the order of names too, whatever the file system's is.
        names.sort_unstable();
        let mut entries = Vec::with_capacity(names.len());
        for name in names {
            let below = path.join(std::ffi::OsStr::from_bytes(&name));
            let found = stat(dir, &name).map_err(at)?;
            let kind = match FileType::from_raw_mode(found.st_mode) {
                FileType::RegularFile => {
                    let digest = self.file(dir.as_fd(), &name, &found, &below)?;
                    EntryKind::File { digest, mode: told_mode(&found, wanted, false) }
                }
                FileType::Directory => {
                    let opened = open_dir(dir, &name).map_err(at)?;
                    EntryKind::Directory { digest: self.directory(&opened, &below, depth + 1, wanted, tree)? }
                }
                FileType::Symlink => {
                    self.count(0, &below.to_string_lossy())?;
                    EntryKind::Symlink { target: readlinkat(dir, &name[..], Vec::new()).map_err(at)?.into_bytes() }
                }
                other => return Err(special(&below.to_string_lossy(), other)),
            };
            entries.push(Entry { name, kind });
        }
        let own = rustix::fs::fstat(dir).map_err(at)?;
        let (digest, bytes) = tree::encode(told_mode(&own, wanted, true), &entries)
            .map_err(|e| ActionError::refused(format!("output directory {}: {e}", path.display())))?;
        tree.add(digest, bytes);
        Ok(digest)
    }

    /// Hashes one file, whose content is offered.
    fn file(&mut self, dir: BorrowedFd<'_>, name: &[u8], found: &Stat, path: &Path) -> Result<Digest, ActionError> {
        let shown = path.to_string_lossy();
        self.count(u64::try_from(found.st_size).unwrap_or(0), &shown)?;
        let file = open_file(dir, name, found).map_err(|e| ActionError::io(format!("output {shown}"))(e.into()))?;
        let digest = self.hash(file, &shown)?;
        self.offer(digest, Content::File(self.path.join(path)));
        Ok(digest)
    }

    fn hash(&mut self, mut file: File, what: &str) -> Result<Digest, ActionError> {
        let mut hasher = DigestHasher::new();
        loop {
            match file.read(&mut self.buffer) {
                Ok(0) => return Ok(hasher.finish()),
                Ok(read) => hasher.update(&self.buffer[..read]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ActionError::io(format!("output {what}"))(error)),
            }
            if self.stop.is_cancelled() {
                return Err(ActionError::Left);
            }
        }
    }

    fn offer(&mut self, digest: Digest, content: Content) {
        if self.seen.insert(digest) {
            self.blobs.push(LocalBlob { digest, content });
        }
    }

    /// Takes one entry of `bytes` off what is left.
    fn count(&mut self, bytes: u64, what: &str) -> Result<(), ActionError> {
        if self.stop.is_cancelled() {
            return Err(ActionError::Left);
        }
        let Bounds { bytes: most_bytes, entries: most_entries } = self.bounds;
        let beyond = |bound: String| Err(ActionError::refused(format!("with {what:?} the outputs are {bound}")));
        let Some(entries) = self.left.entries.checked_sub(1) else {
            return beyond(format!("more than {most_entries} files, directories and links"));
        };
        let Some(bytes) = self.left.bytes.checked_sub(bytes) else {
            return beyond(format!("more than {most_bytes} bytes"));
        };
        self.left = Bounds { bytes, entries };
        Ok(())
    }
}

fn failed(output: &Output, errno: Errno) -> ActionError {
    ActionError::io(format!("output {:?}", output.declared))(errno.into())
}

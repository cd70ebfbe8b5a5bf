//! Its worker: the input root as a map of files, given to a function of the test or to a real process.

use super::FakeReapi;
use bytes::Bytes;
use motefarm_core::Digest;
use motefarm_proto::convert::{reapi_digest, to_reapi_digest};
use motefarm_proto::reapi::{Action, ActionResult, Command, Directory, OutputDirectory, OutputFile, Tree};
use prost::Message as _;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::Arc;
use tonic::Status;

/// What runs an action.
#[derive(Clone)]
pub(crate) enum Work {
    /// This function.
    Function(Arc<dyn Fn(&Job) -> Done + Send + Sync>),
    /// A real process, which sees the input root as `/` and this machine's `/usr` below it.
    Chroot,
}

/// An action as its worker sees it.
pub(crate) struct Job {
    pub(crate) command: Command,
    /// Content and executable bit by path from the input root.
    pub(crate) files: BTreeMap<String, (Bytes, bool)>,
    /// Targets by path.
    pub(crate) links: BTreeMap<String, String>,
    /// All directories.
    pub(crate) directories: Vec<String>,
    /// Which outputs are looked for, from the working directory.
    pub(crate) outputs: Vec<String>,
}

/// What it left.
#[derive(Default)]
pub(crate) struct Done {
    pub(crate) exit_code: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    /// By path from the working directory.
    pub(crate) outputs: BTreeMap<String, (Vec<u8>, bool)>,
    /// Directories among the outputs: their files, flat.
    pub(crate) directories: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
}

impl Job {
    pub(super) fn load(fake: &FakeReapi, action: &Action, command: &Command) -> Result<Self, Status> {
        let mut job = Self {
            command: command.clone(),
            files: BTreeMap::new(),
            links: BTreeMap::new(),
            directories: Vec::new(),
            outputs: command.output_paths.clone(),
        };
        job.descend(fake, action.input_root_digest.as_ref().unwrap(), "")?;
        let cwd = &command.working_directory;
        if !cwd.is_empty() && !job.directories.contains(cwd) {
            return Err(Status::invalid_argument(format!("working directory {cwd:?} is not in the input root")));
        }
        Ok(job)
    }

    fn descend(&mut self, fake: &FakeReapi, digest: &motefarm_proto::reapi::Digest, at: &str) -> Result<(), Status> {
        let read = |digest: &motefarm_proto::reapi::Digest| {
            let digest = reapi_digest(digest).unwrap();
            fake.get(digest).map_err(|_| Status::failed_precondition(format!("blob {digest} is missing")))
        };
        let directory = Directory::decode(&read(digest)?[..]).unwrap();
        let join = |name: &str| if at.is_empty() { name.to_owned() } else { format!("{at}/{name}") };
        for file in &directory.files {
            self.files.insert(join(&file.name), (read(file.digest.as_ref().unwrap())?, file.is_executable));
        }
        for link in &directory.symlinks {
            self.links.insert(join(&link.name), link.target.clone());
        }
        for node in &directory.directories {
            self.directories.push(join(&node.name));
            self.descend(fake, node.digest.as_ref().unwrap(), &join(&node.name))?;
        }
        Ok(())
    }
}

pub(super) fn run(fake: &FakeReapi, job: Job) -> ActionResult {
    let done = match &fake.work {
        Work::Function(work) => work(&job),
        Work::Chroot => chroot(&job),
    };
    let put = |content: Vec<u8>| {
        let digest = Digest::of(&content);
        fake.state().blobs.insert(digest, content.into());
        Some(to_reapi_digest(digest))
    };
    let mut result = ActionResult { exit_code: done.exit_code, ..ActionResult::default() };
    for (path, (content, is_executable)) in done.outputs {
        result.output_files.push(OutputFile { path, digest: put(content), is_executable, ..OutputFile::default() });
    }
    for (path, files) in done.directories {
        let files = files.into_iter().map(|(name, content)| motefarm_proto::reapi::FileNode {
            name,
            digest: put(content),
            ..Default::default()
        });
        let tree = Tree { root: Some(Directory { files: files.collect(), ..Directory::default() }), children: vec![] };
        let tree_digest = put(tree.encode_to_vec());
        result.output_directories.push(OutputDirectory { path, tree_digest, ..OutputDirectory::default() });
    }
    // One raw, one by digest: a client must take both.
    result.stdout_raw = done.stdout;
    if !done.stderr.is_empty() {
        result.stderr_digest = put(done.stderr);
    }
    result
}

/// In bubblewrap: the input root as `/`, this machine's `/usr` below it where the root lacks it, its own files
/// over that.
fn chroot(job: &Job) -> Done {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for directory in &job.directories {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    let write = |path: &Path, content: &[u8], executable: bool| {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(if executable { 0o755 } else { 0o644 })).unwrap();
    };
    for (path, (content, executable)) in &job.files {
        write(&root.join(path), content, *executable);
    }
    for (path, target) in &job.links {
        fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
        symlink(target, root.join(path)).unwrap();
    }
    let cwd = root.join(&job.command.working_directory);
    for output in &job.outputs {
        fs::create_dir_all(cwd.join(output).parent().unwrap()).unwrap();
    }
    let mut bwrap = std::process::Command::new("bwrap");
    bwrap
        .args(["--unshare-all", "--die-with-parent", "--bind"])
        .arg(root)
        .args(["/", "--dev", "/dev", "--proc", "/proc"]);
    bwrap.args(["--ro-bind", "/usr", "/usr"]);
    for (path, _) in job.files.iter().filter(|(path, _)| path.starts_with("usr/")) {
        bwrap.arg("--ro-bind").arg(root.join(path)).arg(format!("/{path}"));
    }
    for (link, target) in [("bin", "usr/bin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")] {
        if !root.join(link).exists() {
            bwrap.args(["--symlink", target, &format!("/{link}")]);
        }
    }
    bwrap.arg("--chdir").arg(format!("/{}", job.command.working_directory)).arg("--clearenv");
    for variable in &job.command.environment_variables {
        bwrap.args(["--setenv", &variable.name, &variable.value]);
    }
    let ran = bwrap.arg("--").args(&job.command.arguments).output().unwrap();
    let mut done =
        Done { exit_code: ran.status.code().unwrap_or(137), stdout: ran.stdout, stderr: ran.stderr, ..Done::default() };
    for output in &job.outputs {
        if let Ok(content) = fs::read(cwd.join(output)) {
            let mode = fs::metadata(cwd.join(output)).unwrap().permissions().mode();
            done.outputs.insert(output.clone(), (content, mode & 0o100 != 0));
        }
    }
    done
}

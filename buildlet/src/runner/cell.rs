//! One action's own namespaces: its root as `/`, its processes and no others.
//!
//! The first process in it sets it up with the rights it has over it, gives them up, starts the command
//! and buries the dead. When the command has ended, so does that process, and the kernel kills whatever
//! is left.

use super::command::{self, Ended};
use super::mounts::{freeze, overlay};
use super::names;
use super::template::{HOST, ROOT, Template};
use motefarm_proto::mote::RunnerRun;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, clone};
use nix::sys::signal::Signal;
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, pipe2};
use rustix::thread::{CapabilitySet, CapabilitySets};
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::symlink;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

// Entries of the root that are made for each action.
pub(super) const DEV: &str = "dev";
pub(super) const PROC: &str = "proc";
pub(super) const TMP: &str = "tmp";

/// Bytes of the first process's stack: it decodes nothing and recurses nowhere.
const STACK_BYTES: usize = 256 << 10;
/// What of /proc root may change although it has no rights: it would be the machine's.
const GUARDED: [&str; 7] = ["acpi", "bus", "fs", "irq", "scsi", "sys", "sysrq-trigger"];
/// What an action may keep in shared memory.
const SHARED_MEMORY: &str = "mode=1777,size=1g";
/// What the first process reports, before a number or a text.
const EXITED: u8 = b'x';
const KILLED: u8 = b'k';
const NOT_RUN: u8 = b'n';

/// A cell that was begun.
pub(super) struct Cell {
    /// Its first process.
    pub(super) init: Pid,
    told: OwnedFd,
}

/// Begins a cell and in it the command.
pub(super) fn start(
    template: &Template,
    action: &Path,
    run: &RunnerRun,
    outputs: [OwnedFd; 2],
) -> Result<Cell, String> {
    let (told, tell) = pipe2(OFlag::O_CLOEXEC).map_err(|e| format!("no pipe for a sandbox: {e}"))?;
    let mut stack = vec![0; STACK_BYTES];
    let mut outputs = Some(outputs);
    let first = Box::new(|| {
        let outputs = outputs.take();
        let ran = catch_unwind(AssertUnwindSafe(|| match outputs {
            Some(outputs) => live(template, action, run, outputs),
            None => Err("begun twice".to_owned()),
        }));
        let report = match ran {
            Ok(Ok(Ended::Exited(code))) => [&[EXITED][..], &code.to_ne_bytes()].concat(),
            Ok(Ok(Ended::Killed(signal))) => [&[KILLED][..], &signal.to_ne_bytes()].concat(),
            // For the runner to find out, not for us.
            Ok(Ok(Ended::TimedOut | Ended::OutputLimit)) => Vec::new(),
            Ok(Err(problem)) => [&[NOT_RUN][..], problem.as_bytes()].concat(),
            Err(_) => [&[NOT_RUN][..], b"a fault of the runner"].concat(),
        };
        isize::from(nix::unistd::write(tell.as_fd(), &report).is_err())
    });
    let flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWIPC;
    #[expect(unsafe_code, reason = "an action needs a process in namespaces of its own")]
    // SAFETY: this process has a single thread, so the child, which shares no memory with it, may do
    // whatever it could; it returns from `first` and so never to code of its parent's.
    let init = unsafe { clone(first, &mut stack, flags, Some(Signal::SIGCHLD as i32)) };
    init.map(|init| Cell { init, told }).map_err(|e| format!("no process for a sandbox: {}", e.desc()))
}

impl Cell {
    /// What the first process, which is dead, has told.
    pub(super) fn end(self) -> Result<Ended, String> {
        let mut report = Vec::new();
        let _ = File::from(self.told).read_to_end(&mut report);
        let number = |bytes: &[u8]| bytes.try_into().ok().map(i32::from_ne_bytes);
        let told = report.split_first().and_then(|(kind, rest)| match *kind {
            EXITED => number(rest).map(|code| Ok(Ended::Exited(code))),
            KILLED => number(rest).map(|signal| Ok(Ended::Killed(signal))),
            NOT_RUN => Some(Err(String::from_utf8_lossy(rest).into_owned())),
            _ => None,
        });
        told.unwrap_or_else(|| Err("the sandbox was lost while the command ran".to_owned()))
    }
}

/// The first process: from bare namespaces to the command's end.
fn live(template: &Template, action: &Path, run: &RunnerRun, outputs: [OwnedFd; 2]) -> Result<Ended, String> {
    // The runner's death is every action's.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(|e| e.to_string())?;
    furnish(template, action, run).map_err(|e| format!("no sandbox: {e}"))?;
    let nothing = CapabilitySet::empty();
    let none = CapabilitySets { effective: nothing, permitted: nothing, inheritable: nothing };
    rustix::thread::set_capabilities(None, none).map_err(|e| format!("no sandbox: rights are not given up: {e}"))?;
    let leader = match command::start(run, Path::new("/"), outputs)? {
        Ok(leader) => leader,
        Err(ended) => return Ok(ended),
    };
    loop {
        match waitpid(None, None) {
            Ok(status) if status.pid() == Some(leader) => {
                return Ended::of(Some(status)).ok_or_else(|| "the command's end was not seen".to_owned());
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(format!("the command can not be awaited: {}", errno.desc())),
        }
    }
}

/// Makes the action's root the root, with what is to be shown in it.
fn furnish(template: &Template, action: &Path, run: &RunnerRun) -> io::Result<()> {
    let root = Path::new(ROOT);
    bind(&action.join(names::ROOT), root)?;
    for name in &run.shown {
        let to = root.join(name);
        match name.as_str() {
            DEV => {
                directory(&to)?;
                bind(Path::new("/dev"), &to)?;
                let shm = to.join("shm");
                filesystem("tmpfs", &shm, MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some(SHARED_MEMORY))?;
            }
            PROC => {
                directory(&to)?;
                filesystem("proc", &to, MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC, None)?;
                if template.is_root {
                    let mut guarded = GUARDED.iter().map(|name| to.join(name)).filter(|path| path.exists());
                    guarded.try_for_each(|path| freeze(&path))?;
                }
            }
            TMP => {
                directory(&to)?;
                bind(&action.join(names::TMP), &to)?;
            }
            _ => part(&Path::new(HOST).join(name), &to)?,
        }
    }
    for name in &run.merged {
        let to = root.join(name);
        if !fs::symlink_metadata(&to)?.is_dir() {
            return Err(Errno::ENOTDIR.into());
        }
        overlay(&to, &system_directory(name)?, &to)?;
    }
    std::env::set_current_dir(root)?;
    nix::unistd::pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    std::env::set_current_dir("/")
}

/// Where a part of the system is that may be a link to another: `bin` is one to `usr/bin` on many systems.
fn system_directory(name: &str) -> io::Result<PathBuf> {
    let host = Path::new(HOST);
    match fs::read_link(host.join(name)) {
        Ok(target) => Ok(host.join(target.strip_prefix("/").unwrap_or(&target))),
        Err(_) => Ok(host.join(name)),
    }
}

/// A part of the system, as it is there.
fn part(from: &Path, to: &Path) -> io::Result<()> {
    let meta = fs::symlink_metadata(from)?;
    if meta.is_symlink() {
        let target = fs::read_link(from)?;
        return match symlink(&target, to) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && fs::read_link(to)? == target => Ok(()),
            made => made,
        };
    }
    if meta.is_dir() {
        directory(to)?;
    } else {
        File::options().write(true).create_new(true).open(to)?.flush()?;
    }
    bind(from, to)
}

/// A directory to mount something on: made, or there, but never what a link leads to.
fn directory(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Err(_) if !fs::symlink_metadata(path)?.is_dir() => Err(Errno::ENOTDIR.into()),
        _ => Ok(()),
    }
}

/// Takes over the attributes of what it shows.
fn bind(from: &Path, to: &Path) -> io::Result<()> {
    let nothing = None::<&str>;
    mount(Some(from), to, nothing, MsFlags::MS_BIND | MsFlags::MS_REC, nothing)
        .map_err(|e| io::Error::other(format!("can not show {}: {}", from.display(), e.desc())))
}

fn filesystem(kind: &str, at: &Path, flags: MsFlags, data: Option<&str>) -> io::Result<()> {
    mount(Some(kind), at, Some(kind), flags, data)
        .map_err(|e| io::Error::other(format!("can not mount {kind}: {}", e.desc())))
}

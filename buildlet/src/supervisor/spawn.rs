//! Starting a command: fork, a session of its own, exec. Whatever fails in the child is told
//! through a pipe that a successful exec closes.

use crate::supervisor::limits::Limits;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::unistd::{ForkResult, Pid, chdir, dup2_stderr, dup2_stdin, dup2_stdout, execve, fork, pipe2, setsid};
use std::ffi::CString;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Everything the child needs, made before the fork.
pub(crate) struct Command<'a> {
    pub(crate) program: &'a Path,
    /// All of argv.
    pub(crate) args: Vec<&'a [u8]>,
    pub(crate) env: &'a [String],
    pub(crate) dir: &'a str,
    pub(crate) limits: &'a Limits,
    pub(crate) stdin: OwnedFd,
    pub(crate) stdout: OwnedFd,
    /// `None`: the same as stdout.
    pub(crate) stderr: Option<OwnedFd>,
    /// Whether stdin is a terminal that is to be the session's own.
    pub(crate) terminal: bool,
}

/// What the child was about when it failed.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Step {
    Prepare = 0,
    Limits = 1,
    Enter = 2,
    Execute = 3,
}

/// Why there is no process.
#[derive(Debug)]
pub(crate) struct NotStarted {
    /// A sentence that names program and cause.
    pub(crate) text: String,
    /// What exec said of the program; `None`: it did not come to that.
    pub(crate) exec: Option<Errno>,
}

impl From<NotStarted> for String {
    fn from(not_started: NotStarted) -> Self {
        not_started.text
    }
}

/// Starts it.
pub(crate) fn spawn(command: Command<'_>) -> Result<Pid, NotStarted> {
    let before = |text: String| NotStarted { text, exec: None };
    let c = |bytes: &[u8]| CString::new(bytes).map_err(|_| before("a word of the command holds a NUL byte".to_owned()));
    let program = c(command.program.as_os_str().as_bytes())?;
    let dir = c(command.dir.as_bytes())?;
    let args = command.args.iter().map(|arg| c(arg)).collect::<Result<Vec<_>, _>>()?;
    let env = command.env.iter().map(|e| c(e.as_bytes())).collect::<Result<Vec<_>, _>>()?;
    let (told, tell) = pipe2(OFlag::O_CLOEXEC).map_err(|e| before(format!("no pipe for the command: {e}")))?;
    #[expect(unsafe_code, reason = "a command needs a process, and what is set up between fork and exec")]
    // SAFETY: this process has a single thread, so the child may do whatever it could.
    let forked = unsafe { fork() }.map_err(|e| before(format!("no process for the command: {e}")))?;
    match forked {
        ForkResult::Child => {
            let (step, errno) = child(&command, &dir, &program, &args, &env);
            let mut report = [step as u8, 0, 0, 0, 0];
            report[1..].copy_from_slice(&(errno as i32).to_ne_bytes());
            let _ = nix::unistd::write(tell.as_fd(), &report);
            super::exit_now(127)
        }
        ForkResult::Parent { child } => {
            drop(tell);
            let mut report = Vec::with_capacity(8);
            let _ = File::from(told).take(5).read_to_end(&mut report);
            let Ok(report) = <[u8; 5]>::try_from(report) else { return Ok(child) };
            let _ = nix::sys::wait::waitpid(child, None);
            let errno = Errno::from_raw(i32::from_ne_bytes([report[1], report[2], report[3], report[4]]));
            let exec = (report[0] == Step::Execute as u8).then_some(errno);
            Err(NotStarted { text: explain(&command, report[0], errno), exec })
        }
    }
}

fn child(command: &Command<'_>, dir: &CString, program: &CString, args: &[CString], env: &[CString]) -> (Step, Errno) {
    let prepared = || -> nix::Result<()> {
        setsid()?;
        // If the supervisor is killed, nobody reads the output and nobody can tell how it ended.
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        if command.terminal {
            rustix::process::ioctl_tiocsctty(&command.stdin).map_err(|e| Errno::from_raw(e.raw_os_error()))?;
        }
        dup2_stdin(&command.stdin)?;
        dup2_stdout(&command.stdout)?;
        dup2_stderr(command.stderr.as_ref().unwrap_or(&command.stdout))?;
        for each in Signal::iterator().filter(|s| !matches!(s, Signal::SIGKILL | Signal::SIGSTOP)) {
            #[expect(unsafe_code, reason = "dispositions are process-wide")]
            // SAFETY: the default disposition runs no code of ours.
            unsafe { signal(each, SigHandler::SigDfl) }?;
        }
        SigSet::empty().thread_set_mask()?;
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
        Ok(())
    };
    if let Err(errno) = prepared() {
        return (Step::Prepare, errno);
    }
    // The directory first: a limit on processes or memory must not make entering it fail oddly.
    if let Err(errno) = chdir(dir.as_c_str()) {
        return (Step::Enter, errno);
    }
    if let Err(errno) = command.limits.apply() {
        return (Step::Limits, errno);
    }
    match execve(program, args, env) {
        Err(errno) => (Step::Execute, errno),
        Ok(never) => match never {},
    }
}

fn explain(command: &Command<'_>, step: u8, errno: Errno) -> String {
    let (program, dir, cause) = (command.program.display(), command.dir, errno.desc());
    let step = [Step::Prepare, Step::Limits, Step::Enter].into_iter().find(|s| *s as u8 == step);
    match (step, errno) {
        (Some(Step::Enter), _) => format!("{program}: can not enter directory {dir:?}: {cause}"),
        (Some(Step::Limits), _) => format!("{program}: can not set the instance's limits: {cause}"),
        (Some(_), _) => format!("{program}: can not prepare its process: {cause}"),
        (None, Errno::ENOENT) if command.program.exists() => {
            format!("{program}: the interpreter its first line or header names does not exist")
        }
        (None, Errno::ENOEXEC) => {
            format!("{program}: {cause} (not a program for this machine, or a script without #!)")
        }
        (None, _) => format!("{program}: {cause}"),
    }
}

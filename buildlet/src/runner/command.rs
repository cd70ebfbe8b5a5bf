//! An action's command: which program it means, and its start. What is wrong with the command itself is
//! its end, as a shell would report it, and not an error of ours.

use crate::supervisor::{Limits, place, spawn};
use motefarm_proto::mote::RunnerRun;
use nix::errno::Errno;
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

/// Where programs without a slash are looked for if the action's environment names no PATH.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// Exit codes of shells for what can not be found, and for what can not be executed.
const NOT_FOUND: i32 = 127;
const NOT_EXECUTABLE: i32 = 126;
/// Of one action, threads included; the kernel counts them in a sandbox only.
const MOST_PROCESSES: u64 = 10_000;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Exited(i32),
    /// By this signal.
    Killed(i32),
    TimedOut,
    /// It wrote more than it may.
    OutputLimit,
}

impl Ended {
    pub(super) fn of(status: Option<WaitStatus>) -> Option<Self> {
        match status? {
            WaitStatus::Exited(_, code) => Some(Self::Exited(code)),
            WaitStatus::Signaled(_, signal, _) => Some(Self::Killed(signal as i32)),
            _ => None,
        }
    }
}

/// Starts it in `root`, which is `/` in a sandbox. The inner error is the end of a command that can not
/// be executed; the outer one says why this machine can not.
pub(super) fn start(run: &RunnerRun, root: &Path, outputs: [OwnedFd; 2]) -> Result<Result<Pid, Ended>, String> {
    let dir = root.join(&run.work_dir);
    let Some(name) = run.arguments.first() else { return Err("a command without arguments came".to_owned()) };
    let [stdout, stderr] = outputs;
    let mut complaints = File::from(stderr.try_clone().map_err(|e| format!("no descriptor for the command: {e}"))?);
    let mut refuse = |text: &str, code: i32| {
        let _ = writeln!(complaints, "mote: {text}");
        Ok(Err(Ended::Exited(code)))
    };
    let Some(program) = program(name, &run.env, &dir) else {
        return refuse(&format!("program {name:?} not found"), NOT_FOUND);
    };
    // The runner's own, which reads nothing.
    let stdin = io::stdin().as_fd().try_clone_to_owned().map_err(|e| format!("no descriptor for the command: {e}"))?;
    let Some(dir) = dir.to_str() else { return Err(format!("{} is not UTF-8", dir.display())) };
    let limits = Limits {
        // Counted over the whole user where there is no namespace.
        processes: if root == Path::new("/") { MOST_PROCESSES } else { 0 },
        file_bytes: run.most_bytes,
        ..Limits::default()
    };
    let started = spawn::spawn(spawn::Command {
        program: &program,
        args: run.arguments.iter().map(String::as_bytes).collect(),
        env: &run.env,
        dir,
        limits: &limits,
        stdin,
        stdout,
        stderr: Some(stderr),
        terminal: false,
    });
    match started {
        Ok(leader) => Ok(Ok(leader)),
        Err(spawn::NotStarted { text, exec: Some(Errno::ENOENT | Errno::ENOTDIR) }) => refuse(&text, NOT_FOUND),
        Err(spawn::NotStarted { text, exec: Some(_) }) => refuse(&text, NOT_EXECUTABLE),
        Err(spawn::NotStarted { text, exec: None }) => Err(text),
    }
}

/// The specification's rule: with a slash it is a path from the working directory, without one a name to
/// be looked up in PATH.
fn program(name: &str, env: &[String], dir: &Path) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(dir.join(name));
    }
    let path = env.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(PATH);
    place::in_path(path, dir, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_looked_up_and_a_path_is_relative_to_the_working_directory() {
        let at = Path::new("/w");
        assert_eq!(program("a/b", &[], at), Some("/w/a/b".into()));
        assert_eq!(program("/a/b", &[], at), Some("/a/b".into()));
        assert_eq!(program("sh", &["PATH=/nowhere:/bin".into()], at), Some("/bin/sh".into()));
        assert_eq!(program("sh", &["PATH=/nowhere".into()], at), None);
        assert!(program("sh", &[], at).is_some_and(|found| found.ends_with("sh")));
    }
}

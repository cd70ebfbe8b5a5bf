//! Finding processes by what `/proc` says of them.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A living process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// Its arguments.
    pub args: Vec<String>,
}

impl Process {
    /// Whether these two arguments follow each other.
    pub fn has_pair(&self, flag: &str, value: &str) -> bool {
        self.args.windows(2).any(|pair| pair[0] == flag && pair[1] == value)
            || self.args.iter().any(|arg| arg.strip_prefix(flag).and_then(|rest| rest.strip_prefix('=')) == Some(value))
    }
}

fn proc(pid: i32, name: &str) -> PathBuf {
    Path::new("/proc").join(pid.to_string()).join(name)
}

/// Every living process that has arguments: no kernel threads, no zombies.
pub fn all() -> Vec<Process> {
    let entries = fs::read_dir("/proc").expect("Linux has /proc");
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| {
            let args = fs::read(proc(pid, "cmdline")).ok().filter(|bytes| !bytes.is_empty())?;
            let args = args.strip_suffix(b"\0").unwrap_or(&args);
            let args = args.split(|b| *b == 0).map(|arg| String::from_utf8_lossy(arg).into_owned()).collect();
            Some(Process { pid, args })
        })
        .collect()
}

/// Processes that belong to the farm whose directory's name is `token`: it stands in their
/// arguments or environment, they work or have files open there, or their sandbox shows it.
pub fn of_farm(token: &str) -> Vec<Process> {
    all().into_iter().filter(|process| belongs(process, token)).collect()
}

fn belongs(process: &Process, token: &str) -> bool {
    let pid = process.pid;
    // Ourselves, and children of ours between fork and exec.
    if fs::read_link(proc(pid, "exe")).is_ok_and(|exe| std::env::current_exe().is_ok_and(|own| own == exe)) {
        return false;
    }
    let in_bytes = |bytes: &[u8]| bytes.windows(token.len()).any(|window| window == token.as_bytes());
    let in_link = |path: &Path| fs::read_link(path).is_ok_and(|to| in_bytes(to.as_os_str().as_encoded_bytes()));
    process.args.iter().any(|arg| arg.contains(token))
        || fs::read(proc(pid, "environ")).is_ok_and(|bytes| in_bytes(&bytes))
        || in_link(&proc(pid, "cwd"))
        || fs::read_dir(proc(pid, "fd")).is_ok_and(|fds| fds.flatten().any(|fd| in_link(&fd.path())))
        || fs::read_to_string(proc(pid, "mountinfo")).is_ok_and(|text| shows(&text, token))
}

/// Whether a mount table has the farm's directory as somebody's work directory. (Its fourth and
/// fifth columns are what is mounted and where; proc(5).)
fn shows(mountinfo: &str, token: &str) -> bool {
    mountinfo.lines().any(|line| {
        let mut columns = line.split(' ').skip(3);
        let (root, at) = (columns.next().unwrap_or_default(), columns.next().unwrap_or_default());
        at == "/workdir" && root.contains(token)
    })
}

/// Processes with exactly this argument.
pub fn with_arg(arg: &str) -> Vec<Process> {
    all().into_iter().filter(|process| process.args.iter().any(|own| own == arg)).collect()
}

/// Sends a signal; a process that is gone already is no error.
pub fn signal(pid: i32, signal: Signal) {
    let _ = kill(Pid::from_raw(pid), signal);
}

/// `kill -9`.
pub fn kill9(pid: i32) {
    signal(pid, Signal::SIGKILL);
}

/// Whether it lives (a zombie does not).
pub fn is_alive(pid: i32) -> bool {
    fs::read(proc(pid, "cmdline")).is_ok_and(|bytes| !bytes.is_empty())
}

/// Kills everything of a farm until nothing comes back.
pub fn kill_farm(token: &str) {
    for _ in 0..200 {
        let left = of_farm(token);
        if left.is_empty() {
            return;
        }
        // Who starts others goes first: a coordinator restarts its buildlet.
        let coordinators: Vec<i32> =
            left.iter().filter(|p| p.args[0].contains("mote-coordinator")).map(|p| p.pid).collect();
        let victims = if coordinators.is_empty() { left.iter().map(|p| p.pid).collect() } else { coordinators };
        victims.into_iter().for_each(kill9);
        std::thread::sleep(Duration::from_millis(10));
    }
}

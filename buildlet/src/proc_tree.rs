//! The processes below one, as /proc tells them.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;

/// More than any tree we expect, so that a fork bomb can not make a sweep endless.
const MOST_PROCESSES: usize = 100_000;

/// The children of `pid`, of all its threads. None if it is gone.
fn children(pid: Pid) -> Vec<Pid> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|list| list.split_ascii_whitespace().filter_map(|n| n.parse().ok()).collect::<Vec<i32>>())
        .map(Pid::from_raw)
        .collect()
}

/// Every process below this one, parents before their children.
fn descendants() -> Vec<Pid> {
    let mut found = children(Pid::this());
    let mut next = 0;
    while next < found.len() && found.len() < MOST_PROCESSES {
        let below = children(found[next]);
        found.extend(below);
        next += 1;
    }
    found
}

/// Sends `signal` to every process below this one.
pub(crate) fn signal_descendants(signal: Signal) {
    for pid in descendants() {
        let _ = kill(pid, signal);
    }
}

/// Kills this process's own children. Their children become ours (we are a subreaper) and are met
/// by the next call; a child's number can not be given to another process before we reap it, so
/// this can not hit a stranger.
pub(crate) fn kill_children() {
    for pid in children(Pid::this()) {
        let _ = kill(pid, Signal::SIGKILL);
    }
}

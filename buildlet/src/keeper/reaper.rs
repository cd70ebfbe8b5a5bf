//! Burying the dead, and, at the end, everybody.

use crate::proc_tree;
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use std::time::Duration;

/// Between two passes over what does not want to die.
const PASS: Duration = Duration::from_millis(2);
/// 10 s of passes; what is left then is stuck in the kernel.
const MOST_PASSES: u32 = 5000;

/// Reaps every child that has ended and tells each one's end. `false`: there are no children at all.
pub(crate) fn reap_ended(mut tell: impl FnMut(WaitStatus)) -> bool {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => return true,
            Ok(status) => tell(status),
            Err(Errno::EINTR) => {}
            Err(_) => return false,
        }
    }
}

/// Kills and reaps until no process is left below this one.
pub(crate) fn kill_everything() {
    // Supervisors and all below them at once, so that none has time to react to another's death.
    proc_tree::signal_descendants(Signal::SIGKILL);
    for _ in 0..MOST_PASSES {
        if !reap_ended(drop) {
            return;
        }
        proc_tree::kill_children();
        std::thread::sleep(PASS);
    }
}

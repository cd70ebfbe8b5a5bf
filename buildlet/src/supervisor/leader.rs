//! The command itself, and the orphans it leaves to us.

use motefarm_core::exec::Ending;
use nix::unistd::Pid;
use std::time::Duration;

/// How the command ended and what it took.
#[derive(Debug, Clone, Copy)]
pub(super) struct Exit {
    pub(super) ending: Ending,
    pub(super) user_cpu: Duration,
    pub(super) system_cpu: Duration,
    pub(super) max_rss_bytes: u64,
}

/// What reaping found.
pub(super) struct Reaped {
    /// Set if the leader was among the dead.
    pub(super) leader: Option<Exit>,
    /// Whether any process of the execution is left.
    pub(super) any_left: bool,
}

/// Reaps all that have ended.
pub(super) fn reap(leader: Pid) -> Reaped {
    let mut found = None;
    loop {
        let mut status = 0;
        #[expect(unsafe_code, reason = "wait4 alone tells status and usage together")]
        // SAFETY: rusage is plain numbers, for which zero is a value.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        #[expect(unsafe_code, reason = "see above")]
        // SAFETY: both pointers are to live locals of the right types.
        let pid = unsafe { libc::wait4(-1, &raw mut status, libc::WNOHANG, &raw mut usage) };
        match pid {
            0 => return Reaped { leader: found, any_left: true },
            -1 if nix::errno::Errno::last() == nix::errno::Errno::EINTR => {}
            -1 => return Reaped { leader: found, any_left: false },
            pid if pid == leader.as_raw() => found = Some(exit(status, &usage)),
            _ => {}
        }
    }
}

fn exit(status: i32, usage: &libc::rusage) -> Exit {
    let ending = if libc::WIFSIGNALED(status) {
        Ending::Signaled(libc::WTERMSIG(status))
    } else {
        Ending::Exited(libc::WEXITSTATUS(status))
    };
    Exit {
        ending,
        user_cpu: duration(usage.ru_utime),
        system_cpu: duration(usage.ru_stime),
        max_rss_bytes: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
    }
}

fn duration(time: libc::timeval) -> Duration {
    let part = |n: i64| u64::try_from(n).unwrap_or(0);
    Duration::from_secs(part(time.tv_sec)) + Duration::from_micros(part(time.tv_usec))
}
